"""Significance tests: is one translator better than another, or is the test set too small to tell?

These are the paired bootstrap (Koehn 2004), with the same resamples of the test set for both systems, and approximate
randomization (Riezler and Maxwell 2005), which exchanges their translations of random sentences. The numbers are those
of `sacrebleu REFERENCES -i BASELINE SYSTEM… -m bleu chrf ter --paired-bs` and `--paired-ar`, including the effect of
the environment variable SACREBLEU_SEED, except for ties. sacreBLEU counts only differences above the real one, which
gives the lowest p-value of all to systems that are equal, or that differ in a single sentence. Here a difference as
large as the real one counts too, as in the papers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import estimate_ci

from nmt.evaluation.metrics import (
    HIGHEST,
    Score,
    check_pairs,
    compute_score,
    extract_statistics,
    make_interval,
    make_metrics,
    make_resamples_signature,
    read_seed,
    resample_scores,
)

NUM_EXCHANGES = 10_000  # as `sacrebleu --paired-ar`
BLOCK = 64  # exchanges that are drawn at once; sacreBLEU's are the same as long as it is a multiple of 32
ROUNDING = 1e-9  # sums in another order; scores are in percent


@dataclass(frozen=True)
class Comparison:
    """A system's score, compared with that of the baseline."""

    score: Score
    p_value: float | None
    """Probability of a difference at least this large if both systems were equally good (two-sided); None for the
    baseline itself."""
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
    for hypotheses in (baseline, *systems):
        check_pairs(hypotheses, references)
    # Without a seed, all systems still need the same resamples.
    seed = read_seed()
    entropy = int(np.random.default_rng().integers(1 << 62)) if seed is None else seed
    found: list[dict[str, Comparison]] = [{} for _ in range(1 + len(systems))]
    for name, metric in make_metrics(target_language).items():
        statistics = [extract_statistics(metric, hypotheses, references) for hypotheses in (baseline, *systems)]
        signature = make_resamples_signature(metric, seed)
        scores = [compute_score(metric, one.sum(axis=0)) for one in statistics]
        resamples = [resample_scores(metric, one, entropy) for one in statistics]
        for number, record in enumerate(found):
            interval = make_interval(*estimate_ci(resamples[number]), HIGHEST[name])
            record[name] = Comparison(Score(scores[number], signature, interval), None)
            if number:
                difference = abs(scores[number] - scores[0])
                differences = np.abs(resamples[number] - resamples[0])
                p_value = _count_extreme(differences - differences.mean(), difference)
                record[name] = replace(record[name], p_value=p_value)
                if randomize:
                    exchanged = _exchange(metric, statistics[0], statistics[number], entropy)
                    p_value = _count_extreme(exchanged, difference)
                    record[name] = replace(record[name], randomization_p_value=p_value)
    return found


def _exchange(metric: Metric, baseline: np.ndarray, system: np.ndarray, seed: int) -> np.ndarray:
    """Exchanges the translations of random sentences.

    Args:
        metric: computes scores.
        baseline: counts of the baseline's N translations, [N, D].
        system: those of the system's.
        seed: of the choice of sentences.

    Returns:
        The absolute difference of the two scores after each exchange: float64 [NUM_EXCHANGES].
    """
    random, total = np.random.default_rng(seed), (baseline + system).sum(axis=0)
    differences = []
    for start in range(0, NUM_EXCHANGES, BLOCK):
        chosen = random.integers(2, size=(min(BLOCK, NUM_EXCHANGES - start), len(baseline)), dtype=bool)
        for ours in system.sum(axis=0) + chosen @ (baseline - system):
            differences.append(abs(compute_score(metric, ours) - compute_score(metric, total - ours)))
    return np.array(differences)


def _count_extreme(found: np.ndarray, difference: float) -> float:
    """Returns the share of random differences that are at least as large as the real one, which is one of them."""
    return (int(np.sum(found > difference - ROUNDING)) + 1) / (len(found) + 1)
