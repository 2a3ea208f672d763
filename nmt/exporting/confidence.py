"""Confidence in the graph of an export: what `nmt.translators.confidence` does in Python, in TensorFlow.

N texts of a request, n hypotheses per text, P points of the fitted curve.
"""

import re
from collections.abc import Sequence
from typing import Any

from nmt.process import silence_stderr
from nmt.translators.confidence import Confidence

with silence_stderr():
    import tensorflow as tf


def estimate_confidence(
    fitted: Confidence, source: Any, texts: Any, log_probs: Any, finished: Any, *, tags: Sequence[str] = ()
) -> Any:
    """Returns the confidence in translations, float32 [N, n]; see `Confidence.estimate`.

    Args:
        fitted: the curve.
        source: string [N], the texts.
        texts: string [N, n], their translations.
        log_probs: float32 [N, n].
        finished: bool [N, n]. What is not finished has the lowest confidence.
        tags: symbols by which a source may begin. They do not count.
    """
    source_length = _count_characters(remove_tags(source, tags))[:, None] + 1
    length = _count_characters(texts) + 1
    distance = tf.abs(tf.math.log(length / source_length) - fitted.length_ratio)
    total = fitted.weights[0] * log_probs / length + fitted.weights[1] * distance
    sums, values = (tf.constant(points, tf.float32) for points in (fitted.sums, fitted.values))
    after = tf.reshape(tf.searchsorted(sums, tf.reshape(total, [-1]), side="right"), tf.shape(total))
    low, high = tf.maximum(after - 1, 0), tf.minimum(after, len(fitted.sums) - 1)
    width = tf.gather(sums, high) - tf.gather(sums, low)
    share = tf.math.divide_no_nan(total - tf.gather(sums, low), width)
    estimate = tf.gather(values, low) + share * (tf.gather(values, high) - tf.gather(values, low))
    return tf.where(finished, estimate, values[0])


def remove_tags(source: Any, tags: Sequence[str]) -> Any:
    """Returns texts [N] without the tags by which they begin; see `nmt.translators.protocol.split_tag`."""
    if not tags:
        return source
    either = "|".join(map(re.escape, sorted(tags, key=len, reverse=True)))
    return tf.strings.regex_replace(source, rf"^\s*(?:{either})\s*", "", replace_global=False)


def _count_characters(texts: Any) -> Any:
    return tf.cast(tf.strings.length(texts, unit="UTF8_CHAR"), tf.float32)
