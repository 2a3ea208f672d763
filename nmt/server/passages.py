"""Texts as people have them, of many lines and sentences: divided into what a model reads, and put together again."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nmt.server.engine import Answer, Candidate
from nmt.translators.segments import SENTENCE_END, WORD_END

LINE_BREAK = re.compile(r"(\r\n|\r|\n)")
LONG = 500  # characters; lines up to here are translated as `nmt translate` does, whole


@dataclass(frozen=True)
class Passage:
    """A text in parts.

    Args:
        lines: the parts of each line; a blank one has none.
        breaks: what stands between the lines, one less than these.
    """

    lines: Sequence[Sequence[str]]
    breaks: Sequence[str]

    @classmethod
    def split(cls, text: str) -> "Passage":
        """Divides a text at its line breaks, and long lines at the ends of sentences."""
        pieces = LINE_BREAK.split(text)
        return cls([_parts(line) for line in pieces[::2]], pieces[1::2])

    @property
    def parts(self) -> list[str]:
        """All parts, in order."""
        return [part for line in self.lines for part in line]

    def join(self, answers: Sequence[Answer]) -> Answer:
        """The translations of the whole from those of its parts: best with best, second with second.

        Its log-probability is the sum of theirs, its score their mean.
        """
        found = iter(answers)
        rows = [[next(found) for _ in line] for line in self.lines]
        candidates = []
        for rank in range(max((len(answer.candidates) for answer in answers), default=1)):
            lines = [[answer.candidates[min(rank, len(answer.candidates) - 1)] for answer in row] for row in rows]
            text = "".join(
                " ".join(candidate.text for candidate in line) + end
                for line, end in zip(lines, [*self.breaks, ""], strict=True)
            )
            candidates.append(_whole(text, [candidate for line in lines for candidate in line]))
        return Answer(candidates, any(answer.truncated for answer in answers))


async def translate_whole(ask: Callable[[list[str]], Awaitable[list[Answer]]], parts: Sequence[str]) -> list[Answer]:
    """Translates parts whole: those that come back truncated are halved until they are read to the end.

    Args:
        ask: translates texts, in order.
        parts: any number.
    """
    answers = await ask(list(parts))
    cut = [n for n, answer in enumerate(answers) if answer.truncated and len(parts[n]) > 1]
    if cut:
        pairs = [split_in_half(parts[n]) for n in cut]
        found = iter(await translate_whole(ask, [half for pair in pairs for half in pair]))
        for n, pair in zip(cut, pairs, strict=True):
            answers[n] = Passage([pair], []).join([next(found), next(found)])
    return answers


def split_in_half(text: str) -> tuple[str, str]:
    """Two parts of a text of two characters or more: sentences if it has several, else words, else characters."""
    for end in (SENTENCE_END, WORD_END):
        pieces = [piece for piece in end.split(text) if piece.strip()]
        if len(pieces) > 1:
            middle = len(pieces) // 2
            return " ".join(pieces[:middle]), " ".join(pieces[middle:])
    return text[: len(text) // 2], text[len(text) // 2 :]


def _parts(line: str) -> list[str]:
    """The line, or where it is long as many of its sentences at a time as are not."""
    if not line.strip():
        return []
    if len(line) <= LONG:
        return [line]
    parts: list[str] = []
    for sentence in filter(str.strip, SENTENCE_END.split(line)):
        if parts and len(parts[-1]) + 1 + len(sentence) <= LONG:
            parts[-1] = f"{parts[-1]} {sentence}"
        else:
            parts.append(sentence)
    return parts


def _whole(text: str, parts: Sequence[Candidate]) -> Candidate:
    log_probs = [part.log_prob for part in parts if part.log_prob is not None]
    return Candidate(
        text,
        sum(part.score for part in parts) / max(1, len(parts)),
        sum(log_probs) if len(log_probs) == len(parts) else None,
        tuple(attended for part in parts for attended in part.attended),
    )
