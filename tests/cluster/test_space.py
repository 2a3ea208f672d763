import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from nmt.cluster.space import Choice, Range, draw_values, read_space
from nmt.cluster.trials import plan_trials
from nmt.config.file import load_config
from nmt.errors import UserError


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes space.yaml into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        Path("space.yaml").write_text(text)
        return Path("space.yaml")

    return write


def test_keys_stand_in_their_sections_or_dotted(written):
    space = read_space(
        written(
            "training:\n  learning_rate: {low: 1e-4, high: 1e-2, log: true}\n  clip_norm: [null, 1.0]\n"
            "model.decoder_units: [32, 64]\nmodel.layer_dropout: {low: 0, high: 0.5}\n"
            "training.warmup_updates: {low: 0, high: 9}\n"
        )
    )
    assert space == {
        "training.learning_rate": Range(1e-4, 1e-2, log=True, whole=False),
        "training.clip_norm": Choice((None, 1.0)),
        "model.decoder_units": Choice((32, 64)),
        "model.layer_dropout": Range(0, 0.5, log=False, whole=False),
        "training.warmup_updates": Range(0, 9, log=False, whole=True),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "space.yaml: expected keys such as training.learning_rate, each with a list or a range"),
        ("training:\n  bacth_size: [8]\n", "space.yaml:2: training.bacth_size: unknown key. Did you mean 'batch_"),
        ("training.bacth_size: [8]\n", "space.yaml:1: training.bacth_size: unknown key. Did you mean"),
        ("learning_rate: [0.1]\n", "learning_rate: unknown key. Did you mean 'training.learning_rate'?"),
        ("data.train.N.source: [x]\n", "space.yaml:1: data.train.N.source: unknown key."),
        ("training.batch_size: 8\n", "expected a list of values, such as [8], or a range, such as {low: 0.1, high:"),
        ("training.batch_size: []\n", "expected a list of values"),
        ("training.batch_size: [8, 0]\n", "batch_size: expected a whole number of 1 or more, found 0"),
        ("training.batch_size: [8, many]\n", "batch_size: expected a whole number of 1 or more, found 'many'"),
        ("training.batch_size: [8, 16, 8]\n", "batch_size: 8 occurs twice in the list."),
        ("training.batch_size: {low: 8}\n", "batch_size: a range needs low and high."),
        ("training.batch_size: {low: 8, hihg: 9}\n", "expected low, high and log, found 'hihg'. Did you mean 'high'?"),
        ("training.batch_size: {low: 8, high: 16.5}\n", "expected a whole number of 1 or more, found 16.5"),
        ("training.batch_size: {low: 8, high: 8}\n", "batch_size: low must be below high; found 8 and 8."),
        ("training.batch_size: {low: 8, high: 9, log: 2}\n", "expected true or false for log, found 2."),
        ("model.layer_dropout: {low: 0, high: 1.5}\n", "expected a number of 0 or more and below 1, found 1.5"),
        ("model.layer_dropout: {low: 0, high: 0.5, log: true}\n", "a logarithmic range must start above 0; found 0."),
        ("training.optimizer: {low: 1, high: 2}\n", "expected a list of values, since the key takes one of adamw"),
        ("training.optimizer: [adan]\n", "expected one of adamw, adam, sgd, found 'adan'"),
        ("training.best_by: [bleu, loss]\n", "training.best_by: cannot be searched, because all trials are"),
        ("run_dir: [a, b]\n", "run_dir: cannot be searched, because each trial has its own folder"),
        ("data.cache: [a, b]\n", "data.cache: cannot be searched, because each trial has its own folder, and all"),
        ("data.target_language: [de, en]\n", "target_language: cannot be searched, because all trials are compared by"),
        ("decoding.beam_size: [1, 2]\n", "beam_size: cannot be searched, because trials are compared by greedy search"),
        ("decoding.temperature: [0, 1]\n", "temperature: cannot be searched, because trials are compared by greedy"),
        ("decoding.precision: [auto, float32]\n", "decoding.precision: cannot be searched, because trials are"),
        ("export: {nbest: [1, 2]}\n", "export.nbest: cannot be searched, because exports are made after the training."),
        ("training.accumulation_steps: [1, 2]\n", "cannot be searched, because it changes memory and time, but"),
        ("model.preset: [small, base]\n", "model.preset: cannot be searched, because the configuration has all of its"),
        ("training.log_every: [1, 2]\n", "training.log_every: cannot be searched, because it does not change"),
        ("training.keep_pair_losses: [true, false]\n", "cannot be searched, because it does not change the score."),
        ("data.promises: [a, b]\n", "data.promises: cannot be searched, because it does not change the score."),
        ("seed: [1]\nseed: [2]\n", "space.yaml:2: seed: given twice"),
        ("training: {seed: [1]}\ntraining.patience: [x]\n", "'seed'?\nspace.yaml:2: training.patience: expected"),
    ],
)  # fmt: skip
def test_a_wrong_space_is_told_by_its_line(written, text, words):
    with pytest.raises(UserError) as caught:
        read_space(written(text))
    assert words in str(caught.value)


def test_a_missing_file_is_told(written):
    written("seed: [1]\n")
    with pytest.raises(UserError, match=r"There is no file spaec.yaml. Did you mean 'space.yaml'\?"):
        read_space(Path("spaec.yaml"))


def test_draws_stay_inside_and_follow_their_scale():
    chance = random.Random(1)
    scaled = [Range(1e-4, 1e-2, log=True, whole=False).draw(chance) for _ in range(3000)]
    assert min(scaled) >= 1e-4
    assert max(scaled) <= 1e-2
    # The middle of a logarithmic range is the geometric mean.
    assert sum(one < 1e-3 for one in scaled) / 3000 == pytest.approx(0.5, abs=0.05)
    assert all(float(f"{one:.4g}") == one for one in scaled)
    assert math.isclose(sum(map(math.log10, scaled)) / 3000, -3, abs_tol=0.05)


def test_whole_numbers_are_drawn_alike_up_to_both_ends():
    chance = random.Random(1)
    found = Counter(Range(2, 8, log=False, whole=True).draw(chance) for _ in range(7000))
    assert found == {number: pytest.approx(1000, abs=120) for number in range(2, 9)}


def test_a_logarithmic_range_of_whole_numbers_gives_each_the_share_of_what_is_rounded_to_it():
    chance = random.Random(1)
    found = Counter(Range(1, 4, log=True, whole=True).draw(chance) for _ in range(10_000))
    # 0.5 to 4.5 is a factor of 9, of which 1 has the factor 1.5 / 0.5 = 3, 2 has 5/3, 3 has 7/5 and 4 has 9/7.
    shares = {1: 0.5, 2: math.log(5 / 3, 9), 3: math.log(7 / 5, 9), 4: math.log(9 / 7, 9)}
    assert found == {number: pytest.approx(10_000 * share, abs=200) for number, share in shares.items()}


def test_a_longer_search_begins_with_the_trials_of_a_shorter_one():
    space = {"seed": Range(0, 10**6, log=False, whole=True), "training.batch_size": Choice((8, 16))}
    assert draw_values(space, 20, seed=1)[:5] == draw_values(space, 5, seed=1)
    assert draw_values(space, 5, seed=1) != draw_values(space, 5, seed=2)


def test_no_trial_comes_twice_and_a_small_space_ends():
    space = {"training.batch_size": Choice((8, 16, 32)), "model.layer_norm": Choice((False, True))}
    found = draw_values(space, 100, seed=1)
    assert len(found) == 6
    assert len({tuple(values.items()) for values in found}) == 6


def test_trials_are_run_folders_of_checked_configurations(task, written):
    config = load_config(task / "tiny.yaml")
    space = read_space(written("training.learning_rate: [0.01, 0.02]\n"))
    trials = plan_trials(config, space, Path("search"), name="space.yaml", trials=2)
    assert [trial.folder for trial in trials] == [Path("search/trial-001"), Path("search/trial-002")]
    assert sorted(trial.config.training.learning_rate for trial in trials) == [0.01, 0.02]
    assert {trial.config.data.cache for trial in trials} == {Path("search/cache")}
    unchanged = {"run_dir", "training", "data"}
    assert trials[0].config.model_dump(exclude=unchanged) == config.model_dump(exclude=unchanged)
    assert trials[0].read_end() == ("unfinished", "")


@pytest.mark.parametrize(
    ("text", "overrides", "reason"),
    [
        ("decoding.max_length: [8, 9]\n", ["training.best_by=loss"], "training.best_by is loss, for which nothing is"),
        (
            "tokenizer.kind: [bpe]\n",
            ["tokenizer.source_model=a", "tokenizer.target_model=a"],
            "source_model is set, so",
        ),
        ("training.checkpoint_every: [8, 9]\n", [], "it matters only to the average of checkpoints, and training.aver"),
    ],
)
def test_a_key_without_effect_on_this_configuration_is_refused(task, written, text, overrides, reason):
    config = load_config(task / "tiny.yaml", overrides)
    with pytest.raises(UserError, match=rf"^space.yaml: .*: cannot be searched, because .*{re.escape(reason)}"):
        plan_trials(config, read_space(written(text)), Path("search"), name="space.yaml", trials=1)


def test_a_key_is_searched_where_it_has_an_effect(task, written):
    config = load_config(task / "tiny.yaml", ["training.best_by=bleu"])
    decoding = "decoding: {max_length: [8], no_repeat_ngram: [4]}\n"
    text = decoding + "training: {checkpoint_every: [8], average_last: [2]}\ntokenizer.kind: [bpe]\n"
    [trial] = plan_trials(config, read_space(written(text)), Path("search"), name="space.yaml", trials=1)
    found = trial.config.decoding
    assert (found.max_length, found.no_repeat_ngram, trial.config.tokenizer.kind) == (8, 4, "bpe")


def test_values_that_do_not_go_together_are_told_with_their_trial(task, written):
    config = load_config(task / "tiny.yaml")
    space = read_space(written("model.decoder_units: [16]\nmodel.attention_heads: [5]\n"))
    words = (
        r"space.yaml: trial 1 \(model.decoder_units=16, model.attention_heads=5\): attention_heads must divide "
        "decoder_units; found 5 and 16"
    )
    with pytest.raises(UserError, match=words):
        plan_trials(config, space, Path("search"), name="space.yaml", trials=1)
