import os
from collections.abc import Callable, Iterator

import pytest

# JAX, imported by some tests, would set it lower, and the processes that other tests start would inherit that.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture
def set_precision() -> Iterator[Callable[[str], None]]:
    """Sets Keras' type policy, such as mixed_float16, until the test ends."""
    import keras  # here, since it is slow to import and tests of text do without

    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def float64(set_precision: Callable[[str], None]) -> None:
    set_precision("float64")
