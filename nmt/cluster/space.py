"""The space of a search: configuration keys, each with a list of values or a range."""

import json
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.config.file import check_value
from nmt.config.reference import as_words, get_keys, suggest_key
from nmt.config.yaml_lines import Place, read_yaml
from nmt.data.corpus import read_lines
from nmt.errors import UserError, suggest_name

# Patterns of the keys that cannot be searched, with the reason.
FIXED = {
    r"run_dir|data\.cache": "each trial has its own folder, and all share one cache",
    r"training\.best_by": "all trials are compared by the same score",
    r"data\.(source|target)_language": "all trials are compared by the same score",
    r"data\.dev(\..*)?": "trials are compared on one dev text",
    r"model\.preset": "the configuration has all of its keys already; search over those",
    r"decoding\.(temperature|top_k|top_p|seed|tag)": "trials are compared by greedy search of the same text",
    r"decoding\.(?!((min|max)_length|max_length_ratio|no_repeat_ngram|repetition_penalty)$).*": (
        "trials are compared by greedy search, which it does not change"
    ),
    r"export(\..*)?": "exports are made after the training",
    r"training\.(accumulation_steps|devices|strategy)": "it changes memory and time, but not the score",
    r"data\.promises|training\.(log_every|tensorboard|keep_(checkpoints|translations|pair_losses)|on_full_disk)": (
        "it does not change the score"
    ),
}
DIGITS = 4  # significant digits of numbers drawn from a range, which keeps tables readable
TRIES = 1000  # draws per trial until the values found so far are taken for the whole space


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def draw(self, chance: random.Random) -> Any:
        """Draws one of the values."""
        return chance.choice(self.values)

    def __str__(self) -> str:
        return ", ".join(map(as_words, self.values))


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included, on a linear or logarithmic scale."""

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, chance: random.Random) -> float:
        """Draws a number, uniformly on the scale; a whole one stands for all numbers that are rounded to it."""
        # Otherwise the ends of a range of whole numbers would have half the chance of the others.
        margin = 0.5 if self.whole else 0.0
        low, high = self.low - margin, self.high + margin
        number = math.exp(chance.uniform(math.log(low), math.log(high))) if self.log else chance.uniform(low, high)
        rounded = round(number) if self.whole else float(f"{number:.{DIGITS}g}")
        return min(max(rounded, self.low), self.high)

    def __str__(self) -> str:
        # A search records this, and is resumed with the same draws only.
        numbers = "whole numbers from " if self.whole else ""
        return f"{numbers}{as_words(self.low)} to {as_words(self.high)}" + (", logarithmic" if self.log else "")


Space = Mapping[str, Choice | Range]


def read_space(path: Path) -> Space:
    """Reads a YAML file of keys, which are dotted or in their sections.

    Raises:
        UserError: every mistake found, one per line, each with its line.
    """
    values, lines = read_yaml("\n".join(read_lines(path)), str(path))
    if not isinstance(values, dict) or not values:
        raise UserError(f"{path}: expected keys such as training.learning_rate, each with a list or a range of values.")
    space: dict[str, Choice | Range] = {}
    mistakes = []
    for key, value, label in _entries(values, (), str(path), lines):
        try:
            if key in space:
                raise UserError(f"{label}: given twice.")
            space[key] = _read_values(key, value, label)
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\n".join(mistakes))
    return space


def draw_values(space: Space, trials: int, *, seed: int) -> list[dict[str, Any]]:
    """Draws the values of trials by key, all different; fewer if the space has fewer.

    A longer search begins with the trials of a shorter one.
    """
    chance = random.Random(seed)
    drawn: dict[str, dict[str, Any]] = {}
    for _ in range(TRIES * trials):
        values = {key: one.draw(chance) for key, one in space.items()}
        drawn.setdefault(json.dumps(values), values)
        if len(drawn) == trials:
            break
    return list(drawn.values())


def _entries(
    section: dict[str, Any], above: Place, name: str, lines: Mapping[Place, int]
) -> Iterator[tuple[str, Any, str]]:
    """Yields the dotted key, the value and the label for messages of each key that is not a section."""
    for part, value in section.items():
        place = (*above, part)
        key = ".".join(map(str, place))
        if key in get_keys() and get_keys()[key].kind == "a section" and isinstance(value, dict):
            yield from _entries(value, place, name, lines)
        else:
            yield key, value, f"{name}:{lines[place]}: {key}"


def _read_values(key: str, value: Any, label: str) -> Choice | Range:
    if key not in get_keys() or "N" in key.split("."):
        raise UserError(f"{label}: unknown key.{suggest_key(key)}")
    for pattern, reason in FIXED.items():
        if re.fullmatch(pattern, key):
            raise UserError(f"{label}: cannot be searched, because {reason}.")
    if isinstance(value, dict):
        return _read_range(key, value, label)
    if not isinstance(value, list) or not value:
        example = as_words(value) if value not in (None, []) else "…"
        raise UserError(
            f"{label}: expected a list of values, such as [{example}], or a range, such as {{low: 0.1, high: 0.5}}."
        )
    for one in value:
        check_value(key, one, label)
    repeated = [one for n, one in enumerate(value) if json.dumps(one) in map(json.dumps, value[:n])]
    if repeated:
        raise UserError(f"{label}: {as_words(repeated[0])} occurs twice in the list.")
    return Choice(tuple(value))


def _read_range(key: str, value: dict[str, Any], label: str) -> Range:
    kind = get_keys()[key].kind.removeprefix("null or ")
    if not kind.startswith(("a whole number", "a number")):
        raise UserError(f"{label}: expected a list of values, since the key takes {kind}; found a range.")
    for name in value:
        if name not in ("low", "high", "log"):
            raise UserError(
                f"{label}: expected low, high and log, found '{name}'.{suggest_name(name, ('low', 'high', 'log'))}"
            )
    low, high, log = value.get("low"), value.get("high"), value.get("log", False)
    if low is None or high is None:
        raise UserError(f"{label}: a range needs low and high.")
    for end in (low, high):
        check_value(key, end, label)
    if not isinstance(log, bool):
        raise UserError(f"{label}: expected true or false for log, found {as_words(log)}.")
    if low >= high:
        raise UserError(f"{label}: low must be below high; found {as_words(low)} and {as_words(high)}.")
    if log and low <= 0:
        raise UserError(f"{label}: a logarithmic range must start above 0; found {as_words(low)}.")
    return Range(low, high, log, whole=kind.startswith("a whole number"))
