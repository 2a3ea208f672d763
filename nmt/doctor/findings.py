"""Findings of `nmt doctor`, as a table and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Verdict = Literal["ok", "note", "warning", "error"]
STYLES: dict[Verdict, str] = {"ok": "green", "note": "dim", "warning": "yellow", "error": "bold red"}
# The names of test sets can be long paths. Wider, the column would leave too little room for what was found.
CHECK_WIDTH = 28


@dataclass(frozen=True)
class Finding:
    """One row of the report."""

    check: str
    """Name of the check."""
    verdict: Verdict
    """error: training would fail. warning: training would run, but its result may disappoint."""
    found: str


def report_count(check: str, number: int, of: str, example: str = "", *, verdict: Verdict = "warning") -> Finding:
    """Returns a finding about a number of cases, which is ok if the number is 0.

    Args:
        check: name of the check.
        number: how many cases were found.
        of: what follows the number, such as "lines".
        example: where the first case is.
        verdict: the verdict if there is any case.
    """
    if not number:
        return Finding(check, "ok", "none")
    return Finding(check, verdict, f"{number:,} {of}{f', first {example}' if example else ''}")


def has_errors(findings: Sequence[Finding]) -> bool:
    """Returns whether training would fail."""
    return any(finding.verdict == "error" for finding in findings)


def as_table(findings: Sequence[Finding], *, width: int | None = None) -> str:
    """Returns a table for a terminal, `width` characters wide; None for the width of the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Check", overflow="fold", max_width=CHECK_WIDTH)
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Found", overflow="fold")
    for finding in findings:
        # Not strings, in which rich would take [red] and \[ for markup: a finding may quote any line of a corpus.
        table.add_row(Text(finding.check), Text(finding.verdict, STYLES[finding.verdict]), Text(finding.found))
    console = Console(width=width, emoji=False)
    with console.capture() as capture:
        console.print(table)
    # Not splitlines, since a line of a corpus may hold U+2028 and the like.
    return "\n".join(line.rstrip() for line in capture.get().split("\n")).strip("\n")


def as_json(findings: Sequence[Finding]) -> str:
    """Returns a JSON object with all findings and whether training would fail."""
    record = {"would_fail": has_errors(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(record, ensure_ascii=False)
