"""The training loss: label-smoothed cross-entropy, summed over real target pieces.

B sentences, T target positions, N positions of all sentences, E units of an attentional state, V pieces.
"""

from typing import Any

from nmt.backend import ops
from nmt.compilation import lookup, pick
from nmt.models.embedding import OutputProjection
from nmt.models.layers import exact


def cross_entropy(
    projection: OutputProjection, states: Any, targets: Any, weights: Any, *, label_smoothing: float
) -> tuple[Any, Any]:
    """Sums the loss over the target pieces that count.

    The smoothed loss is nll + s (logit of the target - mean logit), s being the mass spread over all V pieces (Szegedy
    et al. 2016). The bracket comes from the states directly, so that nothing of the vocabulary's size is made for it.

    Args:
        projection: the model's output projection.
        states: attentional states [B, T, E].
        targets: int [B, T], the pieces to predict, each row ended by EOS.
        weights: float [B, T], 1 where a piece counts and 0 elsewhere.
        label_smoothing: mass spread evenly over the vocabulary, from 0 to below 1.

    Returns:
        The smoothed loss and the plain negative log-likelihood, each a scalar sum in nats.
    """
    matrix = ops.cast(ops.copy(projection.matrix), states.dtype)
    rows = ops.reshape(states, (-1, states.shape[-1]))  # [B, T, E] -> [N, E]
    nll = _softmax_nll(rows, matrix, ops.copy(projection.bias), ops.reshape(targets, (-1,)))
    weights = ops.cast(weights, nll.dtype)
    nll = ops.sum(nll * ops.reshape(weights, (-1,)))
    if not label_smoothing:
        return nll, nll
    towards_even = (projection.logits_of(states, targets) - projection.mean_logit(states)) * weights
    return nll + label_smoothing * ops.sum(towards_even), nll


def shifted_right(targets: Any, bos_id: int) -> Any:
    """What the decoder reads to predict targets [B, T]: BOS, then all but the last."""
    return ops.concatenate([ops.full_like(targets[:, :1], bos_id), targets[:, :-1]], axis=1)


@ops.custom_gradient
def _softmax_nll(states: Any, matrix: Any, bias: Any, targets: Any) -> Any:
    """Negative log-likelihoods [N] of targets [N] under softmax(states matrix' + bias).

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
    chosen = exact(pick(probabilities, targets[:, None]))[:, 0]
    # Only the value saturates where the probability underflows; its gradient does not pass through here.
    nll = -ops.log(ops.maximum(chosen, 1e-37))

    def gradient(*args: Any, upstream: Any = None) -> Any:
        weights = ops.cast(args[0] if upstream is None else upstream, states.dtype)[:, None]
        weighted = states * weights
        d_states = (ops.matmul(probabilities, matrix) - lookup(matrix, targets)) * weights
        transposed = ops.transpose(probabilities)
        d_matrix = ops.matmul(transposed, weighted) - _summed_by(targets, weighted, matrix.shape[0])
        # A row, not a column: of products by one column in bfloat16, TensorFlow 2.20 makes NaN on processors with AMX.
        d_bias = ops.matmul(ops.transpose(weights), probabilities)
        d_bias = d_bias[0] - _summed_by(targets, weights, matrix.shape[0])[:, 0]
        return d_states, d_matrix, ops.cast(d_bias, bias.dtype), None

    return nll, gradient


def _summed_by(ids: Any, rows: Any, num_ids: int) -> Any:
    """Adds up rows [N, E] by their id [N]: [num_ids, E]."""
    return ops.cast(ops.segment_sum(exact(rows), ids, num_segments=num_ids), rows.dtype)
