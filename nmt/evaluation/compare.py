"""Significance tests: is one translator better than another, or is the test set too small to tell?

This is the paired bootstrap of Koehn (2004) as implemented by sacreBLEU, with the same resamples of the test set for
both systems. The numbers equal those of `sacrebleu REFERENCES -i BASELINE SYSTEM… -m bleu chrf ter --paired-bs`,
including the effect of the environment variable SACREBLEU_SEED.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.significance import PairedTest, Result

from nmt.evaluation.metrics import HIGHEST, NUM_RESAMPLES, Score, check_pairs, make_interval, make_metrics


@dataclass(frozen=True)
class Comparison:
    """A system's score, compared with that of the baseline."""

    score: Score
    p_value: float | None
    """Probability of a difference at least this large if both systems were equally good (two-sided); None for the
    baseline itself. sacreBLEU gives 1/1001 to a system that equals the baseline in every resample."""

    def as_record(self) -> dict[str, object]:
        """Returns the record of the score with its p-value.

        >>> Comparison(Score(38.5, "bs:1000", (36.9, 40.1)), p_value=0.25).as_record()
        {'score': 38.5, 'signature': 'bs:1000', 'interval': [36.9, 40.1], 'p_value': 0.25}
        """
        return {**self.score.as_record(), "p_value": self.p_value}


def compare(
    baseline: Sequence[str],
    systems: Sequence[Sequence[str]],
    *references: Sequence[str],
    target_language: str | None,
) -> list[dict[str, Comparison]]:
    """Compares systems with a baseline.

    Args:
        baseline: translations of a test set, one per line.
        systems: translations of the same test set by other systems.
        *references: human translations, one per line; several give each translation several references.
        target_language: code of the target, which chooses BLEU's tokenizer.

    Returns:
        "bleu", "chrf" and "ter" of the baseline, then of each system in turn.

    Raises:
        UserError: a system has more or fewer lines than the references, or there are none.
    """
    all_systems = [baseline, *systems]
    for hypotheses in all_systems:
        check_pairs(hypotheses, references)
    metrics = make_metrics(target_language)
    named = [(str(number), hypotheses) for number, hypotheses in enumerate(all_systems)]
    test = PairedTest(named, metrics, references, test_type="bs", n_samples=NUM_RESAMPLES)
    signatures, results = test()
    # sacreBLEU uses its own names ("chrF2"), in the order of `metrics`.
    keys = dict(zip(signatures, metrics, strict=True))
    return [
        {
            key: _make_comparison(results[name][number], str(signatures[name]), HIGHEST[key])
            for name, key in keys.items()
        }
        for number in range(len(all_systems))
    ]


def _make_comparison(result: Result | str, signature: str, highest: float) -> Comparison:
    assert isinstance(result, Result) and result.mean is not None and result.ci is not None  # for the type checker
    score = Score(float(result.score), signature, make_interval(result.mean, result.ci, highest))
    return Comparison(score, result.p_value)
