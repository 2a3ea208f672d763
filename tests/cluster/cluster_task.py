"""A tiny task, digit words to be reversed, and how `nmt` is run on it."""

import gzip
import lzma
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CONFIG = """
data:
  source_language: en
  target_language: en
  train: [{source: train.en, target: train.rev}]
  dev: {source: dev.en, target: dev.rev}
tokenizer: {vocabulary_size: 28, byte_fallback: false}
model: {embedding_units: 16, encoder_units: 16, decoder_units: 16, decoder_layers: 1, attention_heads: 2}
training: {batch_size: 16, max_updates: 8, validate_every: 2, checkpoint_every: 2, log_every: 1, tensorboard: false}
decoding: {beam_size: 2, max_length: 12}
export: {nbest: 1}
"""
# Seconds until a program that must end is taken for hung: many times what it takes, since other tests run beside it.
PATIENCE = 840.0


def lines(number: int, *, seed: int) -> list[str]:
    """So many lines of two to six digits."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=random.integers(2, 7))) for _ in range(number)]


def nmt(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """Runs `nmt` as a user would."""
    process = start(*arguments, cwd=cwd)
    output, errors = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start(*arguments: object, cwd: Path) -> subprocess.Popen:
    """Starts `nmt` and returns its process."""
    command = [sys.executable, "-u", "-m", "nmt", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(found: Callable[[], Any], process: subprocess.Popen, *, seconds: float = PATIENCE) -> Any:
    """Waits until something is found while a process runs, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := found():
            return answer
        if process.poll() is not None:
            raise AssertionError(f"it ended before: {process.communicate()}")
        time.sleep(0.01)
    process.kill()
    raise TimeoutError(f"it never came: {process.communicate()}")


def wait_for_line(process: subprocess.Popen, start: str) -> None:
    """Reads what a process prints until a line starts like this; fails if the process ends before."""
    assert process.stdout is not None
    if not any(line.startswith(start) for line in process.stdout):
        raise AssertionError(f"No line started with {start!r}: {process.communicate()}")


def write_packed(path: Path, content: bytes) -> None:
    """Writes a file, packed as its name says."""
    packed = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(packed(content))


def read_packed(path: Path) -> list[str]:
    """The lines of a file, each of which ends."""
    unpacked = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
    *found, rest = unpacked(path.read_bytes()).decode().split("\n")
    assert rest == ""
    return found
