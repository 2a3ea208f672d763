"""A model's score on a test set, as one record that says what it means."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nmt.data.preparation import read_pair
from nmt.evaluation.metrics import Score, score, score_tokenized


class TranslatesLines(Protocol):
    """A `Translator`, an exported model, or anything that stands in for them."""

    def translate(self, lines: list[str]) -> list[str]:
        """The best translation of each line."""


@dataclass(frozen=True)
class Evaluation:
    """Translations of a test set, and their scores."""

    hypotheses: list[str]
    scores: dict[str, Score]
    """bleu, chrf and ter; with the tokenised convention also bleu_tok_lc."""
    seconds: float
    """Spent translating, loading not counted."""
    decoding: dict[str, Any]

    def as_record(self) -> dict[str, Any]:
        """What `nmt evaluate --json` prints."""
        scores = {name: one.as_record() for name, one in self.scores.items()}
        counts = {"sentences": len(self.hypotheses), "seconds": round(self.seconds, 3)}
        return {**scores, **counts, "decoding": self.decoding}


def evaluate(
    translator: TranslatesLines,
    source: Path | str,
    reference: Path | str,
    *,
    target_language: str | None = None,
    tokenized: bool = False,
    decoding: dict[str, Any] | None = None,
) -> Evaluation:
    """Translates a file and compares with its reference, detokenised and cased.

    Args:
        translator: such as `nmt.Translator.load(folder)`.
        source, reference: files of as many lines.
        target_language: chooses sacreBLEU's tokeniser.
        tokenized: also score in the Multi30k convention, lower-cased and Moses-tokenised ("tok-lc").
        decoding: settings to name in the record.

    Raises:
        UserError: a file is missing, or they are of unequal length.
    """
    sources, references = read_pair(Path(source), Path(reference))
    started = time.perf_counter()
    hypotheses = translator.translate(sources)
    seconds = time.perf_counter() - started
    scores = score(hypotheses, references, target_language=target_language)
    if tokenized:
        scores["bleu_tok_lc"] = score_tokenized(hypotheses, references, target_language=target_language or "en")
    return Evaluation(hypotheses, scores, seconds, decoding or {})
