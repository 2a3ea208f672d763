"""What drivers share: one JSON file in, one out. Only the standard library, since peers' environments have no more."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def read_job() -> dict:
    """The job, whose path is the first argument."""
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


def write_report(job: dict, **report: object) -> None:
    """Writes what was measured to where the job says."""
    Path(job["report"]).write_text(json.dumps(report), encoding="utf-8")


class UpdateClock:
    """Notes when each update was done and how many real target pieces it had."""

    def __init__(self) -> None:
        self.updates: list[tuple[float, int]] = []

    def tick(self, pieces: int) -> None:
        """Takes one update that is done now."""
        self.updates.append((time.monotonic(), int(pieces)))


class PassClock:
    """Times passes over lines; the first line by itself tells when a system is ready."""

    def __init__(self) -> None:
        self.loaded = time.monotonic()
        self.ready = 0.0
        self.seconds: list[float] = []

    def run(self, translate: Callable[[list[str]], list[str]], lines: list[str], passes: int) -> list[str]:
        """Translates the first line, then all lines so many times over; returns the last translations."""
        translate(lines[:1])
        self.ready = time.monotonic()
        found: list[str] = []
        for _ in range(passes):
            started = time.perf_counter()
            found = translate(lines)
            self.seconds.append(time.perf_counter() - started)
        return found

    def report(self) -> dict:
        """As it goes into a report."""
        return {"loaded": self.loaded, "ready": self.ready, "seconds": self.seconds}


def read_lines(path: str) -> list[str]:
    """Lines without their ends; only newline ends a line."""
    return Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")


def write_lines(path: str, lines: list[str]) -> None:
    """One a line."""
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
