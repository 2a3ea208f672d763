"""The update on JAX: equal to the one on TensorFlow, and on two devices equal to one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from backend_cases import DESCENT, DROPOUT, OTHER, differentiate_consistency, learned, make_model, settings_of

from nmt.training.backends import make_strategy
from nmt.training.update_tensorflow import TensorFlowUpdate
from nmt.weights import get_arrays

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
HERE = Path(__file__).parent
CASES = {"descent": DESCENT, "other": OTHER, "dropout": DROPOUT}


@pytest.fixture(scope="module")
def starts():
    """Weights that both backends start from, by case and path."""
    return {name: get_arrays(make_model(case).trainable_variables) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Lets the processes here, which run one after the other, compile nothing twice."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    return {**os.environ, **cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="module")
def on_jax(starts, environment, tmp_path_factory):
    """What came of the cases on JAX, by case."""
    folder = tmp_path_factory.mktemp("jax")
    np.savez(folder / "starts.npz", **{f"{n}/{path}": a for n, arrays in starts.items() for path, a in arrays.items()})
    script = [sys.executable, HERE / "jax_script.py", folder / "starts.npz", folder / "found.npz"]
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = {}
    for key, array in np.load(folder / "found.npz").items():
        case, _, name = key.partition("/")
        found.setdefault(case, {})[name] = array
    return found


def on_tensorflow(name, starts):
    case = CASES[name]
    model = make_model(case, starts[name])
    return learned(TensorFlowUpdate(model, model.optimizer, make_strategy("single"), **settings_of(case)), case)


def assert_same(found, expected, tolerance):
    assert found.keys() - {"rows_multiple"} == expected.keys() - {"rows_multiple"}
    for key in expected.keys() - {"rows_multiple"}:
        np.testing.assert_allclose(found[key], expected[key], rtol=tolerance, atol=tolerance, err_msg=key)


def test_gradients_are_those_of_tensorflow(on_jax, starts):
    expected = on_tensorflow("descent", starts)
    assert_same(on_jax["descent"], expected, 1e-5)
    for path, start in starts["descent"].items():
        assert np.abs(start - expected[f"weight {path}"]).max() > 1e-4, path


def test_micro_batches_clipping_decay_and_averages_are_those_of_tensorflow(on_jax, starts):
    expected = on_tensorflow("other", starts)
    assert_same(on_jax["other"], expected, 1e-5)
    assert (expected["outcomes"][:, 2] > OTHER.update["clip_norm"]).all()


def test_two_devices_equal_one_with_dropout(on_jax):
    one, two = (on_jax[f"dropout {devices}x3"] for devices in (1, 2))
    assert (one["rows_multiple"], two["rows_multiple"]) == (3, 6)
    assert_same(two, one, 1e-5)


def test_dropout_was_at_work(on_jax):
    once, thrice = (on_jax[f"dropout 1x{micro}"]["outcomes"][0, 0] for micro in (1, 3))
    # Micro-batches have masks of their own; without dropout the losses would be equal.
    assert abs(once - thrice) > 1e-3


def test_a_dropped_word_is_hidden_from_both_directions_and_the_bridge(on_jax):
    memory, forward, backward = (on_jax["words"][name] for name in ("memory", "forward", "backward"))
    np.testing.assert_allclose(memory[:, :6], np.concatenate([forward, backward], axis=1), atol=1e-6)
    assert 0 < memory[:, 6:].any(axis=1).sum() < len(memory)


@pytest.mark.parametrize("kind", ["r_drop", "simcut"])
def test_two_readings_are_compared_as_on_tensorflow(on_jax, kind):
    expected = differentiate_consistency(kind)
    assert np.abs(expected[-3:]).min() > 1
    np.testing.assert_allclose(on_jax["consistency"][kind], expected, rtol=1e-5, atol=1e-5)


def test_what_is_promised_of_the_update_holds_on_jax(environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "test_update.py"]
    # The tests above compare the rest with TensorFlow, or masks with masks; and float32 is what all others compute in.
    command += ["-k", "not loss_term and not micro_batches and not mean_over_all and not (precisions and float32)"]
    environment = {**environment, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout


def test_what_two_gpus_run_is_what_one_processor_runs(on_jax):
    one, two = on_jax["dropout 1x1"], on_jax["gpu 2x1"]
    assert (one["rows_multiple"], two["rows_multiple"]) == (1, 2)
    assert_same(two, one, 1e-5)
