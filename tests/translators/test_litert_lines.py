"""An export for LiteRT as `nmt translate` uses it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nmt.errors import UserError
from nmt.server.run import open_model
from nmt.translators.describe import describe
from nmt.translators.litert import LiteRTTranslator
from nmt.translators.markup import stream_markup
from nmt.translators.opening import open_translator
from tests.exported_model import PARAGRAPH, SENTENCES

LONG = ". ".join(SENTENCES[:30])  # more tokens than the model reads at once
LINES = ["", *SENTENCES[:40], "  ", LONG, "€ 𝄞 日本", PARAGRAPH, "a" * 300, ""]


@pytest.fixture(scope="module")
def folder(exported_litert) -> Path:
    return exported_litert[0]


@pytest.fixture(scope="module")
def translator(folder) -> LiteRTTranslator:
    return open_translator(folder)


def test_lines_come_back_in_order_with_the_models_translations_and_scores(exported, translator):
    ties = 0
    for ours, theirs in zip(translator.stream(LINES), exported.translator.stream(LINES), strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)
        if ours.text == theirs.text:
            assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-3)
        else:
            ties += 1  # Two hypotheses have the same score, up to rounding, which differs between processors.
    assert ties <= 1


def test_several_threads_say_what_one_says(folder, translator, monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert LiteRTTranslator.load(folder).translate(LINES) == translator.translate(LINES)


def test_what_it_cannot_do_is_refused(folder, translator):
    with pytest.raises(UserError, match="one translation per line, and 2 were requested"):
        next(translator.stream(["x"], n_best=2))
    for needs_attention in (translator.stream(["x"], attention=True), stream_markup(translator, ["<b>x</b>"])):
        with pytest.raises(UserError, match="An export for LiteRT returns no attention weights"):
            next(needs_attention)
    with pytest.raises(UserError, match=r"made with decoding.beam_size \d+ and cannot translate with 17"):
        open_translator(folder, beam_size=17)
    with pytest.raises(UserError, match=r"is an export for LiteRT\. Serve a SavedModel or the model itself"):
        open_model(folder, {})


def test_a_folder_that_is_not_whole_is_named(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    record = json.loads((copy / "export.json").read_text())
    weights = bytearray((copy / "model.tflite").read_bytes())
    weights[len(weights) // 2] ^= 1
    (copy / "model.tflite").write_bytes(weights)
    with pytest.raises(UserError, match=r"model\.tflite is damaged: its checksum is not the one in export\.json"):
        LiteRTTranslator.load(copy)
    for number, advice in ((1, "Export the model again"), (3, "Update the toolkit")):
        (copy / "export.json").write_text(json.dumps({**record, "format": number}))
        with pytest.raises(UserError, match=rf"has format {number}; this version reads format 2\. {advice}\."):
            LiteRTTranslator.load(copy)
    (copy / "export.json").write_text("{")
    with pytest.raises(UserError, match=r"export\.json is damaged"):
        LiteRTTranslator.load(copy)
    (copy / "export.json").unlink()
    with pytest.raises(UserError, match=r"is not an export of this toolkit: it has no export\.json"):
        LiteRTTranslator.load(copy)


def test_it_is_described(folder):
    assert "export (LiteRT)" in describe(folder)


def test_the_command_line_translates_without_tensorflow_and_keras(exported, folder):
    code = (
        "import sys; sys.modules.update(tensorflow=None, keras=None); sys.argv = ['nmt', 'translate', sys.argv[1]];"
        "from nmt.__main__ import main; main()"
    )
    text = "".join(f"{line}\n" for line in SENTENCES[:5])
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], input=text, capture_output=True, text=True, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == exported.translator.translate(SENTENCES[:5])
