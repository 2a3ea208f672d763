"""Measures latency: of a file, of one sentence, and of importing the framework."""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.comparison import compare
from benchmarks.corpus import ROOT, SOURCE, Text, write_lines
from benchmarks.exporting import export_model
from benchmarks.measure import Run, run_command
from benchmarks.ours import BFLOAT16, LITERT, NMT, ONE_LAYER
from benchmarks.settings import BEAM_SIZE, Settings
from benchmarks.system import System
from benchmarks.training import get_model
from benchmarks.translation import write_first_lines
from nmt.data.corpus import read_lines


def measure(settings: Settings, text: Text, systems: Sequence[System]) -> dict:
    """Measures a file with all systems, and single sentences with nmt."""

    def run(system: System, number: int) -> dict:
        return _measure_file(settings, text, system)

    model = get_model(settings, text, NMT)
    ways = _prepare_ways(settings, text, model)
    return {
        "lines": settings.test_lines,
        "files": compare(systems, run, rounds=settings.rounds, vocabulary_size=text.vocabulary_size, what="a file"),
        "one_line": _measure_line(settings, text, model),
        "one_by_one": _measure_one_by_one(settings, text, ways),
    }


def translate_by_command(settings: Settings, model: Path, source: Path) -> Run:
    """Runs `nmt translate` on a file in a new process."""
    folder = settings.work / "command"
    arguments = ["--input", str(source), "--output", str(folder / "translations.txt"), "--beam-size", str(BEAM_SIZE)]
    return run_command(
        [sys.executable, "-m", "nmt", "translate", str(model), *arguments],
        folder=folder,
        threads=settings.threads,
        environment={"PYTHONPATH": str(ROOT)},
    )


def _measure_file(settings: Settings, text: Text, system: System) -> dict:
    """Measures wall-clock seconds of a file, from the start of a process (cold) and as a second pass (warm)."""
    model = get_model(settings, text, system)
    source = write_first_lines(text, system, settings.test_lines, settings.work)
    run, _ = system.translate(text, model, source, beam_size=BEAM_SIZE, passes=2, threads=settings.threads)
    first, warm = run.report["seconds"]
    if system.reads_tokens:
        cold = run.report["ready"] - run.started + first
    else:
        cold = translate_by_command(settings, model, source).seconds
    return {"cold": round(cold, 2), "warm": round(warm, 2)}


def _measure_line(settings: Settings, text: Text, model: Path) -> dict:
    """Measures `nmt translate` with one line in a new process, and the imports that this includes."""
    source = write_first_lines(text, NMT, 1, settings.work)
    runs = [translate_by_command(settings, model, source) for _ in range(settings.rounds)]
    imports = [NMT.run("importing", text, model, threads=settings.threads).report for _ in range(settings.rounds)]
    return {
        "seconds": [round(run.seconds, 2) for run in runs],
        "peak_mb": [round(run.peak_mb) for run in runs],
        "imports": {name: round(median(found[name] for found in imports), 2) for name in imports[0]},
    }


def _prepare_ways(settings: Settings, text: Text, model: Path) -> dict[str, Path]:
    """Returns the models that translate one sentence at a time, and makes their exports."""
    one_layer = get_model(settings, text, ONE_LAYER)
    # Only speed matters here. The translation part measures the BLEU that rounding costs.
    bfloat16 = ["--precision", "bfloat16", "--max-bleu-loss", "100"]
    return {
        "in process, float32": model,
        "in process, bfloat16": get_model(settings, text, BFLOAT16),
        "in process, 1 decoder layer, bfloat16": one_layer,
        "SavedModel, float32": export_model(settings, model, "export", []),
        "SavedModel, bfloat16": export_model(settings, model, "export-bfloat16", bfloat16),
        "SavedModel, 1 decoder layer, bfloat16": export_model(settings, one_layer, "export-one-layer", bfloat16),
        "LiteRT, int8": get_model(settings, text, LITERT),
    }


def _measure_one_by_one(settings: Settings, text: Text, ways: dict[str, Path]) -> dict:
    """Measures milliseconds per dev sentence, one at a time, warm."""
    source = settings.work / "one-by-one.txt"
    lines = read_lines(text.get_file("dev", SOURCE))[: settings.latency_lines]
    write_lines(source, lines)
    found: dict[str, list] = {name: [] for name in ways}
    for _ in range(settings.rounds):
        for name, path in ways.items():
            run = NMT.run("one_by_one", text, path, source=str(source), beam_size=BEAM_SIZE, threads=settings.threads)
            milliseconds = sorted(1000 * seconds for seconds in run.report["seconds"])
            found[name].append(
                {
                    "median_ms": round(median(milliseconds), 2),
                    "p90_ms": round(milliseconds[int(0.9 * len(milliseconds))], 2),
                    "max_ms": round(milliseconds[-1], 2),
                }
            )
            print(f"one sentence, {name}: {found[name][-1]}", flush=True)
    return {"lines": len(lines), **found}
