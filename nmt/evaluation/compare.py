"""Whether one translator is better than another, or the test set is only too small to tell.

The paired bootstrap of Koehn (2004) as sacreBLEU runs it: the same resamples of the test set for both systems, figures
equal to those of `sacrebleu REFERENCES -i BASELINE SYSTEM… -m bleu chrf ter --paired-bs`, SACREBLEU_SEED obeyed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.significance import PairedTest, Result

from nmt.evaluation.metrics import NUM_RESAMPLES, Score, check_pairs, interval_around, metrics_for


@dataclass(frozen=True)
class Comparison:
    """A system's score, and how likely so large a difference from the baseline were if the two were equally good.

    `p_value` is two-sided: it tells that the systems differ, their scores tell which is better. It is None for the
    baseline itself. Beware of sacreBLEU's rule for a system that equals the baseline in every resample: 1/1001.
    """

    score: Score
    p_value: float | None

    def as_record(self) -> dict[str, object]:
        """Returns the score's record with one more field.

        >>> Comparison(Score(38.5, "bs:1000", (36.9, 40.1)), p_value=0.25).as_record()
        {'score': 38.5, 'signature': 'bs:1000', 'interval': [36.9, 40.1], 'p_value': 0.25}
        """
        return {**self.score.as_record(), "p_value": self.p_value}


def compare(
    baseline: Sequence[str],
    systems: Sequence[Sequence[str]],
    references: Sequence[str],
    *,
    target_language: str | None,
) -> list[dict[str, Comparison]]:
    """Returns "bleu", "chrf" and "ter" of the baseline, then of each system in turn, tested against the baseline.

    Raises:
        UserError: a system has more or fewer lines than the references, or there are none.
    """
    everyone = [baseline, *systems]
    for hypotheses in everyone:
        check_pairs(hypotheses, references)
    metrics = metrics_for(target_language)
    named = [(str(number), hypotheses) for number, hypotheses in enumerate(everyone)]
    test = PairedTest(named, metrics, [references], test_type="bs", n_samples=NUM_RESAMPLES)
    signatures, results = test()
    # sacreBLEU answers by its own names ("chrF2"), in the order of `metrics`.
    keys = dict(zip(signatures, metrics, strict=True))
    return [
        {key: _comparison(results[name][number], str(signatures[name])) for name, key in keys.items()}
        for number in range(len(everyone))
    ]


def _comparison(result: Result | str, signature: str) -> Comparison:
    assert isinstance(result, Result) and result.mean is not None and result.ci is not None  # for the type checker
    score = Score(float(result.score), signature, interval_around(result.mean, result.ci))
    return Comparison(score, result.p_value)
