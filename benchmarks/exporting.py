"""Exports models of nmt through the command line."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import ROOT
from benchmarks.measure import run_command
from benchmarks.settings import Settings


def export_model(settings: Settings, model: Path, name: str, options: Sequence[str]) -> Path:
    """Runs `nmt export MODEL FOLDER OPTIONS`, and returns the folder."""
    folder = settings.work / name
    shutil.rmtree(folder, ignore_errors=True)
    run_command(
        [sys.executable, "-m", "nmt", "export", str(model), str(folder), *options],
        folder=settings.work / "exporting",
        threads=settings.threads,
        environment={"PYTHONPATH": str(ROOT)},
    )
    return folder
