"""Divides texts of many lines and sentences into parts that a model reads at once, and joins their translations."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nmt.translators.hypothesis import Translation, merge_parts
from nmt.translators.segments import SENTENCE_END, WORD_END

LINE_BREAK = re.compile(r"(\r\n|\r|\n)")
# Characters of a line that is translated as a whole, as `nmt translate` does.
MAX_LINE = 500


@dataclass(frozen=True)
class Passage:
    """A text in parts.

    Args:
        text: the text.
        lines: parts of each line; a blank line has none.
        breaks: line breaks between the lines, one fewer than lines.
    """

    text: str
    lines: Sequence[Sequence[str]]
    breaks: Sequence[str] = ()

    @classmethod
    def split(cls, text: str) -> "Passage":
        """Divides a text at its line breaks, and long lines at sentence ends."""
        lines = LINE_BREAK.split(text)  # a break after each line but the last
        return cls(text, [_split_line(line) for line in lines[::2]], lines[1::2])

    @property
    def parts(self) -> list[str]:
        """All parts, in order."""
        return [part for line in self.lines for part in line]

    def join(self, translations: Sequence[Translation]) -> Translation:
        """Joins translations of the parts to one of the text: best with best, second with second.

        A part with fewer hypotheses contributes its last one to the remaining ranks. The score of the text is the mean
        of its parts' scores, its log-probability the sum of theirs.
        """
        results = iter(translations)
        lines = [[next(results) for _ in line] for line in self.lines]
        hypotheses = []
        for rank in range(max((len(one.hypotheses) for one in translations), default=1)):
            chosen = [[one.hypotheses[min(rank, len(one.hypotheses) - 1)] for one in line] for line in lines]
            text = "".join(
                " ".join(part.text for part in line) + end for line, end in zip(chosen, [*self.breaks, ""], strict=True)
            )
            hypotheses.append(merge_parts(text, [part for line in chosen for part in line]))
        warnings = dict.fromkeys(warning for one in translations for warning in one.warnings)
        return Translation(self.text, hypotheses, any(one.is_truncated for one in translations), tuple(warnings))


async def translate_whole(
    translate: Callable[[list[str]], Awaitable[list[Translation]]], parts: Sequence[str]
) -> list[Translation]:
    """Translates parts to their ends: those that come back truncated are halved until none is.

    Args:
        translate: translates texts, in order.
        parts: any number.
    """
    translations = await translate(list(parts))
    cut = [n for n, one in enumerate(translations) if one.is_truncated and len(parts[n]) > 1]
    if cut:
        pairs = [split_in_half(parts[n]) for n in cut]
        results = iter(await translate_whole(translate, [half for pair in pairs for half in pair]))
        for n, pair in zip(cut, pairs, strict=True):
            translations[n] = Passage(parts[n], [pair]).join([next(results), next(results)])
    return translations


def split_in_half(text: str) -> tuple[str, str]:
    """Divides a text of at least two characters between sentences, else between words, else between characters."""
    for end in (SENTENCE_END, WORD_END):
        units = [unit for unit in end.split(text) if unit.strip()]
        if len(units) > 1:
            middle = len(units) // 2
            return " ".join(units[:middle]), " ".join(units[middle:])
    return text[: len(text) // 2], text[len(text) // 2 :]


def _split_line(line: str) -> list[str]:
    """Returns the line, or parts of at most MAX_LINE characters with as many whole sentences as fit in each."""
    if not line.strip():
        return []
    if len(line) <= MAX_LINE:
        return [line]
    parts: list[str] = []
    for sentence in filter(str.strip, SENTENCE_END.split(line)):
        if parts and len(parts[-1]) + 1 + len(sentence) <= MAX_LINE:
            parts[-1] = f"{parts[-1]} {sentence}"
        else:
            parts.append(sentence)
    return parts
