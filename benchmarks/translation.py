"""Measures speed and BLEU of translating the test text, with the models of the training part."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.comparison import compare
from benchmarks.corpus import SOURCE, TARGET, Text, write_lines
from benchmarks.settings import BEAM_SIZE, Settings
from benchmarks.system import System
from benchmarks.training import get_model
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer
from nmt.evaluation.metrics import bleu

PASSES = 2
"""Passes over the test text in one process. The first may compile and does not count as speed."""
SEARCHES: dict[str, dict] = {
    "beam": {"beam_size": BEAM_SIZE},
    "plain": {"beam_size": BEAM_SIZE, "decoding": {"pruning_threshold": 0}},
    "greedy": {"beam_size": 1},
}
"""The plain search is nmt without pruning, to show what pruning costs."""


def measure(settings: Settings, text: Text, systems: Sequence[System]) -> dict:
    """Translates with all systems in turns, for each kind of search."""
    found: dict = {"updates": settings.updates, "lines": settings.test_lines}
    for name, search in SEARCHES.items():

        def run(system: System, number: int, search: dict = search) -> dict:
            return _translate(settings, text, system, search)

        chosen = [system for system in systems if name == "beam" or not system.export]
        chosen = [system for system in chosen if name != "plain" or not system.environment]
        found[name] = compare(chosen, run, rounds=settings.rounds, vocabulary_size=text.vocabulary_size, what=name)
    return found


def write_first_lines(text: Text, system: System, count: int, folder: Path) -> Path:
    """Writes the first test lines to a file, in the form that a system reads."""
    lines = read_lines(text.get_file("test", SOURCE, tokens=system.reads_tokens))[:count]
    path = folder / f"{'tokens' if system.reads_tokens else 'text'}.{count}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, lines)
    return path


def _translate(settings: Settings, text: Text, system: System, search: dict) -> dict:
    source = write_first_lines(text, system, settings.test_lines, settings.work)
    model = get_model(settings, text, system)
    run, lines = system.translate(text, model, source, **search, passes=PASSES, threads=settings.threads)
    references = read_lines(text.get_file("test", TARGET))[: len(lines)]
    first, *others = run.report["seconds"]
    return {
        "sentences_per_second": round(len(lines) / median(others), 2),
        "first_pass_seconds": round(first, 2),
        "startup_seconds": round(run.report["ready"] - run.started, 2),
        "peak_mb": round(run.peak_mb),
        "bleu": round(bleu(lines, references, target_language=TARGET), 2),
        "pieces_per_line": round(float(Tokenizer.load(text.tokenizer).count_tokens(lines).mean()), 2),
    }
