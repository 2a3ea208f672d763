"""Sampling: draws tokens at random from the probabilities of a model.

Random numbers are a function of the seed, the source, the number of the sample and the position in the translation. The
samples of a sentence therefore do not depend on the rest of the batch or, with the same weights, on the backend.

B sentences, n samples of each, N slots that take a step, V tokens in the vocabulary, W of them to choose from.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nmt.backend import ops
from nmt.compilation import batch_gather, gather_rows
from nmt.config.schema import SearchSettings
from nmt.decoding.beam_search import IMPOSSIBLE, Draw, choose_chunk, is_one, is_zero, top_k


def make_draw(
    source: Any,
    *,
    num_samples: int,
    settings: SearchSettings,
    banned_ids: Sequence[int],
    eos_id: int,
    top_k_bound: int | None = None,
    is_normalized: bool = False,
) -> Draw:
    """Returns the function that draws the next token of every slot.

    A token is drawn from the probabilities to the power of 1 / temperature, of the top_k most likely ones (Fan et al.
    2018), and of these the fewest whose probabilities reach top_p (Holtzman et al. 2020). Its log-probability is the
    model's, whatever the temperature.

    Args:
        source: int32 [B, S], each row ended by EOS and padded with 0.
        num_samples: n. Row b * n + i of the search is sample i of sentence b.
        settings: temperature, top_k, top_p, seed and minimum length; numbers may be scalar tensors.
        banned_ids: ids that are never drawn.
        eos_id: not drawn before the minimum length.
        top_k_bound: a number that top_k does not exceed, if top_k is a tensor.
        is_normalized: see `beam_search`.
    """
    keys = hash_rows(source, settings.seed)
    keys = _mix(ops.repeat(keys, num_samples) + _mix(_number(ops.shape(source)[0] * num_samples) % num_samples))
    is_narrowed = not (is_zero(settings.top_k) and is_one(settings.top_p))

    def draw(logits: Any, rows: Any, positions: Any) -> tuple[Any, Any]:
        its_keys = gather_rows(keys, rows)
        scores = _exclude(logits, positions, banned_ids, eos_id, settings)
        ids = None
        if is_narrowed:
            size = logits.shape[-1]
            width = settings.top_k if isinstance(settings.top_k, int) else top_k_bound
            scores, ids = top_k(scores, min(width or size, size))
        # The best token has weight 1, so that there is no overflow.
        weights = ops.exp((scores - ops.max(scores, axis=1, keepdims=True)) / settings.temperature)
        if is_narrowed:
            weights = _narrow(weights, settings)
        chosen = choose_weighted(weights, *(_draw_uniform(its_keys, 2 * positions + n) for n in range(2)))
        chosen = chosen[:, None] if ids is None else batch_gather(ids, chosen[:, None])
        total = 0.0 if is_normalized else ops.logsumexp(logits, axis=1, keepdims=True)
        return ops.cast(chosen, "int32"), batch_gather(logits, chosen) - total

    return draw


def choose_weighted(weights: Any, first: Any, second: Any) -> Any:
    """Returns an index for each row of weights [N, W]: each with a probability in proportion to its weight.

    Args:
        weights: of 0 or more, not all 0. An index with weight 0 is never chosen.
        first, second: uniform in [0, 1), float32 [N].
    """
    # First a chunk of neighbours, then one of these: one sum over all would take longer and lose precision.
    size = weights.shape[1]
    chunk = choose_chunk(size)
    if chunk in (1, size):
        return _choose(weights, first)
    chunks = ops.reshape(weights, (-1, size // chunk, chunk))
    chosen = _choose(ops.sum(chunks, axis=-1), first)
    return chosen * chunk + _choose(batch_gather(chunks, chosen[:, None])[:, 0], second)


def hash_rows(source: Any, seed: Any) -> Any:
    """Returns a number for each row of ids [B, S], int32 [B]: a hash of its ids, in order, and the seed.

    Padding, which is 0, changes nothing.
    """
    mixed = _mix(ops.bitwise_xor(source, _mix(_number(ops.shape(source)[1]) + 1)))
    rows = ops.sum(ops.where(source != 0, mixed, 0), axis=1)
    return _mix(ops.bitwise_xor(rows, _mix(ops.cast(seed, "int32"))))


def _exclude(logits: Any, positions: Any, banned_ids: Sequence[int], eos_id: int, settings: SearchSettings) -> Any:
    """Makes banned ids impossible, and EOS before the minimum length."""
    penalties = np.zeros(logits.shape[-1], "float32")
    penalties[list(banned_ids)] = 2 * IMPOSSIBLE
    scores = logits + penalties
    if is_zero(settings.min_length):
        return scores
    is_eos = np.arange(logits.shape[-1]) == eos_id
    is_early_end = ops.logical_and(is_eos, (positions < settings.min_length)[:, None])
    return ops.where(is_early_end, 2 * IMPOSSIBLE, scores)


def _narrow(weights: Any, settings: SearchSettings) -> Any:
    """Makes 0 what top_k and top_p exclude of weights [N, W], best first."""
    if not is_zero(settings.top_k):
        weights = ops.where(ops.arange(weights.shape[1], dtype="int32") < settings.top_k, weights, 0.0)
    if not is_one(settings.top_p):
        before = ops.cumsum(weights, axis=1) - weights
        weights = ops.where(before < settings.top_p * ops.sum(weights, axis=1, keepdims=True), weights, 0.0)
    return weights


def _choose(weights: Any, points: Any) -> Any:
    ends = ops.cumsum(weights, axis=1)
    is_beyond = ops.logical_and(ends > points[:, None] * ends[:, -1:], weights > 0)
    return ops.cast(ops.argmax(ops.cast(is_beyond, "float32"), axis=1), "int32")  # the first one


def _draw_uniform(keys: Any, counters: Any) -> Any:
    """Returns numbers in [0, 1), float32 [N], that depend on a key and a counter, both int32 [N]."""
    bits = _mix(ops.bitwise_xor(keys, _mix(counters)))
    return ops.cast(_shift_right(bits, 8), "float32") * 2.0**-24


def _mix(x: Any) -> Any:
    """Hashes int32 numbers: lowbias32 (https://nullprogram.com/blog/2018/07/31), a bijection of 32 bits.

    The arithmetic wraps around. It is signed, since not all devices multiply unsigned numbers.
    """
    x = ops.bitwise_xor(x, _shift_right(x, 16)) * 0x7FEB352D
    x = ops.bitwise_xor(x, _shift_right(x, 15)) * (0x846CA68B - (1 << 32))
    return ops.bitwise_xor(x, _shift_right(x, 16))


def _shift_right(x: Any, places: int) -> Any:
    """Shifts int32 numbers as if they were unsigned."""
    return ops.bitwise_and(ops.right_shift(x, places), (1 << (32 - places)) - 1)


def _number(count: Any) -> Any:
    return ops.arange(count, dtype="int32")
