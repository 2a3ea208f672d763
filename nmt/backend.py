"""Sets the process up before Keras is first imported, so that only our own settings count.

Every package that uses Keras imports this module first. TensorFlow is the default backend; KERAS_BACKEND=jax chooses
the second. What a user's ~/.keras/keras.json says of float type, epsilon and backend does not leak in.
"""

import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nmt.errors import UserError
from nmt.process import silence_stderr

# And what installs them.
BACKENDS = {"tensorflow": "nmt", "jax": "nmt[jax]"}

# TensorFlow and Keras import them where they find them, for what we never ask of them; that takes half as long as
# importing TensorFlow, and 200 MB.
UNUSED = {"jax", "matplotlib", "pandas"}

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# GPU memory is taken as it is needed, so that a second process finds some.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _check_backend() -> None:
    """Raises UserError where the backend is none of ours or is not installed, without importing it."""
    backend = os.environ["KERAS_BACKEND"]
    if backend not in BACKENDS:
        raise UserError(f"KERAS_BACKEND: expected tensorflow or jax, found '{backend}'.")
    if importlib.util.find_spec(backend) is None:
        [other] = BACKENDS.keys() - {backend}
        raise UserError(
            f'The backend {backend} is not installed. Install with: pip install "{BACKENDS[backend]}", or set '
            f"KERAS_BACKEND={other}."
        )


@contextmanager
def _without_collection() -> Iterator[None]:
    """While it lasts, no garbage is collected; what was made then lives on and is never searched for any."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _hidden(packages: set[str]) -> Iterator[None]:
    """While it lasts, packages that are not imported yet cannot be."""
    hidden = packages - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python says so
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _import_keras() -> None:
    # TF_CPP_MIN_LOG_LEVEL does not reach what is logged at import and by the first operation.
    with silence_stderr(), _without_collection(), _hidden(UNUSED - {os.environ["KERAS_BACKEND"]}):
        keras = importlib.import_module("keras")
        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)
        keras.config.set_image_data_format("channels_last")
        if not os.environ.keys() & {"TF_CONFIG", "SLURM_STEP_NUM_TASKS"}:
            keras.ops.zeros(())  # not before the strategy of several machines is made, which must come first


_check_backend()
_import_keras()

import keras  # noqa: E402, after it was set up
from keras import ops, tree  # noqa: E402

__all__ = ["BACKENDS", "keras", "ops", "tree"]
