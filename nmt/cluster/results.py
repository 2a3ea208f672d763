"""What a search has found: a table, a plot, and the configuration of the best trial."""

import csv
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nmt.cluster.trials import FAILED, Trial, Validated
from nmt.config.file import dump_config, replace_values
from nmt.config.reference import as_words
from nmt.config.schema import Config
from nmt.files import atomic_write

COLUMNS = ("update", "bleu", "perplexity", "updates")


def write_results(folder: Path, trials: list[Trial], config: Config, announce: Callable[[str], None]) -> Trial | None:
    """Writes trials.csv, trials.md, trials.png and best.yaml, each whole or as it was, and returns the best trial.

    Args:
        folder: of the search.
        trials: all of them, ended or not.
        config: what they have in common, from which best.yaml is made.
        announce: is told where matplotlib is missing and so no plot is drawn.
    """
    ranked = best_first(trials)
    _write(folder / "trials.csv", csv_table(ranked).encode())
    _write(folder / "trials.md", markdown_table(ranked).encode())
    if importlib.util.find_spec("matplotlib") is None:
        announce("No plot was drawn: pip install matplotlib.")
    else:
        _write(folder / "trials.png", _plot(ranked))
    best = next((trial for trial in ranked if trial.best() and trial.ended()[0] != FAILED), None)
    if best is not None:
        chosen = replace_values(config, best.values, best.name)
        _write(folder / "best.yaml", dump_config(chosen).encode())
    return best


def best_first(trials: list[Trial]) -> list[Trial]:
    """Those that were never validated come last; equals in the order of their numbers."""

    def rank(trial: Trial) -> tuple[bool, float]:
        best = trial.best()
        return best is None, -best.score(trial.config.training.best_by) if best else 0.0

    return sorted(trials, key=rank)


def csv_table(trials: list[Trial]) -> str:
    """A line for each trial, figures in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_header(trials))
    for trial in trials:
        best, updates = trial.best(), _updates(trial)
        figures = [best.update, best.bleu, best.perplexity, updates] if best else [""] * len(COLUMNS)
        writer.writerow([trial.name, trial.ended()[0], *map(as_words, trial.values.values()), *figures])
    return text.getvalue()


def markdown_table(trials: list[Trial]) -> str:
    """The same, figures rounded, and below it why trials failed."""
    header = _header(trials)
    lines = [_row(header), _row(["---"] * len(header))]
    for trial in trials:
        best = trial.best()
        figures = _rounded(best, _updates(trial)) if best else [""] * len(COLUMNS)
        lines.append(_row([trial.name, trial.ended()[0], *map(as_words, trial.values.values()), *figures]))
    failed = [f"{trial.name} failed: {trial.ended()[1]}" for trial in trials if trial.ended()[0] == FAILED]
    return "\n".join([*lines, *(["", *failed] if failed else [])]) + "\n"


def _header(trials: list[Trial]) -> list[str]:
    return ["trial", "state", *(trials[0].values if trials else ()), *COLUMNS]


def _rounded(best: Validated, updates: int) -> list[str]:
    return [f"{best.update:,}", f"{best.bleu:.2f}", f"{best.perplexity:.2f}", f"{updates:,}"]


def _row(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _updates(trial: Trial) -> int:
    return max((one.update for one in trial.validations()), default=0)


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as aside:
        aside.write_bytes(content)


def _plot(trials: list[Trial]) -> bytes:
    """The course of every trial, and the best score over each key, as PNG."""
    from matplotlib.figure import Figure  # without pyplot: it would look for a screen

    best_by = trials[0].config.training.best_by
    keys = list(trials[0].values)
    figure = Figure(figsize=(6, 3 * (1 + len(keys))), layout="constrained")
    course, *scatters = figure.subplots(1 + len(keys), 1, squeeze=False)[:, 0]
    for trial in trials:
        validations = trial.validations()
        course.plot(
            [v.update for v in validations], [_shown(v, best_by) for v in validations], marker=".", label=trial.name
        )
    course.set_xlabel("update")
    for key, axes in zip(keys, scatters, strict=True):
        axes.set_xlabel(key)
        _scatter(axes, key, trials)
    for axes in (course, *scatters):
        axes.set_ylabel("dev BLEU" if best_by == "bleu" else "dev perplexity")
        axes.grid(alpha=0.3)
    if len(trials) <= 12:  # more names than that hide the lines
        course.legend(fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _scatter(axes: Any, key: str, trials: list[Trial]) -> None:
    found = [
        (trial.values[key], _shown(best, trial.config.training.best_by)) for trial in trials if (best := trial.best())
    ]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in found)
    if found and numbers and min(value for value, _ in found) > 0:
        axes.set_xscale("log")
    axes.scatter([value if numbers else as_words(value) for value, _ in found], [score for _, score in found])


def _shown(validated: Validated, best_by: str) -> float:
    return validated.bleu if best_by == "bleu" else validated.perplexity
