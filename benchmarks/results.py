"""Stores the figures of each part as JSON, with machine, versions and settings."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import nmt
from benchmarks.corpus import ROOT, Text
from benchmarks.machine import describe_machine
from benchmarks.ours import NMT
from benchmarks.settings import Settings
from benchmarks.system import System
from nmt.files import atomic_write

PARTS = ("training", "translation", "latency", "memory", "scale", "ceiling", "serving", "soak")


def save(
    part: str,
    figures: Any,
    *,
    settings: Settings,
    text: Text | None,
    systems: Sequence[System],
    command: str,
    other_cores: float,
) -> Path:
    """Writes the result of a part, and replaces an earlier one.

    Args:
        text: the text that all systems shared, or None if the model has its own.
        systems: the systems that were measured. The versions of their packages are stored.
        other_cores: cores that other programs used meanwhile.
    """
    record = {
        "part": part,
        "date": date.today().isoformat(),
        "command": command,
        "machine": describe_machine(),
        "other_cores": round(other_cores, 2),
        "versions": {
            "nmt": {"nmt": f"{nmt.__version__} ({describe_commit()})", **NMT.get_versions()},
            **{system.title: system.get_versions() for system in systems if system.environment},
        },
        "settings": {name: value for name, value in asdict(settings).items() if name != "quick"},
        "text": text and text.describe(),
        "figures": figures,
    }
    path = settings.results / f"{part}.json"
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load_all(folder: Path) -> dict[str, dict]:
    """Reads the results in a folder, by part. Parts without a file are left out."""
    found = {part: folder / f"{part}.json" for part in PARTS}
    return {part: json.loads(path.read_text(encoding="utf-8")) for part, path in found.items() if path.is_file()}


def describe_run(command: str) -> dict[str, str]:
    """Returns what the record of every measurement says first: date, command, machine and commit."""
    return {
        "date": date.today().isoformat(),
        "command": command,
        "machine": describe_machine(),
        "commit": describe_commit(),
    }


def describe_commit() -> str:
    """Returns the current commit, with a plus if files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "no commit"
