"""Promises about translations: what the translation of a text must and must not contain.

A file of promises is a regression test for the content of a model's translations:

    - source: Take 5 mg twice a day.
      contains: 5 mg
      tag: dosage
    - source: Acme Cloud is fast.
      contains: [Acme Cloud]
      not: Wolke
      severity: warning
    - source: The meeting is on 3 May 2026.
      matches: '3\\. ?Mai 2026'
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from nmt.config.schema import Section
from nmt.config.yaml_lines import read_yaml
from nmt.data.corpus import read_lines
from nmt.errors import UserError, suggest_name
from nmt.translators.protocol import Translator


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:  # too many repetitions, or parentheses
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    return pattern


ALL = "all"
"""Name under which all promises are counted."""

Text = Annotated[str, Field(min_length=1)]
Pattern = Annotated[Text, AfterValidator(_check_pattern)]


def _as_tuple(given: Any) -> Any:
    """Accepts one text in place of a list of texts."""
    return (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given


class Promise(Section):
    """A promise about the translation of a source text."""

    source: Text
    """Text to translate."""
    contains: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)] = ()
    """Strings that the translation must contain, in this spelling."""
    matches: Annotated[tuple[Pattern, ...], BeforeValidator(_as_tuple)] = ()
    """Regular expressions that must match somewhere in the translation."""
    unwanted: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), Field(alias="not")] = ()
    """Strings that the translation must not contain, in any case."""
    tag: Text | None = None
    """Name of a group of promises, which are also counted by themselves."""
    severity: Literal["error", "warning"] = "error"
    """Whether breaking it makes `nmt check` fail and `nmt export` refuse."""

    @model_validator(mode="after")
    def _has_a_tag_of_its_own(self) -> "Promise":
        if self.tag == ALL:
            raise ValueError(f"tag {ALL!r} is the name of all promises together; expected another")
        return self

    @model_validator(mode="after")
    def _promises_something(self) -> "Promise":
        if not (self.contains or self.matches or self.unwanted):
            raise ValueError("expected at least one of contains, matches and not")
        return self

    def find_faults(self, translation: str) -> list[str]:
        """Returns what a translation breaks, in words; empty if it keeps the promise.

        >>> Promise.model_validate({"source": "5 mg", "contains": "5 mg", "not": "50"}).find_faults("50 mg")
        ["does not contain '5 mg'", "contains '50'"]
        """
        folded = translation.casefold()
        return [
            *(f"does not contain {text!r}" for text in self.contains if text not in translation),
            *(f"does not match {text!r}" for text in self.matches if not re.search(text, translation)),
            *(f"contains {text!r}" for text in self.unwanted if text.casefold() in folded),
        ]


@dataclass(frozen=True)
class Outcome:
    """A promise, and how a translation keeps or breaks it."""

    promise: Promise
    place: str
    """File and line of the promise."""
    translation: str
    faults: list[str]
    """What the translation breaks, in words."""

    def as_record(self) -> dict[str, Any]:
        """Returns the entry of `nmt check --json`."""
        given = self.promise.model_dump(by_alias=True, exclude_defaults=True)
        return {**given, "place": self.place, "translation": self.translation, "faults": self.faults}


@dataclass(frozen=True)
class Promises:
    """The promises of a file."""

    entries: list[Promise]
    places: list[str]
    """File and line of each."""

    @property
    def sources(self) -> list[str]:
        """The texts to translate."""
        return [promise.source for promise in self.entries]

    def check(self, translations: Sequence[str]) -> list[Outcome]:
        """Compares translations of the sources with the promises, in order."""
        return [
            Outcome(promise, place, translation, promise.find_faults(translation))
            for promise, place, translation in zip(self.entries, self.places, translations, strict=True)
        ]


def read_promises(path: Path) -> Promises:
    """Reads a YAML file with a list of promises.

    Raises:
        UserError: the file is missing or not such a list; every mistake has its line.
    """
    values, lines = read_yaml("\n".join(read_lines(path)), str(path))
    if not isinstance(values, list) or not values:
        raise UserError(f"{path}: expected a list of promises, each beginning with '- source: TEXT'.")
    places = [f"{path}:{lines[number,]}" for number in range(len(values))]
    entries, mistakes = [], []
    for value, place in zip(values, places, strict=True):
        try:
            entries.append(Promise.model_validate_json(json.dumps(value), strict=True))
        except ValidationError as error:
            mistakes += [f"{place}: {_explain(one)}" for one in error.errors()]
    if mistakes:
        raise UserError("\n".join(mistakes))
    return Promises(entries, places)


def check(translator: Translator, promises: Path | str) -> list[Outcome]:
    """Translates the sources of promises and compares the translations with them, as `nmt check` does.

    Args:
        translator: translates each source as a whole.
        promises: path of the YAML file.

    Raises:
        UserError: see `read_promises`.
    """
    entries = read_promises(Path(promises))
    return entries.check(translator.translate(entries.sources, split=False))


def count_kept(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """Returns how many promises were kept and how many there are: of each tag, and of all under "all"."""
    tags = {outcome.promise.tag: None for outcome in outcomes if outcome.promise.tag}
    groups = {ALL: list(outcomes), **{tag: [one for one in outcomes if one.promise.tag == tag] for tag in tags}}
    return {name: (sum(not one.faults for one in group), len(group)) for name, group in groups.items()}


def has_errors(outcomes: Sequence[Outcome]) -> bool:
    """Returns whether a promise of severity error is broken."""
    return any(outcome.faults and outcome.promise.severity == "error" for outcome in outcomes)


def report_promises(outcomes: Sequence[Outcome], *, as_json: bool = False) -> str:
    """Returns the broken promises and the counts, as the output of `nmt check`."""
    counts = count_kept(outcomes)
    if as_json:
        kept = {name: {"kept": kept, "promises": total} for name, (kept, total) in counts.items()}
        return json.dumps({"kept": kept, "promises": [outcome.as_record() for outcome in outcomes]}, ensure_ascii=False)
    return "\n".join(
        [*_list_broken(outcomes), *(f"{name}: {kept} of {all_} promises kept" for name, (kept, all_) in counts.items())]
    )


def _list_broken(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        if outcome.faults:
            yield f"{outcome.place}: {outcome.promise.severity}: the translation {' and '.join(outcome.faults)}."
            yield f"    {outcome.promise.source}"
            yield f"    {outcome.translation}"


def _explain(error: Any) -> str:
    names = ["source", "contains", "matches", "not", "tag", "severity"]
    key = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing":
            return f"the key '{key}' is missing."
        case "extra_forbidden":
            return f"{key}: unknown key.{suggest_name(key, names)} Keys: {', '.join(names)}."
        case "value_error":
            return f"{key}: {error['ctx']['error']}." if key else f"{error['ctx']['error']}."
    expected = "error or warning" if key == "severity" else "a text, or a list of texts"
    return f"{key}: expected {expected}, found {error['input']!r}." if key else "expected keys such as 'source: TEXT'."
