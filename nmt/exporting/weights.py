"""Weights as a SavedModel stores them: in float32, or quantized and converted back to float32 once per request.

Only matrices are quantized. Vectors (biases, scales of layer norms) are small.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nmt.backend import keras
from nmt.process import silence_stderr

with silence_stderr():
    import tensorflow as tf

MAX_INT8 = 127


class StoredWeights:
    """Copies of Keras variables that a SavedModel stores and its graph uses instead.

    Args:
        variables: of a model; float32 if they are to be quantized.
        quantize: None, bfloat16, or int8 with a float32 scale per output of a matrix.
    """

    def __init__(self, variables: Sequence[Any], quantize: str | None):
        self._read = [(variable, *_store(variable, quantize)) for variable in variables]

    @property
    def variables(self) -> list[Any]:
        """The variables to save, which a `tf.Module` must have as an attribute."""
        return [stored for _, *parts in self._read for stored in parts if stored is not None]

    def use(self) -> keras.StatelessScope:
        """Returns a context in which the model computes with these weights.

        They are converted where it is entered: once per request, not once per step of a loop.
        """
        return keras.StatelessScope(
            state_mapping=[
                (variable, _dequantize(values, scale, variable.dtype)) for variable, values, scale in self._read
            ]
        )


def quantize_matrix(matrix: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a matrix to int8, with a scale per column (axis 0) or per row (axis 1).

    Returns:
        int8 values between -127 and 127, and the float32 scales to multiply them with, of size 1 along the axis.
    """
    largest = np.abs(matrix).max(axis=axis, keepdims=True)
    scale = (np.where(largest == 0, 1, largest) / MAX_INT8).astype("float32")
    return np.round(matrix / scale).astype("int8"), scale


def _store(variable: Any, quantize: str | None) -> tuple[Any, Any]:
    """Returns the stored values and, for int8, their scales."""
    if quantize is None or len(variable.shape) < 2:
        return variable.value, None
    if quantize == "bfloat16":
        return tf.Variable(tf.cast(variable.value, tf.bfloat16), trainable=False), None
    # The outputs of an embedding matrix, which may also be the output projection, are its rows: one per token. Those of
    # any other matrix are its columns.
    values, scale = quantize_matrix(np.asarray(variable.value), axis=1 if variable.name.endswith("matrix") else 0)
    return tf.Variable(values, trainable=False), tf.Variable(scale, trainable=False)


def _dequantize(values: Any, scale: Any, dtype: str) -> Any:
    restored = tf.cast(values, dtype)
    return restored if scale is None else restored * scale
