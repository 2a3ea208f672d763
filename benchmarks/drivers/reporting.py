"""Shared code of the drivers: read a JSON job, write a JSON report.

It uses only the standard library, because it runs in the environments of all peers.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def read_job() -> dict:
    """Reads the job, whose path is the first argument."""
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


def write_report(job: dict, **report: object) -> None:
    """Writes the report to the path in the job."""
    Path(job["report"]).write_text(json.dumps(report), encoding="utf-8")


class UpdateClock:
    """Records the time at the end of each update, and its target tokens without padding."""

    def __init__(self) -> None:
        self.updates: list[tuple[float, int]] = []

    def tick(self, tokens: int) -> None:
        """Records an update that has just finished."""
        self.updates.append((time.monotonic(), int(tokens)))


class PassClock:
    """Times passes over lines. A system is ready when it has translated the first line."""

    def __init__(self) -> None:
        self.loaded = time.monotonic()
        self.ready = 0.0
        self.seconds: list[float] = []

    def run(self, translate: Callable[[list[str]], list[str]], lines: list[str], passes: int) -> list[str]:
        """Translates the first line, then all lines `passes` times. Returns the last translations."""
        translate(lines[:1])
        self.ready = time.monotonic()
        found: list[str] = []
        for _ in range(passes):
            started = time.perf_counter()
            found = translate(lines)
            self.seconds.append(time.perf_counter() - started)
        return found

    def report(self) -> dict:
        """Returns the times for a report."""
        return {"loaded": self.loaded, "ready": self.ready, "seconds": self.seconds}


def read_lines(path: str) -> list[str]:
    """Reads lines without their ends. Only a newline ends a line."""
    return Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")


def write_lines(path: str, lines: list[str]) -> None:
    """Writes one line per entry."""
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
