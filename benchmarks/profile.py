"""Profiles the training of a configuration: its speed, and its operations by time."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.config.file import load_config

WARM_UP = 20
"""Updates that are not timed, because the first ones compile."""


@dataclass(frozen=True)
class Operation:
    """All executions of one type of operation."""

    name: str
    milliseconds: float
    """Per update, summed over all threads."""
    executions: float
    """Per update."""


@dataclass(frozen=True)
class Profile:
    """Speed and operations of one configuration."""

    tokens_per_second: float
    """Target tokens with EOS and without padding. Data loading is included, the profiler is off."""
    milliseconds: float
    """Per update, with the profiler off."""
    operations: list[Operation]
    """Slowest first. The time of an operation includes the operations inside it."""


def profile(config_file: Path, overrides: Sequence[str], *, updates: int, profiled: int) -> Profile:
    """Times `updates` updates, then runs `profiled` more under TensorFlow's profiler.

    Raises:
        UserError: if the configuration is invalid.
    """
    with tempfile.TemporaryDirectory() as folder:
        steps = stream_updates(config_file, [*overrides, f"run_dir={folder}/run"])
        seconds, tokens = time_updates(steps, updates)
        operations = _profile_operations(steps, profiled, Path(folder) / "profile")
    return Profile(tokens / seconds, 1000 * seconds / updates, operations)


def stream_updates(config_file: Path, overrides: Sequence[str]) -> Iterator[float]:
    """Trains without end, and yields the number of target tokens of each update."""
    from nmt.data.batching import prefetch
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
        log=lambda line: None,
        started=time.monotonic(),
    )
    for number, batch in enumerate(prefetch(trainer.make_loader().stream_batches(0, 0)), start=1):
        yield trainer.update(batch, update=number, learning_rate=config.training.learning_rate).num_tokens


def time_updates(steps: Iterator[float], count: int) -> tuple[float, float]:
    """Times updates, after those of the warm-up.

    Args:
        steps: the target tokens of each update.
        count: updates to time.

    Returns:
        Seconds and target tokens.
    """
    for _ in range(WARM_UP):
        next(steps)
    started = time.perf_counter()
    tokens = sum(next(steps) for _ in range(count))
    return time.perf_counter() - started, tokens


def _profile_operations(steps: Iterator[float], count: int, folder: Path) -> list[Operation]:
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
