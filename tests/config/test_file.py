import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config.file import (
    check_value,
    config_from_text,
    dump_config,
    find_differences,
    load_config,
    read_overrides,
    replace_values,
)
from nmt.config.schema import Config, ModelConfig, TokenizerConfig
from nmt.errors import UserError

RECIPES = sorted(Path(__file__).parents[2].glob("configs/*.yaml"))
MINIMAL = """\
data:
  source_language: en
  target_language: de
  train:
    - source: train.en
      target: train.de
  dev: {source: dev.en, target: dev.de}
training:
  max_updates: 9
"""
MODELS = ("tokenizer.source_model=a.model", "tokenizer.target_model=a.model")
TEXT = st.text(max_size=8) | st.sampled_from(
    ["no", "1e-3", "0x1f", "010", "null", "~", "- a", "a: b", "1:30", "# a", "\n"]
)
SHARE = st.floats(0, 1, exclude_max=True)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes x.yaml into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        Path("x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return Path("x.yaml")

    return write


def mistakes(path, *overrides):
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_load(path):
    assert load_config(path).run_dir is not None


def test_a_file_becomes_a_configuration(file):
    config = load_config(file(MINIMAL))
    assert config.data.train[0].target == Path("train.de")
    assert config.training.max_updates == 9
    assert config.training.batch_size == Config.model_fields["training"].annotation.model_fields["batch_size"].default


@pytest.mark.parametrize("key", ["", "run_dir:\n", "run_dir: null\n"])
def test_the_run_folder_is_named_after_the_file(file, key):
    assert load_config(file(key + MINIMAL)).run_dir == Path("runs/x")


def test_a_given_run_folder_is_kept(file):
    assert load_config(file("run_dir: elsewhere/7\n" + MINIMAL)).run_dir == Path("elsewhere/7")


def test_a_tilde_is_the_home_folder_in_every_path(file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    overrides = ["run_dir=~/runs", "data.cache=~/c", "data.dev.source=~/a~b", "data.train.0.target=a/~/b"]
    config = load_config(file(MINIMAL), overrides)
    assert (config.run_dir, config.data.cache) == (Path("/home/me/runs"), Path("/home/me/c"))
    assert (config.data.dev.source, config.data.train[0].target) == (Path("/home/me/a~b"), Path("a/~/b"))
    [mistake] = mistakes(file(MINIMAL), "run_dir=~nobody-here/x")
    assert mistake == "command line: run_dir=~nobody-here/x: there is no home folder for ~nobody-here in ~nobody-here/x"


def test_a_stored_text_is_read_like_a_file(file):
    given_run = "run_dir: runs/x\n" + MINIMAL
    assert config_from_text(given_run, "best/config.yaml") == load_config(file(MINIMAL))
    with pytest.raises(UserError, match=r"^best/config.yaml:1: sed: unknown key. Did you mean 'seed'\?$"):
        config_from_text("sed: 1\n" + MINIMAL, "best/config.yaml")


def test_a_stored_text_without_a_key_of_today_means_what_its_version_did(file):
    stored = dump_config(load_config(file(MINIMAL)))
    assert config_from_text(stored, "best/config.yaml").model.embedding_scale == 8
    older = stored.replace("  embedding_scale: 8.0\n", "")
    assert older != stored
    assert config_from_text(older, "best/config.yaml").model.embedding_scale == 1


def test_stored_keys_are_read_under_their_old_names(file):
    stored = dump_config(load_config(file(MINIMAL)))
    for old, new in (("accumulation: 4", "accumulation_steps: 1"), ("pruning: 2.5", "pruning_threshold: 3.0")):
        assert new in stored
        stored = stored.replace(new, old)
    config = config_from_text(stored, "best/config.yaml")
    assert (config.training.accumulation_steps, config.decoding.pruning_threshold) == (4, 2.5)
    with pytest.raises(UserError, match=r"^best/config.yaml:\d+: decoding.pruning: expected a number of 0 or more"):
        config_from_text(stored.replace("pruning: 2.5", "pruning: -1"), "best/config.yaml")


def test_keys_without_effect_are_refused_except_in_stored_configurations(file):
    assert mistakes(file(MINIMAL), "training.final_rate=0.5") == [
        "command line: training.final_rate=0.5: final_rate needs schedule linear or cosine; found constant. Leave it "
        "out, or set it to its default, 0.0"
    ]
    config = load_config(file(MINIMAL), MODELS)
    stored = dump_config(config.model_copy(update={"model": ModelConfig(attention="additive")}))
    idle = {"final_rate: 0.0": "final_rate: 0.5", "vocabulary_size: 8000": "vocabulary_size: 300"}
    idle |= {"attention_heads: 8": "attention_heads: 2"}
    older = stored
    for default, value in idle.items():
        assert default in older
        older = older.replace(default, value)
    # So that a run that was started with them is resumed without them.
    assert config_from_text(older, "best/config.yaml") == config_from_text(stored, "best/config.yaml")
    changed = config.model_copy(update={"training": config.training.model_copy(update={"final_rate": 0.5})})
    assert replace_values(changed, {"decoding.beam_size": 9}, "here", is_stored=True).decoding.beam_size == 9
    with pytest.raises(UserError, match=r"^here: final_rate needs schedule"):
        replace_values(changed, {"decoding.beam_size": 9}, "here")


def test_all_keys_without_effect_are_named_each_condition_with_its_line(file):
    text = MINIMAL + "  final_rate: 0.5\n  schedule_updates: 9\n  optimizer: sgd\n  beta_2: 0.5\n"
    assert mistakes(file(text)) == [
        "x.yaml:13: training.beta_2: beta_2 needs optimizer adam or adamw; found sgd. Leave it out, or set it to its "
        "default, 0.98",
        "x.yaml:11: training.schedule_updates: schedule_updates and final_rate need schedule linear or cosine; found "
        "constant. Leave them out, or set them to their defaults, null and 0.0",
    ]


def test_models_of_tokenizers_on_the_command_line_replace_what_the_file_trains(file):
    path = file(MINIMAL + "tokenizer: {vocabulary_size: 300, user_symbols: [<x>], sampling_alpha: 0.5}\n")
    files = {"source_model": Path("a.model"), "target_model": Path("a.model")}
    assert load_config(path, MODELS).tokenizer == TokenizerConfig(sampling_alpha=0.5, **files)
    assert load_config(path, ["tokenizer.source_model=", "tokenizer.target_model="]).tokenizer.vocabulary_size == 300


@pytest.mark.parametrize(
    ("section", "overrides", "label"),
    [
        ("{vocabulary_size: 300, source_model: a.model, target_model: a.model}", (), "x.yaml:10: tokenizer.voc"),
        ("{source_model: a.model, target_model: a.model}", ("tokenizer.vocabulary_size=300",), "command line: toke"),
        ("{vocabulary_size: 400}", (*MODELS, "tokenizer.vocabulary_size=300"), "command line: tokenizer.vocabulary_s"),
    ],
    ids=["file", "line over file", "line"],
)
def test_training_a_tokenizer_and_models_of_tokenizers_exclude_each_other(file, section, overrides, label):
    [mistake] = mistakes(file(f"{MINIMAL}tokenizer: {section}\n"), *overrides)
    assert mistake.startswith(label)
    assert mistake.endswith(
        ": vocabulary_size needs source_model null; found a.model. Leave it out, or set it to its default, 8000"
    )


def test_an_old_name_in_a_users_file_is_unknown_and_the_new_one_is_suggested(file):
    path = file(MINIMAL + "decoding:\n  pruning: 2.5\n")
    assert mistakes(path) == ["x.yaml:11: decoding.pruning: unknown key. Did you mean 'pruning_threshold'?"]


def test_overrides_replace_add_and_reach_into_lists(file):
    overrides = ("training.max_updates=8", "model.encoder_units=6", "data.train.0.source=new.en", "run_dir=")
    config = load_config(file(MINIMAL), overrides)
    assert (config.training.max_updates, config.model.encoder_units) == (8, 6)
    assert (config.data.train[0].source, config.data.train[0].target) == (Path("new.en"), Path("train.de"))
    assert config.run_dir == Path("runs/x")


def test_an_override_may_hold_a_section_or_a_list_and_the_last_one_wins(file):
    overrides = ("model={attention: additive}", "training.devices=[GPU:0, GPU:1]", "seed=2", "seed=3", "run_dir=a=b")
    config = load_config(file(MINIMAL), overrides)
    assert config.model.attention == "additive"
    assert config.training.devices == ["GPU:0", "GPU:1"]
    assert (config.seed, config.run_dir) == (3, Path("a=b"))


def test_an_override_opens_an_empty_section(file):
    text = MINIMAL.replace("training:\n  max_updates: 9\n", "training:\n")
    assert load_config(file(text), ["training.max_epochs=2"]).training.max_epochs == 2


def test_numbers_and_words_have_the_meaning_of_yaml_1_2(file):
    overrides = (
        "training.learning_rate=1e-3",
        "training.epsilon=.5E-2",
        "data.source_language=no",
        "training.beta_1=0",
    )
    config = load_config(file(MINIMAL), overrides)
    assert (config.training.learning_rate, config.training.epsilon) == (0.001, 0.005)
    assert (config.data.source_language, config.training.beta_1) == ("no", 0)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.batch_size=many", "expected a whole number of 1 or more, found 'many'"),
        ("training.batch_size='64'", "expected a whole number of 1 or more, found '64'"),
        ("training.batch_size=0", "expected a whole number of 1 or more, found 0"),
        ("training.batch_size=6.5", "expected a whole number of 1 or more, found 6.5"),
        ("training.batch_size=true", "expected a whole number of 1 or more, found true"),
        ("training.batch_size=010", "expected a whole number of 1 or more, found '010'"),
        ("training.batch_size=99999999999999999999", "expected a whole number of 1 or more, found '9+'"),
        ("seed=-1", "expected a whole number from 0 to 4294967295, found -1"),
        ("seed=18446744073709551616", "expected a whole number from 0 to 4294967295, found '18446744073709551616'"),
        ("decoding.beam_size=65", "expected a whole number from 1 to 64, found 65"),
        ("training.label_smoothing=1", "expected a number of 0 or more and below 1, found 1"),
        ("tokenizer.character_coverage=0", "expected a number above 0 and at most 1, found 0"),
        ("training.learning_rate=", "expected a number above 0, found nothing"),
        ("training.clip_norm=1e999", "expected null or a number above 0, found '1e999'"),
        ("training.clip_norm=.inf", "expected null or a number above 0, found '.inf'"),
        ("training.tensorboard=yes", "expected true or false, found 'yes'"),
        ("training.tensorboard=1", "expected true or false, found 1"),
        ("model.attention=dot", "expected one of multi_head, bilinear, additive, found 'dot'"),
        ("data.source_language=true", "expected text, found true"),
        ("run_dir=7", "expected null or a path, found 7"),
        ("data.train=[]", "expected a list of 1 or more entries, each a section, found an empty list"),
        ("data.train=x", "expected a list of 1 or more entries, each a section, found 'x'"),
        ("training.devices={a: 1}", "expected null or a list of entries, each text, found a section"),
        ("training=", "expected a section, found nothing"),
        ("training=[1]", "expected a section, found a list"),
        ("training.freeze=[embeddings]", "training.freeze.0: expected one of source_embedding, .*, found 'embeddings'"),
        ("training.average_last=5", "average_last must not exceed keep_checkpoints; found 5 and 3"),
        ("model.atention=x", r"unknown key. Did you mean 'attention'\?"),
        ("modl.attention=x", r"unknown key. Did you mean 'model'\?"),
        ("training.dropout=0.1", r"unknown key. Did you mean 'model.\w+_dropout'\?"),
        ("training.beam_size=2", r"unknown key. Did you mean 'decoding.beam_size'\?"),
        ("batch_size=2", r"unknown key. Did you mean 'training.batch_size'\?"),
        ("batch_sise=2", r"unknown key. Did you mean 'training.batch_size'\?"),
        ("qqq=2", "unknown key."),
        ("data.dev={source: a}", "the key 'target' is missing. File of target sentences, one per line."),
        ("seed", "expected KEY=VALUE, such as training.batch_size=64."),
        ("data.train.1.source=x", "expected an index below 1, the length of the list, found '1'."),
        ("data.train.first=x", "expected an index below 1, the length of the list, found 'first'."),
        ("training.max_updates.x=1", "'x' needs a section or a list around it, found 9."),
        ("training.devices=[a", r"1:3: while parsing a flow sequence, expected ',' or '\]', but got '<stream end>'."),
        ("model={a: 1, a: 2}", "1: model.a: given twice, first on line 1."),
    ],
)
def test_a_wrong_override_is_told(file, override, expected):
    [mistake] = mistakes(file(MINIMAL), override)
    assert re.fullmatch(re.escape(f"command line: {override}:") + " ?" + expected, mistake), mistake


def test_inside_an_override_the_inner_key_is_named(file):
    override = "training={max_updates: 3, batch_sise: 5}"
    assert mistakes(file(MINIMAL), override) == [
        f"command line: {override}: training.batch_sise: unknown key. Did you mean 'batch_size'?"
    ]


def test_every_mistake_of_a_file_is_told_with_its_line(file):
    text = """\
data:
  source_language: en
  train:
    - {source: a, target: b}
    - source: a
      traget: b
training:
  max_updates: 9
  # a comment
  bacth_size: 5
  devices: [GPU:0,
    1]
model:
  encoder_units: 3
"""
    assert sorted(mistakes(file(text))) == sorted(
        [
            "x.yaml:1: data: the key 'target_language' is missing. Language code of the target. It chooses sacreBLEU's "
            "tokenizer (ja, ko and zh have their own).",
            "x.yaml:5: data.train.1: the key 'target' is missing. File of target sentences, one per line.",
            "x.yaml:6: data.train.1.traget: unknown key. Did you mean 'target'?",
            "x.yaml:1: data: the key 'dev' is missing. Corpus for validation during training, or a list of corpora "
            "that are scored separately.",
            "x.yaml:10: training.bacth_size: unknown key. Did you mean 'batch_size'?",
            "x.yaml:12: training.devices.1: expected text, found 1",
            "x.yaml:14: model.encoder_units: encoder_units must be even, since each direction has half of it; found 3",
        ]
    )


def test_only_the_first_of_many_mistakes_are_listed(file):
    found = mistakes(file(MINIMAL + "".join(f"k{n}: 1\n" for n in range(60))))
    assert len(found) == 51 and found[-1] == "… and 10 more mistakes."


def test_a_missing_section_is_told_of_the_file(file):
    [mistake] = mistakes(file(MINIMAL.partition("training:")[0]))
    assert mistake.startswith("x.yaml: the key 'training' is missing. ")


def test_a_combination_is_told_of_the_section_where_no_key_opens_its_text(file):
    [mistake] = mistakes(file(MINIMAL.replace("max_updates", "warmup_updates")))
    assert mistake.startswith("x.yaml:8: training: one of max_updates, ")


def test_a_combination_of_sections_is_told_of_the_file(file):
    [mistake] = mistakes(file(MINIMAL + "tokenizer: {joint: false}\n"))
    assert mistake.startswith("x.yaml: model.tied_embeddings all needs one vocabulary")
    [mistake] = mistakes(file(MINIMAL + "tokenizer: {joint: false}\nmodel:\n  tied_embeddings: all\n"))
    assert mistake.startswith("x.yaml:12: model.tied_embeddings: model.tied_embeddings all needs one vocabulary")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "x.yaml: expected sections such as 'training:' with keys in them, found nothing."),
        ("- seed", "x.yaml: expected sections such as 'training:' with keys in them, found a list."),
        ("seed", "x.yaml: expected sections such as 'training:' with keys in them, found 'seed'."),
        (b"seed: 1\n# \xff", "x.yaml:2: expected UTF-8, found the byte 0xff."),
        ("seed: 1\nrun_dir: '\\ud800", "x.yaml:2:10: while scanning a quoted scalar, found unexpected end of stream."),
    ],
)
def test_a_file_that_is_no_configuration_is_told(file, text, expected):
    [mistake] = mistakes(file(text))
    assert re.fullmatch(re.escape(expected).replace("2:10", r"2:\d+"), mistake), mistake


def test_half_a_character_is_told(file):
    [mistake] = mistakes(file(f'{MINIMAL}run_dir: "\\ud800"\n'))
    assert mistake.startswith("x.yaml: Invalid JSON: ")


def test_a_missing_file_is_told_with_its_neighbour(file):
    file(MINIMAL)
    assert mistakes(Path("y.yaml")) == ["There is no file y.yaml. Did you mean 'x.yaml'?"]


def test_a_mark_of_byte_order_and_windows_lines_do_no_harm(file):
    text = "\ufeff" + MINIMAL.replace("\n", "\r\n")
    assert load_config(file(text)) == load_config(file(MINIMAL))
    assert mistakes(file(text + "sed: 1\r\n")) == ["x.yaml:10: sed: unknown key. Did you mean 'seed'?"]


@settings(deadline=None)  # a busy machine is no failure
@given(
    seed=st.integers(0, 2**32 - 1),
    run_dir=st.none() | TEXT.filter(lambda text: "\0" not in text and text[:1] != "~").map(Path),
    symbols=st.lists(TEXT),
    rate=st.floats(1e-300, 1e300),
    shares=st.tuples(SHARE, st.none() | SHARE),
    booleans=st.tuples(st.booleans(), st.booleans()),
    pairs=st.integers(1, 3),
)
def test_a_written_configuration_reads_back_the_same(seed, run_dir, symbols, rate, shares, booleans, pairs):
    changes = {
        "seed": seed,
        "run_dir": run_dir,
        "data": {
            "source_language": "no",
            "target_language": "de",
            "train": [{"source": f"{n}.no", "target": f"{n}.de"} for n in range(pairs)],
            "dev": {"source": "a b", "target": "1e5"},
            "drop_identical": booleans[0],
        },
        "tokenizer": {"user_symbols": symbols},
        "model": {"input_feeding": booleans[1], "word_dropout": shares[0]},
        "training": {"max_minutes": rate, "learning_rate": rate, "ema_decay": shares[1]},
    }
    config = Config(**changes)
    assert config_from_text(dump_config(config), "config.yaml") == config


def test_a_written_configuration_holds_every_key(file):
    written = dump_config(load_config(file(MINIMAL)))
    for name, field in Config.model_fields.items():
        assert f"\n{name}:" in f"\n{written}"
        for key in getattr(field.annotation, "model_fields", ()):
            assert f"\n  {key}:" in written


def test_differences_name_key_and_both_values(file):
    before = load_config(file(MINIMAL))
    overrides = ("training.batch_size=96", "model.input_feeding=true", "training.clip_norm=", "data.dev.source=new")
    more = ("tokenizer.user_symbols=[a]", "data.train=[{source: train.en, target: train.de}, {source: c, target: d}]")
    after = load_config(file(MINIMAL), overrides + more)
    assert sorted(find_differences(before, after)) == [
        "data.dev.source: dev.en became new",
        "data.train.1.alignments: nothing became null",
        "data.train.1.source: nothing became c",
        "data.train.1.tag: nothing became null",
        "data.train.1.target: nothing became d",
        "data.train.1.weight: nothing became 1.0",
        "data.train.1.weights: nothing became null",
        "model.input_feeding: false became true",
        "tokenizer.user_symbols.0: nothing became a",
        "training.batch_size: 64 became 96",
        "training.clip_norm: 1.0 became null",
    ]
    assert "data.train.1.source: c became nothing" in find_differences(after, before)
    assert find_differences(after, after) == []


def test_values_by_key_are_what_overrides_are(file):
    config = load_config(file(MINIMAL))
    values = {"training.batch_size": 96, "training.clip_norm": None, "model.attention": "bilinear"}
    overrides = ["training.batch_size=96", "training.clip_norm=", "model.attention=bilinear"]
    replaced = replace_values(config, values, "here")
    assert replaced == load_config(file(MINIMAL), overrides)
    # What was not given is not stored as if it had been.
    written = dump_config(replaced, given_only=True)
    assert "batch_size: 96" in written and "label_smoothing" not in written and "tokenizer" not in written
    assert load_config(file(written)) == replaced
    with pytest.raises(UserError, match=r"^here: expected a whole number of 1 or more, found 0$"):
        replace_values(config, {"training.batch_size": 0}, "here")
    with pytest.raises(UserError, match=r"^here: encoder_units must be even"):
        replace_values(config, {"model.encoder_units": 3}, "here")


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 3), ("model.layer_dropout", 0), ("training.clip_norm", None), ("run_dir", "a")]
)
def test_one_value_is_checked_by_itself(key, value):
    check_value(key, value, "here")
    with pytest.raises(UserError, match=r"^here: expected .*, found true$"):
        check_value(key, True, "here")


def test_mistakes_are_told_without_importing_anything_heavy():
    heavy = "{'tensorflow', 'keras', 'jax', 'numpy', 'sentencepiece'}"
    code = f"import sys, nmt.config.file; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_overrides_of_a_stored_configuration_are_read_by_section():
    found = read_overrides(
        ["decoding.beam_size=8", "decoding.length_penalty=0.5", "export.nbest=2"], "decoding", "export"
    )
    assert found == {"decoding": {"beam_size": 8, "length_penalty": 0.5}, "export": {"nbest": 2}}
    assert read_overrides([], "decoding") == {"decoding": {}}


def test_every_mistake_in_such_overrides_is_told_at_once():
    with pytest.raises(UserError) as caught:
        read_overrides(
            ["decoding.beam_size=0", "decoding.bean_size=1", "training.seed=1", "decoding", "export={}", "nbest=2"],
            "decoding",
        )
    assert str(caught.value).split("\n") == [
        "command line: decoding.beam_size=0: expected a whole number from 1 to 64, found 0",
        "command line: decoding.bean_size=1: unknown key. Did you mean 'beam_size'?",
        "command line: training.seed=1: expected a key of decoding, such as decoding.beam_size.",
        "command line: decoding: expected KEY=VALUE, such as decoding.beam_size=5.",
        "command line: export={}: expected a key of decoding, such as decoding.beam_size.",
        "command line: nbest=2: unknown key.",  # that of export is not accepted here
    ]


def test_an_override_that_breaks_a_rule_of_its_own_is_told_the_rule():
    with pytest.raises(UserError, match=r"decoding.tag=xx: expected a symbol without spaces .*; found 'xx'$"):
        read_overrides(["decoding.tag=xx"], "decoding")


def test_a_file_in_the_place_of_an_override_is_told_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").touch()
    hint = r"in\.txt: expected KEY=VALUE, such as .*\. It is a file, and files are given by options: see --help\.$"
    with pytest.raises(UserError, match=hint):
        read_overrides(["in.txt"], "decoding")
    with pytest.raises(UserError, match=hint):
        load_config("demo", ["in.txt"])


def test_a_recipe_is_found_by_its_name_and_a_file_of_that_name_wins(tmp_path, monkeypatch):
    recipe = next(path for path in RECIPES if path.stem == "demo")
    monkeypatch.chdir(tmp_path)
    assert load_config("demo") == load_config(recipe)
    (tmp_path / "demo").write_text(recipe.read_text(encoding="utf-8") + "\nseed: 77\n", encoding="utf-8")
    assert load_config("demo").seed == 77
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(UserError, match=r"^run is a folder\. Its configuration is run/config\.yaml\.$"):
        load_config("run")
