from itertools import permutations

import pytest

from benchmarks.corpus import join_tokens, write_lines
from benchmarks.equal_time import write_text
from nmt.config.file import config_from_text
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.errors import UserError

CONFIG = """\
run_dir: x
data:
  source_language: en
  target_language: de
  train: [{source: train.en, target: train.de}]
  dev: {source: dev.en, target: dev.de}
tokenizer: {vocabulary_size: 280}
training: {max_updates: 9}
"""


def test_pairs_stay_together_in_another_order_and_blank_ones_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = [" ".join(words) for words in permutations(("one", "two", "six", "ten"))]
    targets = [" ".join(words) for words in permutations(("eins", "zwei", "sechs", "zehn"))]
    write_lines(tmp_path / "train.en", ["alone", *sources])
    write_lines(tmp_path / "train.de", [" ", *targets])
    write_lines(tmp_path / "dev.en", sources[:3])
    write_lines(tmp_path / "dev.de", targets[:3])
    into = tmp_path / "into"
    assert write_text(config_from_text(CONFIG, "x.yaml"), into) == len(sources)
    tokenizer = Tokenizer.load(into / "tokenizer.model")
    read = {name: join_tokens(tokenizer, read_lines(into / name)) for name in ("train.en", "train.de", "dev.de")}
    assert sorted(zip(read["train.en"], read["train.de"], strict=True)) == sorted(zip(sources, targets, strict=True))
    assert read["train.en"] != sources
    assert read["dev.de"] == targets[:3]
    assert len(read_lines(into / "vocabulary.txt")) == tokenizer.vocabulary_size - 4


def test_the_tokenizer_that_a_recipe_names_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [" ".join(words) for words in permutations(("one", "two", "six", "ten"))]
    for part, side in (("train", "en"), ("train", "de"), ("dev", "en"), ("dev", "de")):
        write_lines(tmp_path / f"{part}.{side}", lines)
    for name, text in (("lower", lines), ("copy", lines), ("upper", [line.upper() for line in lines])):
        tokenizer = train_tokenizer(text, kind="unigram", vocabulary_size=16, byte_fallback=False)
        tokenizer.save(tmp_path / f"{name}.model")
    untied = f"{CONFIG}model: {{tied_embeddings: none}}\n"
    named = untied.replace("vocabulary_size: 280", "source_model: lower.model, target_model: copy.model")
    write_text(config_from_text(named, "x.yaml"), tmp_path / "into")
    assert (tmp_path / "into" / "tokenizer.model").read_bytes() == (tmp_path / "lower.model").read_bytes()
    for text in (named.replace("copy", "upper"), untied.replace("280", "280, joint: false")):
        with pytest.raises(UserError, match=r"^Expected a recipe with one tokenizer for both languages, found two\.$"):
            write_text(config_from_text(text, "x.yaml"), tmp_path / "two")
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"train.de}": "train.de, weight: 2}"}, "data.train.0.weight"),
        ({"train.de}": "train.de, weights: factors}"}, "data.train.0.weights"),
        ({"train.de}": "train.de, weight: 2, tag: <2de>}"}, "data.train.0.weight, data.train.0.tag"),
        ({"  dev:": "  placeholders: {kinds: [number]}\n  dev:"}, "data.placeholders"),
    ],
)
def test_text_that_nmt_changes_or_weighs_is_refused(tmp_path, change, key):
    [(old, new)] = change.items()
    text = CONFIG.replace(old, new)
    with pytest.raises(UserError, match=f"^Expected a recipe without weights, tags and placeholders, found {key}\\.$"):
        write_text(config_from_text(text, "x.yaml"), tmp_path / "into")
    assert not (tmp_path / "into").exists()
