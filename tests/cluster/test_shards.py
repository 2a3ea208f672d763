import gzip
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from cluster_task import read_packed, write_packed

from nmt.cluster import corpus as corpus_module
from nmt.cluster import pool
from nmt.cluster.session import WorkerResources, allocate
from nmt.cluster.shards import (
    PerProcess,
    Shard,
    check_record,
    compute_model_digest,
    find_parts,
    find_shards,
    find_subfolders,
    remove_parts,
)
from nmt.data.glossary import Glossary
from nmt.errors import UserError
from nmt.files import folder_lock
from nmt.model_folder import save_confidence
from nmt.translators import opening


class Upper:
    """Translates into capitals."""

    def stream(self, lines):
        for line in lines:
            yield SimpleNamespace(text=line.upper())


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("b.txt", "a.txt.gz", "c.xz", ".hidden"):
        write_packed(folder / name, b"one\n\ntwo")
    (folder / "more").mkdir()
    return folder


def test_the_visible_files_of_a_folder_are_its_shards(corpus, tmp_path):
    out = tmp_path / "out"
    found = find_shards(str(corpus), out)
    assert found == [Shard(corpus / name, out / name) for name in ("a.txt.gz", "b.txt", "c.xz")]


def test_subfolders_that_are_skipped_are_named(corpus, tmp_path, monkeypatch):
    (corpus / ".git").mkdir()
    assert find_subfolders(str(corpus)) == find_subfolders(f"{corpus}/*") == [corpus / "more"]
    assert find_subfolders(f"{corpus}/b.txt") == []
    out = corpus / "out"
    out.mkdir()
    monkeypatch.setattr(corpus_module, "check_record", lambda *args: None)
    for shard in find_shards(str(corpus), out):
        write_packed(shard.target, b"")
    messages = []
    corpus_module.translate_corpus(tmp_path / "model", str(corpus), out, log=messages.append)
    skipped = f"Skipped, since only files are translated: {corpus / 'more'}/. Each folder needs a command of its own."
    assert messages == [skipped, "3 shards, 3 of them already translated."]


def test_a_link_that_leads_nowhere_is_not_left_out(corpus, tmp_path):
    (corpus / "d.txt").symlink_to("lost")
    shard = find_shards(str(corpus), tmp_path / "out")[-1]
    with pytest.raises(UserError, match=r"There is no file .*d\.txt\."):
        shard.translate(Upper())


def test_a_pattern_or_one_file_will_do(corpus, tmp_path):
    assert [shard.source.name for shard in find_shards(f"{corpus}/*.*z", tmp_path)] == ["a.txt.gz", "c.xz"]
    assert [shard.source.name for shard in find_shards(f"{corpus}/b.txt", tmp_path)] == ["b.txt"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("corpus/more", "Expected text files in corpus/more, found none."),
        ("corpsu", "There is no file or folder corpsu, and no file matches it as a pattern. Did you mean 'corpus'?"),
        ("corpus/*.zip", "There is no file or folder corpus/*.zip"),
        ("*/b.txt", "copy/b.txt and corpus/b.txt have the same name, and so would their translations. Rename one of"),
        ("out", "out holds the text to translate. Choose another folder for the translations."),
    ],
)  # fmt: skip
def test_a_wrong_corpus_is_told(corpus, tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    for name in ("out", "copy"):
        Path(name).mkdir()
        Path(name, "b.txt").write_text("one\n")
    if source == "*/b.txt":
        Path("out", "b.txt").unlink()
    with pytest.raises(UserError) as caught:
        find_shards(source, Path("out"))
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a.txt.gz", "b.txt", "c.xz"])
def test_a_translation_is_packed_as_its_text(corpus, tmp_path, name):
    shard = Shard(corpus / name, tmp_path / "out" / name)
    assert shard.translate(Upper()) == 3
    assert read_packed(shard.target) == ["ONE", "", "TWO"]
    first = shard.target.read_bytes()
    shard.translate(Upper())
    assert shard.target.read_bytes() == first


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.txt", b"one\ntwo \xff\n", "bad.txt:2: Expected UTF-8 text, found 0xff at byte 5"),
        ("bad.gz", gzip.compress(b"one\n", mtime=0)[:-3], "Cannot unpack .*bad.gz: it is damaged or cut short"),
    ],
)
def test_a_broken_shard_is_named_and_leaves_nothing(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=words):
        Shard(tmp_path / name, out / name).translate(Upper())
    assert not out.exists()


def test_what_killed_workers_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a.txt.12.part", ".a.txt.345.part", ".b.txt.12.part", "a.txt"):
        (tmp_path / name).touch()
    remove_parts([Shard(Path("a.txt"), tmp_path / "a.txt")])
    assert sorted(file.name for file in tmp_path.iterdir()) == [".b.txt.12.part", "a.txt"]


def test_partial_files_belong_to_the_shard_of_their_whole_name(tmp_path):
    shards = [Shard(Path(name), tmp_path / name) for name in ("news", "news.1")]
    for name in (".news.1.12-ab.part", ".news.1.34.part", ".news.56.part", ".other.1.part"):
        (tmp_path / name).touch()
    found = [sorted(part.name for part in find_parts(shard)) for shard in shards]
    assert found == [[".news.56.part"], [".news.1.12-ab.part", ".news.1.34.part"]]
    remove_parts(shards[:1])
    assert found[1] == sorted(part.name for part in find_parts(shards[1]))


def test_a_value_of_a_process_is_made_once_and_stays_there():
    made = PerProcess(threading.Lock, ())
    assert made.value is made.value
    one, other = pickle.loads(pickle.dumps([made, made]))  # a lock itself cannot be pickled
    assert one is other and one == made and one.value is not made.value


def test_a_shard_that_takes_its_workers_with_it_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "MAX_DEATHS", 3)
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    worker = pool.ShardTranslator("model", {}, [Shard(tmp_path / "a.txt", tmp_path / "out" / "a.txt")])
    worker.translator = Upper()
    row = {"number": 0}
    (tmp_path / "out").mkdir()
    for process in (12, 34, 56):
        found = worker(row)
        assert (found["name"], found["lines"], found["mistake"]) == ("a.txt", 2, "")
        (tmp_path / "out" / f".a.txt.{process}.part").touch()
    found = worker(row)
    assert found["lines"] == 0
    assert found["mistake"].endswith(
        "a.txt: 3 workers in a row died while translating it, perhaps because memory ran out. With fewer --workers, "
        "each has more memory."
    )


def test_a_folder_keeps_to_one_model_and_its_settings(model, tmp_path):
    own: dict = {"beam_size": None}
    check_record(tmp_path, [], model, own)
    (tmp_path / "a.txt").touch()
    check_record(tmp_path, [], model, own)
    with pytest.raises(
        UserError, match="translations made with other settings:\n  beam_size: the model's own became 3\nChoose"
    ):
        check_record(tmp_path, [], model, {"beam_size": 3})
    with pytest.raises(UserError, match=r"is not a model folder: expected weights\.h5 in it"):
        check_record(tmp_path, [], tmp_path, own)


def test_a_folder_keeps_to_one_command(model, tmp_path):
    text = {"text": "1f"}
    records = {
        "nmt translate-corpus": {"beam_size": 2},
        "nmt distill": {"command": "nmt distill", "nearest": "none", **text},
        "nmt clean": {"drop_identical": True, "drop_duplicates": False, **text},
    }
    for first, record in records.items():
        folder = tmp_path / first
        folder.mkdir()
        check_record(folder, [], model, record)
        (folder / "a.txt").touch()
        for second in records.keys() - {first}:
            with pytest.raises(UserError, match=rf"^{folder} holds files of {first}, not of {second}\. Choose another"):
                check_record(folder, [], model, records[second])
        with pytest.raises(UserError, match=r"other settings:\n  glossary: none became 2e\n"):
            check_record(folder, [], model, {**record, "glossary": "2e"})


@pytest.mark.parametrize("name", ["a.txt", ".work/a.txt"])
def test_a_record_counts_once_there_is_a_translation_or_a_part_of_one(model, tmp_path, name):
    part = tmp_path / name
    for beam_size in (1, 2):
        check_record(tmp_path, [], model, {"beam_size": beam_size}, parts=[part])
    part.parent.mkdir(exist_ok=True)
    part.touch()
    check_record(tmp_path, [], model, {"beam_size": 2}, parts=[part])
    with pytest.raises(UserError, match="beam_size: 2 became 3"):
        check_record(tmp_path, [], model, {"beam_size": 3}, parts=[part])


def test_terms_and_a_second_model_belong_to_the_record(model, corpus, tmp_path, monkeypatch):
    opened: list[dict] = []
    monkeypatch.setattr(opening, "open_translator", lambda path, **given: opened.append(given) or Upper())
    out, terms = tmp_path / "out", Glossary({"one": "eins"})
    options: dict = {"workers": 1, "log": lambda line: None}
    given = {"rerank": model, "rerank_weight": 0.0, "glossary": terms, "marks": True}
    corpus_module.translate_corpus(model, str(corpus), out, settings={"beam_size": 2}, **given, **options)
    assert opened == [{"beam_size": 2, **given}]
    assert read_packed(out / "b.txt") == ["ONE", "", "TWO"]
    given["glossary"] = Glossary({"one": "ein"})
    with pytest.raises(UserError, match=r"made with other settings:\n  beam_size: 2 became .*\n  glossary: .* became"):
        corpus_module.translate_corpus(model, str(corpus), out, **given, **options)
    with pytest.raises(UserError, match="--rerank-weight has no effect without --rerank"):
        corpus_module.translate_corpus(model, str(corpus), tmp_path / "new", rerank_weight=0.5, **options)
    assert not (tmp_path / "new").exists()


def test_nmt_calibrate_and_nmt_index_do_not_make_another_model(tmp_path):
    for name in ("weights.h5", "config.yaml", "source.model", "target.model"):
        (tmp_path / name).write_bytes(b"1")
    before = compute_model_digest(tmp_path)
    save_confidence(tmp_path, {"sentences": 100})
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "index.json").write_bytes(b"{}")
    assert compute_model_digest(tmp_path) == before
    (tmp_path / "weights.h5").write_bytes(b"2")
    assert compute_model_digest(tmp_path) != before


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"7"])
def test_a_damaged_record_is_one_message(model, tmp_path, content):
    check_record(tmp_path, [], model, {})
    [record] = tmp_path.glob("*.json")
    (tmp_path / "a.txt").touch()
    record.write_bytes(content)
    with pytest.raises(UserError, match=rf"{record.name} is damaged: .* Choose another folder\."):
        check_record(tmp_path, [], model, {})


def test_files_of_others_are_not_taken_for_translations(model, tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a\.txt exists and was not made by this command"):
        check_record(tmp_path, [tmp_path / "a.txt"], model, {})


def test_a_folder_has_one_process_at_a_time(tmp_path):
    code = (
        "import sys, nmt.files as c, pathlib\n"
        "with c.folder_lock(pathlib.Path(sys.argv[1]), doing='working'): print('has it', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "new")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with (
            pytest.raises(UserError, match=f"Process {other.pid} is already working in .*new"),
            folder_lock(tmp_path / "new", doing="working"),
        ):
            pass
        other.kill()
        other.wait()
        with folder_lock(tmp_path / "new", doing="working"):
            pass


@pytest.mark.parametrize(
    ("cores", "gpus", "workers", "tasks", "share"),
    [
        ([8], 0, None, 99, WorkerResources(2, 4, 0)),  # a worker for every four cores
        ([2], 0, None, 99, WorkerResources(1, 2, 0)),
        ([2], 0, 2, 99, WorkerResources(2, 1, 0)),
        ([16, 16], 0, 3, 99, WorkerResources(3, 8, 0)),  # 10 threads each would leave the third without a machine
        ([8], 0, 4, 1, WorkerResources(1, 8, 0)),  # no more workers than tasks
        ([8], 4, None, 99, WorkerResources(4, 2, 1)),
        ([8], 4, 6, 99, WorkerResources(6, 1, 0.5)),
        ([8], 1, 2, 99, WorkerResources(2, 4, 0.5)),
    ],
)
def test_machines_are_divided_among_workers(cores, gpus, workers, tasks, share):
    assert allocate(cores, gpus, workers=workers, tasks=tasks) == share


def test_a_cluster_may_be_too_small():
    with pytest.raises(UserError, match="--workers: expected at most 4, the number of cores that Ray has, found 5"):
        allocate([2, 2], 0, workers=5, tasks=99)


def test_a_share_is_said_in_words():
    assert str(WorkerResources(1, 2, 0)) == "1 worker with 2 threads"
    assert str(WorkerResources(2, 1, 0.5)) == "2 workers with 1 thread and 0.5 GPU each"
