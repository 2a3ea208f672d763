"""Measures the memory that training needs, by a few updates on random ids.

They run in a separate process, because a process can only report the highest memory of its whole life.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

import numpy as np

from nmt.config.file import config_from_text, dump_config
from nmt.config.schema import Config
from nmt.process import read_peak_memory


@dataclass(frozen=True)
class ProbeRequest:
    """Updates to measure: on the longest batch that occurs, first with few rows, then with all."""

    config: str
    """The configuration as YAML."""
    vocabulary_sizes: tuple[int, int]
    lengths: tuple[int, int]
    """Tokens of the longest source and target, EOS included."""
    rows: tuple[int, int]
    """Number of rows of the small and of the whole batch."""


@dataclass(frozen=True)
class MemoryUse:
    """Memory in bytes."""

    weights: int
    """Size of the model's weights in float32."""
    peaks: tuple[int, int]
    """Highest memory of the process after the small and after the whole batch, including the framework."""


def probe_memory(
    config: Config, *, vocabulary_sizes: tuple[int, int], lengths: tuple[int, int], rows: tuple[int, int]
) -> MemoryUse | None:
    """Measures the memory of updates in a separate process.

    Args:
        config: the configuration.
        vocabulary_sizes: number of source and of target tokens.
        lengths: tokens of the longest source and target, EOS included.
        rows: number of rows of a small and of a whole batch.

    Returns:
        The memory, or None if the process died, as it does when it runs out of memory.
    """
    request = ProbeRequest(dump_config(config), vocabulary_sizes, lengths, rows)
    command = [sys.executable, "-m", "nmt.doctor.memory_probe"]
    done = subprocess.run(command, input=json.dumps(asdict(request)), capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    found = json.loads(done.stdout.splitlines()[-1])
    return MemoryUse(found["weights"], tuple(found["peaks"]))


def main() -> None:
    """Reads a `ProbeRequest` from standard input and prints a `MemoryUse`, both as JSON."""
    given = json.load(sys.stdin)
    config = config_from_text(given["config"], "the configuration")
    from nmt.data.batching import Batch
    from nmt.data.tokenizer import EOS_ID
    from nmt.training.backends import make_strategy, make_update

    # The other machines of multi_worker cannot be probed from here, so only the devices of this one are.
    kind = "auto" if config.training.strategy == "multi_worker" else config.training.strategy
    strategy = make_strategy(kind, config.training.devices)
    model, update = make_update(config, tuple(given["vocabulary_sizes"]), strategy)
    random, peaks = np.random.default_rng(1), []
    for rows in given["rows"]:
        rows += -rows % update.rows_multiple
        source, target = (
            random.integers(EOS_ID, size, (rows, length), dtype=np.int32)
            for size, length in zip(given["vocabulary_sizes"], given["lengths"], strict=True)
        )
        update(Batch(0, 0, source, target, np.ones(rows, np.float32)), update=1, learning_rate=1e-3)
        peaks.append(read_peak_memory())
    weights = sum(4 * int(np.prod(variable.shape)) for variable in model.trainable_variables)
    print(json.dumps({"weights": weights, "peaks": peaks}), flush=True)


if __name__ == "__main__":
    main()
