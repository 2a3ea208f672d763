"""Products of vectors by one matrix, and what is too delicate for 16 bits."""

from typing import Any

import keras
from keras import ops


class Dense(keras.layers.Dense):
    """Keras' dense layer with `product` in it."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Projects inputs [..., I] to [..., O]."""
        outputs = product(inputs, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


def product(vectors: Any, matrix: Any) -> Any:
    """Multiplies vectors [B, ..., I] by a matrix [I, O]: [B, ..., O].

    `ops.matmul` works out the shapes of such a product in two dozen operations, which take their time to trace and, in
    a step of a search, to run.
    """
    sizes = ops.shape(vectors)[1:-1]
    if not sizes:
        return ops.matmul(vectors, matrix)
    rows = ops.matmul(ops.reshape(vectors, (-1, vectors.shape[-1])), matrix)
    return ops.reshape(rows, (-1, *sizes, matrix.shape[-1]))


def exact(x: Any) -> Any:
    """The same numbers in at least float32, for sums, exponents and comparisons."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")
