"""A model's score on a test set, as one record that says what it means."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.data.corpus import read_parallel
from nmt.evaluation.metrics import Score, check_languages, score, score_tokenized
from nmt.translators.protocol import Translator


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
    translator: Translator,
    source: Path | str,
    reference: Path | str,
    *,
    tokenized: bool = False,
    warn: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Translates a file and compares with its reference, detokenised and cased.

    Lines are not split into sentences; see `decoding.split_sentences`.

    Args:
        translator: such as `nmt.open_translator(folder)`.
        source, reference: files of as many lines.
        tokenized: also score in the Multi30k convention, lower-cased and Moses-tokenised ("tok-lc").
        warn: called with what may spoil the scores, before the work begins.

    Raises:
        UserError: a file is missing, they are of unequal length, or the target language's tokeniser is not installed.
    """
    language = translator.target_language
    for warning in check_languages(translator.source_language, language):
        warn(warning)
    sources, references = read_parallel(Path(source), Path(reference))
    started = time.perf_counter()
    hypotheses = translator.translate(sources, split=False)
    seconds = time.perf_counter() - started
    scores = score(hypotheses, references, target_language=language)
    if tokenized:
        scores["bleu_tok_lc"] = score_tokenized(hypotheses, references, target_language=language or "en")
    return Evaluation(hypotheses, scores, seconds, translator.settings.model_dump())


def report(evaluation: Evaluation, *, as_json: bool) -> str:
    """What `nmt evaluate` prints: one JSON object, or a few lines for people."""
    if as_json:
        return json.dumps(evaluation.as_record())
    lines = []
    for name, one in evaluation.scores.items():
        low, high = one.interval or (one.score, one.score)
        lines.append(f"{name:<12} {one.score:.2f}  95 % from {low:.2f} to {high:.2f}  {one.signature}")
    count = len(evaluation.hypotheses)
    lines.append(
        f"{count:,} sentences in {evaluation.seconds:.1f} s, {count / max(evaluation.seconds, 1e-9):,.0f} a second"
    )
    return "\n".join(lines)
