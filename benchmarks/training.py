"""Measures training speed. The models of the first runs are kept for the parts that translate."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import compare
from benchmarks.corpus import Text
from benchmarks.exporting import export_model
from benchmarks.measure import Run
from benchmarks.ours import NMT
from benchmarks.ratios import compute_speed
from benchmarks.settings import Settings
from benchmarks.system import System


def measure(settings: Settings, text: Text, systems: Sequence[System]) -> dict:
    """Trains all systems in turns."""

    def run(system: System, number: int) -> dict:
        found = _train(settings, text, system, number)
        updates = found.report["updates"]
        return {
            "pieces_per_second": round(compute_speed(updates, settings.window), 1),
            "peak_mb": round(found.peak_mb),
            "startup_seconds": round(updates[0][0] - found.started, 2),
            "seconds": round(found.seconds, 1),
            "updates": len(updates),
        }

    return {
        "window": list(settings.window),
        "systems": compare(systems, run, rounds=settings.rounds, vocabulary_size=text.vocabulary_size, what="training"),
    }


def get_model(settings: Settings, text: Text, system: System) -> Path:
    """Returns the folder of a system's model after `settings.updates` updates. Trains it if it is missing."""
    if system.export:
        return export_model(settings, get_model(settings, text, NMT), system.key, system.export)
    model = _get_folder(settings, system)
    if not _get_marker(model).is_file() or _get_marker(model).read_text(encoding="utf-8") != str(settings.updates):
        system.prepare()
        _train(settings, text, system, 0)
    return model


def _train(settings: Settings, text: Text, system: System, number: int) -> Run:
    """Trains for as long as speed is measured. The first run of a system is longer, and its model is kept."""
    model = _get_folder(settings, system)
    if number:
        again = model.with_name(f"{system.key}.again")
        return system.train(text, again, updates=settings.window[1], seed=number + 1, threads=settings.threads)
    _get_marker(model).unlink(missing_ok=True)
    updates = max(settings.updates, settings.window[1])
    run = system.train(text, model, updates=updates, seed=1, threads=settings.threads)
    _get_marker(model).write_text(str(settings.updates), encoding="utf-8")
    return run


def _get_folder(settings: Settings, system: System) -> Path:
    return settings.work / "models" / system.key


def _get_marker(model: Path) -> Path:
    """Returns the path of a file that marks a finished training and holds its number of updates."""
    return model.with_name(f"{model.name}.done")
