"""Arguments of the commands: which values reach the code, and which are refused. Without model and TensorFlow."""

import errno
import gzip
import io
import json
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from echo import OPENING

from nmt.cli.options import log_line
from nmt.cluster.cleaning import Rules, ScoreRule

SCRIPTS = Path(__file__).parents[2] / "scripts"
SERVER_LIMITS = {
    "--max-body": (10, "max_body"),
    "--max-bodies": (30, "max_bodies"),
    "--max-work": (5, "max_work"),
    "--max-connections": (4, "max_connections"),
    "--max-texts": (3, "max_texts"),
    "--max-characters": (7, "max_characters"),
    "--max-batch": (2, "max_batch"),
    "--max-queue": (9, "max_queue"),
    "--timeout": (2.5, "timeout"),
}


@pytest.fixture
def nmt(nmt_here, monkeypatch):
    """Runs a command in this process, with a model that repeats what it is given."""
    monkeypatch.setitem(sys.modules, "nmt.translators.opening", OPENING)
    return nmt_here


@pytest.fixture
def fake(monkeypatch):
    """Puts an object in place of a module that a command imports."""
    return lambda name, **values: monkeypatch.setitem(sys.modules, name, SimpleNamespace(**values))


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_options_of_the_server_reach_it(nmt, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    called = []
    fake("nmt.server.run", serve=lambda model, **options: called.append((model, options)))
    limits = [argument for option, (value, _) in SERVER_LIMITS.items() for argument in (option, value)]
    options = ("--host", "::1", "--port", 0, "--name", "m", "--max-wait", 4, "--api-key-file=~/key", "--threads", 3)
    sites = ("--allow-origin", "https://a.example", "--allow-origin", "https://b.example", "--allow-host", "c.example")
    assert nmt("serve", "model", *options, *limits, *sites, "--device", "cpu", "--beam-size", 2) == (0, "", "")
    [(model, found)] = called
    assert model == Path("model") and found["key_file"] == tmp_path / "key"
    assert {name: found[name] for name in ("host", "port", "name")} == {"host": "::1", "port": 0, "name": "m"}
    assert found["decoding"] == {"beam_size": 2}
    assert found["access"].origins == {"https://a.example", "https://b.example"}
    assert "c.example" in found["access"].hosts
    for value, name in [*SERVER_LIMITS.values(), (0.004, "max_wait")]:
        assert getattr(found["limits"], name) == value
    assert (os.environ["TF_NUM_INTRAOP_THREADS"], os.environ["JAX_PLATFORMS"]) == ("3", "cpu")


def test_options_of_an_export_reach_it(nmt, fake, tmp_path):
    called = []
    fake("nmt.exporting.savedmodel", export=lambda *places, **options: called.append(options) or tmp_path / "1")
    fake("nmt.exporting.quantization", Quantization=lambda kind, **options: (kind, options))
    code, out, err = nmt(
        *("export", "model", tmp_path, "--server-version", "2.19.0", "--precision", "bfloat16", "--sample", "s"),
        *("--max-bleu-loss", 0.2, "--max-differing", 0.3),
    )
    assert (code, err) == (0, "") and out.startswith(f"Exported to {tmp_path / '1'}.")
    assert called[0]["export"] == {"server_version": "2.19.0"} and called[0]["sample"] == Path("s")
    limits = {"max_bleu_loss": 0.2, "max_differing": 0.3, "precision": "bfloat16"}
    assert called[0]["quantize"] == ("bfloat16", limits)


def test_options_of_the_commands_on_ray_reach_them(nmt, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    called = []
    fake("nmt.cluster.corpus", translate_corpus=lambda *places, **options: called.append((places, options)))
    fake("nmt.cluster.tune", tune=lambda *places, **options: called.append((places[1:], options)))
    (tmp_path / "g").write_text("a\tb\n")
    terms = ("--glossary", tmp_path / "g", "--marks", "--rerank", "n", "--rerank-weight", 0.5)
    assert nmt("translate-corpus", "m", "~/in", "out", "--workers", 3, "--address", "head:1", *terms)[0] == 0
    assert nmt("tune", "demo", "--space", "s", "--trials", 5, "--grace", 4, "--into", "t", "--workers", 2)[0] == 0
    (corpus, corpus_options), (space, tune_options) = called
    assert corpus == (Path("m"), f"{tmp_path}/in", Path("out")) and space == (Path("s"),)
    assert (corpus_options["workers"], corpus_options["address"]) == (3, "head:1")
    assert [corpus_options[name] for name in ("rerank", "rerank_weight", "marks")] == [Path("n"), 0.5, True]
    assert corpus_options["glossary"].entries == {"a": "b"}
    assert [tune_options[name] for name in ("trials", "grace", "folder", "workers")] == [5, 4, Path("t"), 2]


def test_given_translations_are_scored_to_a_file(nmt, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    called = []

    def record(*places, as_json):
        called.append((places[:3], as_json))
        places[3].write("-1\n")

    fake("nmt.evaluation.scoring", score_files=record)
    assert nmt("score", "m", "--source=~/a", "--target", "-", "-o", tmp_path / "out", "--json") == (0, "", "")
    assert nmt("score", "m", "--source", "a", "--target", "b") == (0, "-1\n", "")
    assert called == [
        ((Path("m"), tmp_path / "a", Path("-")), True),
        ((Path("m"), Path("a"), Path("b")), False),
    ]
    assert (tmp_path / "out").read_text() == "-1\n"


def test_scores_of_an_alignment_do_not_mix_with_the_links(nmt, fake, tmp_path):
    def align_files(model, source, target, out, *, as_json, gold):
        out.write(f"{as_json} {gold}\n")
        return SimpleNamespace(as_line=lambda: "AER") if gold else None

    fake("nmt.evaluation.aligning", align_files=align_files)
    files = ("align", "m", "--source", "a", "--target", "b")
    assert nmt(*files) == (0, "False None\n", "")
    assert nmt(*files, "--json", "--gold", "g") == (0, "True g\n", "AER\n")
    assert nmt(*files, "--gold", "g", "-o", tmp_path / "out") == (0, "AER\n", "")


def test_options_of_synthetic_text_reach_it(nmt, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    called = []

    def record(*places, **options):
        called.append((places, options))
        return Path("d/data.yaml")

    fake("nmt.synthesis.distillation", distill=record)
    fake("nmt.synthesis.back_translation", back_translate=record)
    common = ("--workers", 3, "--address", "head:1", "--beam-size", 2, "decoding.max_length=9")
    assert nmt("distill", "m", "--into=~/d", "--source=~/a", "--source", "b", "--nearest", "chrf", *common) == (
        *(0, "The entries for data.train are in d/data.yaml.\n", ""),
    )
    assert nmt("distill", "m", "--into", "d", "--config", "demo")[0] == 0
    assert nmt("back-translate", "m", "~/t", "--into", "d", "--noise", "--tag", "<bt>", *common)[0] == 0
    assert nmt("back-translate", "m", "t", "--into", "d", "--noise", "--seed", 7)[0] == 0
    assert nmt("back-translate", "m", "t", "--into", "d")[0] == 0
    (_, first), (_, second), (places, third), (_, fourth), (_, fifth) = called
    shared = {"workers": 3, "address": "head:1", "settings": {"beam_size": 2, "max_length": 9}}
    assert shared.items() <= first.items() and shared.items() <= third.items()
    assert (first["into"], first["nearest"], first["config"]) == (tmp_path / "d", "chrf", None)
    assert first["sources"] == [tmp_path / "a", Path("b")]
    assert second["config"].run_dir == Path("runs/demo")
    assert places == (Path("m"), [tmp_path / "t"]) and third["tag"] == "<bt>"
    assert [one["noise_seed"] for one in (third, fourth, fifth)] == [1, 7, None]
    assert nmt("distill", "m", "--into", "d", "--threads", 3)[0] == 0
    assert called[-1][1]["workers"] == 1 and os.environ["TF_NUM_INTRAOP_THREADS"] == "3"
    code, _, err = nmt("distill", "m", "--into", "d", "--device", "cpu", "--workers", 2)
    assert code == 2 and err.startswith("--device and --threads are for work in this process; leave them out, or leave")
    code, _, err = nmt("back-translate", "m", "t", "--into", "d", "--seed", 7)
    assert (code, err) == (2, "--seed is the seed of --noise, which is not given.\n")


def test_options_of_clean_reach_it(nmt, fake):
    called = []

    def clean_files(*files, **options):
        called.append((files, options))
        return "8 of 9 sentence pairs kept"

    fake("nmt.cluster.cleaning", clean_files=clean_files, Rules=Rules, ScoreRule=ScoreRule)
    files = ("clean", "--source", "a", "--target", "b", "--into", "c")
    scores = ("--by-score", "m", "--reverse", "r", "--keep", 0.5, "--max-length", 9, "--max-ratio", 2.5, "--workers", 3)
    ended = "8 of 9 sentence pairs kept\nThe pairs are in c; verdicts.tsv there has a verdict for each line.\n"
    assert nmt(*files, *scores) == (0, ended, "")
    assert nmt(*files, "--drop-identical", "--drop-duplicates")[0] == 0
    (given, first), (_, second) = called
    assert given == (Path("a"), Path("b")) and (first["into"], first["workers"]) == (Path("c"), 3)
    assert (first["rules"], second["rules"]) == (Rules(9, 2.5), Rules(drop_identical=True, drop_duplicates=True))
    assert (first["by_score"], second["by_score"]) == (ScoreRule(Path("m"), Path("r"), None, 0.5), None)
    assert nmt(*files, "--keep", 0.5) == (
        2,
        "",
        "--keep has no effect without --by-score, the model that scores the pairs.\n",
    )


@pytest.mark.parametrize("name", ["demo", "evaluate", "export", "train", "translate"])
def test_a_script_is_the_command_of_its_name(monkeypatch, capsys, name):
    script = SCRIPTS / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0 and f" nmt {name} [OPTIONS]" in " ".join(capsys.readouterr().out.split())


def test_a_corpus_is_downloaded_into_the_folder_that_is_named(nmt, monkeypatch, tmp_path):
    from nmt.data import catalog

    monkeypatch.setenv("HOME", str(tmp_path))
    called = []
    monkeypatch.setattr(catalog, "download", lambda name, **options: called.append((name, options)) or [Path("a")])
    assert nmt("download", "kftt", "--into=~/d", "--mirror", "m") == (0, "a\n", "")
    assert (called[0][0], called[0][1]["into"], called[0][1]["mirror"]) == ("kftt", tmp_path / "d", Path("m"))


def test_a_key_is_explained_as_text_and_as_a_table(nmt):
    code, out, _ = nmt("config", "explain", "decoding.beam_size")
    assert code == 0 and out.startswith("decoding.beam_size: a whole number from 1 to 64; default 5\n")
    code, out, _ = nmt("config", "explain", "decoding.beam_size", "--markdown")
    assert code == 0 and out.splitlines()[2].startswith("| `decoding.beam_size` | a whole number from 1 to 64 | 5 |")
    assert len(out.splitlines()) == 3


def test_text_is_translated_from_and_to_any_stream(nmt, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "in", "eins\nzwei ü\n")
    assert nmt("translate", "m", "--input=~/in", "--output=~/out.gz") == (0, "", "")
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()).decode() == "eins\nzwei ü\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "out.gz").read_bytes())))
    assert nmt("translate", "m", "-i", "-", "-o", "-") == (0, "eins\nzwei ü\n", "")
    write(tmp_path / "tags", "a <b>b</b><br>\n<i>c</i>\n")
    assert nmt("translate", "m", "-i", tmp_path / "tags", "--html") == (0, "a <b>b</b><br>\n<i>c</i>\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["translate", "m", "-i", "text", "-o", "out"],
        ["translate", "m", "-i", "other", "--glossary", "text", "-o", "out"],
        ["evaluate", "m", "--source", "other", "--reference", "other", "--reference", "text", "-o", "out"],
        ["score", "m", "--source", "text", "--target", "other", "-o", "out"],
        ["align", "m", "--source", "other", "--target", "text", "-o", "out"],
        ["compare", "other", "text", "--reference", "other", "--html", "out"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_command_replaces_a_file_that_it_reads(nmt, tmp_path, monkeypatch, arguments, link):
    monkeypatch.chdir(tmp_path)
    for name in ("text", "other"):
        write(tmp_path / name, "eins\tzwei\n")
    link("text", "out")
    code, out, err = nmt(*arguments)
    assert (code, out) == (2, "") and "out would replace the text that is read from text." in err
    assert (tmp_path / "text").read_text() == "eins\tzwei\n"


@pytest.fixture
def test_set(tmp_path):
    """A source whose echo is the right translation, and two references, each right in half of the lines."""
    lines = [f"{word} Mann geht mit {word} Hund durch den Wald ." for word in ("ein", "der", "mein", "kein")]
    write(tmp_path / "s", "".join(f"{line}\n" for line in lines))
    for number in (0, 1):
        right = [line if place % 2 == number else "ganz etwas anderes steht hier" for place, line in enumerate(lines)]
        write(tmp_path / f"r{number}", "".join(f"{line}\n" for line in right))
    return tmp_path


def test_several_references_count_together(nmt, test_set):
    source, one, two = ("--source", test_set / "s"), test_set / "r0", test_set / "r1"
    records = [
        json.loads(nmt("evaluate", "m", *source, *references, "--json", "--tok-lc")[1])
        for references in (("--reference", one), ("--reference", one, "--reference", two))
    ]
    for name in ("bleu", "chrf", "ter", "bleu_tok_lc"):
        assert [record[name]["signature"].partition("|")[0] for record in records] == ["nrefs:1", "nrefs:2"]
        perfect = 0 if name == "ter" else 100
        assert records[0][name]["score"] != pytest.approx(perfect)
        assert records[1][name]["score"] == pytest.approx(perfect)
        assert records[1][name]["interval"] == pytest.approx([perfect, perfect])


def test_a_baseline_is_compared_with_the_model(nmt, test_set):
    arguments = ("evaluate", "m", "--source", test_set / "s", "--reference", test_set / "s", "--baseline")
    record = json.loads(nmt(*arguments, test_set / "r0", "--json")[1])
    alone = json.loads(nmt(*arguments[:4], "--reference", test_set / "s", "--baseline", test_set / "s", "--json")[1])
    for name in ("bleu", "chrf", "ter"):
        assert alone[name]["baseline"] == pytest.approx(alone[name]["score"])
        assert record[name]["baseline"] != pytest.approx(record[name]["score"])
        assert 0 < record[name]["p_value"] <= 1
    out = nmt(*arguments, test_set / "r0")[1].splitlines()
    assert out[1] == f"{'':<12} {record['bleu']['baseline']:.2f}  baseline, p = {record['bleu']['p_value']:.4f}"


def test_systems_are_compared(nmt, test_set):
    page = test_set / "page.html"
    arguments = ("compare", test_set / "r0", test_set / "s", "--reference", test_set / "s", "--html", page)
    code, out, err = nmt(*arguments, "--examples", 1)
    assert (code, err) == (0, "") and "B: s" in out and "Line " in out
    assert page.read_text().startswith("<!doctype html>")
    page.unlink()
    code, out, err = nmt("compare", test_set / "r0", *arguments[3:])
    assert (code, out, err) == (2, "", "A comparison needs two systems or more; found 1.\n")
    assert not page.exists()
    code, out, err = nmt(*arguments[:-1], "-")
    assert (code, err) == (0, "") and out.startswith("<!doctype html>") and out.endswith("</html>\n")
    message = "--json and --html - both print to standard output. Give a file for the page.\n"
    assert nmt(*arguments[:-1], "-", "--json") == (2, "", message)
    for option in ("decoding.beam_size=2", "--beam-size=2", "--device=cpu"):
        message = "Decoding settings, --device and --threads are for models, but all systems are files.\n"
        assert nmt(*arguments, option) == (2, "", message)


def test_settings_of_a_comparison_reach_its_models(nmt, fake, tmp_path):
    called = []
    fake("nmt.evaluation.compare_report", compare_files=lambda *files, **options: called.append((files, options)),
         write_html=None, write_json=None, write_text=lambda report, examples: "the report")  # fmt: skip
    common = ("--reference", "r", "--source", "s", "--length-penalty", 0.5, "--device", "cpu")
    assert nmt("compare", "a", tmp_path, "decoding.beam_size=2", *common) == (0, "the report\n", "")
    [((systems, references), options)] = called
    assert (systems, references) == ([Path("a"), tmp_path], [Path("r")])
    assert options["decoding"] == {"beam_size": 2, "length_penalty": 0.5}


def test_a_broken_promise_is_exit_code_1(nmt, tmp_path):
    file = write(
        tmp_path / "p.yaml", "- {source: 5 mg, contains: 5 mg}\n- {source: a b, contains: c, severity: warning}"
    )
    code, out, err = nmt("check", "m", file)
    assert (code, err) == (0, "") and out.splitlines()[-1] == "all: 1 of 2 promises kept"
    write(file, "- {source: 5 mg, not: mg}")
    code, out, err = nmt("check", "m", file)
    assert (code, err) == (1, "") and out.startswith(f"{file}:1: error: the translation contains 'mg'.")
    assert nmt("check", "m", write(file, "- source: x"))[::2] == (
        2,
        f"{file}:1: expected at least one of contains, matches and not.\n",
    )


def test_translations_of_a_test_set_are_written_anywhere(nmt, test_set):
    arguments = ("evaluate", "m", "--source", test_set / "s", "--reference", test_set / "s")
    code, out, err = nmt(*arguments, "--output", test_set / "hyp.gz")
    assert (code, err) == (0, "") and out.startswith("bleu         100.00")
    assert gzip.decompress((test_set / "hyp.gz").read_bytes()) == (test_set / "s").read_bytes()
    code, out, err = nmt(*arguments, "--output", "-")
    assert (code, out) == (0, (test_set / "s").read_text()) and err.startswith("bleu         100.00")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "m", "--source", "s", "--reference", "s", "--reference", "short"], "s has 4, short has 1."),
        (["evaluate", "m", "--source", "-", "--reference", "-"], "Standard input can be read only once"),
        (["evaluate", "m", "--source", "s", "--reference", "s", "--lowercase"], "have become one option, --tok-lc."),
        (["evaluate", "m", "--source", "s", "--reference", "s", "--tokenized"], "have become one option, --tok-lc."),
        (["evaluate", "m", "--source", "s", "--reference", "s", "-o", "."], "Cannot write .: expected a file, found a"),
        (["translate", "m", "-i", "s", "-o", "."], "Cannot write .: expected a file, found a folder."),
        (["translate", "m", "-i", "zip"], "Cannot read zip: it is a ZIP archive."),
        (["translate", "m", "--html", "--alignments", "json"], "--html and --alignments cannot be combined, because"),
        (["translate", "m", "--required", "many"], "many:2: required: expected at most 16 phrases per text, found 17."),
        (["translate", "m", "--alternatives", "2", "--marks", "--rerank", "n"], "combined with --marks, --rerank."),
        (["translate", "m", "--pruning-threshold", "inf"], "decoding.pruning_threshold=inf: expected a number of 0 or"),
        (["translate", "m", "--pruning-threshold", "nan"], "decoding.pruning_threshold=nan: expected a number of 0 or"),
        (["translate", "m", "decoding.length_penalty=1e999"], "decoding.length_penalty=1e999: expected a number"),
        (["serve", "m", "--timeout", "nan"], "Invalid value for '--timeout': Input should be less than"),
        (["serve", "m", "--max-bodies", 9], "--max-bodies 9 is less than one request may have, --max-body 1048576."),
        (["serve", "m", "--max-wait", "nan"], "Invalid value for '--max-wait': Input should be less than"),
        (["export", "m", "d", "--max-bleu-loss", "inf"], "Invalid value for '--max-bleu-loss'"),
        (["export", "m", "d", "--max-differing", "nan"], "Invalid value for '--max-differing'"),
        (["train", "tiny.yml"], "There is no file tiny.yml. Did you mean 'tiny.yaml'?"),
        (["train", "demo", "training.batch_size=many"], "expected a whole number of 1 or more, found 'many'"),
        (["translate", "m", "--input", "cut.gz"], "Cannot unpack cut.gz: it is damaged or cut short"),
        (["translate", "m", "--input", "r2"], "There is no file r2."),
        (["translate", "m", "--device", "tpu"], "--device: expected cpu, gpu or gpu:N with a number"),
        (["evaluate", "m", "--source", "s", "--reference", "short"], "s has 4, short has 1."),
        (["train", "demmo"], "There is no file demmo and no recipe of that name. Did you mean 'demo'? Recipes: demo, "),
        (["translate", "m", "decoding.beam_sise=2"], "unknown key. Did you mean 'beam_size'?"),
        (["translate", "m", "decoding.beam_size=99"], "expected a whole number from 1 to 64, found 99"),
        (["translate", "m", "training.seed=1"], "training.seed=1: expected a key of decoding, such as"),
        (["translate", "m", "export.nbest=1"], "export.nbest=1: expected a key of decoding, such as"),
        (["translate", "m", "--beam-size", 2, "decoding.beam_size=2"], "--beam-size sets the same key"),
        (["translate", "m", "beam"], "command line: beam: expected KEY=VALUE, such as decoding.beam_size=5."),
        (["export", "m", "out", "training.seed=1"], "expected a key of decoding or export, such as"),
        (["serve", "m", "decoding.beam_size=none"], "expected a whole number from 1 to 64, found 'none'"),
        (["download", "multi3k"], "Did you mean 'multi30k'?"),
        (["config", "explain", "training.bach_size"], "Did you mean"),
        (["translate", "m", "--input", "broken", "--output", "never"], "broken:2: Expected UTF-8 text, found 0xff"),
        (["train", "demo", "seed=18446744073709551617"], "seed=18446744073709551617: expected a whole number from 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message(nmt, test_set, monkeypatch, arguments, words):
    monkeypatch.chdir(test_set)
    write(test_set / "short", "one\n")
    write(test_set / "many", "one\n" + "\t".join(map(str, range(17))))
    write(test_set / "tiny.yaml", "")
    (test_set / "zip").write_bytes(b"PK\x03\x04" + b"\0" * 30)
    (test_set / "cut.gz").write_bytes(gzip.compress(b"one two\n" * 100)[:-9])
    (test_set / "broken").write_bytes(b"one\ntwo \xff\n")
    code, out, err = nmt(*arguments)
    assert (code, out) == (2, "") and not Path("never").exists()
    assert words in " ".join(err.replace("│", " ").split())  # Typer puts some in a box


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (SystemExit(143), 143, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
        (OSError(errno.EMFILE, "Too many open files", "some/file"), 1, "Too many open files: some/file.\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device.\n"),
        (RuntimeError("odd"), 1, "RuntimeError: odd\nThis looks like a bug in nmt. Set NMT_TRACEBACK=1 to see where"),
    ],
)
def test_each_exception_has_its_exit_code(nmt, fake, error, code, message):
    def describe(model):
        raise error

    fake("nmt.translators.describe", describe=describe)
    found, out, err = nmt("info", "m")
    assert (found, out) == (code, "") and (err.startswith(message) if message else err == "")


def test_work_continues_if_nobody_can_read_its_log(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        log_line("update 1")
        log_line("update 2")
        gone.flush()  # as at exit
    assert capsys.readouterr().err == "Standard output can no longer be written to. The command continues without it.\n"
    monkeypatch.setattr(sys, "stdout", None)
    log_line("update 3")


def test_closed_standard_streams_get_no_traceback(nmt, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert nmt("config", "explain", "seed")[::2] == (2, "Standard output is closed.\n")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert nmt("config", "explain", "sed") == (2, "", "")  # above all, not on standard output
    monkeypatch.setattr(sys, "stdin", None)
    assert nmt("translate", "m") == (2, "", "Standard input is closed. Give a file.\n")


def test_a_glossary_and_marks_reach_the_translator(nmt, tmp_path):
    lines, terms = tmp_path / "lines.txt", tmp_path / "terms.tsv"
    lines.write_text("a {{b}} \\\\ c\n")
    terms.write_text("a\tx\nno tab\na\ty\n")
    code, out, err = nmt("translate", "model", "-i", lines, "--glossary", terms)
    assert (code, out) == (2, "") and f"{terms}:2: expected a term" in err and f"{terms}:3: 'a' is to become 'y'" in err
    terms.write_text("a\tx\n")
    message = "required: an export for LiteRT takes no"  # as every translator that does not search for phrases
    assert nmt("translate", "model", "-i", lines, "--glossary", terms)[2].startswith(message)
    assert nmt("translate", "model", "-i", lines, "--marks") == (0, "a b \\ c\n", "")
