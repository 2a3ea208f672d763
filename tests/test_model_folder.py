import gzip
from dataclasses import replace

import numpy as np
import pytest

from nmt import weights as weights_file
from nmt.config.schema import Config
from nmt.data import tokenizer as tokenizers
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import UserError
from nmt.model_folder import ModelFolder, find_model_folder, get_fingerprints
from nmt.models.seq2seq import make_seq2seq
from nmt.translators.model import ModelTranslator
from nmt.weights import get_arrays

LINES = ["one two three four", "five six seven eight", "nine zero one five", "two six four eight"]


def tokenizer(lines=LINES):
    return train_tokenizer(
        lines, kind="bpe", vocabulary_size=24, character_coverage=1.0, byte_fallback=False, user_symbols=[],
        normalization="nmt_nfkc", seed=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    config = Config(
        data={
            "source_language": "en",
            "target_language": "de",
            "train": [{"source": "train.en", "target": "train.de"}],
            "dev": {"source": "dev.en", "target": "dev.de"},
        },
        tokenizer={"vocabulary_size": 24, "joint": False},
        model={
            "embedding_units": 16,
            "encoder_units": 16,
            "decoder_units": 16,
            "decoder_layers": 1,
            "attention_heads": 2,
            "tied_embeddings": "none",
        },
        training={"max_updates": 1},
    )
    source, target = tokenizer(), tokenizer([line[::-1] for line in LINES])
    weights = get_arrays(
        make_seq2seq(config.model, source_vocabulary_size=24, target_vocabulary_size=24).trainable_variables
    )
    return ModelFolder(config, source, target, weights, {"update": 7, **get_fingerprints(source, target)})


@pytest.fixture
def path(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_folder_is_read_as_it_was_written(model, path):
    found = ModelFolder.load(path)
    assert found.config == model.config
    assert found.source_tokenizer.model == model.source_tokenizer.model
    assert found.target_tokenizer.model == model.target_tokenizer.model
    assert found.facts == model.facts
    assert found.weights.keys() == model.weights.keys()
    for name, array in model.weights.items():
        np.testing.assert_array_equal(found.weights[name], array, strict=True)


def test_it_holds_four_files_and_nothing_else(path):
    assert names(path) == ["config.yaml", "source.model", "target.model", "weights.h5"]


def test_it_translates_after_it_was_moved(path, tmp_path):
    path.rename(tmp_path / "moved")
    assert len(ModelTranslator.load(tmp_path / "moved").translate(["one two", "nine"])) == 2


def test_a_newer_model_replaces_it(model, path):
    (path / "left_over").write_text("from the older model")
    ModelFolder(model.config, model.source_tokenizer, model.target_tokenizer, model.weights, {"update": 8}).save(path)
    assert ModelFolder.load(path).facts == {"update": 8}
    assert names(path.parent) == ["model"]
    assert "left_over" not in names(path)


def test_a_run_folder_stands_for_its_best_model(model, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    model.save(tmp_path / "run" / "best")
    assert find_model_folder(tmp_path / "run") == tmp_path / "run" / "best"
    assert ModelFolder.load(tmp_path / "run").facts == model.facts


def test_a_model_that_is_being_replaced_is_found(model, tmp_path):
    """A process killed while it replaced the model, or one that is about to finish doing so."""
    model.save(tmp_path / "run" / "best")
    (tmp_path / "run" / "best").rename(tmp_path / "run" / ".best.old")
    for path in (tmp_path / "run", tmp_path / "run" / "best"):
        assert ModelFolder.load(path).facts == model.facts
    assert names(tmp_path / "run") == [".best.old"]


def test_a_run_without_a_best_model_is_reported(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"has no best model yet\. The first validation writes it\."):
        ModelFolder.load(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    expected = r"There is no folder .*nowhere\. Expected a run folder, a model folder or an export"
    with pytest.raises(UserError, match=expected):
        ModelFolder.load(tmp_path / "nowhere")


def test_a_misspelt_folder_and_a_file_are_named_with_the_right_folder(tmp_path):
    (tmp_path / "demo" / "best").mkdir(parents=True)
    (tmp_path / "demo.txt").touch()
    with pytest.raises(UserError, match=rf"^There is no folder {tmp_path}/demp\. Did you mean 'demo'\? Expected a run"):
        ModelFolder.load(tmp_path / "demp")
    for name in ("demo.txt", "demo/best/weights.h5"):
        (tmp_path / name).touch()
        expected = rf"^{tmp_path / name} is a file\. Expected a run folder, a model folder or an export\."
        with pytest.raises(UserError, match=expected) as found:
            ModelFolder.load(tmp_path / name)
        hint = f" Its folder is {tmp_path}/demo/best." if "weights" in name else ""
        assert str(found.value).endswith(f"an export.{hint}")


def test_another_kind_of_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a model folder: expected weights.h5 in it or in .*best"):
        ModelFolder.load(tmp_path)


@pytest.mark.parametrize("lost", [["config.yaml"], ["source.model", "target.model"]], ids=", ".join)
def test_missing_files_are_named(path, lost):
    for name in lost:
        (path / name).unlink()
    with pytest.raises(UserError, match=rf"The model folder .*model lacks {', '.join(lost)}\."):
        ModelFolder.load(path)


@pytest.mark.parametrize("side", ["source", "target"])
def test_the_tokenizer_of_another_model_is_reported(path, side):
    tokenizer(["other words entirely", *LINES]).save(path / f"{side}.model")
    words = rf"{side}.model belongs to another model: weights.h5 was trained with a different tokenizer"
    with pytest.raises(UserError, match=words):
        ModelFolder.load(path)


def test_a_damaged_tokenizer_is_reported(path):
    (path / "source.model").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"source.model: "):
        ModelFolder.load(path)


def test_weights_of_another_architecture_are_reported(path):
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("encoder_units: 16", "encoder_units: 32"))
    with pytest.raises(
        UserError, match=r"has shape \[.*\], but this model expects \[.*\]\. It was saved by a model of another"
    ):
        ModelTranslator.load(path)
    (path / "config.yaml").write_text(text.replace("layer_norm: false", "layer_norm: true"))
    with pytest.raises(UserError, match=r"has no weight .*norm.*\. It was saved by a model of another architecture"):
        ModelTranslator.load(path)


@pytest.mark.parametrize(
    ("before", "after"),
    [("encoder_units: 16", "encoder_units: 100000"), ("decoder_layers: 1", "decoder_layers: 1000000")],
)
def test_a_model_larger_than_its_weights_is_not_built(path, before, after):
    text = (path / "config.yaml").read_text()
    assert before in text
    (path / "config.yaml").write_text(text.replace(before, after))
    with pytest.raises(UserError, match=r"config.yaml does not fit weights.h5: a model of this size has more than"):
        ModelFolder.load(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.yaml", b"data:\n  source_language: \xff\n", r"config.yaml:2: expected UTF-8, found the byte 0xff"),
        ("config.yaml", b"\0" * 5, r"config.yaml:1: the character U\+0000 is not allowed"),
        ("config.yaml", b"a: " + b"[" * 2000, r"config.yaml:1: nested too deeply"),
        ("config.yaml", b"#" * 2_000_000, r"config.yaml has 2,000,000 bytes, expected at most 1,048,576"),
        ("config.yaml", b"", r"config.yaml: expected sections such as 'training:' with keys in them"),
        ("source.model", b"", r"source.model: Expected a SentencePiece model"),
        ("source.model", b"\x0a\xff\xff", r"source.model: Expected a SentencePiece model"),
        ("target.model", b"\0" * 100, r"target.model: Expected a SentencePiece model"),
        ("weights.h5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 100, r"weights.h5 is damaged or not a weights file"),
    ],
)
def test_a_damaged_file_is_one_message(path, name, content, words):
    (path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        ModelFolder.load(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.yaml", r"config.yaml: expected a configuration of at most 4,000,000 bytes, found a larger file"),
        ("source.model", r"source.model: expected a SentencePiece model of at most 1,000,000 bytes"),
        ("target.model", r"target.model: expected a SentencePiece model of at most 1,000,000 bytes"),
    ],
)
def test_a_compressed_file_is_not_unpacked_beyond_its_limit(path, monkeypatch, name, words):
    monkeypatch.setattr(tokenizers, "MAX_MODEL_BYTES", 1_000_000)
    (path / name).write_bytes(gzip.compress(b"#" * 5_000_000))
    with pytest.raises(UserError, match=words):
        ModelFolder.load(path)


def test_a_format_of_another_version_explains_keys_that_this_one_does_not_know(path, monkeypatch):
    folder = ModelFolder.load(path)
    monkeypatch.setattr(weights_file, "FORMAT", 2)
    folder.save(path)
    monkeypatch.undo()
    (path / "config.yaml").write_text((path / "config.yaml").read_text() + "\nquantum: {}\n")
    with pytest.raises(UserError, match=r"weights.h5 has format 2, but this version of nmt reads format 1"):
        ModelFolder.load(path)


@pytest.mark.parametrize(
    "facts", [{"update": "many"}, {"dev_bleu": []}, {"multi_sentence_share": None}, {"versions": 1}]
)
def test_facts_of_another_type_are_named(model, path, facts):
    replace(model, facts={**model.facts, **facts}).save(path)
    with pytest.raises(UserError, match=rf"weights.h5 is damaged: its fact {next(iter(facts))} is "):
        ModelFolder.load(path)


def test_a_path_that_cannot_be_written_is_named(model, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"Cannot write .*model.*: .*file is a file, not a folder"):
        model.save(tmp_path / "file" / "model")
    assert (tmp_path / "file").read_text() == "not a folder"
