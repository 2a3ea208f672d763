"""Runs a program in a process of its own, on as many cores as were agreed, and says how long and how large it was."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.errors import UserError

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
MEGABYTES = 1024 / 10**6  # in what Linux calls a kilobyte, which has 1,024 bytes; a megabyte here has 10**6
SAMPLE_EVERY = 0.25  # seconds


@dataclass(frozen=True)
class Run:
    """What one process did."""

    started: float
    """By time.monotonic(), which all processes of a machine share."""
    seconds: float
    """From the process' start to its end."""
    peak_mb: float
    """Largest resident memory, in 10**6 bytes, of the process or of the largest of its children."""
    report: dict[str, Any] = field(default_factory=dict)
    """What a driver wrote."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start and resident megabytes, where they were watched."""


def run_driver(
    command: Sequence[str],
    job: Mapping[str, Any],
    *,
    folder: Path,
    threads: int,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Runs `command JOB.json`, a driver, which writes a report beside the job."""
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
    watch: bool = False,
) -> Run:
    """Runs a command to its end, with its output in `folder`/log.txt.

    Raises:
        UserError: it failed; the message holds the end of its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    cores = sorted(os.sched_getaffinity(0))[:threads]
    variables = {**os.environ, **{name: str(threads) for name in THREAD_VARIABLES}, **(environment or {})}
    with log.open("w", encoding="utf-8") as out:
        started = time.monotonic()
        # The process is held to its cores from its first instruction on: some libraries start a thread for every core.
        process = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=variables,
        )
        try:
            memory = _watch(process.pid, started) if watch else []
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise UserError(f"{' '.join(command)} ended with {process.returncode}; {log} ends so:\n{tail}")
    return Run(started, seconds, usage.ru_maxrss * MEGABYTES, memory=memory)


def _watch(pid: int, started: float) -> list[tuple[float, float]]:
    """Samples the resident memory of a process until it ends."""
    samples = []
    while (resident := resident_mb(pid)) is not None:
        samples.append((time.monotonic() - started, resident))
        time.sleep(SAMPLE_EVERY)
    return samples


def resident_mb(pid: int) -> float | None:
    """None once the process has ended."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = [line.split() for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(found[0][1]) * MEGABYTES if found else None
