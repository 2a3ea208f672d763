"""Significance tests: is one translator better than another, or is the test set too small to tell?

These are the paired bootstrap (Koehn 2004), with the same resamples of the test set for both systems, and approximate
randomization (Riezler and Maxwell 2005), which exchanges their translations of random sentences. Both are sacreBLEU's:
the numbers equal those of `sacrebleu REFERENCES -i BASELINE SYSTEM… -m bleu chrf ter --paired-bs` and `--paired-ar`,
including the effect of the environment variable SACREBLEU_SEED.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sacrebleu.significance import PairedTest, Result

from nmt.evaluation.metrics import HIGHEST, NUM_RESAMPLES, Score, check_pairs, make_interval, make_metrics


@dataclass(frozen=True)
class Comparison:
    """A system's score, compared with that of the baseline."""

    score: Score
    p_value: float | None
    """Probability of a difference at least this large if both systems were equally good (two-sided); None for the
    baseline itself. sacreBLEU gives 1/1001 to a system that equals the baseline in every resample."""
    randomization_p_value: float | None = None
    """The same probability by approximate randomization; None if it was not requested."""

    def as_record(self) -> dict[str, object]:
        """Returns the record of the score with its p-value.

        >>> Comparison(Score(38.5, "bs:1000", (36.9, 40.1)), p_value=0.25).as_record()
        {'score': 38.5, 'signature': 'bs:1000', 'interval': [36.9, 40.1], 'p_value': 0.25}
        """
        record = {**self.score.as_record(), "p_value": self.p_value}
        if self.randomization_p_value is not None:
            record["randomization_p_value"] = self.randomization_p_value
        return record


def compare(
    baseline: Sequence[str],
    systems: Sequence[Sequence[str]],
    *references: Sequence[str],
    target_language: str | None,
    randomize: bool = False,
) -> list[dict[str, Comparison]]:
    """Compares systems with a baseline.

    Args:
        baseline: translations of a test set, one per line.
        systems: translations of the same test set by other systems.
        *references: human translations, one per line; several give each translation several references.
        target_language: code of the target, which chooses BLEU's tokenizer.
        randomize: whether to add the p-values of approximate randomization, which takes some seconds per system.

    Returns:
        "bleu", "chrf" and "ter" of the baseline, then of each system in turn.

    Raises:
        UserError: a system has more or fewer lines than the references, or there are none.
    """
    all_systems = [baseline, *systems]
    for hypotheses in all_systems:
        check_pairs(hypotheses, references)
    found = _run_test("bs", all_systems, references, target_language)
    if randomize:
        randomized = _run_test("ar", all_systems, references, target_language)
        for ours, theirs in zip(found, randomized, strict=True):
            ours |= {key: replace(ours[key], randomization_p_value=theirs[key].p_value) for key in ours}
    return found


def _run_test(
    kind: Literal["bs", "ar"],
    systems: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    target_language: str | None,
) -> list[dict[str, Comparison]]:
    metrics = make_metrics(target_language)
    named = [(str(number), hypotheses) for number, hypotheses in enumerate(systems)]
    samples = NUM_RESAMPLES if kind == "bs" else 0  # 0: sacreBLEU's default, 10,000
    test = PairedTest(named, metrics, references, test_type=kind, n_samples=samples)
    signatures, results = test()
    # sacreBLEU uses its own names ("chrF2"), in the order of `metrics`.
    keys = dict(zip(signatures, metrics, strict=True))
    return [
        {
            key: _make_comparison(results[name][number], str(signatures[name]), HIGHEST[key])
            for name, key in keys.items()
        }
        for number in range(len(systems))
    ]


def _make_comparison(result: Result | str, signature: str, highest: float) -> Comparison:
    assert isinstance(result, Result)  # for the type checker
    interval = None
    if result.mean is not None and result.ci is not None:
        interval = make_interval(result.mean, result.ci, highest)
    return Comparison(Score(float(result.score), signature, interval), result.p_value)
