"""A run that starts from the weights of a model: `training.start_from`."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nmt.config.file import load_stored_config
from nmt.config.schema import Config, TokenizerConfig
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.errors import UnsavedError, UserError
from nmt.model_folder import ModelFolder, get_fingerprints
from nmt.models.seq2seq import make_seq2seq
from nmt.training.run_folder import RunFolder
from nmt.training.start import convert_weights, find_start, has_tokenizers_of, map_tokens
from nmt.weights import assign_arrays, get_arrays, save_arrays

LINES = ["one two three four five six seven eight nine ten", "twenty thirty forty", "a one and a two", "nineteen"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


def make_tokenizer(kind, size, lines=LINES, **settings):
    return train_tokenizer(lines * 3, kind=kind, vocabulary_size=size, **{"byte_fallback": False, **settings})


@pytest.fixture(scope="module")
def old():
    return make_tokenizer("unigram", 36)


@pytest.fixture(scope="module")
def new():
    return make_tokenizer("bpe", 44, [*LINES, "zebra"])


def list_tokens(tokenizer):
    return [tokenizer.get_token(one) for one in range(tokenizer.vocabulary_size)]


def test_a_token_is_itself_or_what_spells_it(old, new):
    ids, num_kept = map_tokens(old, new)
    tokens, old_tokens = list_tokens(new), list_tokens(old)
    assert tokens[:4] == SPECIAL and ids[:4] == [[0], [1], [2], [3]]
    shared = set(tokens) & set(old_tokens)
    assert num_kept == len(shared) and len(SPECIAL) < num_kept < len(tokens)
    for token, found in zip(tokens, ids, strict=True):
        if token in shared:
            assert [old_tokens[one] for one in found] == [token]
        elif not set(token) & set("zb"):  # the old tokenizer has all letters but these two
            assert "".join(old_tokens[one] for one in found) == token
        else:
            assert 1 in found
    # A token inside a word is not spelled as the beginning of one.
    assert any(not token.startswith("▁") and len(found) > 1 for token, found in zip(tokens, ids, strict=True))


def test_a_byte_is_unknown_to_a_model_without_bytes(old):
    with_bytes = make_tokenizer("unigram", 290, byte_fallback=True)
    ids, _ = map_tokens(old, with_bytes)
    assert ids[list_tokens(with_bytes).index("<0x41>")] == [1]
    back, num_kept = map_tokens(with_bytes, old)
    assert all(back) and num_kept > 4


@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_rows_of_the_vocabulary_follow_their_tokens(recipe, tmp_path, old, new, tied):
    """Also with a target tokenizer that stays the same, whose rows are not touched."""
    joint = tied == "all"
    config = recipe(tmp_path, model={"tied_embeddings": tied, "lexical_model": True}, tokenizer={"joint": joint})
    before, after = (
        make_seq2seq(config.model, source_vocabulary_size=source, target_vocabulary_size=target)
        for source, target in ((36, 36), (44, 44 if joint else 36))
    )
    random = np.random.default_rng(1)
    weights = {path: random.normal(size=a.shape).astype("float32") for path, a in get_arrays(before.weights).items()}
    weights = {path: weights[path] for path in get_arrays(before.trainable_variables)}
    said = []
    start = ModelFolder(config, old, old, weights, {})
    found = convert_weights(start, after, (new, new if joint else old), said.append)
    assign_arrays(after.trainable_variables, found, "the test")
    ids, num_kept = map_tokens(old, new)
    told = "tokens are tokens of the start model; the others begin as the mean of the tokens that spell them there."
    assert said == [f"{num_kept} of 44 {side} {told}" for side in ("source", "target")[: 1 + joint]]
    changed = {"source_embedding/matrix", *(["projection/bias", "projection/lexical_matrix"] if joint else [])}
    assert {path for path in weights if found[path] is not weights[path]} == changed
    for path in changed:
        rows = [sum(weights[path][one].astype("float64") for one in spelled) / len(spelled) for spelled in ids]
        np.testing.assert_allclose(found[path], rows, rtol=1e-5, atol=1e-6)
        kept = [n for n, spelled in enumerate(ids) if len(spelled) == 1]
        assert (found[path][kept] == weights[path][[ids[n][0] for n in kept]]).all()


@pytest.fixture(scope="module")
def model(recipe, digits, tmp_path_factory):
    """A model of the digits whose weights are 2 everywhere."""
    config = recipe(tmp_path_factory.mktemp("start") / "run")
    lines = [line for path in (digits.train[0].source, digits.train[0].target) for line in read_lines(path)]
    tokenizer = make_tokenizer("unigram", 28, lines)
    made = make_seq2seq(config.model, source_vocabulary_size=28, target_vocabulary_size=28)
    weights = {path: np.full_like(array, 2) for path, array in get_arrays(made.trainable_variables).items()}
    return ModelFolder(config, tokenizer, tokenizer, weights, get_fingerprints(tokenizer, tokenizer))


@pytest.fixture
def begin(model, tmp_path):
    """A run folder with that model."""
    model.save(tmp_path / "run" / "best")
    return tmp_path / "run"


@pytest.mark.parametrize("place", ["", "best"])
def test_a_new_run_begins_with_the_best_weights(rehearsal, recipe, begin, tmp_path, place):
    config = recipe(tmp_path / "new", max_updates=3, batch_size=8, start_from=begin / place)
    best = rehearsal.train(config, bleu=[3])
    assert rehearsal.said[0] == f"Starting from the weights of {begin / place}, with its tokenizers."
    # Three updates add 1 each.
    assert all((array == 5).all() for array in ModelFolder.load(best).weights.values())
    assert rehearsal.update.state_variables[0].numpy() == 3
    records = [json.loads(line) for line in (tmp_path / "new" / "history.jsonl").read_text().splitlines()]
    assert [record["update"] for record in records if record["kind"] == "training"] == [1, 2, 3]
    assert load_stored_config(best / "config.yaml").training.start_from == begin / place


def test_a_run_is_resumed_without_the_model_that_it_started_from(rehearsal, recipe, begin, tmp_path):
    config = recipe(tmp_path / "new", max_updates=3, validate_every=2, start_from=begin)
    with pytest.raises(RuntimeError, match="no outcome was told"):
        rehearsal.train(config, bleu=[])
    shutil.rmtree(begin)
    best = rehearsal.train(config, bleu=[1, 2])
    assert all((array == 2 + 3).all() for array in ModelFolder.load(best).weights.values())


def with_tokenizer(config: Config, **tokenizer) -> Config:
    return config.model_copy(update={"tokenizer": TokenizerConfig(**tokenizer)})


def test_without_settings_of_a_tokenizer_those_of_the_start_take_effect(rehearsal, recipe, begin, tmp_path):
    config = with_tokenizer(recipe(tmp_path / "new", max_updates=2, start_from=begin), sampling_alpha=0.5)
    rehearsal.train(config, bleu=[1])
    assert rehearsal.said[0].endswith(", with its tokenizers.")
    stored = load_stored_config(tmp_path / "new" / "config.yaml").tokenizer
    assert (stored.vocabulary_size, stored.byte_fallback, stored.sampling_alpha) == (28, False, 0.5)
    shutil.rmtree(begin)
    rehearsal.train(
        config.model_copy(update={"training": config.training.model_copy(update={"max_updates": 3})}), bleu=[1]
    )
    assert load_stored_config(tmp_path / "new" / "config.yaml").tokenizer == stored


def test_settings_equal_to_the_defaults_are_settings(model):
    start = model.config.tokenizer
    assert start.vocabulary_size != TokenizerConfig().vocabulary_size
    assert has_tokenizers_of(start, TokenizerConfig())
    assert has_tokenizers_of(start, TokenizerConfig(sampling_alpha=0.5))
    assert has_tokenizers_of(start, start.model_copy(update={"sampling_alpha": 0.5}))
    assert not has_tokenizers_of(start, TokenizerConfig(vocabulary_size=TokenizerConfig().vocabulary_size))
    assert not has_tokenizers_of(start, start.model_copy(update={"source_model": "a", "target_model": "a"}))


def test_the_size_of_tokenizers_from_files_is_that_of_the_vocabulary(model, tmp_path):
    files = dict.fromkeys(("source_model", "target_model"), tmp_path / "x.model")
    replace(model, config=with_tokenizer(model.config, **files)).save(tmp_path / "run" / "best")
    training = model.config.training.model_copy(update={"start_from": tmp_path / "run"})
    for size, uses_its_tokenizers in ((28, True), (8000, False)):
        config = with_tokenizer(model.config, vocabulary_size=size).model_copy(update={"training": training})
        found, start = find_start(config, RunFolder(tmp_path / "new"), lambda line: None)
        assert has_tokenizers_of(start.config.tokenizer, found.tokenizer) == uses_its_tokenizers
        assert found.tokenizer == config.tokenizer


def test_other_tokenizers_are_trained_or_read(rehearsal, recipe, begin, tmp_path):
    config = recipe(tmp_path / "trained", max_updates=1, start_from=begin, tokenizer={"vocabulary_size": 30})
    rehearsal.train(config, bleu=[1])
    assert rehearsal.said[0].endswith(", with other tokenizers.")
    assert any(re.match(r"\d+ of 30 source tokens are tokens of the start model", line) for line in rehearsal.said)
    # Whatever spells a token, the mean of equal rows is the same.
    assert all((array == 3).all() for array in ModelFolder.load(tmp_path / "trained").weights.values())
    given = dict.fromkeys(("source_model", "target_model"), tmp_path / "trained" / "source.model")
    rehearsal.train(with_tokenizer(recipe(tmp_path / "read", max_updates=1, start_from=begin), **given), bleu=[1])
    read = Tokenizer.load(tmp_path / "read" / "source.model")
    assert read.fingerprint == Tokenizer.load(tmp_path / "trained" / "source.model").fingerprint


def test_a_start_of_another_architecture_is_refused(rehearsal, recipe, begin, tmp_path):
    other = {"encoder_units": 32, "attention": "additive", "attention_heads": 8, "layer_dropout": 0.5}
    words = (
        f"training.start_from: the model in {begin} has another architecture than this configuration:\n"
        "  model.encoder_units: 16 became 32\n  model.attention: multi_head became additive\n"
        "  model.attention_heads: 2 became 8\nRestore the old values, or"
    )
    with pytest.raises(UserError, match=re.escape(words)):
        rehearsal.train(recipe(tmp_path / "new", start_from=begin, model=other), bleu=[])
    with pytest.raises(UserError, match=r"^training\.start_from: There is no folder .*nothing\. Expected a run folder"):
        rehearsal.train(recipe(tmp_path / "new", start_from=tmp_path / "nothing"), bleu=[])
    assert not (tmp_path / "new").exists()


def test_a_start_that_cannot_be_saved_is_an_error(rehearsal, recipe, begin, tmp_path, monkeypatch):
    def save(path, *args):
        raise OSError("No space left on device")

    monkeypatch.setattr("nmt.training.checkpoint.save_arrays", save)
    with pytest.raises(UnsavedError, match=r"^The run was not started: .*new cannot hold its first checkpoint"):
        rehearsal.train(recipe(tmp_path / "new", start_from=begin), bleu=[])
    monkeypatch.setattr("nmt.training.checkpoint.save_arrays", save_arrays)
    rehearsal.train(recipe(tmp_path / "new", max_updates=1, start_from=begin), bleu=[1])
