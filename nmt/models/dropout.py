"""Dropout (Srivastava et al. 2014) by random bytes."""

from typing import Any

import keras
from keras import ops

from nmt.compilation import random_bytes


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
        keeps = random_bytes(inputs, 1 if self.whole else None, self.seed_generator.next()) >= dropped
        return inputs * (ops.cast(keeps, inputs.dtype) * (256 / (256 - dropped)))
