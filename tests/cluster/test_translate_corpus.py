"""`nmt translate-corpus` as its users meet it, on a real Ray of this machine."""

import os
import re
import signal
import subprocess
import sys

import pytest
from cluster_task import PATIENCE, lines, nmt, read_packed, start, until, wait_for_line, write_packed

pytest.importorskip("ray")

NAMES = ["part-0.txt", "part-1.txt.gz", "part-2.txt.xz", "part-3.txt"]
SIZES = [70, 30, 1, 0]


@pytest.fixture(scope="module")
def place(model):
    """The folder of the task, with a corpus of four shards, one of them empty."""
    folder = model.parent
    (folder / "corpus").mkdir()
    for n, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
        write_packed(folder / "corpus" / name, "".join(f"{line}\n" for line in lines(size, seed=n)).encode())
    return folder


@pytest.fixture(scope="module")
def expected(place):
    """The translations of each shard by `nmt translate`'s own translator, here."""
    from nmt.translators.model import ModelTranslator

    translator = ModelTranslator.load(place / "model")
    return {name: translator.translate(read_packed(place / "corpus" / name)) for name in NAMES}


def test_a_killed_worker_is_replaced_and_every_line_comes_out_once(place, expected):
    process = start("translate-corpus", "model", "corpus", "out", "--workers", 2, cwd=place)
    # What is being written is named for the process and the machine that write it.
    part = until(lambda: next((place / "out").glob(".part-*.part"), None), process)
    os.kill(int(part.name.split(".")[-2].partition("-")[0]), signal.SIGKILL)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert {name: read_packed(place / "out" / name) for name in NAMES} == expected
    assert sorted(file.name for file in (place / "out").iterdir()) == [".lock", ".translation.json", *NAMES]
    said = output.splitlines()
    assert said[:2] == ["4 shards.", "Translating 4 shards on 2 workers with 1 thread each."]
    assert {re.sub(r" [\d.]+ s$", "", line).split(" · ", 1)[1] for line in said[2:6]} == {
        f"{name} · {size} line{'s' if size != 1 else ''} ·" for name, size in zip(NAMES, SIZES, strict=True)
    }
    assert [line.split(" · ")[0] for line in said[2:6]] == [f"shard {n} of 4" for n in range(1, 5)]
    assert said[6].startswith("4 shards, 101 lines, ")
    assert len(said) == 7


def test_a_second_start_does_the_missing_shards_and_names_a_broken_one(place, expected):
    before = {name: (place / "out" / name).stat().st_mtime_ns for name in NAMES[1:]}
    (place / "out" / NAMES[0]).unlink()
    (place / "corpus" / "part-9.txt").write_bytes(b"one\ntwo \xff\n")
    done = nmt("translate-corpus", "model", "corpus", "out", "--workers", 1, cwd=place)
    assert done.returncode == 2
    assert done.stderr == (
        "1 of 2 shards could not be translated. The others are.\n  corpus/part-9.txt:2: Expected UTF-8 text, found "
        "0xff at byte 5 of the line. Convert the text to UTF-8, for example with iconv.\n"
    )
    assert done.stdout.startswith("5 shards, 3 of them already translated.\nTranslating 2 shards in this process.\n")
    assert "part-9.txt · failed" in done.stdout
    assert read_packed(place / "out" / NAMES[0]) == expected[NAMES[0]]
    assert {name: (place / "out" / name).stat().st_mtime_ns for name in NAMES[1:]} == before
    assert not (place / "out" / "part-9.txt").exists()
    (place / "corpus" / "part-9.txt").unlink()
    # Nothing is left to do, and no Ray is started for it.
    again = nmt("translate-corpus", "model", "corpus", "out", cwd=place)
    assert (again.returncode, again.stdout, again.stderr) == (0, "4 shards, 4 of them already translated.\n", "")
    for option, name in (
        ("--beam-size", "beam_size"),
        ("--length-penalty", "length_penalty"),
        ("--pruning-threshold", "pruning_threshold"),
    ):
        other = nmt("translate-corpus", "model", "corpus", "out", option, 2, cwd=place)
        assert (other.returncode, other.stdout) == (2, "")
        assert f"\n  {name}: the model's own became 2" in other.stderr


def test_an_interruption_keeps_what_is_done(place):
    (place / "out" / NAMES[0]).unlink()
    process = start("translate-corpus", "model", "corpus", "out", cwd=place)
    wait_for_line(process, "Translating 1 shard on")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert errors == "Interrupted. 3 of 4 shards are translated; run the same command for the others.\n"
    assert sorted(file.name for file in (place / "out").iterdir()) == [".lock", ".translation.json", *NAMES[1:]]


def test_mistakes_are_told_before_ray_is_started(place):
    done = nmt("translate-corpus", "nowhere", "corpus", "new", cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("There is no folder nowhere.")
    done = nmt("translate-corpus", "model", "corpse", "new", cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'corpus'?" in done.stderr


def test_several_workers_need_ray(place):
    code = (
        "import sys; sys.modules['ray'] = None; import nmt.cli.main\n"
        "sys.argv = ['nmt', 'translate-corpus', 'model', 'corpus', 'without', '--workers', '2']\n"
        "nmt.cli.main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == 'This command needs ray. Install with: pip install "nmt[ray]"\n'


def test_a_cluster_that_does_not_answer_is_told(place):
    done = nmt("translate-corpus", "model", "corpus", "far", "--address", "127.0.0.1:1", cwd=place)
    assert done.returncode == 2
    assert done.stderr.startswith("--address: no Ray cluster answers at 127.0.0.1:1")
