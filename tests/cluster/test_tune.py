"""`nmt tune` as its users meet it, on a real Ray of this machine."""

import csv
import importlib
import json
import signal
from pathlib import Path

import pytest
from cluster_task import PATIENCE, nmt, start, until

from nmt.cluster import tune as tune_module
from nmt.cluster.tune import tune
from nmt.config.file import find_differences, load_config
from nmt.errors import UserError

pytest.importorskip("ray")

# The third trial does not learn at all, so that it is worse than the others after its first validation.
SPACE = "training.learning_rate: [0.02, 0.01, 1.0e-9]\n"
SEED = 2  # draws them in this order
COMMAND = ("tune", "tiny.yaml", f"seed={SEED}", "training.best_by=loss", "--space", "space.yaml")
COMMAND += ("--trials", 3, "--grace", 1, "--workers", 2)
ONE_AT_A_TIME = ("--workers", 1)  # fewer trainings that the kill or the signal throws away
SEARCH = Path("runs/tiny-tune")


def histories(place):
    return {path.parent.name: path.read_bytes() for path in sorted((place / SEARCH).glob("trial-*/history.jsonl"))}


def table(place):
    return list(csv.DictReader((place / SEARCH / "trials.csv").read_text().splitlines()))


def ended(place):
    found = (place / SEARCH).glob("trial-*/trial.json")
    return {path.parent.name: json.loads(path.read_text())["ended"] for path in found}


@pytest.fixture(scope="module")
def searched(task):
    """A search that was interrupted when its first trial had ended, and resumed; and what there was then."""
    (task / "space.yaml").write_text(SPACE)
    process = start(*COMMAND, *ONE_AT_A_TIME, cwd=task)
    until(lambda: ended(task), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (
        130,
        f"Interrupted. Results so far are in {SEARCH}/trials.md; run the same command to resume.\n",
    )
    then = {name: histories(task)[name] for name in ended(task)}
    assert [(row["trial"], row["state"]) for row in table(task)] == [
        (f"trial-00{number}", ended(task).get(f"trial-00{number}", "unfinished")) for number in (1, 2, 3)
    ]
    assert load_config(task / SEARCH / "best.yaml").training.learning_rate == 0.02
    done = nmt(*COMMAND, cwd=task)
    assert (done.returncode, done.stderr) == (0, "")
    return task, then, done.stdout


def test_an_interrupted_search_resumes_and_runs_no_ended_trial_again(searched):
    place, then, said = searched
    assert 1 <= len(then) < 3
    assert f"3 trials in {SEARCH}, {len(then)} of them already ended." in said
    for name, history in then.items():
        assert histories(place)[name] == history
        assert f"{name} · " not in said
    assert ended(place).keys() == {"trial-001", "trial-002", "trial-003"}
    assert not (place / SEARCH / ".ray").exists()


def test_a_trial_worse_than_the_others_is_stopped_early(searched):
    place, _, _ = searched
    assert ended(place)["trial-003"] == "stopped early"
    assert "finished" in ended(place).values()
    updates = [json.loads(line)["update"] for line in histories(place)["trial-003"].splitlines()]
    assert max(updates) < 8


def test_the_table_is_what_the_histories_say(searched):
    place, _, said = searched
    rows = table(place)
    assert sorted(row["trial"] for row in rows) == sorted(ended(place))
    for row in rows:
        records = [json.loads(line) for line in histories(place)[row["trial"]].splitlines()]
        validations = [record for record in records if record["kind"] == "validation"]
        best = min(validations, key=lambda record: record["loss"])
        assert float(row["bleu"]) == best["bleu"]
        assert float(row["perplexity"]) == best["perplexity"]
        assert int(row["update"]) == best["update"]
        assert int(row["updates"]) == validations[-1]["update"]
        assert row["state"] == ended(place)[row["trial"]]
        config = load_config(place / SEARCH / row["trial"] / "config.yaml")
        assert float(row["training.learning_rate"]) == config.training.learning_rate
    perplexities = [float(row["perplexity"]) for row in rows]
    assert perplexities == sorted(perplexities)
    markdown = (place / SEARCH / "trials.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in markdown[2:]] == [f"| {row['trial']}" for row in rows]
    assert (place / SEARCH / "trials.png").read_bytes().startswith(b"\x89PNG")
    best_folder = SEARCH / rows[0]["trial"]
    assert f"The best trial is {best_folder}; its configuration is {SEARCH / 'best.yaml'}." in said


def test_the_best_configuration_is_the_base_with_the_best_values(searched):
    place, _, _ = searched
    rows = table(place)
    base = load_config(place / "tiny.yaml", [f"seed={SEED}", "training.best_by=loss"])
    best = load_config(place / SEARCH / "best.yaml")
    expected = f"training.learning_rate: 0.001 became {float(rows[0]['training.learning_rate'])}"
    assert [one for one in find_differences(base, best) if "run_dir" not in one] == [expected]


def test_an_ended_search_is_told_at_once_and_not_begun_anew(searched):
    place, _, _ = searched
    before = histories(place)
    done = nmt(*COMMAND, cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 of them already ended." in done.stdout
    assert histories(place) == before


def test_a_search_that_began_no_trial_may_be_corrected(task, tmp_path, monkeypatch):
    monkeypatch.setattr(tune_module, "open_session", lambda *_, **__: 1 / 0)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "search" / "cache").mkdir(parents=True)
    first, corrected = (load_config(task / "tiny.yaml", [f"training.batch_size={size}"]) for size in (8, 16))
    given: dict = {"space_file": tmp_path / "space.yaml", "folder": tmp_path / "search", "log": lambda line: None}
    for config in (first, corrected):
        with pytest.raises(ZeroDivisionError):
            tune(config, **given)
    (tmp_path / "search" / "trial-001").mkdir()
    with pytest.raises(UserError, match="was started with another configuration"):
        tune(first, **given)


def test_another_search_in_the_same_folder_is_refused(searched):
    place, _, _ = searched
    done = nmt(*COMMAND, "model.layer_norm=true", cwd=place)
    assert done.returncode == 2
    assert "was started with another configuration; see runs/tiny-tune/search.yaml." in done.stderr
    (place / "other.yaml").write_text("training.learning_rate: [0.02, 0.01]\n")
    done = nmt(*COMMAND[:4], "--space", "other.yaml", "--trials", 2, cwd=place)
    assert done.returncode == 2
    assert "was started with another space; see" in done.stderr


def test_a_wrong_space_is_told_before_anything_starts(task):
    (task / "wrong.yaml").write_text("training:\n  bacth_size: [8]\n")
    done = nmt("tune", "tiny.yaml", "--space", "wrong.yaml", "--into", "wrong", cwd=task)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "wrong.yaml:2: training.bacth_size: unknown key. Did you mean 'batch_size'?\n"
    assert not (task / "wrong").exists()


def test_mecab_is_asked_for_before_anything_starts(task, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("sacrebleu.tokenizers.tokenizer_ja_mecab"), "MeCab", None)
    monkeypatch.chdir(task)
    config = load_config(Path("tiny.yaml"), ["data.target_language=jpn"])
    with pytest.raises(UserError, match=r"BLEU in 'jpn' needs the tokenizer MeCab.*sacrebleu\[ja\]"):
        tune(config, tmp_path / "no space.yaml", folder=tmp_path / "search")
    assert list(tmp_path.iterdir()) == []
