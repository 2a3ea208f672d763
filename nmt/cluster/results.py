"""Writes the results of a search: a table, a plot, and the configuration of the best trial."""

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


def write_results(folder: Path, trials: list[Trial], config: Config, log: Callable[[str], None]) -> Trial | None:
    """Writes trials.csv, trials.md, trials.png and best.yaml, each whole or unchanged, and returns the best trial.

    Args:
        folder: folder of the search.
        trials: all trials, ended or not.
        config: the configuration that all trials share.
        log: prints a line if matplotlib is missing and no plot is drawn.
    """
    ranked = rank_trials(trials)
    _write(folder / "trials.csv", write_csv(ranked).encode())
    _write(folder / "trials.md", write_markdown(ranked).encode())
    if importlib.util.find_spec("matplotlib") is None:
        log("No plot was drawn, since matplotlib is not installed.")
    else:
        _write(folder / "trials.png", _plot(ranked))
    best = next((trial for trial in ranked if trial.find_best() and trial.read_end()[0] != FAILED), None)
    if best is not None:
        chosen = replace_values(config, best.values, best.name)
        _write(folder / "best.yaml", dump_config(chosen, given_only=True).encode())
    return best


def rank_trials(trials: list[Trial]) -> list[Trial]:
    """Returns trials with the best one first, those without a validation last, and equal ones by number."""

    def rank(trial: Trial) -> tuple[bool, float, float]:
        best = trial.find_best()
        score, negative_loss = best.rank(trial.config.training.best_by) if best else (0.0, 0.0)
        return best is None, -score, -negative_loss

    return sorted(trials, key=rank)


def write_csv(trials: list[Trial]) -> str:
    """Returns a table with one line per trial and numbers in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_header(trials))
    for trial in trials:
        figures = _get_figures(trial).values()
        writer.writerow([trial.name, trial.read_end()[0], *map(as_words, trial.values.values()), *figures])
    return text.getvalue()


def write_markdown(trials: list[Trial]) -> str:
    """Returns the same table with rounded numbers, followed by the reasons why trials failed."""
    header = _header(trials)
    lines = [_row(header), _row(["---"] * len(header))]
    for trial in trials:
        figures = map(_round, _get_figures(trial).values())
        lines.append(_row([trial.name, trial.read_end()[0], *map(as_words, trial.values.values()), *figures]))
    failed = [f"{trial.name} failed: {trial.read_end()[1]}" for trial in trials if trial.read_end()[0] == FAILED]
    return "\n".join([*lines, *(["", *failed] if failed else [])]) + "\n"


def _header(trials: list[Trial]) -> list[str]:
    return ["trial", "state", *trials[0].values, *_get_figures(trials[0])]


def _get_figures(trial: Trial) -> dict[str, float | None]:
    """Returns the figures of the best validation by column, with the number of updates; None if there is none yet."""
    best, updates = trial.find_best(), max((one.update for one in trial.read_validations()), default=None)
    names = ("update", "bleu", *(("chrf",) if trial.config.training.best_by == "chrf" else ()), "perplexity")
    return {**{name: getattr(best, name, None) for name in names}, "updates": updates}


def _round(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:.2f}"


def _row(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as aside:
        aside.write_bytes(content)


def _plot(trials: list[Trial]) -> bytes:
    """Returns a PNG image of each trial's validations, and of the best scores over each key."""
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    best_by = trials[0].config.training.best_by
    keys = list(trials[0].values)
    figure = Figure(figsize=(6, 3 * (1 + len(keys))), layout="constrained")
    course, *scatters = figure.subplots(1 + len(keys), 1, squeeze=False)[:, 0]
    for trial in trials:
        validations = trial.read_validations()
        course.plot(
            [v.update for v in validations], [_get_value(v, best_by) for v in validations], marker=".", label=trial.name
        )
    course.set_xlabel("update")
    for key, axes in zip(keys, scatters, strict=True):
        axes.set_xlabel(key)
        _scatter(axes, key, trials)
    for axes in (course, *scatters):
        axes.set_ylabel({"bleu": "dev BLEU", "chrf": "dev chrF", "loss": "dev perplexity"}[best_by])
        axes.grid(alpha=0.3)
    if len(trials) <= 12:  # more names would hide the lines
        course.legend(fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _scatter(axes: Any, key: str, trials: list[Trial]) -> None:
    found = [
        (trial.values[key], _get_value(best, trial.config.training.best_by))
        for trial in trials
        if (best := trial.find_best())
    ]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in found)
    if found and numbers and min(value for value, _ in found) > 0:
        axes.set_xscale("log")
    axes.scatter([value if numbers else as_words(value) for value, _ in found], [score for _, score in found])


def _get_value(validated: Validated, best_by: str) -> float:
    return validated.perplexity if best_by == "loss" else validated.score(best_by)
