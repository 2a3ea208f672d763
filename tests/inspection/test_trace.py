import os
import subprocess
import sys
from pathlib import Path

import inspection_cases as cases
import numpy as np
import pytest
from inspection_cases import MODELS, SOURCE, TARGET, V, make_model

from nmt.backend import ops
from nmt.inspection.trace import trace

S, T = len(SOURCE), len(TARGET)

every_model = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


@every_model
def test_the_gates_reproduce_the_output_of_every_layer(settings):
    model = make_model(**settings)
    found = trace(model, SOURCE, TARGET)
    cases.check_layers(model, found)
    cases.check_reading(model, found)


def test_every_array_has_the_shape_that_it_promises():
    model = make_model(**MODELS["bridge"])
    arrays = trace(model, SOURCE, TARGET).as_arrays()
    units = {"encoder.forward": (S, 6, 5), "encoder.backward": (S, 6, 5)}
    units |= {"decoder.layer_0": (T, 6, 14), "decoder.layer_1": (T, 28, 14), "decoder.layer_2": (T, 28, 14)}
    expected = {"source_ids": (S,), "target_ids": (T,), "log_probs": (T,), "saliency": (T, S), "states": (T, 6)}
    expected |= {"alternative_ids": (T, 5), "alternative_log_probs": (T, 5)}
    expected |= {"attention": (2, 2, T, S), "mean_attention": (T, S)}
    for layer, (positions, inputs, outputs) in units.items():
        expected[f"{layer}.inputs"] = (positions, inputs)
        for name in ("input_gate", "forget_gate", "output_gate", "candidate", "cell", "output"):
            expected[f"{layer}.{name}"] = (positions, outputs)
        expected |= {f"{layer}.initial_output": (outputs,), f"{layer}.initial_cell": (outputs,)}
    assert {name: array.shape for name, array in arrays.items()} == expected
    assert {str(array.dtype) for name, array in arrays.items() if not name.endswith("ids")} == {"float32"}


@pytest.mark.parametrize("name", ["norm", "bridge"])
def test_saliency_is_the_norm_of_the_gradient(name, monkeypatch):
    monkeypatch.setattr("nmt.inspection.trace.MAX_COPIES", 3)
    # Not tied, since the unused vectors below would also be those of target tokens.
    model = make_model("float64", **MODELS[name], tied_embeddings="none")
    found = trace(model, SOURCE, TARGET)
    matrix, step = model.source_embedding.matrix, 1e-5
    rows = matrix.value.numpy()
    unused, units = np.arange(max(SOURCE) + 1, V), rows.shape[1]
    assert len(unused) == 2 * units
    for s in (0, S - 2):
        sources = np.tile(SOURCE, (2 * units, 1))
        sources[:, s] = unused  # the token's vector, with one value changed up or down
        changed = rows.copy()
        changed[unused] = rows[SOURCE[s]] + step * np.concatenate([np.eye(units), -np.eye(units)])
        matrix.assign(changed)
        logits = cases.to_numpy(model.read(sources, np.tile(TARGET, (2 * units, 1)))[0])
        matrix.assign(rows)
        log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        up, down = np.split(log_probs[:, np.arange(T), TARGET], 2)
        norms = np.linalg.norm((up - down) / (2 * step), axis=0) / model.source_embedding.scale
        np.testing.assert_allclose(found.saliency[:, s], norms, rtol=1e-4)


def test_a_right_to_left_model_is_traced_in_reading_order():
    model = make_model(right_to_left=True)
    found = trace(model, SOURCE, TARGET)
    cases.check_reading(model, found)
    assert found.target_ids.tolist() == TARGET
    first = found.layers["decoder.layer_0"].inputs[len(TARGET) - 2]  # where it begins, at the token before EOS
    np.testing.assert_allclose(first, ops.convert_to_numpy(model.target_embedding(np.array([2])))[0], rtol=1e-6)


def test_a_cut_off_translation_has_no_end():
    model = make_model()
    whole, cut = trace(model, SOURCE, TARGET), trace(model, SOURCE, TARGET[:-1])
    np.testing.assert_allclose(cut.log_probs, whole.log_probs[:-1], atol=1e-6)
    assert max(cut.target_ids) < V


def test_jax_traces_the_same():
    pytest.importorskip("jax", reason="JAX is not installed")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(Path(cases.__file__))], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    backend, *saliency = done.stdout.split()
    assert backend == "jax"
    expected = trace(make_model(**MODELS["norm"]), SOURCE, TARGET).saliency
    np.testing.assert_allclose(np.array(saliency, float), expected.ravel(), atol=1e-4)
