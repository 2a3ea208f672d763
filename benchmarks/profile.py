"""Where the time of an update goes: the speed of a configuration's training, then its operations by time."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.config.file import load_config

WARM_UP = 20
"""Updates before the clock starts: the first ones compile."""


@dataclass(frozen=True)
class Operation:
    """All executions of one kind of operation."""

    name: str
    milliseconds: float
    """An update, over all threads."""
    executions: float
    """An update."""


@dataclass(frozen=True)
class Profile:
    """One configuration's training."""

    pieces_per_second: float
    """Target pieces, EOS counted and padding not, loading of data included, without a profiler."""
    milliseconds: float
    """An update, without a profiler."""
    operations: list[Operation]
    """The slowest first; what contains others counts them too."""


def profile(config_file: Path, overrides: Sequence[str], *, updates: int, profiled: int) -> Profile:
    """Trains for `updates` updates by the clock and for `profiled` more under TensorFlow's profiler.

    Raises:
        UserError: the configuration cannot be trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        steps = updates_of(config_file, [*overrides, f"run_dir={folder}/run"])
        for _ in range(WARM_UP):
            next(steps)
        started = time.perf_counter()
        pieces = sum(next(steps) for _ in range(updates))
        seconds = time.perf_counter() - started
        operations = _operations(steps, profiled, Path(folder) / "profile")
    return Profile(pieces / seconds, 1000 * seconds / updates, operations)


def updates_of(config_file: Path, overrides: Sequence[str]) -> Iterator[int]:
    """Makes one update after the other; yields its target pieces."""
    from nmt.data.batching import prefetched
    from nmt.training.backends import make_strategy
    from nmt.training.run_folder import RunFolder
    from nmt.training.trainer import Trainer

    config = load_config(config_file, overrides)
    strategy = make_strategy(config.training.strategy, config.training.devices)
    trainer = Trainer(
        config,
        RunFolder(Path(config.run_dir or "")),
        strategy=strategy,
        callbacks=[],
        announce=lambda line: None,
        started=time.monotonic(),
    )
    for number, batch in enumerate(prefetched(trainer.loader().batches(0, 0)), start=1):
        yield trainer.update(batch, update=number, learning_rate=config.training.learning_rate).num_pieces


def _operations(steps: Iterator[int], count: int, folder: Path) -> list[Operation]:
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tf.profiler.experimental.Profile(str(folder)):
        for _ in range(count):
            next(steps)
    space = xplane_pb2.XSpace()
    space.ParseFromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    nanoseconds, executions = Counter[str](), Counter[str]()
    for plane in space.planes:
        if "CPU" not in plane.name:
            continue
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name.rpartition(":")[2]
                nanoseconds[name] += event.duration_ps / 1000
                executions[name] += 1
    return [Operation(name, ns / 1e6 / count, executions[name] / count) for name, ns in nanoseconds.most_common()]
