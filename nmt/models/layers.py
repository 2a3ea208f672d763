"""Small layers and initialisers, and what is too delicate for 16 bits."""

from typing import Any

from nmt.backend import keras, ops
from nmt.compilation import draw_bytes


class Dense(keras.layers.Dense):
    """Keras' dense layer with `matmul` in it."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Projects inputs [..., I] to [..., O]."""
        outputs = matmul(inputs, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


def matmul(vectors: Any, matrix: Any) -> Any:
    """Multiplies vectors [B, ..., I] by a matrix [I, O]: [B, ..., O].

    `ops.matmul` works out the shapes of such a product in two dozen operations, which take their time to trace and, in
    a step of a search, to run.
    """
    sizes = ops.shape(vectors)[1:-1]
    if not sizes:
        return ops.matmul(vectors, matrix)
    rows = ops.matmul(ops.reshape(vectors, (-1, vectors.shape[-1])), matrix)
    return ops.reshape(rows, (-1, *sizes, matrix.shape[-1]))


def at_least_float32(x: Any) -> Any:
    """The same numbers in at least float32, for sums, exponents and comparisons."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


class Dropout(keras.layers.Dropout):
    """Keras' dropout at a fraction of its cost: one byte decides on a value, so that rates are multiples of 1/256.

    On a CPU the random numbers of Keras' own, and its passes over the values, take a tenth of an update.

    Args:
        rate: share of values to drop.
        whole: drop vectors as a whole.
    """

    def __init__(self, rate: float, *, whole: bool = False, **kwargs: Any):
        super().__init__(rate, **kwargs)
        self.whole = whole

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drops values of inputs [..., N], or whole vectors of them, while training, and makes up for them."""
        if not training or not self.rate:
            return inputs
        dropped = min(max(1, round(256 * self.rate)), 255)
        keeps = draw_bytes(inputs, 1 if self.whole else None, self.seed_generator.next()) >= dropped
        return inputs * (ops.cast(keeps, inputs.dtype) * (256 / (256 - dropped)))


class OrthogonalRows(keras.initializers.Orthogonal):
    """The same matrices [U, N] as Keras', N several times U, in a third of the time.

    They are the Q of a random matrix A = Q R. As R'R = A'A, a Cholesky factorisation finds the R with a positive
    diagonal, the one that makes Q unique. That squares A's condition number, which is only 3 where N is 4 U.
    """

    def __call__(self, shape: tuple[int, int], dtype: str | None = None) -> Any:
        """Draws a matrix."""
        rows, columns = shape
        drawn = ops.transpose(keras.random.normal((columns, rows), seed=self.seed, dtype=dtype))
        transposed_r = ops.cholesky(ops.matmul(drawn, ops.transpose(drawn)))
        return self.gain * ops.solve_triangular(transposed_r, drawn, lower=True)
