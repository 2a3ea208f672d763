"""An export in a C program, with the C API of the installed TensorFlow and without Python."""

import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_text
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from nmt.data.tokenizer import EOS_ID
from nmt.exporting.parity import compute_log_prob
from tests.exported_model import NBEST, SENTENCES

TENSORFLOW = Path(tf.__file__).parent
OPERATIONS = Path(tensorflow_text.__file__).parent / "python" / "ops" / "_sentencepiece_tokenizer.so"
CALLS = {
    "serving_default": (["text"], ["translation", "score"]),
    "nbest": (["text"], ["translations", "log_probs"]),
    "token_log_probs": (["source", "target"], ["target_tokens", "log_prob"]),
}
SOURCES = [SENTENCES[0], "", SENTENCES[77], "€ 𝄞 日本", "der Mann liest Bücher über Schnee."]
TARGETS = [SENTENCES[3], "x", "ein Hund", "das 𝄞 Haus", "two children"]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    path = tmp_path_factory.mktemp("c") / "without_python"
    source = Path(__file__).with_name("without_python.c")
    libraries = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{TENSORFLOW}"]
    flags = ["-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", f"-I{TENSORFLOW / 'include'}", f"-L{TENSORFLOW}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(path), *libraries], check=True)
    return path


@pytest.fixture(scope="module")
def printed(exported, program) -> dict[tuple[str, str], list[str]]:
    """Returns the program's output by signature and output name, without the shapes."""
    signatures = SavedModel.FromString((exported.version / "saved_model.pb").read_bytes()).meta_graphs[0].signature_def
    arguments, order = [], []
    for name, (inputs, outputs) in CALLS.items():
        arguments.append(",".join(signatures[name].inputs[key].name for key in inputs))
        arguments.append(",".join(signatures[name].outputs[key].name for key in outputs))
        order += [(name, key) for key in outputs]
    lines = "".join(f"{source}\t{target}\n" for source, target in zip(SOURCES, TARGETS, strict=True))
    ran = subprocess.run(
        [str(program), str(OPERATIONS), str(exported.version), *arguments],
        input=lines,
        capture_output=True,
        encoding="utf-8",
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert ran.returncode == 0, ran.stderr
    first, *parts = ran.stdout.split("# ")
    assert first == f"TensorFlow {tf.__version__}, no Python\n"
    return {key: part.split("\n")[1:-1] for key, part in zip(order, parts, strict=True)}


def test_the_best_translations_are_the_python_models(exported, printed):
    expected = [translation.best for translation in exported.translator.stream(SOURCES, split=False)]
    assert printed["serving_default", "translation"] == [hypothesis.text for hypothesis in expected]
    scores = [float(score) for score in printed["serving_default", "score"]]
    assert scores == pytest.approx([hypothesis.score for hypothesis in expected], abs=1e-4)


def test_the_n_best_translations_are_the_python_models(exported, printed):
    texts, log_probs = printed["nbest", "translations"], printed["nbest", "log_probs"]
    for n, translation in enumerate(exported.translator.stream(SOURCES, n_best=NBEST, split=False)):
        expected = translation.hypotheses
        here = slice(n * NBEST, n * NBEST + len(expected))
        assert texts[here] == [hypothesis.text for hypothesis in expected]
        assert [float(x) for x in log_probs[here]] == pytest.approx([h.log_prob for h in expected], abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*softmax over axis -1")  # a blank source has one token to attend to
def test_given_translations_are_as_probable_as_to_the_python_model(exported, printed):
    tokenizer = exported.translator.target_tokenizer
    end = tokenizer.get_token(EOS_ID)
    ids = [[*tokenizer.encode([target])[0], EOS_ID] for target in TARGETS]
    expected = [compute_log_prob(exported.translator, *pair) for pair in zip(SOURCES, ids, strict=True)]
    found = [float(x) for x in printed["token_log_probs", "log_prob"]]
    assert found == pytest.approx(expected, abs=1e-2)
    assert printed["token_log_probs", "target_tokens"].count(end) == len(TARGETS)


def test_the_program_says_what_is_wrong(program, exported, tmp_path):
    ran = subprocess.run(
        [str(program), str(OPERATIONS), str(tmp_path), "text:0", "translation:0"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 1 and ran.stderr.splitlines()[-1].startswith("loading the model: ")
