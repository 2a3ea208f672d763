"""The one place that knows both compilers, TensorFlow's and JAX's."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import keras


@cache
def gpu_visible() -> bool:
    """Whether the backend sees a GPU, so that cuDNN's LSTM is to be had."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    import jax

    return jax.default_backend() == "gpu"
