import os
from pathlib import Path

import pytest

from nmt.config.file import config_from_text, dump_config
from nmt.errors import UserError
from nmt.training.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def begin(folder, config):
    folder.accept(config)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "update-000000001.h5").touch()


def put_tokenizers(folder):
    folder.path.mkdir(exist_ok=True)
    paths = [folder.path / name for name in ("source.model", "target.model")]
    for path in paths:
        path.touch()
    return paths


@pytest.mark.parametrize("batch_size", [8, 16])
def test_a_run_without_a_checkpoint_may_change_and_forgets_its_tokenizers(folder, recipe, batch_size):
    """Also if the configuration is the same: the text may be another."""
    folder.accept(recipe(folder.path, batch_size=16))
    paths = put_tokenizers(folder)
    changed = recipe(folder.path, batch_size=batch_size)
    folder.accept(changed)
    assert config_from_text(folder.config.read_text(), "config.yaml") == changed
    assert not any(path.exists() for path in paths)


def test_tokenizers_of_a_run_with_a_checkpoint_and_of_no_run_stay(folder, recipe):
    paths = put_tokenizers(folder)
    begin(folder, recipe(folder.path))
    assert all(path.exists() for path in paths)
    folder.accept(recipe(folder.path, max_updates=30))
    assert all(path.exists() for path in paths)


def test_a_new_run_keeps_its_configuration(folder, recipe):
    config = recipe(folder.path)
    folder.accept(config)
    assert config_from_text(folder.config.read_text(), "config.yaml") == config


def test_the_same_configuration_goes_on(folder, recipe):
    config = recipe(folder.path)
    begin(folder, config)
    folder.accept(config)
    assert config_from_text(folder.config.read_text(), "config.yaml") == config


def test_a_run_with_a_stored_key_that_has_no_effect_goes_on_without_it(folder, recipe):
    config = recipe(folder.path)
    begin(folder, config)
    stored = folder.config.read_text()
    folder.config.write_text(stored.replace("final_rate: 0.0", "final_rate: 0.5"))
    assert folder.config.read_text() != stored
    folder.accept(config)
    assert folder.config.read_text() == stored


@pytest.mark.parametrize(
    "change",
    [
        {"max_updates": 30},
        {"max_epochs": 2},
        {"max_minutes": 0.5},
        {"validate_every": 3},
        {"checkpoint_every": 4},
        {"keep_checkpoints": 5},
        {"patience": 6},
        {"log_every": 7},
        {"tensorboard": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_limits_intervals_patience_and_logging_may_change(folder, recipe, change):
    begin(folder, recipe(folder.path))
    changed = recipe(folder.path, **change)
    folder.accept(changed)
    assert config_from_text(folder.config.read_text(), "config.yaml") == changed


def test_a_run_may_be_moved(folder, recipe, tmp_path):
    begin(folder, recipe(folder.path))
    folder.path.rename(tmp_path / "moved")
    moved, config = RunFolder(tmp_path / "moved"), recipe(tmp_path / "moved")
    moved.accept(config)
    assert config_from_text(moved.config.read_text(), "config.yaml") == config


@pytest.mark.parametrize("name", ["config.yaml", "best/config.yaml"])
def test_a_stored_configuration_that_is_not_utf_8_is_named(folder, recipe, name):
    folder.accept(recipe(folder.path))
    folder.best.mkdir()
    (folder.path / name).write_bytes(b"seed: 1\nrun_dir: \xff\n")
    with pytest.raises(UserError, match=rf"{folder.path / name}:2: [Ee]xpected UTF-8"):
        folder.accept(config_with(recipe(folder.path), {"decoding": {"beam_size": 9}}))


def test_any_other_change_is_refused_with_what_differs(folder, recipe):
    config = recipe(folder.path, max_updates=20)
    begin(folder, config)
    changed = recipe(folder.path, model={"encoder_units": 32}, batch_size=8, learning_rate=0.25, max_updates=30)
    with pytest.raises(UserError) as refused:
        folder.accept(changed)
    first, *lines, last = str(refused.value).splitlines()
    assert first == f"The run in {folder.path} was started with another configuration:"
    assert [line.strip() for line in lines] == [
        "model.encoder_units: 16 became 32",
        "training.batch_size: 16 became 8",
        "training.learning_rate: 0.0078125 became 0.25",
    ]
    start = f"With training.start_from={folder.path}, a new run begins with these weights."
    assert last == f"Restore the old values, or choose another run_dir. {start}"
    assert config_from_text(folder.config.read_text(), "config.yaml") == config


def test_what_a_plateau_depends_on_may_not_change(folder, recipe):
    config = recipe(folder.path, schedule="plateau", validate_every=2)
    begin(folder, config)
    changed = recipe(folder.path, schedule="plateau", validate_every=4, max_updates=30)
    with pytest.raises(UserError, match=r"configuration:\n  training.validate_every: 2 became 4\n"):
        folder.accept(changed)
    with pytest.raises(UserError, match=r"configuration:\n  decoding.beam_size: \d became 9\n"):
        folder.accept(config_with(config, {"decoding": {"beam_size": 9}}))
    longer = config_with(config, {"training": {"max_updates": 30}})
    folder.accept(longer)
    assert config_from_text(folder.config.read_text(), "config.yaml") == longer


@pytest.mark.parametrize("section", ["seed", "data"])
def test_other_sections_are_refused_too(folder, recipe, section):
    config = recipe(folder.path)
    begin(folder, config)
    change = {
        "seed": {"seed": 2},
        "data": {"data": config.data.model_copy(update={"max_length": 9})},
    }[section]
    with pytest.raises(UserError, match=rf"\n  {section}.*: .* became [29]\n"):
        folder.accept(config.model_copy(update=change))


@pytest.mark.parametrize(
    "change",
    [
        {"decoding": {"beam_size": 9, "length_penalty": 0.5}},
        {"export": {"nbest": 2, "server_version": "2.21.0"}},
        {"data": {"promises": Path("promises.yaml")}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_no_update_depends_on_may_change_also_for_the_best_model(folder, recipe, change):
    config = recipe(folder.path)
    begin(folder, config)
    folder.best.mkdir()
    stored = config.model_copy(update={"training": config.training.model_copy(update={"max_updates": 7})})
    (folder.best / "config.yaml").write_text(dump_config(stored))
    changed = config_with(config, change)
    folder.accept(changed)
    assert config_from_text(folder.config.read_text(), "config.yaml") == changed
    assert config_from_text((folder.best / "config.yaml").read_text(), "config.yaml") == config_with(stored, change)


def test_settings_of_the_best_model_that_were_edited_by_hand_stay(folder, recipe):
    config = recipe(folder.path)
    begin(folder, config)
    folder.best.mkdir()
    edited = dump_config(config_with(config, {"decoding": {"beam_size": 12}}))
    (folder.best / "config.yaml").write_text(edited)
    folder.accept(config)
    assert (folder.best / "config.yaml").read_text() == edited


def config_with(config, sections):
    """Returns a configuration with other values in some sections."""
    changed = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=changed)


def test_only_one_may_train_in_a_folder(folder):
    # The lock belongs to the opened file, so that this process stands for another one.
    words = f"^Process {os.getpid()} is already training in .*run"
    with folder.lock(), pytest.raises(UserError, match=words), RunFolder(folder.path).lock():
        pytest.fail("locked twice")
    with folder.lock():
        assert (folder.path / ".lock").read_text() == str(os.getpid())


def test_what_a_killed_process_left_half_written_is_cleared_away(folder):
    dead = 1 << 22  # no process has such a number
    alive = f".test.de.{os.getppid()}.part"  # of another command that writes into this folder
    for name in (f".config.yaml.{dead}.part", f"checkpoints/.update-000000005.h5.{dead}.part", alive, "config.yaml"):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_text("half")
    with folder.lock():
        left = sorted(path.name for path in folder.path.rglob("*") if path.is_file())
    assert left == [".lock", alive, "config.yaml"]


STARTED = ["source.model", "target.model", "cache", "data.json", "tensorboard"]


@pytest.mark.parametrize("made", [[], STARTED, ["history.jsonl"], ["checkpoints"], ["log.txt"]])
def test_a_training_that_is_refused_at_its_start_leaves_nothing_behind(folder, recipe, made):
    with pytest.raises(UserError, match="refused"), folder.lock():
        folder.accept(recipe(folder.path))
        for name in made:
            (folder.path / name).touch()
        raise UserError("refused")
    is_begun = made not in ([], STARTED)
    assert folder.path.exists() == folder.config.exists() == is_begun


def test_a_training_that_is_interrupted_at_its_start_keeps_its_indexes(folder, recipe):
    with pytest.raises(KeyboardInterrupt), folder.lock():
        folder.accept(recipe(folder.path))
        folder.cache.mkdir()
        raise KeyboardInterrupt
    assert folder.cache.exists()


def test_a_training_that_is_refused_leaves_a_folder_with_tokenizers_as_it_was(folder, recipe):
    paths = put_tokenizers(folder)
    with pytest.raises(UserError, match="refused"), folder.lock():
        folder.accept(recipe(folder.path))
        raise UserError("refused")
    assert all(path.exists() for path in paths)


def test_a_lock_file_left_behind_is_no_lock(folder):
    folder.path.mkdir()
    (folder.path / ".lock").write_text("999999999")
    with folder.lock():
        assert (folder.path / ".lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_text("not a folder")
    words = f"Cannot write to run_dir .*{place}: "
    with pytest.raises(UserError, match=words), RunFolder(tmp_path / place).lock():
        pytest.fail("locked a file")
