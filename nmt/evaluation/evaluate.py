"""Scores of a model on a test set, in one record with everything that they depend on."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from nmt.data.corpus import read_aligned
from nmt.evaluation.calibration import Reliability, measure_reliability, score_sentences
from nmt.evaluation.compare import compare
from nmt.evaluation.metrics import Score, check_languages, score, score_tokenized
from nmt.translators.protocol import Translator
from nmt.translators.settings import CHANGEABLE


@dataclass(frozen=True)
class Evaluation:
    """Translations of a test set, and their scores."""

    hypotheses: list[str]
    scores: dict[str, Score]
    """bleu, chrf and ter, and bleu_tok_lc if it was requested."""
    seconds: float
    """Time spent translating, without loading the model."""
    decoding: dict[str, Any]
    """Settings of the search, by name."""
    baseline: dict[str, tuple[float, float]] = field(default_factory=dict)
    """For bleu, chrf and ter: the score of the baseline, and the p-value of the difference (see `compare`)."""
    reliability: Reliability | None = None
    """How confidence compares with chrF; None if the model has no fitted confidence."""

    def as_record(self) -> dict[str, Any]:
        """Returns the record that `nmt evaluate --json` prints."""
        scores = {name: one.as_record() for name, one in self.scores.items()}
        for name, (baseline, p_value) in self.baseline.items():
            scores[name] |= {"baseline": baseline, "p_value": p_value}
        counts = {"sentences": len(self.hypotheses), "seconds": round(self.seconds, 3)}
        reliability = {"reliability": asdict(self.reliability)} if self.reliability else {}
        return {**scores, **counts, **reliability, "decoding": self.decoding}


def evaluate(
    translator: Translator,
    source: Path | str,
    reference: Path | str | Sequence[Path | str],
    *,
    tok_lc: bool = False,
    baseline: Path | str | None = None,
    target_language: str | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Translates a test set and scores the translations, detokenized and cased.

    Lines are not split into sentences; see `decoding.split_sentences`.

    Args:
        translator: such as `nmt.open_translator(folder)`.
        source: file of test sentences, or "-" for standard input.
        reference: file of human translations, or several such files, with as many lines as `source`.
        tok_lc: whether to add a score in the Multi30k convention, lower-cased and Moses-tokenized ("tok-lc").
        baseline: file of another system's translations, to tell a difference in quality from chance.
        target_language: code of the target, which chooses BLEU's tokenizer; None takes the translator's.
        warn: receives warnings about what may distort the scores, before translation begins.

    Raises:
        UserError: a file is missing, the files differ in length, or the tokenizer of the target language is not
            installed.
    """
    language = target_language or translator.target_language
    for warning in check_languages(translator.source_language, language):
        warn(warning)
    files = [reference] if isinstance(reference, Path | str) else reference
    baselines = [] if baseline is None else [baseline]
    sources, *references = read_aligned(Path(source), *map(Path, [*files, *baselines]))
    baseline_lines = references.pop() if baselines else None
    started = time.perf_counter()
    translations = list(translator.stream(sources, split=False))
    seconds = time.perf_counter() - started
    hypotheses = [one.text for one in translations]
    scores = score(hypotheses, *references, target_language=language)
    if tok_lc:
        scores["bleu_tok_lc"] = score_tokenized(hypotheses, *references, target_language=language or "en")
    compared = {}
    if baseline_lines is not None:
        of_baseline, of_model = compare(baseline_lines, [hypotheses], *references, target_language=language)
        compared = {name: (of_baseline[name].score.score, cast(float, of_model[name].p_value)) for name in of_baseline}
    decoding = {**translator.settings.model_dump(), CHANGEABLE: "never"}  # as it was done, whatever the setting says
    known = [n for n, one in enumerate(translations) if one.confidence is not None]
    reliability = None
    if known:
        lines = [[column[n] for n in known] for column in (hypotheses, *references)]
        confidences = [translations[n].confidence or 0.0 for n in known]
        reliability = measure_reliability(confidences, score_sentences(*lines))
    return Evaluation(hypotheses, scores, seconds, decoding, compared, reliability)


def report(evaluation: Evaluation, *, as_json: bool) -> str:
    """Returns the output of `nmt evaluate`: one JSON object, or a table."""
    if as_json:
        return json.dumps(evaluation.as_record())
    lines = []
    for name, one in evaluation.scores.items():
        low, high = one.interval or (one.score, one.score)
        lines.append(f"{name:<12} {one.score:.2f}  95 % from {low:.2f} to {high:.2f}  {one.signature}")
        if name in evaluation.baseline:
            lines.append("{:<12} {:.2f}  baseline, p = {:.4f}".format("", *evaluation.baseline[name]))
    if evaluation.reliability:
        lines.append(evaluation.reliability.as_table())
    count = len(evaluation.hypotheses)
    lines.append(
        f"{count:,} sentences in {evaluation.seconds:.1f} s, {count / max(evaluation.seconds, 1e-9):,.0f} per second"
    )
    return "\n".join(lines)
