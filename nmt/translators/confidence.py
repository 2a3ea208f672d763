"""Estimates the confidence in a translation: its expected sentence-level chrF divided by 100, a number from 0 to 1.

Isotonic regression (Zadrozny and Elkan 2002) maps a weighted sum of a few features of the search to the chrF of dev
translations with the same sum. `nmt.evaluation.calibration` fits both.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nmt.errors import UserError
from nmt.translators.hypothesis import Hypothesis

FEATURES = ("log_prob", "length_ratio")


@dataclass(frozen=True)
class Confidence:
    """The fitted weights and curve.

    Args:
        length_ratio: logarithm of the typical number of characters of a translation per character of its source.
        weights: of FEATURES, in this order.
        sums: increasing weighted sums of the features.
        values: the expected chrF / 100 at each of them, not decreasing; between them it is interpolated.
        sentences: number of dev sentences that they were fitted on.
    """

    length_ratio: float
    weights: Sequence[float]
    sums: Sequence[float]
    values: Sequence[float]
    sentences: int

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None, origin: object) -> "Confidence | None":
        """Reads the numbers that are stored with a model or an export; None if there are none.

        Raises:
            UserError: they are damaged.
        """
        if record is None:
            return None
        try:
            read = cls(**record)
            numbers = [read.length_ratio, *read.weights, *read.sums, *read.values]
            is_valid = all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)
            if not is_valid or len(read.weights) != len(FEATURES) or not len(read.sums) == len(read.values) > 0:
                raise ValueError(f"expected {len(FEATURES)} weights and as many sums as values")
        except (TypeError, ValueError) as error:
            raise UserError(
                f"The confidence stored in {origin} is damaged: {error}. Remove it there, then run nmt calibrate."
            ) from error
        return read

    def estimate(self, source: str, hypothesis: Hypothesis) -> float:
        """Returns the confidence in a translation of a text.

        Args:
            source: the text without its tag.
            hypothesis: its translation. Only features that models and exports both return are read.
        """
        if hypothesis.is_finished is False:
            return self.values[0]  # dev text has too few of these to fit a weight
        features = measure_features(source, hypothesis, self.length_ratio)
        total = math.fsum(weight * feature for weight, feature in zip(self.weights, features, strict=True))
        after = bisect_right(self.sums, total)
        if after in (0, len(self.sums)):
            return self.values[max(0, after - 1)]
        (low, high), (bottom, top) = self.sums[after - 1 : after + 1], self.values[after - 1 : after + 1]
        return bottom + (top - bottom) * (total - low) / (high - low)


def measure_features(source: str, hypothesis: Hypothesis, length_ratio: float) -> tuple[float, float]:
    """Returns FEATURES of a translation.

    Args:
        source: the text without its tag.
        hypothesis: its translation.
        length_ratio: see `Confidence`.

    Returns:
        Log-probability (nats) per character, and distance of the length from the typical one.
    """
    # Per character rather than per token, since an export may return the text alone.
    per_character = hypothesis.log_prob / (len(hypothesis.text) + 1)
    return per_character, abs(measure_length_ratio(source, hypothesis.text) - length_ratio)


def measure_length_ratio(source: str, target: str) -> float:
    """Returns the logarithm of the number of target characters per source character; both count one more."""
    return math.log((len(target) + 1) / (len(source) + 1))
