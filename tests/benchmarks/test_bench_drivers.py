"""The drivers, without the toolkits that they drive."""

import importlib

import pytest

from benchmarks.environment import DRIVERS
from nmt.decoding import grouping
from nmt.translators import opening


class Opened:
    """A translator that notes its settings."""

    def __init__(self, settings):
        self.settings = settings

    def with_settings(self, **changes):
        return Opened({**self.settings, **changes})


@pytest.mark.parametrize(
    ("file", "is_fixed"), [("weights.h5", False), ("best/weights.h5", False), ("saved_model.pb", True)]
)
def test_settings_reach_models_of_both_kinds_and_exports_keep_theirs(tmp_path, monkeypatch, file, is_fixed):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    monkeypatch.syspath_prepend(DRIVERS)
    monkeypatch.setattr(opening, "open_translator", lambda path, **settings: Opened(settings))
    monkeypatch.setattr(grouping, "MAX_QUERIES", 1)
    job = {"model": str(tmp_path), "beam_size": 5, "training": {"batch_sentences": 64, "max_length": 100}}
    found = importlib.import_module("run_nmt").open_translator({**job, "decoding": {"pruning_threshold": 0}})
    assert found.settings == {"beam_size": 5} | ({} if is_fixed else {"max_length": 100, "pruning_threshold": 0})
    queries = grouping.MAX_QUERIES
    assert queries == (1 if is_fixed else 320)
