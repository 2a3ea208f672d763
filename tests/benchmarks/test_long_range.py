import json
from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.corpus import ROOT
from benchmarks.long_range import (
    ALWAYS_OPEN,
    CELLS,
    NOISE,
    SYMBOLS,
    BiasedLSTM,
    RecallModel,
    choose_settings,
    draw_sequences,
    find_joinable,
    join_records,
    measure_gradient,
    render,
    write_results,
)
from benchmarks.long_range import draw as draw_pictures
from benchmarks.settings import RESULTS
from benchmarks.without_attention import SourceSummary, remove_attention
from nmt.backend import keras, ops
from nmt.errors import UserError
from nmt.models.attention import make_attention


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_first_symbol_is_the_answer_and_no_other_is_of_its_alphabet():
    tokens, symbols = draw_sequences(np.random.default_rng(1), 500, steps=7)
    assert tokens.shape == (500, 8)
    assert set(symbols) == set(range(SYMBOLS))
    assert set(tokens[:, 1:].ravel()) == set(range(SYMBOLS, SYMBOLS + NOISE))
    np.testing.assert_array_equal(tokens[:, 0], symbols)


def test_an_lstm_without_forget_gate_adds_to_its_cell():
    keras.utils.set_random_seed(1)
    layer, inputs = BiasedLSTM(5, forget_bias=ALWAYS_OPEN), np.random.default_rng(1).normal(size=(2, 7, 3))
    outputs = np.asarray(layer(inputs.astype("float32")))
    kernel, recurrent, bias = (np.asarray(weight, "float64") for weight in layer.keras_lstm.get_weights())
    hidden = cell = np.zeros((2, 5))
    for position in range(7):
        i, f, g, o = np.split(inputs[:, position] @ kernel + hidden @ recurrent + bias, 4, axis=1)
        assert (sigmoid(f) == 1).all()
        cell = cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        np.testing.assert_allclose(outputs[:, position], hidden, atol=1e-5)


def test_open_forget_gates_keep_a_cell_for_up_to_so_many_steps():
    layer = CELLS["LSTM, open forget gates"].make(64, 100, np.random.default_rng(1))
    layer.build((None, None, 3))
    i, f, g, o = np.split(np.asarray(layer.keras_lstm.cell.bias), 4)
    steps = 1 / (1 - sigmoid(f))  # a cell that is multiplied by a loses 1 - a of its content per step
    assert (steps >= 1).all() and 80 < steps.max() <= 101
    np.testing.assert_allclose(i, -f, rtol=1e-6)
    assert not g.any() and not o.any()


def test_the_gradient_is_measured_from_the_answer_back():
    keras.utils.set_random_seed(1)
    model = RecallModel(keras.layers.Identity(), 4, 4)
    tokens, symbols = draw_sequences(np.random.default_rng(1), 3, steps=5)
    model(tokens)
    matrix, bias = (np.asarray(weight, "float64") for weight in model.answer.get_weights())
    logits = np.asarray(model.embedding(tokens), "float64")[:, -1] @ matrix + bias
    errors = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(SYMBOLS)[symbols]
    norms = measure_gradient(model, tokens, symbols)
    np.testing.assert_allclose(norms[0], np.linalg.norm(errors @ matrix.T, axis=1).mean(), rtol=1e-5)
    assert norms.shape == (6,) and not norms[1:].any()


@pytest.fixture
def record():
    figures = [
        {"cell": cell, "steps": steps, "accuracy": [12.5, 100.0, 99.9], "updates": [300, 100, 200], "weights": 9}
        for cell in CELLS
        for steps in (3, 2)
    ]
    for one in figures[::2]:
        one["gradients"] = {"before": [1.0, 0.5, 0.25, 0.0], "after": [1.0, 2.0, 4.0, 3.0]}
    figures[0]["accuracy"] = [99.9, 99.9, 100.0]
    return {
        "settings": {"steps": [2, 3], "seeds": [1, 2, 3], "target_accuracy": 0.995},
        **{"figures": figures, "versions": {"jax": "1"}, "date": "2026-01-02", "command": "python -m benchmarks"},
        **{"minutes": 3.0, "priority": 15, "machine": "A machine", "other_cores": 0.5},
        "commit": "abc",
    }


def test_the_tables_show_accuracy_updates_and_gradients(record):
    lines = render(record).splitlines()
    assert "| LSTM | 99.9 (12.5–100.0) | 99.9 (99.9–100.0) |" in lines
    assert "| LSTM | – | 200 (100–300) |" in lines
    assert "| LSTM, before training | 2.5e-01 | 0 |" in lines
    assert "| tanh RNN, after training | 4.0e+00 | 3.0e+00 |" in lines


def test_records_of_other_seeds_are_joined(record):
    other = {**record, "settings": {**record["settings"], "seeds": [4]}, "minutes": 1.5, "command": "again"}
    other |= {"commit": "def", "other_cores": 1.1}
    other["figures"] = [{**one, "accuracy": [0.0], "updates": [800]} for one in record["figures"]]
    joined = join_records(record, other)
    assert joined["settings"]["seeds"] == [1, 2, 3, 4]
    assert joined["figures"][0]["accuracy"] == [99.9, 99.9, 100.0, 0.0]
    assert joined["figures"][0]["gradients"] == record["figures"][0]["gradients"]
    assert (joined["minutes"], joined["command"]) == (4.5, "python -m benchmarks`, `again")
    assert (joined["commit"], joined["other_cores"]) == ("abc, def", 0.7)  # 3 minutes with 0.5 and 1.5 with 1.1
    assert join_records(record, {**other, "commit": "abc"})["commit"] == "abc"


def test_only_records_of_the_same_origin_are_joined(record, tmp_path):
    path = tmp_path / "long-range.json"
    other = {**record, "settings": {**record["settings"], "seeds": [4]}}
    assert find_joinable(path, other) is None
    path.write_text(json.dumps(record))
    assert find_joinable(path, other) == record
    assert find_joinable(path, record) is None
    assert find_joinable(path, {**other, "settings": {**other["settings"], "steps": [2]}}) is None
    with pytest.raises(
        UserError, match=r"with machine A machine, now B; versions {'jax': '1'}, now {}\. Choose another"
    ):
        find_joinable(path, {**other, "machine": "B", "versions": {}})


def test_figures_of_another_machine_are_refused_before_anything_is_measured(record, tmp_path, monkeypatch):
    settings = choose_settings(quick=True, seeds=[4])
    stored = {**record, "settings": json.loads(json.dumps(asdict(choose_settings(quick=True, seeds=[1]))))}
    (tmp_path / "long-range.json").write_text(json.dumps(stored))
    monkeypatch.setattr("benchmarks.long_range.measure", lambda settings, log: pytest.fail("measured"))
    with pytest.raises(UserError, match="has figures of other seeds, but with machine A machine, now"):
        write_results(tmp_path, settings, "again")
    assert json.loads((tmp_path / "long-range.json").read_text()) == stored


def test_the_page_shows_the_stored_figures():
    record = json.loads((RESULTS / "long-range.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "explanation" / "long-memory.md").read_text(encoding="utf-8")
    assert [line for line in render(record).splitlines() if line not in page.splitlines()] == []


def test_the_picture_is_drawn(record, tmp_path):
    pytest.importorskip("matplotlib")
    draw_pictures(record, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_without_attention_every_query_reads_the_first_and_the_last_state():
    random = np.random.default_rng(1)
    memory, query = random.normal(size=(2, 5, 3)).astype("float32"), random.normal(size=(2, 4, 7)).astype("float32")
    mask = np.array([[True] * 5, [True, True, False, False, False]])
    layer = SourceSummary(3)
    context, weights = layer(query, layer.project_memory(ops.convert_to_tensor(memory), ops.convert_to_tensor(mask)))
    expected = np.array([np.append(memory[0, 0], memory[0, 4]), np.append(memory[1, 0], memory[1, 1])])
    np.testing.assert_array_equal(np.asarray(context), np.repeat(expected[:, None], 4, axis=1))
    np.testing.assert_allclose(np.asarray(weights), np.repeat((mask / mask.sum(axis=1, keepdims=True))[:, None], 4, 1))


def test_attention_is_removed_inside_the_block_alone():
    from nmt.models import decoder

    with remove_attention():
        made = decoder.make_attention("multi_head", 8, 6, num_heads=2, name="attention_0", dropout=0.0)
        assert isinstance(made, SourceSummary) and made.context_units == 12
    assert decoder.make_attention is make_attention
