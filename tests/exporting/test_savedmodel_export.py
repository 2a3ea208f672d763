"""Exporting a model folder to a version folder, or failing without a trace."""

import errno
import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nmt.cli.main import app
from nmt.config.schema import DevFiles
from nmt.data.corpus import read_parallel
from nmt.errors import ParityError, UserError
from nmt.evaluation.metrics import bleu
from nmt.exporting import bundle, parity
from nmt.exporting.job import read_sample
from nmt.exporting.quantization import Quantization
from nmt.exporting.savedmodel import export
from nmt.translators.model import ModelTranslator
from nmt.translators.savedmodel import SavedModelTranslator
from tests.exported_model import MAX_BATCH, MAX_CHARACTERS, MAX_TOKENS, NBEST, SENTENCES, round_weights


def names_in(folder: Path) -> set[str]:
    return {child.name for child in folder.iterdir()}


@pytest.fixture
def known_answers(exported, monkeypatch) -> list:
    """Translates with the artefact in this process, which saves the start of a fresh one."""
    asked = []

    def answer(folder: Path, sources: list[str]) -> dict:
        asked.append((folder, sources))
        best, nbest = (exported.call(name, sources) for name in ("serving_default", "nbest"))
        return {
            "translations": [text.decode() for text in best["translation"]],
            "nbest_translations": [row[0].decode() for row in nbest["translations"]],
            "truncated": best["truncated"].tolist(),
            "target_tokens": [[token.decode() for token in row[0] if token] for row in nbest["target_tokens"]],
            "sentences_per_second": 10.0,
        }

    monkeypatch.setattr(parity, "run_artefact", answer)
    return asked


def test_the_first_version_is_a_saved_model_with_a_record(exported, model_folder):
    assert exported.version.name == "1"
    assert names_in(exported.version.parent) == {"1", *bundle.NAMES}
    assert {"saved_model.pb", "variables", "assets.extra"} <= names_in(exported.version)
    record = json.loads((exported.version / "assets.extra" / "export.json").read_text())
    assert record["format"] == 2
    assert (record["source_language"], record["target_language"]) == ("en", "de")
    assert record["decoding"] == {**model_folder.config.decoding.model_dump(), "precision": "float32"}
    assert record["limits"] == {
        "max_characters": MAX_CHARACTERS,
        "max_tokens": MAX_TOKENS,
        "max_batch": MAX_BATCH,
        "nbest": NBEST,
        "max_request": 4 * MAX_BATCH,
    }
    assert record["model"]["path"] == str(exported.model) and record["model"]["update"] == 7
    assert set(record["versions"]) == {"nmt", "tensorflow", "tensorflow-text", "keras", "sentencepiece"}


def test_the_record_contains_the_comparison_by_a_fresh_process(exported, model_folder):
    record = json.loads((exported.version / "assets.extra" / "export.json").read_text())["parity"]
    dev = model_folder.config.data.dev
    sources, references = read_parallel(dev.source, dev.target)
    assert (record["compared"], record["truncated"]) == (len(sources) - 1, 1)  # the export truncates the last
    assert (record["ties"], record["differing"]) == (0, [])
    expected = bleu(exported.translator.translate(sources[:-1]), references[:-1], target_language="de")
    assert record["bleu_model"] == record["bleu_artefact"] == pytest.approx(expected)
    assert record["outputs"].keys() == {"nbest", "attention", "token_log_probs"}
    assert max(record["outputs"].values()) < 1e-3
    costs = record["costs"]
    assert costs["sentences_per_second_artefact"] > 0 and costs["sentences_per_second_model"] > 0
    assert costs["bytes_artefact"]["saved_model.pb"] == (exported.version / "saved_model.pb").stat().st_size
    variables = sum(file.stat().st_size for file in (exported.version / "variables").iterdir())
    assert costs["bytes_artefact"]["variables"] == variables
    assert costs["bytes_model"] == sum(array.nbytes for array in model_folder.weights.values())
    assert any("0 differ" in line and "sentences/s" in line for line in exported.logged)


def test_clients_get_the_models_tokenizers(exported, model_folder):
    extra = exported.version / "assets.extra"
    assert (extra / "source.model").read_bytes() == model_folder.source_tokenizer.model
    assert (extra / "target.model").read_bytes() == model_folder.target_tokenizer.model


def test_the_server_version_is_that_of_tensorflow_unless_another_is_set(
    exported, moved_model, model_folder, copied_graph, known_answers, tmp_path
):
    major, minor = version("tensorflow").split(".")[:2]
    record = json.loads((exported.version / "assets.extra" / "export.json").read_text())
    assert record["server_version"] == f"{major}.{minor}.0"
    newer, older = f"{major}.{int(minor) + 1}.3", f"{major}.{int(minor) - 1}.9"
    config = model_folder.config
    config = config.model_copy(update={"export": config.export.model_copy(update={"server_version": older})})
    moved, said = moved_model(config=config), []
    with pytest.raises(UserError, match=rf"export\.server_version is {older}, but TensorFlow .* writes the graph"):
        export(moved, tmp_path / "served", log=said.append)
    assert not (tmp_path / "served").exists()
    folder = export(moved, tmp_path / "served", export={"server_version": newer}, log=said.append)
    assert f"The server {newer} is newer than TensorFlow" in said[0]
    assert json.loads((folder / "assets.extra" / "export.json").read_text())["server_version"] == newer
    assert f"tensorflow/serving:{newer}\n" in (tmp_path / "served" / "compose.yaml").read_text().replace('"', "")
    with pytest.raises(UserError, match=r"server_version must be three numbers, such as 2\.21\.0; found 'latest'"):
        export(moved, tmp_path / "served", export={"server_version": "latest"}, log=said.append)


def test_weights_are_saved_once(exported):
    data = sum(file.stat().st_size for file in (exported.version / "variables").iterdir())
    weights = sum(variable.value.numpy().nbytes for variable in exported.translator.model.trainable_variables)
    assert weights < data < 1.5 * weights + 20_000


def test_a_graph_of_other_weights_fails_and_leaves_nothing(moved_model, model_folder, copied_graph, tmp_path):
    """The graph is that of another model. A fresh process translates with it."""
    other = {name: array[..., ::-1].copy() for name, array in model_folder.weights.items()}
    with pytest.raises(ParityError, match="sentences differently from the model, so nothing was written"):
        export(moved_model(weights=other), tmp_path / "served", log=lambda line: None)
    assert not (tmp_path / "served").exists()


def test_bfloat16_weights_are_smaller_and_the_record_has_their_quality(exported, tmp_path):
    """Runs both processes. Random weights lose much by rounding."""
    allowed = {"kind": "bfloat16", "precision": "bfloat16", "max_bleu_loss": 100}
    version = export(exported.model, tmp_path, quantize=Quantization(**allowed), log=lambda line: None)
    parity = check_quantized(version, {"max_differing": 0.1, **allowed}, share=0.6)
    assert parity["bleu_model"] > 0


def check_quantized(version: Path, quantized: dict, *, share: float) -> dict:
    """Its record says how, and what it cost, and its weights have less than this share of their former bytes."""
    record = json.loads((version / "assets.extra" / "export.json").read_text())
    parity = record["parity"]
    assert parity["quantized"] == quantized
    assert record["decoding"]["precision"] == quantized["precision"]
    assert parity["differing"]  # the rounding has an effect
    assert parity["costs"]["bytes_artefact"]["variables"] < share * parity["costs"]["bytes_model"]
    return parity


def test_quantized_weights_that_lose_too_much_leave_nothing(
    exported, copied_graph, known_answers, monkeypatch, tmp_path
):
    before = parity.run_artefact

    def wrong(folder: Path, sources: list[str]) -> dict:
        return {**before(folder, sources), "translations": ["?" for _ in sources]}

    monkeypatch.setattr(parity, "run_artefact", wrong)
    (tmp_path / "mine.txt").write_text("\n".join(SENTENCES[:10]))
    given = {"sample": tmp_path / "mine.txt", "log": lambda line: None}
    with pytest.raises(ParityError, match=r"10 of 10 translations differ .* at most 90% may"):
        export(exported.model, tmp_path / "served", quantize=Quantization("int8", 0, 0.9), **given)
    assert not (tmp_path / "served").exists()

    def fill_disk(into: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # The files beside the version are written last.
    monkeypatch.setattr(bundle.Bundle, "write", lambda files, into, log: fill_disk(into))
    with pytest.raises(UserError, match=r"^Cannot write .*served/1: No space left on device\.$"):
        export(exported.model, tmp_path / "served", quantize=Quantization("int8", 0, 1), **given)
    assert names_in(tmp_path) == {"mine.txt"}


def test_unknown_kinds_of_quantization_are_refused():
    with pytest.raises(UserError, match=r"quantize: expected bfloat16 or int8, found 'int4'. Did you mean 'int8'\?"):
        Quantization("int4")
    with pytest.raises(UserError, match=r"precision: expected float32 or bfloat16, found 'float61'. Did you mean"):
        Quantization("bfloat16", precision="float61")
    with pytest.raises(UserError, match="precision: bfloat16 needs bfloat16 weights, but quantize is int8"):
        Quantization("int8", precision="bfloat16")


def test_a_failure_leaves_older_versions_as_they_were(exported, copied_graph, known_answers, monkeypatch, tmp_path):
    (tmp_path / "4").mkdir()
    before = parity.run_artefact

    def wrong(folder: Path, sources: list[str]) -> dict:
        return {**before(folder, sources), "translations": ["?" for _ in sources]}

    monkeypatch.setattr(parity, "run_artefact", wrong)
    with pytest.raises(ParityError):
        export(exported.model, tmp_path, log=lambda line: None)
    assert names_in(tmp_path) == {"4"}


def test_the_next_number_is_taken(exported, copied_graph, known_answers, tmp_path):
    """The number of a withdrawn version is not reused."""
    before = {"9", "10", "11.withdrawn", "notes"}
    for name in before:
        (tmp_path / name).mkdir()
    assert export(exported.model, tmp_path, log=lambda line: None) == tmp_path / "12"
    assert (tmp_path / "12" / "saved_model.pb").is_file()
    assert names_in(tmp_path) == before | {"12", *bundle.NAMES}


def test_a_sample_of_the_users_is_compared_without_references(
    exported, moved_model, model_folder, copied_graph, known_answers, tmp_path
):
    dev = DevFiles(source=tmp_path / "gone.en", target=tmp_path / "gone.de")
    config = model_folder.config
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"dev": dev}),
            "export": config.export.model_copy(update={"sample": 5}),
        }
    )
    moved = moved_model(config=config)
    with pytest.raises(UserError, match=r"gone\.en no longer exists\. .*--sample FILE"):
        export(moved, tmp_path / "served", log=lambda line: None)
    assert not (tmp_path / "served").exists()
    (tmp_path / "mine.txt").write_text("\n".join(SENTENCES))
    version = export(moved, tmp_path / "served", sample=tmp_path / "mine.txt", log=lambda line: None)
    assert [sources for _, sources in known_answers] == [SENTENCES[:5]]
    record = json.loads((version / "assets.extra" / "export.json").read_text())["parity"]
    assert record["compared"] == 5 and record["bleu_model"] is None


@pytest.mark.parametrize("content", ["", "\n\n", " \n\u3000\n"])
def test_a_sample_needs_sentences(tmp_path, content):
    (tmp_path / "sample").write_text(content)
    files = DevFiles(source=tmp_path / "sample", target=tmp_path / "sample")
    with pytest.raises(UserError, match=r"sample is empty, or its first 7 lines .* are blank\. Expected sentences"):
        read_sample(files, tmp_path / "sample", 7)
    if content:
        with pytest.raises(
            UserError, match=r"the first 7 lines of .*sample, the dev text, are blank\. .* --sample FILE"
        ):
            read_sample(files, None, 7)


def test_blank_lines_of_a_dev_text_with_a_tag_stay_blank(tmp_path):
    (tmp_path / "dev").write_text("a\n\nb\n")
    dev = DevFiles(source=tmp_path / "dev", target=tmp_path / "dev", tag="<bt>")
    assert read_sample(dev, None, 2) == (["<bt> a", ""], ["a", ""])


def test_a_sample_that_does_not_exist_is_named(exported, tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*nothing"):
        export(exported.model, tmp_path / "served", sample=tmp_path / "nothing")


def test_only_a_model_can_be_exported(exported, tmp_path):
    with pytest.raises(UserError, match=r"is an export\. Expected the run folder or model folder"):
        export(exported.version, tmp_path / "served")


def test_a_folder_that_is_not_writable_is_an_error(exported, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*file"):
        export(exported.model, tmp_path / "file" / "served", log=lambda line: None)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (
            ["tensorflow", "tensorflow_text"],
            r"needs TensorFlow, which is not installed\. Install it with: pip install tensorflow,",
        ),
        (["tensorflow_text"], r"needs the package tensorflow-text.*pip install tensorflow-text"),
    ],
)
def test_missing_packages_are_named(exported, monkeypatch, tmp_path, missing, words):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else object())
    with pytest.raises(UserError, match=words):
        export(exported.model, tmp_path / "served")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "litrt"], r"--format: expected savedmodel or litert, found 'litrt'\. Did you mean 'litert'\?"),
        (["--max-bleu-loss", "1"], "need --quantize: they limit what it may cost"),
    ],
)
def test_unknown_or_ineffective_options_are_refused(exported, tmp_path, options, words):
    result = CliRunner().invoke(app, ["export", str(exported.model), str(tmp_path / "served"), *options])
    assert result.exit_code == 2
    assert re.search(words, result.stderr)
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"decoding": {"beam_size": 2}}, "export.nbest must not exceed decoding.beam_size; found 3 and 2"),
        ({"export": {"nbest": 6}}, "export.nbest must not exceed decoding.beam_size; found 6 and 5"),
        ({"export": {"n_best": 2}}, "export.n_best: unknown key. Did you mean 'nbest'?"),
        ({"export": {"max_batch": "8"}}, "export.max_batch: expected"),
        ({"decoding": {"beam_size": 0}}, "decoding.beam_size: expected"),
        ({"decoding": {"precision": "bfloat16"}}, "decoding.precision is not a setting of an export"),
    ],
)
def test_settings_are_checked_together_with_the_models_own(exported, tmp_path, sections, words):
    with pytest.raises(UserError, match=re.escape(words)):
        export(exported.model, tmp_path / "served", **sections)
    assert not (tmp_path / "served").exists()


def test_an_export_can_search_differently_with_int8_weights(exported, tmp_path):
    """It translates as the model does with such settings and weights rounded in the same way."""
    sample = tmp_path / "sample.en"
    sample.write_text("".join(f"{line}\n" for line in SENTENCES[:40]))
    options = ["--sample", str(sample), "--beam-size", "2", "--length-penalty", "0.3", "--pruning-threshold", "0"]
    overrides = [
        "export.nbest=2",
        "export.max_characters=250",
        "decoding.min_length=3",
        "decoding.coverage_penalty=0.2",
    ]
    options += ["--quantize", "int8", "--max-differing", "1"]
    done = CliRunner().invoke(app, ["export", str(exported.model), str(tmp_path / "narrow"), *overrides, *options])
    assert done.exit_code == 0, done.output
    narrow = SavedModelTranslator.load(tmp_path / "narrow")
    changes = {
        "beam_size": 2,
        "length_penalty": 0.3,
        "pruning_threshold": 0.0,
        "min_length": 3,
        "coverage_penalty": 0.2,
    }
    assert narrow.settings == exported.translator.settings.model_copy(update=changes)
    assert narrow.max_n_best == narrow.record["limits"]["nbest"] == 2
    [cut, whole] = narrow.translate_batch(["x" * 251, "x" * 20])
    assert cut.is_truncated and not whole.is_truncated
    rounded = ModelTranslator.load(exported.model, precision="float32")
    round_weights(rounded.model, "int8")
    found = narrow.translate(SENTENCES)
    assert found == rounded.with_settings(**changes).translate(SENTENCES)
    assert found != rounded.translate(SENTENCES)
    quantized = {"kind": "int8", "precision": "float32", "max_bleu_loss": 0.5, "max_differing": 1.0}
    check_quantized(tmp_path / "narrow" / "1", quantized, share=0.5)
