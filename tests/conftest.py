import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.exported_model import (  # noqa: F401, fixtures
    copied_graph,
    exported,
    exported_litert,
    model_folder,
    moved_model,
)

# Those that take longest begin first, so that none of them is left for one process alone in the end.
SLOWEST = (
    "test_workers.py",
    "test_backends.py",
    "test_savedmodel_export.py",
    "test_tune.py",
    "test_update_jax.py",
    "test_gone_wrong.py",
    "test_translate_corpus.py",
    "test_cli.py",
    "test_update.py",
    "test_resume.py",
    "test_replicas.py",
    "test_litert.py",
    "test_coverage_reach.py",
    "test_under_load.py",
    "test_machine.py",
)

# JAX, imported by some tests, would set it lower, and the processes that other tests start would inherit that.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# XLA takes half as long to compile for JAX if it optimizes less, and compiling is most of what these tests do.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(SLOWEST)))


@pytest.fixture
def nmt_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable]:
    """Runs `nmt` in this process, and returns exit code, standard output and standard error."""
    from nmt.cli.main import main

    handler = signal.getsignal(signal.SIGTERM)
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is as it was at the end
    for name in ("OMP_NUM_THREADS", "PJRT_NPROC"):
        monkeypatch.setenv(name, "1")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nmt", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, handler)


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
