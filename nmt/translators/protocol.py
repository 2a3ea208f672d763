"""The interface of everything that translates text: a trained model, a SavedModel, a LiteRT model.

Commands, the server and the cluster use this interface only, so that a new kind of translator is one subclass and one
line in `nmt.translators.opening.KINDS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError

from nmt.config.reference import as_words, get_keys
from nmt.config.schema import SearchSettings
from nmt.errors import UserError, suggest_name
from nmt.translators.hypothesis import Translation

WINDOW = 4096  # lines sorted by length together, and held in memory at once

Settings = TypeVar("Settings", bound=SearchSettings)


class Translator(ABC):
    """Translates texts.

    >>> nmt.open_translator("runs/demo").translate(["The stories are old."])  # doctest: +SKIP
    ['Die Geschichten sind alt.']
    """

    source_language: str | None
    """Language code of the source; None if unknown."""
    target_language: str | None
    """Language code of the translations; None if unknown."""
    version: int = 1
    """Number of an export's version folder; 1 for models."""
    max_n_best: int
    """Most hypotheses per text that it returns."""
    settings: SearchSettings
    """How it searches."""

    @abstractmethod
    def with_settings(self, **changes: Any) -> "Translator":
        """Returns a translator that searches with other settings, such as beam_size=1; None leaves one unchanged.

        Raises:
            UserError: there is no such setting, its value is invalid, or it is fixed in an export.
        """

    @abstractmethod
    def translate_batch(self, texts: Sequence[str], *, n_best: int = 1, attention: bool = False) -> list[Translation]:
        """Translates each text as if it were alone.

        A model translates long texts in parts, while an export reads their beginning only; see
        `Translation.is_truncated`.

        Args:
            texts: any number; the results of all are held in memory.
            n_best: at most so many hypotheses per text.
            attention: whether to return attention weights, for which the translations are read once more.

        Raises:
            UserError: this kind of translator cannot return what is requested.
        """

    def check_n_best(self, n_best: int) -> None:
        """Raises UserError unless the translator can return so many hypotheses per text."""
        if not 1 <= n_best <= self.max_n_best:
            raise UserError(f"n_best: expected 1 to {self.max_n_best} translations per line, found {n_best}.")

    def translate(self, lines: Iterable[str]) -> list[str]:
        """Returns the best translation of each line; blank lines stay blank.

        Raises:
            UserError: an export would truncate a line.
        """
        return [translation.text for translation in self.stream(lines)]

    def stream(
        self, lines: Iterable[str], *, n_best: int = 1, window: int = WINDOW, attention: bool = False
    ) -> Iterator[Translation]:
        """Yields the translation of each line, in order.

        Args:
            lines: any number; `window` of them are held in memory at once.
            n_best: at most so many hypotheses per line.
            window: lines read before the first result; 1 translates line by line.
            attention: whether to return attention weights.

        Raises:
            UserError: `lines` is one text instead of several, an export would truncate a line, or this kind of
                translator cannot return what is requested.
        """
        if isinstance(lines, str):
            raise UserError("Expected a list of lines to translate, found one text: put it in brackets.")
        lines = iter(lines)
        while batch := list(islice(lines, window)):
            for translation in self.translate_batch(batch, n_best=n_best, attention=attention):
                if translation.is_truncated:
                    raise UserError(self._explain_truncation(translation.source))
                yield translation

    def _explain_truncation(self, line: str) -> str:
        return f"The line '{line[:40]}…' of {len(line):,} characters is longer than the translator reads at once."


def change_settings(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Returns settings with other values; None leaves one unchanged.

    Raises:
        UserError: there is no such setting, or its value is invalid.
    """
    fields = type(settings).model_fields
    for name in changes:
        if name not in fields:
            raise UserError(f"There is no decoding setting '{name}'.{suggest_name(name, fields)}")
    changed = {name: value for name, value in changes.items() if value is not None}
    try:
        return type(settings).model_validate({**settings.model_dump(), **changed}, strict=True)
    except ValidationError as error:
        raise UserError("\n".join(_explain(one) for one in error.errors())) from error


def check_fixed(settings: SearchSettings, changes: Mapping[str, Any]) -> None:
    """Raises UserError if a change, unless None, differs from the settings that an export was made with."""
    changed = change_settings(settings, changes)
    for name in changes:
        before, after = getattr(settings, name), getattr(changed, name)
        if before != after:
            raise UserError(
                f"This export was made with decoding.{name} {as_words(before)} and cannot translate with "
                f"{as_words(after)}: export the model again with that setting, or translate with the model itself."
            )


def _explain(error: Any) -> str:
    if error["type"] == "value_error":  # several settings that do not fit together
        return f"decoding: {error['ctx']['error']}"
    name = error["loc"][0]
    return f"decoding.{name}: expected {get_keys()[f'decoding.{name}'].kind}, found {error['input']!r}."
