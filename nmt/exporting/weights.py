"""How weights lie in a SavedModel: in float32, or smaller and made float32 again once a request.

Matrices are made smaller. Vectors (biases, the scales of norms) are few, and stay as they are.
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
    """Copies of Keras variables that a SavedModel holds and a graph reads in their place.

    Args:
        variables: of a model; in float32, where they are quantised.
        quantize: None, bfloat16, or int8: whole numbers times a float32 scale for each output of a matrix.
    """

    def __init__(self, variables: Sequence[Any], quantize: str | None):
        self._read = [(variable, *_store(variable, quantize)) for variable in variables]

    @property
    def variables(self) -> list[Any]:
        """What a `tf.Module` must keep."""
        return [stored for _, *parts in self._read for stored in parts if stored is not None]

    def use(self) -> keras.StatelessScope:
        """While it lasts, the model computes with these weights, made of its own types before any loop begins."""
        return keras.StatelessScope(
            state_mapping=[
                (variable, _dequantize(values, scale, variable.dtype)) for variable, values, scale in self._read
            ]
        )


def quantize_matrix(matrix: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a matrix to int8 with a scale for each of its columns (axis 0) or of its rows (axis 1).

    Returns:
        int8 values between -127 and 127, and float32 scales that multiply them, of size 1 along the axis.
    """
    largest = np.abs(matrix).max(axis=axis, keepdims=True)
    scale = (np.where(largest == 0, 1, largest) / MAX_INT8).astype("float32")
    return np.round(matrix / scale).astype("int8"), scale


def _store(variable: Any, quantize: str | None) -> tuple[Any, Any]:
    """Values and, if they need one, a scale."""
    if quantize is None or len(variable.shape) < 2:
        return variable.value, None
    if quantize == "bfloat16":
        return tf.Variable(tf.cast(variable.value, tf.bfloat16), trainable=False), None
    # A row of an embedding or of the output projection is a piece; a column of any other matrix is an output.
    values, scale = quantize_matrix(np.asarray(variable.value), axis=1 if variable.name == "matrix" else 0)
    return tf.Variable(values, trainable=False), tf.Variable(scale, trainable=False)


def _dequantize(values: Any, scale: Any, dtype: str) -> Any:
    restored = tf.cast(values, dtype)
    return restored if scale is None else restored * scale
