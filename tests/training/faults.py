"""The command line with something going wrong inside: python faults.py '{"killed_writing": 16}' train config.yaml

killed_writing: kills the process by SIGKILL when half of this update's checkpoint is written.
not_finite: [first update, learning rate]: from that update on, the loss is not a number at any higher rate.
memory: updates cut into fewer micro-batches than this ask for more memory than there is.
clock: seconds by which the machine's clock is wrong.
hostname: the machine's name.
processors: cuts the processor into so many devices of TensorFlow.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULTS = Path(__file__)


def command(*arguments: object, **faults: Any) -> list[str]:
    """The command line of `nmt` with these faults in it."""
    return [sys.executable, str(FAULTS), json.dumps(faults), *map(str, arguments)]


def clock(shift: float) -> None:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + shift
    time.time_ns = lambda: now_ns() + int(shift * 1e9)


def hostname(name: str) -> None:
    socket.gethostname = lambda: name


def processors(number: int) -> None:
    import tensorflow as tf  # before the package, whose first act is to start it

    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * number)


def killed_writing(number: int) -> None:
    written = Path.write_bytes

    def half_written(path: Path, content: Any) -> int:
        if f"update-{number:09}.h5" not in path.name:
            return written(path, content)
        written(path, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL cannot be survived")

    Path.write_bytes = half_written


def not_finite(place: tuple[int, float]) -> None:
    import tensorflow as tf

    from nmt.training import objective, update_tensorflow

    poison, sound = tf.Variable(1.0), objective.cross_entropy

    def poisoned(*args: Any, **kwargs: Any) -> tuple:
        loss, *others = sound(*args, **kwargs)
        return loss * tf.cast(poison, loss.dtype), *others

    def before(_: Any, batch: Any, *, update: int, learning_rate: float) -> None:
        poison.assign(float("nan") if update >= place[0] and learning_rate > place[1] else 1.0)

    objective.cross_entropy = poisoned
    preceding(update_tensorflow.TensorFlowUpdate, "start", before)


def memory(fewest: int) -> None:
    import tensorflow as tf

    from nmt.training.update_tensorflow import TensorFlowUpdate

    learned = TensorFlowUpdate._sum_micro_batch

    def greedy(self: TensorFlowUpdate, *args: Any) -> list:
        sums = learned(self, *args)
        if self.accumulation_steps < fewest:
            # Fails as an allocation would, but at once, where TensorFlow tries for ten seconds to find the memory.
            tf.raw_ops.Stage(values=[sums[0].loss], memory_limit=1)
        return sums

    TensorFlowUpdate._sum_micro_batch = greedy


def preceding(owner: type, name: str, work: Callable) -> None:
    """Lets a method be preceded by other work on the same arguments."""
    method = getattr(owner, name)

    def both(*args: Any, **kwargs: Any) -> Any:
        work(*args, **kwargs)
        return method(*args, **kwargs)

    setattr(owner, name, both)


if __name__ == "__main__":
    from nmt.process import silence_stderr

    faults = json.loads(sys.argv.pop(1))
    # Those of the machine first: the rest imports the package.
    for name in sorted(faults, key=lambda name: name not in ("clock", "hostname", "processors")):
        with silence_stderr():
            globals()[name](faults[name])
    from nmt.cli.main import main

    main()
