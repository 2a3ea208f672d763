"""Exports of our models, made by the command line."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import ROOT
from benchmarks.measure import run_command
from benchmarks.settings import Settings


def exported(settings: Settings, model: Path, name: str, options: Sequence[str]) -> Path:
    """The folder of a new export, made by `nmt export MODEL FOLDER OPTIONS`."""
    folder = settings.work / name
    shutil.rmtree(folder, ignore_errors=True)
    run_command(
        [sys.executable, "-m", "nmt", "export", str(model), str(folder), *options],
        folder=settings.work / "exporting",
        threads=settings.threads,
        environment={"PYTHONPATH": str(ROOT)},
    )
    return folder
