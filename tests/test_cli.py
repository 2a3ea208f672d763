"""The command line as its users meet it: its exit code, and every word on standard error; mostly of a real process."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

QUESTION = ("translate", "runs/tiny", "--json", "--n-best", 3)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def nmt(*arguments, cwd=None, text="", **environment):
    """Runs `nmt` as a user would and returns the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "nmt", *map(str, arguments)],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        check=False,
    )


def reversal(number):
    words = [DIGITS[int(digit)] for digit in str(number)]
    return " ".join(words), " ".join(reversed(words))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny corpus, its configuration, and a run trained for a few updates."""
    folder = tmp_path_factory.mktemp("cli")
    pairs = [reversal(7 * number + 1) for number in range(300)]
    for name, chosen in (("train", pairs), ("dev", pairs[::30])):
        (folder / f"{name}.en").write_text("".join(f"{source}\n" for source, _ in chosen), encoding="utf-8")
        (folder / f"{name}.de").write_text("".join(f"{target}\n" for _, target in chosen), encoding="utf-8")
    (folder / "tiny.yaml").write_text(
        """
data:
  source_language: en
  target_language: de
  train: [{source: train.en, target: train.de}]
  dev: {source: dev.en, target: dev.de}
tokenizer: {vocabulary_size: 280}
model: {embedding_units: 16, encoder_units: 16, decoder_units: 16, attention_heads: 2}
training: {batch_size: 50, max_updates: 6, validate_every: 3, checkpoint_every: 3, log_every: 2, tensorboard: false}
decoding: {max_length: 12}
""",
        encoding="utf-8",
    )
    (folder / "bytes.de").write_bytes(b"one\ntwo \xff\n")
    (folder / "empty.en").touch()
    trained = nmt("train", "tiny.yaml", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    (folder / "trained.txt").write_text(f"{trained.stdout}\n---\n{trained.stderr}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def answer(place):
    """What is printed for one line."""
    done = nmt(*QUESTION, cwd=place, text="one two\n")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_training_says_what_it_does_and_nothing_else(place):
    out, err = (place / "trained.txt").read_text(encoding="utf-8").split("\n---\n")
    assert err == ""
    assert "Training text: 300 sentence pairs." in out
    assert "update 2 · epoch 1 · loss" in out
    assert "update 6 · validation: BLEU" in out
    assert "The best model is in runs/tiny/best. Try: nmt translate runs/tiny" in out


def test_the_doctor_finds_nothing_that_would_fail(place):
    done = nmt("doctor", "tiny.yaml", "--test", "dev.en", "--reference", "dev.de", "--json", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    found = {finding["check"]: finding["found"] for finding in record["findings"]}
    assert record["would_fail"] is False
    assert list(found) == [
        *("language codes", "text"),
        *("carriage returns", "unusual line breaks", "control characters", "replacement characters"),
        *("mojibake", "HTML tags", "HTML entities", "tabs", "alignment"),
        *("blank sides", "identical sides", "duplicate pairs"),
        *("blank dev sources", "blank dev references", "blank dev.en sources", "blank dev.en references"),
        *("dev in training", "dev.en in training", "languages"),
        *("tokenizer", "long pairs", "unequal lengths", "tokens per sentence"),
        *("dev source", "dev target", "dev references", "memory", "disk", "devices", "versions"),
    ]
    # The dev text of this tiny task is a part of the training text.
    assert found["dev in training"].startswith("10 of 10 sources are in the training text, 10 with their translation")
    assert found["dev.en in training"] == found["dev in training"]
    assert found["memory"].endswith("pairs fit")


def test_the_doctor_says_what_would_fail(place):
    done = nmt("doctor", "tiny.yaml", "data.dev.source=nowhere.en", cwd=place)
    assert (done.returncode, done.stderr) == (1, "")
    assert "There is no file nowhere.en." in " ".join(done.stdout.split())
    done = nmt("doctor", "tiny.yaml", "--test", "dev.en", cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Every --test needs its --reference; found 1 and 0." in done.stderr


def test_help_and_mistakes_answer_without_tensorflow(place):
    code = (
        "import sys; import nmt.cli.main; sys.argv = ['nmt', 'train', 'tiny.yaml', 'training.bacth_size=2']\n"
        "try: nmt.cli.main.main()\n"
        "except SystemExit as end: print(end.code, {'tensorflow', 'keras', 'numpy'} & {*sys.modules})"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "2 set()"
    assert process.stderr.strip() == ("command line: training.bacth_size=2: unknown key. Did you mean 'batch_size'?")
    assert "translate" in nmt("--help").stdout


def test_settings_are_overridden_by_key_and_by_option(place, answer):
    arguments = ["--beam-size", 2, "decoding.max_length=1", "--json", "--n-best", 2]
    done = nmt("translate", "runs/tiny", *arguments, cwd=place, text="one two\n")
    assert (done.returncode, done.stderr) == (0, "")
    short = json.loads(done.stdout)
    assert all(len(hypothesis["text"].split()) <= 1 for hypothesis in short["hypotheses"])
    assert short["hypotheses"] != json.loads(answer)["hypotheses"][:2]


def test_versions_are_printed(place):
    lines = dict(line.split() for line in nmt("--version").stdout.splitlines())
    assert lines["nmt"] == version("nmt")
    assert lines["keras"] == version("keras") and lines["tensorflow"] == version("tensorflow")


def test_json_has_the_source_and_falling_scores(answer):
    record = json.loads(answer)
    assert record["source"] == "one two"
    scores = [hypothesis["score"] for hypothesis in record["hypotheses"]]
    assert scores == sorted(scores, reverse=True)
    assert set(record["hypotheses"][0]) == {"text", "score", "log_prob", "is_finished"}
    texts = [hypothesis["text"] for hypothesis in record["hypotheses"]]
    assert len(set(texts)) == len(texts)


WILD = [
    b"\xef\xbb\xbfone two",  # a byte order mark
    b"one two\r",  # a line end of Windows
    b"one \0 two",
    b"one \x1b[31m two \x07\x08\x7f",
    "one\u2028two\u0085three\ftwo\vone".encode(),
    b"",
    b" \t ",
    " \u00a0\u3000".encode(),
    "👩‍👩‍👧‍👦 one 🇩🇪 two 👍🏽".encode(),
    "שלום עולם مرحبا بالعالم".encode(),
    "one два 三 τέσσερα ห้า".encode(),
    ("e\u0301" * 50).encode(),
    b"one " * 10_000,
    b"x" * 10_000,
    "\ufffe\uffff\U0010ffff".encode(),
    b"two three",
]


def test_wild_text_stays_one_line_a_line(place):
    (place / "wild.txt").write_bytes(b"".join(line + b"\n" for line in WILD))
    done = nmt("translate", "runs/tiny", "--input", "wild.txt", "--output", "tamed.txt", "--beam-size", 2, cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    tamed = (place / "tamed.txt").read_bytes().split(b"\n")
    assert len(tamed) == len(WILD) + 1
    assert [n for n, line in enumerate(tamed[:-1]) if not line.decode().strip()] == [5, 6, 7]
    assert not any(character in b"".join(tamed) for character in b"\r\0")


def test_wild_text_is_trained_on(place):
    for name in ("wild.en", "wild.de"):
        (place / name).write_bytes((place / "train.en").read_bytes() + b"".join(line + b"\n" for line in WILD))
    files = ("data.train.0.source=wild.en", "data.train.0.target=wild.de", "data.dev.source=wild.en")
    settings = ("data.dev.target=wild.de", "tokenizer.vocabulary_size=300", "run_dir=runs/wild")
    done = nmt("train", "tiny.yaml", *files, *settings, cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Training text: 313 sentence pairs; 3 more have a blank side and are left out.\n" in done.stdout
    assert "311 of 313 sentence pairs kept\n  max_length: 2 dropped\n" in done.stdout
    assert "update 6 · validation: BLEU" in done.stdout


def test_evaluation_is_one_record_with_sacrebleus_figures(place):
    arguments = (
        "evaluate",
        "runs/tiny",
        "--source",
        "dev.en",
        "--reference",
        "dev.de",
        "--output",
        "hyp.txt",
        "--json",
    )
    done = nmt(*arguments, "--tok-lc", cwd=place)
    assert done.stderr == ""
    record = json.loads(done.stdout)
    assert record["sentences"] == 10
    assert record["decoding"]["beam_size"] == 5
    command = [sys.executable, "-m", "sacrebleu", "dev.de", "-i", "hyp.txt", "-m", "bleu", "--confidence", "-f", "json"]
    expected = json.loads(subprocess.run(command, cwd=place, capture_output=True, check=True).stdout)
    assert record["bleu"]["score"] == pytest.approx(expected["score"], abs=0.06)
    assert record["bleu"]["signature"].split("|")[-1] == expected["signature"].split("|")[-1]
    assert set(record) >= {"bleu", "chrf", "ter", "bleu_tok_lc", "seconds"}


def test_info_says_what_a_folder_is(place):
    assert "run folder" in nmt("info", "runs/tiny", cwd=place).stdout
    assert "model folder" in nmt("info", "runs/tiny/best", cwd=place).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "tiny.yaml", "data.train.0.source=tain.en", "run_dir=r1"], "file tain.en. Did you mean 'train.en'"),
        (["train", "tiny.yaml", "data.train.0.source=dev.en", "run_dir=r2"], "dev.en has 10, train.de has 300"),
        (["train", "tiny.yaml", "data.train.0.target=bytes.de", "run_dir=r4"], "bytes.de:2: Expected UTF-8 text,"),
        (["train", "tiny.yaml", "data.train.0.source=empty.en", "run_dir=r5"], "in empty.en, found an empty file."),
        (["train", "tiny.yaml", "tokenizer.vocabulary_size=9000", "run_dir=r3"], "tokenizer.vocabulary_size"),
        (["train", "tiny.yaml", "run_dir=dev.en/run"], "run_dir dev.en/run: dev.en is a file, not a folder."),
        (["train", "tiny.yaml", "model.decoder_units=32"], "model.decoder_units: 16 became 32"),
        (["translate", "runs"], "runs is not a model folder: expected weights.h5 in it or in runs/best."),
        (["translate", "nowhere"], "There is no folder nowhere."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_exit_code_2(place, nmt_here, monkeypatch, arguments, words):
    """In this process: none of them gets as far as a model."""
    monkeypatch.chdir(place)
    code, out, err = nmt_here(*arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert out.count("update") == 0


def test_a_users_keras_json_does_not_leak_in(place, answer, tmp_path):
    home = tmp_path / ".keras"
    home.mkdir()
    settings = {"floatx": "float16", "epsilon": 0.5, "backend": "jax", "image_data_format": "channels_first"}
    (home / "keras.json").write_text(json.dumps(settings), encoding="utf-8")
    assert nmt(*QUESTION, cwd=place, text="one two\n", HOME=str(tmp_path)).stdout == answer
