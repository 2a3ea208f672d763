"""Kills a training again and again, resumes it by the same command, and compares it with one that nobody disturbed.

python tests/training/soak.py --minutes 10                 # as long as that
python tests/training/soak.py --kills 20 --in-writing 3    # as often as that
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CONFIG = """
data:
  source_language: en
  target_language: en
  train: [{source: train.source, target: train.target}]
  dev: {source: dev.source, target: dev.target}
tokenizer: {vocabulary_size: 28, byte_fallback: false, sampling_alpha: 0.2}
model: {embedding_units: 16, encoder_units: 16, decoder_units: 16, attention_heads: 2, word_dropout: 0.1}
training:
  batch_size: 16
  optimizer: adamw
  weight_decay: 0.1
  ema_decay: 0.9
  accumulation_steps: 2
  max_updates: 1000000
  validate_every: 40
  checkpoint_every: 7
  log_every: 1
  tensorboard: false
"""
# Updates from one start to the kill, at most.
LONGEST_LIFE = 40


@dataclass
class Soak:
    """What happened, and what came of it."""

    kills: list[int] = field(default_factory=list)
    """The update that was the last one told of at each kill."""
    in_writing: int = 0
    """Kills that left a checkpoint half written."""
    resumes: int = 0
    lost: int = 0
    """Updates that are missing from the history, double, or with another loss than in the run nobody disturbed."""
    same_weights: bool = False

    def __str__(self) -> str:
        weights = "the same" if self.same_weights else "OTHER"
        return (
            f"{len(self.kills)} kills ({self.in_writing} inside the writing of a checkpoint), {self.resumes} resumes, "
            f"{self.lost} lost updates, final weights {weights} to the last bit"
        )


def soak(folder: Path, *, minutes: float = 0.0, kills: int = 0, in_writing: int = 0, seed: int = 1) -> Soak:
    """Disturbs a training in an empty folder for so many minutes, or until so many kills, and compares it.

    Args:
        folder: where everything is written.
        minutes: by the clock.
        kills: at least so many.
        in_writing: at least so many of them while a checkpoint is half written.
        seed: of the moments of the kills.
    """
    write_task(folder)
    result, chance, end = Soak(), random.Random(seed), time.monotonic() + 60 * minutes
    while time.monotonic() < end or len(result.kills) < kills or result.in_writing < in_writing:
        # Every third kill waits for a checkpoint to be half written.
        waits = len(result.kills) % 3 == 1
        process = start(folder, "disturbed")
        done, resumed = killed(process, chance.randrange(1, LONGEST_LIFE), folder if waits else None)
        result.resumes += resumed
        result.kills.append(done)
        torn = half_written(folder / "disturbed")
        result.in_writing += torn
        print(
            f"kill {len(result.kills)} after update {done:,}{', a checkpoint half written' if torn else ''}", flush=True
        )
    last = f"training.max_updates={max(result.kills) + 10}"
    for name in ("disturbed", "whole"):
        process = start(folder, name, last)
        output, errors = process.communicate()
        assert process.returncode == 0, output[-1000:] + errors
        result.resumes += "Resuming the run" in output
    whole, disturbed = history(folder / "whole"), history(folder / "disturbed")
    result.lost = sum(disturbed.count(record) != 1 for record in whole) + sum(one not in whole for one in disturbed)
    result.same_weights = same_arrays(folder / "whole", folder / "disturbed")
    return result


def write_task(folder: Path) -> None:
    """Digit words to be reversed, and a configuration in which everything random is on."""
    numbers = np.random.default_rng(1)
    for name, size in (("train", 200), ("dev", 5)):
        lines = [list(numbers.choice(WORDS, size=numbers.integers(2, 7))) for _ in range(size)]
        (folder / f"{name}.source").write_text("".join(f"{' '.join(line)}\n" for line in lines))
        (folder / f"{name}.target").write_text("".join(f"{' '.join(line[::-1])}\n" for line in lines))
    (folder / "soak.yaml").write_text(CONFIG)


def start(folder: Path, name: str, *overrides: str) -> subprocess.Popen:
    """Begins a training, or goes on with it."""
    command = [sys.executable, "-m", "nmt", "train", "soak.yaml", f"run_dir={name}", "--device", "cpu", *overrides]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed(process: subprocess.Popen, life: int, writing_in: Path | None) -> tuple[int, bool]:
    """Kills a training after so many updates, or then in the writing of its next checkpoint.

    Returns the last update it told of, and whether it said that it had gone on with a run.
    """
    done, resumed, lived = 0, False, 0
    for line in process.stdout or ():
        resumed |= line.startswith("Resuming the run")
        if line.startswith("update ") and "tokens/s" in line:
            done, lived = int(line.split()[1].replace(",", "")), lived + 1
        if lived >= life:
            break
    if writing_in is not None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not half_written(writing_in / "disturbed"):
            time.sleep(0.0002)  # leaves the processor to the training
    process.send_signal(signal.SIGKILL)
    rest, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    later = [line for line in rest.splitlines() if line.startswith("update ") and "tokens/s" in line]
    return (int(later[-1].split()[1].replace(",", "")) if later else done), resumed


def half_written(run_dir: Path) -> bool:
    """Whether a checkpoint is there that has no final name yet."""
    return any((run_dir / "checkpoints").glob(".update-*.part"))


def history(run_dir: Path) -> list[dict]:
    """What was recorded of every update, but for speed and memory."""
    records = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    measured = ("tokens_per_second", "memory_mib")
    return [{name: value for name, value in record.items() if name not in measured} for record in records]


def same_arrays(*run_dirs: Path) -> bool:
    """Whether the last checkpoints hold the same weights, averages and moments, bit for bit."""
    from nmt.training.checkpoint import PARTS, CheckpointFolder

    one, other = (CheckpointFolder(run_dir / "checkpoints", keep=3).load_latest() for run_dir in run_dirs)
    assert one is not None
    assert other is not None

    def arrays(of: dict) -> Iterator[tuple[str, bytes]]:
        yield from sorted((f"{part}/{name}", a.tobytes()) for part in PARTS for name, a in of[part].items())

    return one.progress == other.progress and list(arrays(one.arrays)) == list(arrays(other.arrays))


def main() -> None:
    """Prints one line at the end; exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--in-writing", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    with TemporaryDirectory() as folder:
        result = soak(Path(folder), **vars(parser.parse_args()))
    print(result)
    sys.exit(int(result.lost > 0 or not result.same_weights))


if __name__ == "__main__":
    main()
