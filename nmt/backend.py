"""Imports Keras so that only our own settings count, and checks that its backend is installed.

Every module takes Keras from here: `from nmt.backend import keras, ops, tree`. TensorFlow is the default backend, and
KERAS_BACKEND=jax selects JAX. A user's ~/.keras/keras.json has no effect on float type, epsilon and backend.
"""

import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager

from nmt.errors import UserError
from nmt.process import silence_stderr

# The backends, and the package or extra of ours that installs each of them.
BACKENDS = {"tensorflow": "nmt", "jax": "nmt[jax]"}

# TensorFlow and Keras import these packages if they are installed, for purposes that we do not have. It takes half as
# long as the import of TensorFlow itself, and 200 MB (benchmarks/NOTES.md, "Start-up time").
UNUSED = {"jax", "matplotlib", "pandas"}

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Allocate GPU memory as it is needed, so that a second process on the same GPU can have some.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _check_backend() -> None:
    """Raises UserError if the backend is not supported or not installed. Does not import it."""
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
def _pause_garbage_collection() -> Iterator[None]:
    """Collects no garbage inside the block. What it creates lives on and is never scanned for garbage afterwards."""
    # Modules are never garbage. Scanning their objects again and again takes 1.7 s of a start-up (benchmarks/NOTES.md).
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _hide_packages(packages: AbstractSet[str]) -> Iterator[None]:
    """Makes the import of packages that are not imported yet fail inside the block."""
    hidden = packages - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None there makes an import fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _import_keras() -> None:
    unused = UNUSED - {os.environ["KERAS_BACKEND"]}
    # TF_CPP_MIN_LOG_LEVEL does not reach what is logged at import and by the first operation.
    with silence_stderr(), _pause_garbage_collection(), _hide_packages(unused):
        keras = importlib.import_module("keras")
        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)
        keras.config.set_image_data_format("channels_last")
        # The first operation, unless several machines train together: their strategy must be created before it.
        if not os.environ.keys() & {"TF_CONFIG", "SLURM_STEP_NUM_TASKS"}:
            keras.ops.zeros(())


_check_backend()
_import_keras()

import keras  # noqa: E402, after its settings
from keras import ops, tree  # noqa: E402

__all__ = ["BACKENDS", "keras", "ops", "set_random_seed", "tree"]


def set_random_seed(seed: int) -> None:
    """Sets the seed of Keras' initializers."""
    # On JAX, Keras would import TensorFlow to seed it as well. That takes seconds and logs to standard error.
    with _hide_packages(BACKENDS.keys() - {keras.backend.backend()}):
        keras.utils.set_random_seed(seed)
