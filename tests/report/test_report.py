"""Reports of runs whose records are written by hand, and of a random model whose scores are told."""

import html
import json
import re
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from nmt.cli.main import main
from nmt.config.file import dump_config
from nmt.config.schema import Config
from nmt.decoding.word_links import WordLinks
from nmt.errors import UserError
from nmt.evaluation.metrics import score
from nmt.report import page, records
from nmt.report.examples import examine_pairs
from nmt.report.page import report_runs, write_html
from nmt.report.records import read_run
from nmt.training.run_folder import RunFolder
from nmt.translators.hypothesis import ScoredTranslation

NASTY = '<script>alert("1")</script>&amp;'
SOURCES = [NASTY, "日本語の文", "שלום עולם", "one more"]
TARGETS = ["ein Satz mit fünf Wörtern", "noch ein Satz mit Wörtern", "und ein dritter Satz hier", "und noch einer mehr"]
EARLY = ["ein Satz", "ein Satz", NASTY, "und"]
LATE = ["ein Satz mit fünf Wörtern", "noch ein Satz mit Worten", "und ein vierter Satz hier", "noch einer"]


@pytest.fixture
def make_run(tmp_path):
    """Writes the folder of a run that has no model yet."""
    for name, lines in (("dev.en", SOURCES), ("dev.de", TARGETS)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "train.en").write_text("a\n\nb\nc c c c\nd\n")
    (tmp_path / "train.de").write_text("A\nX\nB\nC\nD\n")
    (tmp_path / "more.en").write_text("e\nf\n")
    (tmp_path / "more.de").write_text("E\nF\n")

    def made(name, *, translations=True, learning_rate=0.001, history=None):
        corpora = [{"source": str(tmp_path / f"{one}.en"), "target": str(tmp_path / f"{one}.de")} for one in FILES]
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        config = Config.model_validate_json(
            json.dumps(
                {
                    "run_dir": str(folder.path),
                    "data": {"source_language": "en", "target_language": "de", "train": corpora[1:], "dev": corpora[0]},
                    "training": {"max_updates": 2000, "learning_rate": learning_rate},
                }
            )
        )
        folder.config.write_text(dump_config(config))
        records = [
            {"update": 10, "kind": "training", "epoch": 0, "loss": 5.0, "nll": 4.0, "learning_rate": learning_rate},
            {"update": 20, "kind": "training", "epoch": 1, "loss": 3.0, "nll": None, "pieces_per_second": 1234.0},
            {"update": 10, "kind": "validation", "loss": 4.5, "bleu": 3.0, "perplexity": 90.0},
            {"update": 20, "kind": "validation", "loss": 2.5, "bleu": 44.0, "perplexity": 12.0},
        ]
        text = "".join(json.dumps(record) + "\n" for record in records) + '{"update": 30, "ki'
        folder.history.write_text(text if history is None else history)
        for update, lines in ((10, EARLY), (20, LATE)) if translations else ():
            path = folder.locate_translations(update, "dev")
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines))
        return folder.path

    return made


FILES = ("dev", "train", "more")


def make_page(*paths, examples=10):
    return write_html(report_runs(paths, examples=examples, pairs=100), examples=examples)


def test_the_page_escapes_all_text_and_loads_nothing(make_run):
    text = make_page(make_run("<i>run"))
    assert text.count("<script>") == 1  # the page's own
    assert "<i>" not in text and text.count("&lt;i&gt;run") > 5
    shown = text.partition("<script>")[0]
    for line in (*SOURCES, *TARGETS):
        assert html.escape(line) in shown
    assert not re.findall(r"(?:src|href)=(?!\"#)|@import|url\(", text)
    assert text.count('<dd dir="auto">') >= 4 * len(SOURCES)


def test_the_interval_is_that_of_sacrebleu(make_run):
    run = read_run(make_run("run"))
    expected = score(LATE, TARGETS, target_language="de")["bleu"].interval
    assert run.intervals["dev"][20] == expected
    text = make_page(run.path)
    assert f"44.00 after update 20, 95 % interval {expected[0]:.2f} to {expected[1]:.2f}" in text
    assert "Dev BLEU, greedy search, with 95 % interval" in text


def test_a_long_run_has_some_intervals_and_that_of_the_best_model(make_run, monkeypatch):
    monkeypatch.setattr(records, "MAX_INTERVALS", 1)
    run = read_run(make_run("run"))
    assert run.best["update"] == 20 and set(run.intervals["dev"]) == {10, 20}
    monkeypatch.setattr(records, "_read_facts", lambda *_: ({"update": 10}, 5))
    assert set(read_run(run.path).intervals["dev"]) == {10}


def test_sentences_are_ranked_and_followed_over_time(make_run):
    text = make_page(make_run("run"), examples=2)
    worst = text[text.index("<h4>Worst</h4>") : text.index("<h4>Best</h4>")]
    chrf = [CHRF().sentence_score(*pair).score for pair in zip(LATE, [[one] for one in TARGETS], strict=True)]
    order = sorted(range(4), key=chrf.__getitem__)
    assert re.findall(r"<b>Line (\d)", worst) == [str(n + 1) for n in order[:2]]
    assert re.findall(r"<b>Line (\d), chrF 100.0", text) == ["1"]
    samples = text[text.index('<h2 id="samples">') : text.index('<h2 id="sentences">')]
    assert "<dt>update 10</dt>" in samples
    assert '<dt>update 20</dt><dd dir="auto">ein Satz <ins>mit fünf Wörtern</ins></dd>' in samples


def test_what_an_older_run_lacks_is_named(make_run):
    text = make_page(make_run("run", translations=False))
    for words in ("training.keep_translations", "data.json is missing", "The best model"):
        assert words in text
    assert "1,234" in text  # pieces_per_second, as it was called
    assert 'id="samples"' not in text and "95 % interval" not in text


def test_an_average_that_became_the_best_model_has_its_own_score(make_run, monkeypatch):
    monkeypatch.setattr("nmt.report.records._read_facts", lambda *_: ({"update": 20}, 5))
    path = make_run("run")
    average = {"update": 20, "kind": "average", "loss": 2.4, "bleu": 45.5, "is_best": True, "num_checkpoints": 3}
    lines = (path / "history.jsonl").read_text().rpartition("\n")[0]
    (path / "history.jsonl").write_text(f"{lines}\n{json.dumps(average)}\n")
    text = make_page(path, examples=0)
    assert "45.50 after update 20<" in text and "44.00 after" not in text
    assert not read_run(path).best_translations


def test_a_best_model_that_a_rollback_has_undone_has_its_own_score(make_run, monkeypatch):
    facts = {"update": 20, "dev_bleu": 50.0, "dev_loss": 2.25}
    monkeypatch.setattr("nmt.report.records._read_facts", lambda *_: (facts, 5))
    path = make_run("run")
    text = make_page(path, examples=0)
    assert "50.00 after update 20<" in text and "2.250 nats" in text
    assert not read_run(path).best_translations  # update 20 was repeated, and has kept others
    facts |= {"dev_bleu": 44.0, "dev_loss": 2.5}
    assert read_run(path).best_translations


def test_damaged_records_are_left_out(make_run):
    path = make_run("run", history='{"update": 10, "kind": "training", "loss": Infinity, "gradient_norm": NaN}\n')
    RunFolder(path).data.write_text("{}")
    text = make_page(path, examples=0)
    assert "<svg" not in text and "data.json is missing, as in runs of older versions, or damaged" in text


def test_curves_have_titles_and_units(make_run):
    record = {"update": 10, "kind": "validation", "loss": 2.0, "promises/dosage": 0.5}
    alignment = {"update": 10, "kind": "training", "loss": 2.0, "alignment": 0.7}
    text = make_page(make_run("run", history=f"{json.dumps(record)}\n{json.dumps(alignment)}\n"), examples=0)
    charts = dict(re.findall(r'<svg role="img" aria-label="([^"]+)".*?rotate[^>]*>([^<]+)<', text))
    assert charts["Promises kept: dosage"] == "share of promises"
    assert charts["Cross-entropy of guided alignment"] == "nats per target token"


def test_a_run_that_has_just_begun_has_a_report(make_run):
    text = make_page(make_run("run", translations=False, history=""))
    assert "nothing is recorded in history.jsonl yet" in text
    assert "<svg" not in text


def test_runs_are_shown_side_by_side_with_their_differences(make_run):
    text = make_page(make_run("one"), make_run("two", learning_rate=0.01))
    differing = text[text.index("Keys in which the runs differ") : text.index("<summary>All keys")]
    keys = re.findall(r'<td class="key"><bdi>([^<]+)', differing)
    assert keys == ["run_dir", "training.learning_rate"]
    assert "<th>one</th><th>two</th>" in differing
    losses = text[text.index('aria-label="Negative log-likelihood"') : text.index("</figure>")]
    for name in ("one: training", "two: training", "one: dev", "two: dev"):
        assert name in losses
    assert "<dt>one, update 20</dt>" in text and "<dt>two, update 20</dt>" in text


def test_what_is_not_a_run_is_refused(tmp_path, make_run):
    with pytest.raises(UserError, match="is not a run"):
        read_run(tmp_path)
    path = make_run("run")
    with pytest.raises(
        UserError, match=rf"^There is no folder {tmp_path}/ran\. Did you mean 'run'\? Expected the folder"
    ):
        read_run(tmp_path / "ran")
    with pytest.raises(UserError, match=r"history\.jsonl is a file\. Expected the folder of a run"):
        read_run(path / "history.jsonl")
    (path / "weights.h5").touch()
    with pytest.raises(UserError, match="is a model folder, which does not record its training"):
        read_run(path)


class ToldTranslator:
    """Finds a pair as improbable as the test says."""

    def __init__(self, losses):
        self.losses = losses

    def score(self, pairs):
        for source, target in pairs:
            loss = self.losses[source]
            yield ScoredTranslation(source, target, (target, "</s>"), (-2 * loss, 0.0))

    def align(self, pairs):
        return [
            WordLinks(one.split(), other.split(), np.eye(len(other.split()), len(one.split()))) for one, other in pairs
        ]


class Letters:
    vocabulary_size = 16

    def encode(self, texts):
        return [text.split() for text in texts]


def test_training_pairs_are_named_by_file_and_line(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr("nmt.report.examples.load_tokenizers", lambda *_: (Letters(), Letters()))
    run = read_run(make_run("run"))
    config = run.config.model_copy(update={"data": run.config.data.model_copy(update={"max_length": 3})})
    run = SimpleNamespace(config=config, path=run.path, training=run.training)
    told = ToldTranslator({"a": 0.5, "b": 3.0, "d": 1.0, "e": 0.25, "f": 2.5})  # "c c c c" is too long, line 2 blank
    found = examine_pairs(run, told, sample=100, worst=3, log=lambda _: None)
    assert [(one.place, one.loss, one.target) for one in found.worst] == [
        (f"{tmp_path}/train.en:3", 3.0, "B"),
        (f"{tmp_path}/more.en:2", 2.5, "F"),
        (f"{tmp_path}/train.en:5", 1.0, "D"),
    ]
    assert (found.worst[0].least, found.worst[0].least_log_prob) == ("B", -6.0)
    assert sorted(found.losses) == [0.25, 0.5, 1.0, 2.5, 3.0]
    assert found.num_pairs == 6 and found.even_loss == pytest.approx(np.log(16)) and not found.is_kept
    some = examine_pairs(run, told, sample=2, worst=1, log=lambda _: None)
    assert len(some.losses) == 2 and some.num_pairs == 6


def test_pairs_that_were_never_learned_are_those_of_the_losses_that_training_kept(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr("nmt.report.examples.load_tokenizers", lambda *_: (Letters(), Letters()))
    monkeypatch.setattr("nmt.report.records._read_facts", lambda *_: ({"update": 20}, 5))
    # The pair "c c c c" was never read. The best model has learned what all epochs before it had not.
    monkeypatch.setattr(page, "open_best", lambda path: ToldTranslator(dict.fromkeys([*"abdef", "c c c c"], 0.5)))
    path = make_run("run")
    with RunFolder(path).pair_losses.open("wb") as file:
        np.save(file, np.array([0.5, 3, np.inf, 1, 2.75, 4], np.float16))
    assert "scored by the best model" in make_page(path)  # all pairs were read once only
    with (path / "history.jsonl").open("a") as file:
        file.write('\n{"update": 40, "kind": "training", "epoch": 2, "loss": 3.0}\n')
    text = make_page(path, examples=2)
    assert re.findall(r"<b>\S+/(\w+.en:\d), lowest loss in training ([\d.]+), by the best model 0.50", text) == [
        ("more.en:2", "4.00"),
        ("train.en:3", "3.00"),
    ]
    assert "The lowest loss of 5 of 6 training pairs" in text and "without training: 2." in text
    [table] = re.findall(r"<table>(?:(?!</table>).)*median loss.*?</table>", text)
    assert re.findall("<bdi>([^<]*)</bdi>", table)[1:4] == ["3", "1.00", "1"]
    assert re.findall("<bdi>([^<]*)</bdi>", table)[5:] == ["2", "3.38", "1"]


def test_the_page_has_pairs_attention_and_data(make_run, monkeypatch):
    monkeypatch.setattr("nmt.report.examples.load_tokenizers", lambda *_: (Letters(), Letters()))
    monkeypatch.setattr(page, "open_best", lambda path: ToldTranslator(dict.fromkeys("abcdef", 1.0) | {"c c c c": 4.0}))
    monkeypatch.setattr("nmt.report.records._read_facts", lambda *_: ({"update": 20}, 5))
    path = make_run("run")
    data = {
        "corpora": [{"source": "x", "target": "y", "lines": 7}],
        "dev": [],
        **{"pairs": 6, "blank": 1, "dropped": {"max_length": 1}, "kept": 5, "examples": 5},
        **{"tokens": [10, 20], "lengths": [[0, 2, 3], [0, 0, 5]], "vocabularies": [16, 16]},
    }
    RunFolder(path).data.write_text(json.dumps(data))
    text = make_page(path)
    assert "train.en:4, loss 4.00" in text
    assert "that of a model without training: 1." in text and "a loss of 2.77" in text
    assert text.count("<canvas") == len(SOURCES)
    assert "dropped by data.max_length" in text and "Length of the examples, target" in text
    assert "<title>2 tokens: 5 examples</title>" in text


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `nmt report` in this process, and returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nmt", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def test_the_command_writes_the_page_to_a_file_or_prints_it(command, make_run, tmp_path):
    run, target = make_run("run"), tmp_path / "page.html"
    code, out, err = command(run, "--html", target, "--examples", 0)
    assert (code, out, err) == (0, f"{target}\n", "")
    code, printed, _ = command(run, "--html", "-", "--examples", 0)
    assert (code, printed) == (0, target.read_text())
    assert "<dt>source</dt>" not in printed and "<svg" in printed


def test_the_command_writes_nothing_if_a_folder_is_not_a_run(command, make_run, tmp_path):
    code, _, err = command(make_run("run"), tmp_path, "--html", tmp_path / "page.html")
    assert code == 2
    assert err.startswith(f"{tmp_path} is not a run. Expected the folder of a run")
    assert not (tmp_path / "page.html").exists()
