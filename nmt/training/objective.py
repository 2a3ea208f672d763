"""The training objective: from a batch and a model to the summed loss, the token count and the numbers to log.

Both backends, all strategies and validation call `Objective`. A new loss term is a function here, a field of
`Objective` and a key of the configuration. Whatever it adds to `Sums.metrics` reaches the history, the log and
TensorBoard by its name, without being listed anywhere else.

B sentences, S and T source and target positions, N = B T, E units of an attentional state, V tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import keras, ops
from nmt.compilation import batch_gather, gather_rows
from nmt.config.schema import ConsistencyKind, TrainingConfig
from nmt.data.batching import Batch
from nmt.data.tokenizer import BOS_ID, EOS_ID, PAD_ID
from nmt.models.decoder import shift_right
from nmt.models.direction import reverse_targets
from nmt.models.embedding import Embedding, OutputProjection
from nmt.models.layers import at_least_float32
from nmt.models.seq2seq import Seq2Seq


class Examples(NamedTuple):
    """The arrays of a batch that the objective reads. The first axis of each is the sentence pairs.

    Updates slice all of them alike into micro-batches and shares of devices, whatever their number. An array that a new
    loss term needs is one more field, with its type in `EXAMPLE_TYPES`.
    """

    source: Any
    """int32 [B, S]."""
    target: Any
    """int32 [B, T], each row ended by EOS."""
    weights: Any = None
    """float32 [B], 0 for rows that only fill the batch up; None weighs all rows alike."""
    alignment: Any = None
    """float32 [B, T, S], what the attention of each target token should be, in rows that sum to 1 or 0; None without
    guided alignment."""

    @classmethod
    def from_batch(cls, batch: Batch) -> "Examples":
        """Returns the arrays of a batch."""
        return cls(batch.source, batch.target, batch.weights, batch.alignment)

    @property
    def arrays(self) -> list[Any]:
        """The arrays that exist. `Examples(*arrays)` rebuilds this object if nothing but the alignment is missing."""
        return [array for array in self if array is not None]

    def map(self, function: Callable[[Any], Any]) -> "Examples":
        """Returns the examples with a function applied to each array that exists."""
        return Examples(*(array if array is None else function(array) for array in self))


EXAMPLE_TYPES = Examples(source=("int32", 2), target=("int32", 2), weights=("float32", 1), alignment=("float32", 3))
"""Type and number of axes of each array."""
# Attention weights below this have no gradient. That of the logarithm of 0 would be infinite.
SMALLEST_ATTENTION = 1e-9


class Sums(NamedTuple):
    """Sums over the target tokens of some examples: those of micro-batches, devices and workers add up."""

    loss: Any
    """The scalar to be minimised, in nats."""
    num_tokens: Any
    """Target tokens that count: EOS does, padding and filling rows do not."""
    metrics: dict[str, Any]
    """Other scalars to log by name; like the loss, they are divided by the number of tokens."""
    pair_losses: Any = ()
    """[B], the weighted negative log-likelihood of each row in nats, or nothing."""


@dataclass(frozen=True)
class Objective:
    """What training minimises. With its defaults it is the negative log-likelihood, by which validation scores.

    Args:
        label_smoothing: probability mass spread evenly over the vocabulary, from 0 to below 1.
        banned_ids: tokens that get no share of that mass.
        consistency: weight of the divergence of two readings of each pair, alpha of the papers; 0 reads each pair once.
        consistency_kind: r_drop (Liang et al. 2021) or simcut (Gao et al. 2022), whose cut tokens are those of the
            embeddings' word dropout.
        guided_alignment: weight of the cross-entropy between the alignment of the examples and the attention (Chen et
            al. 2016); 0 needs no alignment.
        pair_losses: whether to sum up the negative log-likelihood of each pair as well. No gradient depends on it.
    """

    label_smoothing: float = field(default=0.0, kw_only=True)
    banned_ids: tuple[int, ...] = field(default=(), kw_only=True)
    consistency: float = field(default=0.0, kw_only=True)
    consistency_kind: ConsistencyKind = field(default="r_drop", kw_only=True)
    guided_alignment: float = field(default=0.0, kw_only=True)
    pair_losses: bool = field(default=False, kw_only=True)

    @classmethod
    def from_config(cls, settings: TrainingConfig, banned_ids: Sequence[int] = ()) -> "Objective":
        """Returns the objective of a configuration.

        Args:
            settings: the section `training`.
            banned_ids: target tokens that are never produced.
        """
        return cls(
            label_smoothing=settings.label_smoothing,
            banned_ids=tuple(banned_ids) if settings.label_smoothing_over == "producible" else (),
            consistency=settings.consistency,
            consistency_kind=settings.consistency_kind,
            guided_alignment=settings.guided_alignment,
            pair_losses=settings.keep_pair_losses,
        )

    @property
    def example_types(self) -> Examples:
        """Type and number of axes of each array that the objective reads."""
        return EXAMPLE_TYPES if self.guided_alignment else EXAMPLE_TYPES._replace(alignment=None)

    def make_empty_examples(self, rows: int, source_length: int, target_length: int) -> Examples:
        """Returns arrays of the shapes of such a batch, with arbitrary values."""
        lengths = Examples((source_length,), (target_length,), (), (target_length, source_length))
        types = self.example_types.arrays
        return Examples(*(np.empty((rows, *n), dtype) for n, (dtype, _) in zip(lengths, types, strict=False)))

    def __call__(self, model: Seq2Seq, examples: Examples, *, training: bool = False) -> Sums:
        """Runs the model on examples, reading the target by teacher forcing.

        It runs the model itself, so that a term may read the outputs of two passes.

        Args:
            model: the model to train or score.
            examples: rows of a batch.
            training: whether dropout is on.
        """
        source, target, weights, alignment = examples
        if model.right_to_left:
            if self.guided_alignment:
                alignment = reverse_targets(target, alignment)
            target = reverse_targets(target)
        counts = ops.cast(ops.not_equal(target, PAD_ID), "float32")
        if weights is not None:
            counts = counts * weights[:, None]
        if self.consistency:
            return self._compare_readings(model, source, target, counts, alignment, training)
        decoded = model(source, shift_right(target, BOS_ID), training=training)
        arrays = model.projection, decoded.states, target, counts
        loss, nll, costs = cross_entropy(*arrays, label_smoothing=self.label_smoothing, banned_ids=self.banned_ids)
        metrics = {"nll": nll}
        if self.guided_alignment:
            metrics["alignment"] = compare_attention(decoded.attention_weights, alignment, counts)
            loss = loss + self.guided_alignment * metrics["alignment"]
        return Sums(loss, ops.sum(counts), metrics, self._sum_by_pair(costs, target))

    def _sum_by_pair(self, costs: Any, target: Any, num_losses: int = 1) -> Any:
        """Returns the mean over readings of the costs of each row of the target [B, T]: [B], or () if not wanted."""
        if not self.pair_losses:
            return ()
        readings = ops.reshape(costs, (-1, *ops.shape(target)))  # [R * B * T] -> [R, B, T]
        return ops.sum(readings, axis=(0, 2)) / num_losses

    def _compare_readings(
        self, model: Seq2Seq, source: Any, target: Any, counts: Any, alignment: Any, training: bool
    ) -> Sums:
        """Does what a call does, with two readings of each pair."""
        # Both readings of a pair are rows of one batch, so that the recurrence takes no more steps than for one.
        sources, targets = (ops.concatenate([rows, rows], axis=0) for rows in (source, target))
        before = shift_right(targets, BOS_ID)
        is_r_drop = self.consistency_kind == "r_drop"
        word_masks: tuple[Any, Any] = (None, None)
        if training and not is_r_drop:
            word_masks = _cut(model.source_embedding, sources, EOS_ID), _cut(model.target_embedding, before, BOS_ID)
        decoded = model(sources, before, training=training, word_masks=word_masks)
        # SimCut trains on the first reading alone.
        both_counts = ops.concatenate([counts, counts if is_r_drop else ops.zeros_like(counts)], axis=0)
        loss, nll, divergence, costs = compute_consistency(
            model.projection,
            decoded.states,
            targets,
            both_counts,
            label_smoothing=self.label_smoothing,
            banned_ids=self.banned_ids,
            kind=self.consistency_kind,
        )
        # R-Drop adds up the losses of both readings. Half of that keeps the scale of one reading, and the published
        # meaning of alpha.
        num_losses = 2 if is_r_drop else 1
        loss = (loss + self.consistency * divergence) / num_losses
        metrics = {"nll": nll / num_losses, "divergence": divergence}
        if self.guided_alignment:
            alignments = ops.concatenate([alignment, alignment], axis=0)
            metrics["alignment"] = compare_attention(decoded.attention_weights, alignments, both_counts) / num_losses
            loss = loss + self.guided_alignment * metrics["alignment"]
        return Sums(loss, ops.sum(counts), metrics, self._sum_by_pair(costs, target, num_losses))


def _cut(embedding: Embedding, ids: Any, kept_id: int) -> Any:
    """Draws which tokens the second reading of each pair lacks (token cutoff, as in the code of Gao et al. 2022).

    Args:
        embedding: its word dropout decides which ones.
        ids: int [2B, T], those of all rows, twice.
        kept_id: the token that is never cut.

    Returns:
        [2B, T, 1]: 0 for cut tokens and else 1, because the other vectors are not scaled.
    """
    mask = embedding.draw_word_mask(ids, training=True)
    is_first = ops.arange(ops.shape(ids)[0]) < ops.shape(ids)[0] // 2
    is_kept = ops.logical_or(ops.equal(ids, kept_id), is_first[:, None])[..., None]
    return ops.cast(ops.logical_or(is_kept, ops.not_equal(mask, 0)), mask.dtype)


def compare_attention(attention_weights: Any, alignment: Any, weights: Any) -> Any:
    """Sums the cross-entropy between an alignment and the attention (Chen et al. 2016, section 3).

    Args:
        attention_weights: [B, T, S], rows that sum to 1.
        alignment: [B, T, S], the target distribution of each row. A row of zeros adds nothing.
        weights: [B, T], as in `cross_entropy`.

    Returns:
        A scalar in nats, the sum over the target tokens that have an alignment.
    """
    logs = ops.log(ops.maximum(attention_weights, SMALLEST_ATTENTION))
    wanted = ops.cast(alignment, logs.dtype) * ops.cast(weights, logs.dtype)[..., None]
    return -ops.sum(wanted * logs)


def cross_entropy(
    projection: OutputProjection,
    states: Any,
    targets: Any,
    weights: Any,
    *,
    label_smoothing: float,
    banned_ids: Sequence[int] = (),
) -> tuple[Any, Any, Any]:
    """Sums the cross-entropy over the target tokens that count.

    The smoothed loss is nll + s (logit of the target - mean logit), where s is the mass, spread over the tokens of the
    mean (Szegedy et al. 2016). The bracket is computed from the states, without an array of the vocabulary's size.

    Args:
        projection: the model's output projection.
        states: attentional states [B, T, E].
        targets: int [B, T], the tokens to predict, each row ended by EOS.
        weights: float [B, T], 1 where a token counts and 0 elsewhere.
        label_smoothing: mass spread evenly over the vocabulary, from 0 to below 1.
        banned_ids: tokens that get no share of that mass. None of them may be a target that counts.

    Returns:
        The smoothed loss and the plain negative log-likelihood, each a scalar sum in nats, and the terms [N] of the
        latter.
    """
    costs = _softmax_nll(*_flatten(projection, states, targets))
    weights = ops.cast(weights, costs.dtype)
    weighted = costs * ops.reshape(weights, (-1,))
    nll = ops.sum(weighted)
    return _smooth(nll, projection, states, targets, weights, label_smoothing, banned_ids), nll, weighted


def compute_consistency(
    projection: OutputProjection,
    states: Any,
    targets: Any,
    weights: Any,
    *,
    label_smoothing: float,
    banned_ids: Sequence[int] = (),
    kind: ConsistencyKind,
) -> tuple[Any, Any, Any, Any]:
    """Sums the cross-entropy of a batch that holds every row twice, and how far the two predictions are apart.

    Args:
        projection: the model's output projection.
        states: attentional states [2B, T, E], those of all rows and once more, with other dropout, those of all rows.
        targets: int [2B, T], as in `cross_entropy`.
        weights: float [2B, T], as in `cross_entropy`. Those of the first B rows also weigh the divergences.
        label_smoothing, banned_ids: as in `cross_entropy`.
        kind: of divergence. With P predicted by the first B rows and Q by the others, r_drop is the mean of KL(P || Q)
            and KL(Q || P) (Liang et al. 2021, equation 2), and simcut is KL(P || Q) (Gao et al. 2022), in which both
            have a gradient.

    Returns:
        The smoothed loss and the plain negative log-likelihood, both summed over the 2B rows, and the divergence,
        summed over B rows; scalars in nats. Then the terms [2N] of the negative log-likelihood.
    """
    costs = _softmax_nll_twice(*_flatten(projection, states, targets), kind)
    weights = ops.cast(weights, costs.dtype)
    flat = ops.reshape(weights, (-1,))
    num = ops.shape(flat)[0]
    weighted = costs[:num] * flat
    nll = ops.sum(weighted)
    divergence = ops.sum(costs[num:] * flat[: num // 2])
    loss = _smooth(nll, projection, states, targets, weights, label_smoothing, banned_ids)
    return loss, nll, divergence, weighted


def _flatten(projection: OutputProjection, states: Any, targets: Any) -> tuple[Any, Any, Any, Any]:
    """Returns states [N, E], the output matrix [V, E] in their type, the bias [V], and targets [N]."""
    matrix = ops.cast(ops.copy(projection.matrix), states.dtype)
    rows = ops.reshape(states, (-1, states.shape[-1]))  # [B, T, E] -> [N, E]
    return rows, matrix, ops.copy(projection.bias), ops.reshape(targets, (-1,))


def _smooth(
    nll: Any,
    projection: OutputProjection,
    states: Any,
    targets: Any,
    weights: Any,
    mass: float,
    banned_ids: Sequence[int],
) -> Any:
    """Adds label smoothing to the sum of negative log-likelihoods."""
    if not mass:
        return nll
    towards_even = projection.gather_logits(states, targets) - projection.compute_mean_logit(states, banned_ids)
    return nll + mass * ops.sum(towards_even * weights)


@ops.custom_gradient
def _softmax_nll(states: Any, matrix: Any, bias: Any, targets: Any) -> Any:
    """Returns the negative log-likelihoods [N] of targets [N] under softmax(states matrix' + bias).

    The vocabulary is by far the widest axis of the model, and every pass over [N, V] costs as much as a matrix product.
    So the probabilities are the only such array kept: weights scale the narrow side of the products, and the target's
    own term of the gradient is looked up. TensorFlow's fused cross-entropy takes five times as long on a CPU.

    Args:
        states: [N, E].
        matrix: [V, E].
        bias: [V].
        targets: int [N].
    """
    probabilities = ops.softmax(ops.matmul(states, ops.transpose(matrix)) + ops.cast(bias, states.dtype))
    nll = _negate_log(probabilities, states, matrix, bias, targets)

    def gradient(*args: Any, upstream: Any = None) -> Any:
        weights = ops.cast(args[0] if upstream is None else upstream, states.dtype)[:, None]
        weighted = states * weights
        d_states = (ops.matmul(probabilities, matrix) - gather_rows(matrix, targets)) * weights
        transposed = ops.transpose(probabilities)
        d_matrix = ops.matmul(transposed, weighted) - _sum_by_id(targets, weighted, matrix.shape[0])
        # A row, not a column: TensorFlow 2.20 returns NaN for bfloat16 products with one column on CPUs with AMX.
        d_bias = ops.matmul(ops.transpose(weights), probabilities)
        d_bias = d_bias[0] - _sum_by_id(targets, weights, matrix.shape[0])[:, 0]
        return d_states, d_matrix, ops.cast(d_bias, bias.dtype), None

    return nll, gradient


def _softmax_nll_twice(states: Any, matrix: Any, bias: Any, targets: Any, kind: ConsistencyKind) -> Any:
    """Returns what `_softmax_nll` does for [2N] rows, and how far the N first distributions P are from the N last, Q.

    With d = (s_P - s_Q) W', log(P / Q) = d - c, where c is the same for all tokens. One more product loses less in 16
    bits than logarithms of rounded probabilities.

        KL(P || Q) = sum P d - c                         d / d(logits of P) = P (d - sum P d), of Q: Q - P
        KL(P || Q) + KL(Q || P) = sum (P - Q) d          d / d(logits of P) = P (d - sum P d) + P - Q, of Q: its mirror

    Returns:
        [3N]: the 2N negative log-likelihoods, then the N divergences (see `compute_consistency`).
    """
    is_symmetric = kind == "r_drop"

    @ops.custom_gradient
    def compute(states: Any, matrix: Any, bias: Any, targets: Any) -> Any:
        num = ops.shape(states)[0] // 2
        columns = ops.transpose(matrix)
        probabilities = ops.softmax(ops.matmul(states, columns) + ops.cast(bias, states.dtype))
        difference = ops.matmul(states[:num] - states[num:], columns)
        nll = _negate_log(probabilities, states, matrix, bias, targets)
        first, second = probabilities[:num], probabilities[num:]
        if is_symmetric:
            divergence = ops.sum(at_least_float32(first - second) * at_least_float32(difference), axis=-1) / 2
        else:
            # c = d - log(P / Q), here for the target. In 16 bits, nll is rounded: a small KL(P || Q) may be negative.
            rows = at_least_float32(gather_rows(matrix, targets[:num]))
            at_target = ops.sum(at_least_float32(states[:num] - states[num:]) * rows, axis=-1)
            constant = at_target + nll[:num] - nll[num:]
            divergence = ops.sum(at_least_float32(first) * at_least_float32(difference), axis=-1) - constant

        def gradient(*args: Any, upstream: Any = None) -> Any:
            upstream = ops.cast(args[0] if upstream is None else upstream, states.dtype)
            weights, share = upstream[: 2 * num, None], upstream[2 * num :, None]
            apart = first - second
            to_first = first * (difference - ops.sum(first * difference, axis=-1, keepdims=True))
            to_second = -apart
            if is_symmetric:
                share = share / 2
                to_first = to_first + apart
                to_second = second * (ops.sum(second * difference, axis=-1, keepdims=True) - difference) - apart
            d_logits = probabilities * weights + ops.concatenate([share * to_first, share * to_second], axis=0)
            d_states = ops.matmul(d_logits, matrix) - gather_rows(matrix, targets) * weights
            d_matrix = ops.matmul(ops.transpose(d_logits), states)
            d_matrix = d_matrix - _sum_by_id(targets, states * weights, matrix.shape[0])
            d_bias = ops.matmul(ops.ones_like(weights[:, 0])[None], d_logits)[0]
            d_bias = d_bias - _sum_by_id(targets, weights, matrix.shape[0])[:, 0]
            return d_states, d_matrix, ops.cast(d_bias, bias.dtype), None

        return ops.concatenate([nll, ops.cast(divergence, nll.dtype)], axis=0), gradient

    return compute(states, matrix, bias, targets)


def _negate_log(probabilities: Any, states: Any, matrix: Any, bias: Any, targets: Any) -> Any:
    """Returns -log of the probabilities [N, V] of targets [N], at least float32 [N].

    A probability loses its digits below the smallest normal number of its type, from 87 nats on, in float16 from 10 on.
    Only if that happens in a batch, these are computed from the logits, with a second pass over [N, V].
    """
    smallest = 2.0**-14 if keras.backend.standardize_dtype(probabilities.dtype) == "float16" else 2.0**-126

    def gather(ids: Any) -> Any:
        return at_least_float32(batch_gather(probabilities, ids[:, None]))[:, 0]

    def score(ids: Any) -> Any:
        rows, biases = (at_least_float32(gather_rows(weight, ids)) for weight in (matrix, bias))
        return ops.sum(at_least_float32(states) * rows, axis=-1) + biases

    chosen = gather(targets)
    nll = -ops.log(ops.maximum(chosen, smallest))

    def compute_from_logits() -> Any:
        # The probability of the best token never underflows.
        best = ops.cast(ops.argmax(probabilities, axis=-1), targets.dtype)
        return ops.where(chosen < smallest, score(best) - score(targets) - ops.log(gather(best)), nll)

    return ops.cond(ops.any(chosen < smallest), compute_from_logits, lambda: nll)


def _sum_by_id(ids: Any, rows: Any, num_ids: int) -> Any:
    """Adds up rows [N, E] that have the same id [N]: [num_ids, E]."""
    return ops.cast(ops.segment_sum(at_least_float32(rows), ids, num_segments=num_ids), rows.dtype)
