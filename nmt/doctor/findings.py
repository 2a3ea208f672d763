"""What the doctor found, and how it is told."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

Verdict = Literal["ok", "note", "warning", "error"]
STYLES: dict[Verdict, str] = {"ok": "green", "note": "dim", "warning": "yellow", "error": "bold red"}
# Of the column of checks: a long name of a test set must leave room for what was found.
CHECK_WIDTH = 28


@dataclass(frozen=True)
class Finding:
    """One row of the report."""

    check: str
    """What was looked at."""
    verdict: Verdict
    """error: the run would fail; warning: it would run, and probably disappoint."""
    found: str


def report_count(check: str, number: int, of: str, example: str = "", *, verdict: Verdict = "warning") -> Finding:
    """A finding that is ok where the number is 0; `example` says where the first one is."""
    if not number:
        return Finding(check, "ok", "none")
    return Finding(check, verdict, f"{number:,} {of}{f', first {example}' if example else ''}")


def has_errors(findings: Sequence[Finding]) -> bool:
    """Whether a training would fail."""
    return any(finding.verdict == "error" for finding in findings)


def as_table(findings: Sequence[Finding], *, width: int | None = None) -> str:
    """One table for people."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Check", overflow="fold", max_width=CHECK_WIDTH)
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Found", overflow="fold")
    for finding in findings:
        style = STYLES[finding.verdict]
        table.add_row(finding.check, f"[{style}]{finding.verdict}[/{style}]", _escape_markup(finding.found))
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def as_json(findings: Sequence[Finding]) -> str:
    """One JSON object for programs."""
    record = {"would_fail": has_errors(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(record, ensure_ascii=False)


def _escape_markup(text: str) -> str:
    return text.replace("[", r"\[")
