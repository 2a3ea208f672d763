"""A few updates on ids drawn at random, to see how much memory they take.

Run as a program in a process of its own, since a process only ever tells its highest memory.
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
    """What to try: updates on the longest batch that occurs, first with few rows, then with all."""

    config: str
    """The configuration as YAML."""
    vocabularies: tuple[int, int]
    lengths: tuple[int, int]
    """Pieces of the longest source and target, EOS counted."""
    rows: tuple[int, int]
    """Rows of the small and of the whole batch."""


@dataclass(frozen=True)
class MemoryUse:
    """What the updates took, in bytes."""

    weights: int
    """float32 weights of the model."""
    peaks: tuple[int, int]
    """Highest memory of the process after the small and after the whole batch, the framework in it."""


def probe_memory(
    config: Config, *, vocabularies: tuple[int, int], lengths: tuple[int, int], rows: tuple[int, int]
) -> MemoryUse | None:
    """Measures in a process of its own; None where that process died, as one does that is out of memory."""
    request = ProbeRequest(dump_config(config), vocabularies, lengths, rows)
    command = [sys.executable, "-m", "nmt.doctor.memory_probe"]
    done = subprocess.run(command, input=json.dumps(asdict(request)), capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    found = json.loads(done.stdout.splitlines()[-1])
    return MemoryUse(found["weights"], tuple(found["peaks"]))


def main() -> None:
    """Does what standard input asks for and prints what it took."""
    given = json.load(sys.stdin)
    config = config_from_text(given["config"], "the configuration")
    from nmt.data.batching import Batch
    from nmt.data.tokenizer import EOS_ID
    from nmt.training.backends import make_strategy, make_update

    several_machines = config.training.strategy == "multi_worker"  # which are not here; this one is looked at
    strategy = make_strategy("auto" if several_machines else config.training.strategy, config.training.devices)
    model, update = make_update(config, tuple(given["vocabularies"]), strategy)
    random, peaks = np.random.default_rng(1), []
    for rows in given["rows"]:
        rows += -rows % update.rows_multiple
        source, target = (
            random.integers(EOS_ID, size, (rows, length), dtype=np.int32)
            for size, length in zip(given["vocabularies"], given["lengths"], strict=True)
        )
        update(Batch(0, 0, source, target, np.ones(rows, np.float32)), update=1, learning_rate=1e-3)
        peaks.append(read_peak_memory())
    weights = sum(4 * int(np.prod(variable.shape)) for variable in model.trainable_variables)
    print(json.dumps({"weights": weights, "peaks": peaks}), flush=True)


if __name__ == "__main__":
    main()
