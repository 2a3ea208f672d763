"""The coverage penalty: hypotheses are ranked by how well their attention covers the source."""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coverage_case import SOURCE, V, compile_samples, expected_scores, make_model, penalty_of, run_search
from keras import ops

from nmt.decoding import inference

BOS, EOS, A, B = 2, 3, 4, 5


@pytest.fixture(scope="module", params=[{}, {"input_feeding": True, "decoder_layers": 1}], ids=["default", "feeding"])
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(**request.param)


def test_scores_equal_a_loop_over_attention_rows(model: Any) -> None:
    found = run_search(model)
    assert found.ids.shape == (4, 4, 13)
    np.testing.assert_allclose(found.scores, expected_scores(model, found), rtol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_scores_and_samples_on_jax_are_those_on_tensorflow(tmp_path: Path) -> None:
    script = Path(__file__).with_name("coverage_case.py")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(script.parents[2])}
    subprocess.run([sys.executable, str(script), str(tmp_path / "jax.npz")], env=environment, check=True)
    with np.load(tmp_path / "jax.npz") as on_jax:
        np.testing.assert_allclose(on_jax["scores"], on_jax["expected"], rtol=1e-5)
        np.testing.assert_allclose(on_jax["other"], on_jax["expected_other"], rtol=1e-5)
        assert on_jax["compilations"] == 1
        here = run_search(make_model())
        np.testing.assert_array_equal(on_jax["ids"], here.ids)
        np.testing.assert_allclose(on_jax["scores"], here.scores, rtol=1e-4)
        draw_with, compilations = compile_samples(make_model())
        for name, seed in (("samples", 1), ("other_samples", 2)):
            samples = draw_with(seed)
            steps = min(samples.shape[2], on_jax[name].shape[2])  # after which all are padding
            np.testing.assert_array_equal(on_jax[name][:, :, :steps], samples[:, :, :steps])
            assert len(np.unique(samples.reshape(-1, samples.shape[2]), axis=0)) > 8
        assert on_jax["sample_compilations"] == len(compilations) == 1


def test_hypotheses_fall_in_score_and_finished_ones_come_first(model: Any) -> None:
    model.projection.bias.assign_add(2.0 * (np.arange(V) == EOS))
    found = run_search(model, beam_size=9)
    model.projection.bias.assign_sub(2.0 * (np.arange(V) == EOS))
    assert found.finished.any() and not found.finished.all()
    has_text = (found.lengths > 1) | ~found.finished
    for row, has in enumerate(has_text):
        finished, scores = found.finished[row][has], found.scores[row][has]
        assert list(finished) == sorted(finished, reverse=True)
        for group in (scores[finished], scores[~finished]):
            assert list(group) == sorted(group, reverse=True)


def test_the_best_of_all_sequences_is_first() -> None:
    """A beam as wide as the space of a vocabulary of two, against every sequence that there is."""
    weight = 5.0
    model = make_model(vocabulary_size=6, tied_embeddings="target")
    settings: dict[str, Any] = {"beam_size": 31, "max_length": 4, "length_penalty": 0.6}
    found = run_search(model, SOURCE[:2], banned=[0, 1, 2], coverage_penalty=weight, **settings)
    plain = run_search(model, SOURCE[:2], banned=[0, 1, 2], coverage_penalty=0.0, **settings)
    for row, source in enumerate([SOURCE[0], SOURCE[1, :3]]):
        scored = []
        for length in range(4):
            for words in itertools.product([A, B], repeat=length):
                target = [*words, EOS]
                logits = model.projection(model(source[None], np.array([[BOS, *words]], "int32")).states)
                log_probs = ops.convert_to_numpy(ops.log_softmax(logits, axis=-1))[0]
                score = log_probs[np.arange(length + 1), target].sum() / ((6 + length) / 6) ** 0.6
                scored.append((score + weight * penalty_of(model, source, target), target))
        score, target = max(scored)
        assert found.ids[row, 0].tolist() == target + [0] * (4 - len(target))
        assert found.scores[row, 0] == pytest.approx(score, rel=1e-5)
    assert (found.ids[:, 0] != plain.ids[:, 0]).any()  # or else the penalty was not tried where it matters


def test_a_batch_equals_its_sentences_one_by_one(model: Any) -> None:
    together = run_search(model)
    for row in range(len(SOURCE)):
        alone = run_search(model, SOURCE[row : row + 1, : np.count_nonzero(SOURCE[row])])
        np.testing.assert_array_equal(together.ids[row, :, : alone.ids.shape[2]], alone.ids[0])
        np.testing.assert_allclose(together.scores[row], alone.scores[0], rtol=1e-4)


def test_a_weight_of_zero_costs_and_changes_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as a search for all slots, which a penalty of nearly nothing starts from."""
    nearly = run_search(model, coverage_penalty=1e-30)
    monkeypatch.setattr(inference, "_measure_coverage", None)
    for one, other in zip(nearly, run_search(model, n_best=4, coverage_penalty=0.0), strict=True):
        np.testing.assert_array_equal(one, other)


def test_attention_that_underflows_to_zero_leaves_scores_finite() -> None:
    model = make_model()
    for variable in model.trainable_variables:
        if "attention" in variable.path:
            variable.assign(1000 * variable.value)
    assert np.isfinite(run_search(model).scores).all()
