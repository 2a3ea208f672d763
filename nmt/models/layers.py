"""Small layers, initialisers and functions that the rest of the model is built from.

B sentences, T positions, I input units, O output units, N units, U units of an LSTM. An ellipsis stands for any number
of axes.
"""

import math
from typing import Any

from nmt.backend import keras, ops
from nmt.compilation import draw_bytes


class Dense(keras.layers.Dense):
    """`keras.layers.Dense` with fewer operations per call (see `matmul`)."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Projects inputs [B, ..., I] to [B, ..., O]."""
        outputs = matmul(inputs, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


def matmul(vectors: Any, matrix: Any) -> Any:
    """Multiplies each vector by a matrix.

    Args:
        vectors: [B, ..., I]; only the last size must be known when the graph is traced.
        matrix: [I, O].

    Returns:
        [B, ..., O].
    """
    # For such a product, ops.matmul computes the shapes in two dozen operations. They cost time when a graph is traced
    # and, in a step of beam search, when it runs: a reshape on either side does the same.
    sizes = ops.shape(vectors)[1:-1]
    if not sizes:
        return ops.matmul(vectors, matrix)
    rows = ops.matmul(ops.reshape(vectors, (-1, vectors.shape[-1])), matrix)  # [B, ..., I] -> [B * ..., O]
    return ops.reshape(rows, (-1, *sizes, matrix.shape[-1]))


def at_least_float32(x: Any) -> Any:
    """Casts 16-bit numbers to float32, for sums, exponentials and comparisons. Float64 stays float64."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


class Dropout(keras.layers.Dropout):
    """Dropout that draws one random byte per value.

    Each call draws a mask of its own. To hide the same values from several readers, multiply by one from `draw_mask`.

    A byte alone would allow rates in steps of 1/256. So each call rounds the rate up or down to such a step at random,
    in proportion, and a value is dropped with the rate itself, to 1/65536. In 16 bits each call rounds the scale of the
    other values in the same way, since rounding to the nearest changes the mean by up to 0.4 % in bfloat16.

    Args:
        rate: share of values to drop, from 0 to 255/256.
        whole_vectors: draw one byte per vector [N], which is dropped as a whole or not at all.
        locked: drop the same values at all positions (variational dropout, Gal and Ghahramani 2016).
    """

    # Keras draws four bytes per value and passes over the values more often: on a CPU a tenth of an update's time.

    def __init__(self, rate: float, *, whole_vectors: bool = False, locked: bool = False, **kwargs: Any):
        super().__init__(rate, **kwargs)
        self.whole_vectors = whole_vectors
        self.locked = locked

    def call(self, inputs: Any, training: bool = False, time_axis: int = 1) -> Any:
        """Drops values of inputs [..., N] in training and scales the others, so that the expected value is the same."""
        mask = self.draw_mask(inputs, training=training, time_axis=time_axis)
        return inputs if mask is None else inputs * mask

    def draw_mask(self, inputs: Any, training: bool = False, time_axis: int = 1) -> Any:
        """Draws what inputs [..., N] are multiplied by: 0 where they are dropped, else 1 / (1 - rate).

        Args:
            inputs: only their shape and type are used.
            training: whether to drop values.
            time_axis: the axis of positions, 0 or 1. Only locked dropout needs it.

        Returns:
            [..., N], or [..., 1] for whole vectors, in the type of the inputs; None if nothing is dropped. If it is
            locked, there is only one position.
        """
        if not training or not self.rate:
            return None
        if self.locked:
            inputs = inputs[:, :1] if time_axis else inputs[:1]
        drawn, spare = draw_bytes(inputs, 1 if self.whole_vectors else None, self.seed_generator.next())
        spare = ops.cast(spare, "int32")
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        steps = min(max(1, round(65536 * self.rate)), 255 * 256)  # of 1/65536
        num_dropped = _round_at_random(steps / 256, 1, 256 * spare[0])  # byte values, out of 256
        scale = 65536 / (65536 - steps)
        if dtype in SIGNIFICANT_BITS:
            unit = 2.0 ** (math.frexp(scale)[1] - SIGNIFICANT_BITS[dtype])
            scale = _round_at_random(scale, unit, 256 * spare[1] + spare[2])
        keeps = drawn >= ops.cast(num_dropped, "uint8")  # [..., N], or [..., 1]
        return ops.cast(keeps, dtype) * ops.cast(scale, dtype)


SIGNIFICANT_BITS = {"bfloat16": 8, "float16": 11}


def _round_at_random(number: float, unit: float, drawn: Any) -> Any:
    """Rounds a number up or down to a multiple of a unit at random, so that the mean is the number itself.

    Args:
        number: positive.
        unit: a power of two.
        drawn: int32 scalar, uniform from 0 to 65535.
    """
    below = math.floor(number / unit)
    share = round((number / unit - below) * 65536)
    return ops.where(drawn < share, (below + 1) * unit, below * unit) if share else below * unit


class OrthogonalRows(keras.initializers.Orthogonal):
    """Draws the same matrices [U, N] with orthonormal rows as `keras.initializers.Orthogonal`, three times as fast.

    N must be several times U.
    """

    # The matrix is the Q of a random matrix A = Q R, which Keras finds by a QR factorisation. Since R'R = A'A, a
    # Cholesky factorisation of A'A finds the R with a positive diagonal, the one that makes Q unique. Forming A'A
    # squares the condition number of A, which is safe here: it is only 3 where N is 4 U.

    def __call__(self, shape: tuple[int, int], dtype: str | None = None) -> Any:
        """Draws a matrix of shape [U, N]."""
        rows, columns = shape
        drawn = ops.transpose(keras.random.normal((columns, rows), seed=self.seed, dtype=dtype))  # A' [U, N]
        transposed_r = ops.cholesky(ops.matmul(drawn, ops.transpose(drawn)))  # R' [U, U], lower triangular
        return self.gain * ops.solve_triangular(transposed_r, drawn, lower=True)  # Q' = R'^-1 A'
