"""The translation of a text, whichever translator it comes from."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nmt.decoding.alignment import TokenAttention
from nmt.translators.sentences import SplitText


@dataclass(frozen=True)
class TranslationWarning:
    """A warning about a translation."""

    kind: str
    """A stable name for programs: length_limit, repetition, uncovered, lost_number, lost_address, lost_tag,
    lost_placeholder, lost_term, open_mark, unmet, in_parts, truncated."""
    message: str
    """One or more sentences for people."""

    def __str__(self) -> str:
        return self.message


IN_PARTS = TranslationWarning(
    "in_parts", "A line is longer than the translator reads at once and was translated in parts."
)


@dataclass(frozen=True)
class PartConfidence:
    """The confidence in a part of a translation, such as a sentence."""

    start: int
    end: int
    """Position in characters; `end` is exclusive."""
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """One translation of a text."""

    text: str
    score: float
    """Score by which hypotheses are ranked: log_prob divided by the length penalty, plus the coverage penalty; with
    `decoding.mbr`, the expected utility."""
    log_prob: float
    """Sum of the tokens' log-probabilities (nats), EOS and `decoding.repetition_penalty` included."""
    tokens: Sequence[str] = ()
    """SentencePiece tokens without EOS; empty if an export returns the text alone."""
    is_finished: bool | None = True
    """False if the length limit cut the hypothesis off before its EOS; None if an older export does not return it."""
    attention: Sequence[TokenAttention] = ()
    """Attention of the tokens, one entry per part of the text, if it was requested; see `alignment.align`."""
    confidence: float | None = None
    """Expected sentence-level chrF divided by 100, from 0 to 1. None if the confidence of the model was not fitted, or
    if the text needed no translation."""
    part_confidences: Sequence[PartConfidence] = ()
    """The confidence in each part of a text that was translated in several parts."""


@dataclass(frozen=True)
class Translation:
    """A text and its translations, with everything known about them."""

    source: str
    hypotheses: Sequence[Hypothesis]
    """At least one, best first; no two have the same text. Samples are in the order in which they were drawn instead,
    and may be equal."""
    is_truncated: bool = False
    """Whether the end of the source was not read: it was given to an export whole and is longer than that reads."""
    warnings: Sequence[TranslationWarning] = ()
    """Possible mistakes of the best hypothesis, such as that it was cut off; see `nmt.translators.checks`."""

    @property
    def best(self) -> Hypothesis:
        """The best hypothesis."""
        return self.hypotheses[0]

    @property
    def text(self) -> str:
        """Text of the best hypothesis."""
        return self.best.text

    @property
    def score(self) -> float:
        """Score of the best hypothesis."""
        return self.best.score

    @property
    def log_prob(self) -> float:
        """Log-probability of the best hypothesis."""
        return self.best.log_prob

    @property
    def confidence(self) -> float | None:
        """Confidence in the best hypothesis, from 0 to 1; None if it was not fitted."""
        return self.best.confidence


@dataclass(frozen=True)
class ScoredTranslation:
    """A given translation, with the probability that a model assigns to it."""

    source: str
    text: str
    tokens: Sequence[str]
    """SentencePiece tokens of the translation, EOS included."""
    token_log_probs: Sequence[float]
    """Log-probability (nats) of each token, given those before it."""

    @property
    def log_prob(self) -> float:
        """Log-probability of the translation."""
        return sum(self.token_log_probs)

    @property
    def mean_log_prob(self) -> float:
        """Mean of the tokens' log-probabilities, EOS included."""
        return self.log_prob / len(self.token_log_probs)


@dataclass(frozen=True)
class Continuation:
    """An alternative for the next word after a prefix."""

    text: str
    """The prefix and the next token; if the prefix ends inside a word, the word with that token."""
    probability: float
    """Probability of the tokens after the complete words of the prefix, given these words."""
    translation: str
    """The best translation that begins with `text`."""


def join_translations(text: SplitText, parts: Sequence[Translation]) -> Translation:
    """Joins the translations of a text's parts to one of the text: best with best, second with second.

    A part with fewer hypotheses contributes its last one to the remaining ranks. The score of the text is the mean of
    its parts' scores, its log-probability the sum of theirs. A text without parts is its own translation.
    """
    if not parts:
        return Translation(text.text, [Hypothesis(text.join([]), 0.0, 0.0)])
    if len(parts) == 1 and text.gaps == ["", ""] and not text.tag:
        return parts[0]
    starts = text.find_starts()
    hypotheses = []
    for rank in range(max(len(part.hypotheses) for part in parts)):
        row = [part.hypotheses[min(rank, len(part.hypotheses) - 1)] for part in parts]
        texts = [one.text for one in row]
        target_starts = text.find_translated_starts(texts)
        attention = [
            moved
            for source_start, target_start, part, one in zip(starts, target_starts, text.bare_parts, row, strict=True)
            for moved in shift_attention(
                drop_tag(one.attention, text.tag), (source_start, len(part)), (target_start, len(one.text))
            )
        ]
        hypotheses.append(_join_row(text.join(texts), row, attention, target_starts))
    warnings = dict.fromkeys(
        [*((IN_PARTS,) if text.num_cuts else ()), *(warning for part in parts for warning in part.warnings)]
    )
    return Translation(text.text, hypotheses, any(part.is_truncated for part in parts), tuple(warnings))


def _join_row(
    text: str, row: Sequence[Hypothesis], attention: Sequence[TokenAttention], starts: Sequence[int]
) -> Hypothesis:
    parts = [
        PartConfidence(start, start + len(one.text), one.confidence)
        for start, one in zip(starts, row, strict=True)
        if one.confidence is not None
    ]
    num_characters = sum(one.end - one.start for one in parts)
    # The mean over all characters, so that empty translations do not count, unless there are no others.
    total = sum(one.confidence * (one.end - one.start) for one in parts)
    return Hypothesis(
        text,
        sum(one.score for one in row) / len(row),
        sum(one.log_prob for one in row),
        tuple(token for one in row for token in one.tokens),
        None if any(one.is_finished is None for one in row) else all(one.is_finished for one in row),
        tuple(attention),
        total / num_characters if num_characters else next((one.confidence for one in parts), None),
        tuple(parts) if len(parts) > 1 else (),
    )


def drop_tag(attention: Sequence[TokenAttention], tag: str | None) -> Iterator[TokenAttention]:
    """Yields attention without the tokens of a tag, which begin the source of a part but not the part of the text."""
    for one in attention:
        count = list(one.source).index(tag) + 1 if tag and tag in one.source else 0
        yield replace(one, source=one.source[count:], weights=one.weights[:, count:]) if count else one


def shift_attention(
    attention: Iterable[TokenAttention], source: tuple[int, int], target: tuple[int, int]
) -> Iterator[TokenAttention]:
    """Yields attention within a part as attention within the text, given where the part starts and its length."""
    for one in attention:
        source_start, source_end = one.source_span or (0, source[1])
        target_start, target_end = one.target_span or (0, target[1])
        yield replace(
            one,
            source_span=(source[0] + source_start, source[0] + source_end),
            target_span=(target[0] + target_start, target[0] + target_end),
        )
