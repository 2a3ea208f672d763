import json
from pathlib import Path

import pytest

from nmt.cluster.results import rank_trials, write_csv, write_markdown, write_results
from nmt.cluster.space import Choice
from nmt.cluster.trials import plan_trials
from nmt.config.file import load_config

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
