"""Checks of the machine: memory for an update, disk space for a run, devices and versions."""

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nmt.config.schema import Config
from nmt.doctor.findings import Finding
from nmt.doctor.memory_probe import MemoryUse, probe_memory
from nmt.errors import UserError
from nmt.process import count_cpus, read_available_memory, read_processor_flags
from nmt.progress import format_bytes

PACKAGES = ("nmt", "tensorflow", "jax", "keras", "sentencepiece", "sacrebleu", "numpy")


def examine_memory(
    config: Config, *, vocabulary_sizes: tuple[int, int], lengths: tuple[int, int]
) -> tuple[MemoryUse | None, list[Finding]]:
    """Runs updates on the longest batch and reports the memory that they need, of the host and of a GPU if one is used.

    Args:
        config: the whole configuration.
        vocabulary_sizes: number of source tokens and of target tokens.
        lengths: tokens of the longest source and target, EOS included.

    Returns:
        What was measured, None if an update failed, and the findings.
    """
    settings = config.training
    rows = settings.batch_size if settings.batch_by == "sentences" else max(1, settings.batch_size // lengths[1])
    small = max(1, rows // 4)
    available = read_available_memory()
    try:
        use = probe_memory(config, vocabulary_sizes=vocabulary_sizes, lengths=lengths, rows=(small, rows))
    except UserError as error:
        return None, [Finding("training", "error", str(error))]
    longest = f"{rows:,} pairs of {lengths[0]:,} and {lengths[1]:,} tokens, the longest batch"
    if use is None:
        return None, [Finding("memory", "error", f"an update fails on {longest}; {format_bytes(available)} are free")]
    host = f"{format_bytes(use.peaks[1])} for {longest}; {format_bytes(available)} are free"
    if use.gpu_peaks is None:
        return use, [_report_memory("memory", host, use.peaks, available, rows=(small, rows))]
    findings = [Finding("memory", "ok" if use.peaks[1] <= available else "error", host)]
    on_gpu = f"{format_bytes(use.gpu_peaks[1])} for {longest}"
    if use.gpu_limit is None:
        findings.append(Finding("GPU memory", "note", f"{on_gpu}; how much the GPU has is not known"))
    else:
        found = f"{on_gpu}; {format_bytes(use.gpu_limit)} can be used"
        findings.append(_report_memory("GPU memory", found, use.gpu_peaks, use.gpu_limit, rows=(small, rows)))
    return use, findings


def _report_memory(check: str, found: str, peaks: tuple[int, int], limit: int, *, rows: tuple[int, int]) -> Finding:
    """Extrapolates from a small and a whole batch to the largest one that fits.

    Args:
        check: name of the check.
        found: the measurement, in words.
        peaks: memory in bytes that each of the two batches needs.
        limit: available memory in bytes.
        rows: pairs in each of the two batches.
    """
    # Weights and the framework are in both measurements, so the difference is what the additional rows need.
    per_row = max(1.0, (peaks[1] - peaks[0]) / max(1, rows[1] - rows[0]))
    fitting = int(rows[1] + (limit - peaks[1]) / per_row)
    return Finding(check, "ok" if fitting >= rows[1] else "error", f"{found}: about {fitting:,} pairs fit")


def examine_disk(config: Config, *, weights: int, run_dir: Path, cache: Path, token_bytes: int) -> Iterator[Finding]:
    """Compares the free disk space with what a run will write.

    Args:
        config: the whole configuration.
        weights: bytes of the weights in float32.
        run_dir: the run folder.
        cache: the cache folder, with line indexes and unpacked text.
        token_bytes: size of the token ids that are still to be written there.
    """
    settings = config.training
    copies = {"adam": 3, "adamw": 3, "sgd": 1}[settings.optimizer] + (settings.ema_decay is not None)
    # There is one more checkpoint while the newest is written, and a second best model while it replaces the first.
    needed = weights * (copies * (settings.keep_checkpoints + 1) + 2)
    for_run = f"{format_bytes(needed)} for checkpoints and models"
    present = sum(file.stat().st_size for file in cache.glob("*") if file.is_file())
    for_cache = f"{format_bytes(token_bytes)} for token ids"
    there = f"; line indexes and unpacked text take {format_bytes(present)} in {cache} already"
    run_place, cache_place = (_find_existing(folder) for folder in (run_dir, cache))
    if run_place.stat().st_dev == cache_place.stat().st_dev:
        yield _report_disk(needed + token_bytes, f"{for_run}, {for_cache}", run_place, there)
    else:
        yield _report_disk(needed, for_run, run_place)
        yield _report_disk(token_bytes, for_cache, cache_place, there)


def _find_existing(folder: Path) -> Path:
    """Returns the folder itself, or the closest folder around it that exists."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder


def _report_disk(needed: int, purpose: str, folder: Path, there: str = "") -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{purpose}, {format_bytes(free)} free in {folder}{there}"
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
