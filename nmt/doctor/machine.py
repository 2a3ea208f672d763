"""Checks of the machine: memory for an update, disk space for a run, devices and versions."""

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nmt.config.schema import Config
from nmt.doctor.findings import Finding
from nmt.doctor.memory_probe import MemoryUse, probe_memory
from nmt.process import count_cpus, read_available_memory, read_processor_flags
from nmt.progress import format_bytes

PACKAGES = ("nmt", "tensorflow", "jax", "keras", "sentencepiece", "sacrebleu", "numpy")


def examine_memory(config: Config, *, vocabulary_sizes: tuple[int, int], lengths: tuple[int, int]) -> Iterator[Finding]:
    """Runs updates on the longest batch, and reports the memory they need and the disk space of a run.

    Args:
        config: the whole configuration.
        vocabulary_sizes: number of source tokens and of target tokens.
        lengths: tokens of the longest source and target, EOS included.
    """
    settings = config.training
    rows = settings.batch_size if settings.batch_by == "sentences" else max(1, settings.batch_size // lengths[1])
    small = max(1, rows // 4)
    available = read_available_memory()
    use = probe_memory(config, vocabulary_sizes=vocabulary_sizes, lengths=lengths, rows=(small, rows))
    longest = f"{rows:,} pairs of {lengths[0]:,} and {lengths[1]:,} tokens, the longest batch"
    if use is None:
        yield Finding("memory", "error", f"an update fails on {longest}; {format_bytes(available)} are free")
        return
    # Weights and the framework are in both measurements, so the difference is what the additional rows need.
    per_row = max(1.0, (use.peaks[1] - use.peaks[0]) / max(1, rows - small))
    fitting = int(rows + (available - use.peaks[1]) / per_row)
    found = (
        f"{format_bytes(use.peaks[1])} for {longest}; {format_bytes(available)} are free: about {fitting:,} pairs fit"
    )
    yield Finding("memory", "ok" if fitting >= rows else "error", found)
    yield _check_disk(config, use)


def _check_disk(config: Config, use: MemoryUse) -> Finding:
    settings = config.training
    copies = {"adam": 3, "adamw": 3, "sgd": 1}[settings.optimizer] + (settings.ema_decay is not None)
    # There is one more checkpoint while the newest is written, and a second best model while it replaces the first.
    needed = use.weights * (copies * (settings.keep_checkpoints + 1) + 2)
    folder = Path(config.run_dir or ".").resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{format_bytes(needed)} for checkpoints and models, {format_bytes(free)} free in {folder}"
    return Finding("disk", "ok" if free > needed else "error", found)


def examine_machine() -> Iterator[Finding]:
    """Reports devices and versions."""
    yield Finding("devices", "note", ", ".join(_list_devices()))
    yield Finding("versions", "note", ", ".join(_list_versions()))


def _list_devices() -> list[str]:
    from nmt.backend import keras

    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in read_processor_flags()]
    features = f" ({', '.join(flags)})" if flags else ""
    others = [name for name in keras.distribution.list_devices() if "cpu" not in name]
    return [f"{count_cpus()} processor cores{features}", *others]


def _list_versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
