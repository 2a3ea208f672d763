"""Runs a program in its own process on a fixed number of cores, and measures its time and memory."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.errors import UserError
from nmt.process import ResidentMemory, read_memory

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
MEGABYTE = 10**6  # bytes
SAMPLE_EVERY = 0.25  # seconds


@dataclass(frozen=True)
class Run:
    """Time, memory and report of one process."""

    started: float
    """Start by time.monotonic(), which all processes of a machine share."""
    seconds: float
    """Seconds from the start of the process to its end."""
    peak_mb: float
    """Peak resident memory in 10**6 bytes, sampled every quarter of a second."""
    report: dict[str, Any] = field(default_factory=dict)
    """Report of a driver."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Samples of (seconds since the start, resident megabytes)."""


def run_driver(
    command: Sequence[str],
    job: Mapping[str, Any],
    *,
    folder: Path,
    threads: int,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Runs a driver as `command JOB.json`, and reads the report that it writes."""
    folder.mkdir(parents=True, exist_ok=True)
    job_path, report_path = folder / "job.json", folder / "report.json"
    report_path.unlink(missing_ok=True)
    job_path.write_text(json.dumps({**job, "threads": threads, "report": str(report_path)}, indent=2), encoding="utf-8")
    run = run_command([*command, str(job_path)], folder=folder, threads=threads, environment=environment)
    return Run(run.started, run.seconds, run.peak_mb, json.loads(report_path.read_text(encoding="utf-8")))


def run_command(
    command: Sequence[str],
    *,
    folder: Path,
    threads: int,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Runs a command to its end, with its output in `folder`/log.txt.

    Raises:
        UserError: if the command fails. The message contains the end of its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    cores = sorted(os.sched_getaffinity(0))[:threads]
    variables = {**os.environ, **{name: str(threads) for name in THREAD_VARIABLES}, **(environment or {})}
    with log.open("w", encoding="utf-8") as out:
        started = time.monotonic()
        # Some libraries start a thread per core when they are loaded, so the cores are restricted before that.
        process = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=variables,
        )
        samples: list[tuple[float, ResidentMemory]] = []
        watching = threading.Thread(target=_watch, args=(process.pid, started, samples), daemon=True)
        watching.start()
        try:
            _, status = os.waitpid(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.monotonic() - started
    watching.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise UserError(f"{' '.join(command)} exited with code {process.returncode}. End of {log}:\n{tail}")
    peak = max((memory.peak for _, memory in samples), default=0)
    return Run(
        started, seconds, peak / MEGABYTE, memory=[(second, memory.now / MEGABYTE) for second, memory in samples]
    )


def _watch(pid: int, started: float, samples: list[tuple[float, ResidentMemory]]) -> None:
    """Samples the memory of a process until it ends."""
    while found := read_memory(pid):
        samples.append((time.monotonic() - started, found))
        time.sleep(SAMPLE_EVERY)


def read_resident_mb(pid: int) -> float | None:
    """Returns the resident memory of a process in 10**6 bytes, or None if the process has ended."""
    found = read_memory(pid)
    return found.now / MEGABYTE if found else None
