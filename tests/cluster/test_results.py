import json
import subprocess
import sys
from pathlib import Path

import pytest

from nmt.cluster.results import rank_trials, write_csv, write_markdown, write_results
from nmt.cluster.space import Choice
from nmt.cluster.trials import plan_trials
from nmt.config.file import load_config
from nmt.errors import UserError

KEY = "training.learning_rate"


@pytest.fixture
def trials(task, tmp_path):
    """Four: finished, stopped early, failed, and not yet validated; and their common configuration."""
    config = load_config(task / "tiny.yaml")
    planned = plan_trials(config, {KEY: Choice((0.1, 0.2, 0.3, 0.4))}, tmp_path, name="space.yaml", trials=4)
    histories = [[(2, 10.0, 3.0), (4, 12.5, 2.0)], [(2, 8.0, 2.5)], [(2, 30.0, None)], []]
    for trial, history in zip(planned, histories, strict=True):
        trial.folder.mkdir()
        lines = [
            json.dumps({"update": update, "kind": "validation", "bleu": bleu, "loss": loss, "perplexity": loss})
            for update, bleu, loss in history
        ]
        training = json.dumps({"update": 9, "kind": "training", "loss": 1.0})
        (trial.folder / "history.jsonl").write_text("\n".join([*lines, training, '{"update": 10, "ki']))
    planned[0].record_end("finished")
    planned[1].record_end("stopped early")
    planned[2].record_end("failed", "The gradient was not finite.")
    return config, planned


def test_best_first_those_never_validated_last(trials):
    _, planned = trials
    assert [trial.number for trial in rank_trials(planned[::-1])] == [3, 1, 2, 4]


def test_tables_say_what_histories_say(trials):
    _, planned = trials
    rates = [trial.values[KEY] for trial in planned]
    assert write_csv(planned) == (
        f"trial,state,{KEY},update,bleu,perplexity,updates\n"
        f"trial-001,finished,{rates[0]},4,12.5,2.0,4\n"
        f"trial-002,stopped early,{rates[1]},2,8.0,2.5,2\n"
        f"trial-003,failed,{rates[2]},2,30.0,inf,2\n"
        f"trial-004,unfinished,{rates[3]},,,,\n"
    )
    assert write_markdown(planned) == (
        f"| trial | state | {KEY} | update | bleu | perplexity | updates |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        f"| trial-001 | finished | {rates[0]} | 4 | 12.50 | 2.00 | 4 |\n"
        f"| trial-002 | stopped early | {rates[1]} | 2 | 8.00 | 2.50 | 2 |\n"
        f"| trial-003 | failed | {rates[2]} | 2 | 30.00 | inf | 2 |\n"
        f"| trial-004 | unfinished | {rates[3]} |  |  |  |  |\n"
        "\ntrial-003 failed: The gradient was not finite.\n"
    )


def test_the_best_trial_is_one_that_did_not_fail(trials, tmp_path):
    config, planned = trials
    best = write_results(tmp_path, planned, config, log=pytest.fail)
    assert best is planned[0]
    chosen = load_config(tmp_path / "best.yaml")
    assert chosen.training.learning_rate == planned[0].values[KEY]
    assert chosen.run_dir == config.run_dir
    assert chosen.data == config.data


def test_the_table_of_a_search_without_validations_is_empty_of_figures(trials, tmp_path):
    config, planned = trials
    said: list[str] = []
    assert write_results(tmp_path / "none", planned[3:], config, log=said.append) is None
    assert not Path(tmp_path, "none", "best.yaml").exists()
    assert "| trial-004 | unfinished |" in Path(tmp_path, "none", "trials.md").read_text()


def test_a_missing_matplotlib_is_told(trials, tmp_path, monkeypatch):
    config, planned = trials
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said: list[str] = []
    write_results(tmp_path, planned, config, log=said.append)
    assert said == ["No plot was drawn, since matplotlib is not installed."]
    assert not (tmp_path / "trials.png").exists()


def test_the_average_of_checkpoints_counts_and_damaged_lines_do_not(trials):
    _, planned = trials
    history = planned[1].folder / "history.jsonl"
    scores = {"bleu": 40.0, "loss": 1.0, "perplexity": 2.7}
    history.write_bytes(b"\xff\n[]\n" + json.dumps({"update": 4, "kind": "average", **scores}).encode() + b"\n")
    assert [(one.update, one.bleu) for one in planned[1].read_validations()] == [(4, 40.0)]
    assert rank_trials(planned)[0] is planned[1]


def test_a_best_model_that_a_rollback_has_undone_counts(trials):
    _, planned = trials
    undone = {"update": 3, "kind": "undone", "bleu": 31.0, "loss": 1.0, "perplexity": 2.7}
    history = planned[1].folder / "history.jsonl"
    history.write_text(f"{json.dumps(undone)}\n{history.read_text()}")
    assert (planned[1].find_best().update, rank_trials(planned)[0]) == (3, planned[1])


def test_equal_scores_are_ranked_by_the_loss(trials):
    _, planned = trials
    for trial, loss in zip(planned, (3.0, 2.0, 2.5, 2.0), strict=True):
        record = {"update": 1, "kind": "validation", "bleu": 0.0, "loss": loss, "perplexity": loss}
        (trial.folder / "history.jsonl").write_text(json.dumps(record))
    assert [trial.number for trial in rank_trials(planned)] == [2, 4, 3, 1]


def test_chrf_has_a_column_where_it_decides(task, tmp_path):
    config = load_config(task / "tiny.yaml", ["training.best_by=chrf"])
    planned = plan_trials(config, {KEY: Choice((0.1,))}, tmp_path, name="space.yaml", trials=1)
    planned[0].folder.mkdir()
    scores = ((1, 9.0, 20.0), (2, 1.0, 30.0))
    records = (
        {"update": n, "kind": "validation", "bleu": bleu, "chrf": chrf, "loss": 1.0, "perplexity": 2.7}
        for n, bleu, chrf in scores
    )
    (planned[0].folder / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert write_csv(planned) == (
        f"trial,state,{KEY},update,bleu,chrf,perplexity,updates\ntrial-001,unfinished,0.1,2,1.0,30.0,2.7,2\n"
    )


def test_a_damaged_record_of_a_trial_is_named(trials):
    _, planned = trials
    (planned[0].folder / "trial.json").write_text('{"ended": "fin')
    with pytest.raises(UserError, match=r"trial-001/trial.json is damaged\. Delete it to resume the trial\."):
        planned[0].read_end()


def test_the_process_that_searches_does_not_import_keras():
    # Its workers choose their devices before they do.
    check = "import sys, nmt.cluster.tune; assert not {'keras', 'tensorflow'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", check], check=True)
