"""The drivers, without the toolkits that they drive."""

import importlib
import itertools
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from benchmarks.environment import DRIVERS
from nmt.decoding import grouping
from nmt.translators import opening


@pytest.fixture
def load(monkeypatch):
    """Loads a driver among stand-ins for the modules of its toolkit."""

    def load(name, **modules):
        monkeypatch.syspath_prepend(DRIVERS)
        for path, contents in modules.items():
            module = ModuleType(path)
            vars(module).update(contents)
            monkeypatch.setitem(sys.modules, path, module)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


class Opened:
    """A translator that notes its settings."""

    def __init__(self, settings):
        self.settings = settings

    def with_settings(self, **changes):
        return Opened({**self.settings, **changes})


@pytest.mark.parametrize(
    ("file", "is_fixed"), [("weights.h5", False), ("best/weights.h5", False), ("saved_model.pb", True)]
)
def test_settings_reach_models_of_both_kinds_and_exports_keep_theirs(tmp_path, monkeypatch, load, file, is_fixed):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    monkeypatch.setattr(opening, "open_translator", lambda path, **settings: Opened(settings))
    monkeypatch.setattr(grouping, "MAX_QUERIES", 1)
    job = {"model": str(tmp_path), "beam_size": 5, "training": {"batch_sentences": 64, "max_length": 100}}
    found = load("run_nmt").open_translator({**job, "decoding": {"pruning_threshold": 0}})
    assert found.settings == {"beam_size": 5} | ({} if is_fixed else {"max_length": 100, "pruning_threshold": 0})
    queries = grouping.MAX_QUERIES
    assert queries == (1 if is_fixed else 320)


def test_opennmt_py_trains_until_its_seconds_have_passed(tmp_path, monkeypatch, load):
    clock = itertools.count(100)

    class Trainer:
        def _accum_batches(self, batches):
            yield from batches

    class ModelSaver:
        def _save(self, step, model):
            return f"model_step_{step}.pt", None

    def train(options):
        batches = itertools.repeat(([{"srclen": [4, 5]}, {"srclen": [6]}], 1))  # two micro-batches of 3 pairs in all
        updates = sum(1 for _ in Trainer()._accum_batches(batches))
        ModelSaver()._save(updates, None)

    parser = SimpleNamespace(parse_known_args=lambda arguments: (arguments, []))
    torch = {"load": None, "nn": SimpleNamespace(Module=object)}
    trainers = {"onmt.trainer": {"Trainer": Trainer}, "onmt.models.model_saver": {"ModelSaver": ModelSaver}}
    commands = {"onmt.bin.train": {"train": train, "_get_parser": lambda: parser}}
    driver = load("run_opennmt_py", torch=torch, **trainers, **commands)
    monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    sides = {"source_language": "en", "target_language": "de", "train": "train", "dev": "dev", "vocabulary": "words"}
    job = {"model": str(tmp_path / "model"), "report": str(tmp_path / "report"), "seed": 3, "seconds": 4}
    driver.train_for({**job, **sides, "options": {"batch_size": 8}})
    # The clock shows 100 at the first batch, 101 to 104 before this and the next ones, and 105 at the checkpoint.
    report = json.loads((tmp_path / "report").read_text())
    assert report == {"checkpoints": [[3, 5, "model_step_3.pt"]], "num_pairs": 9}
    assert "batch_size: 8" in (tmp_path / "model" / "config.yaml").read_text().splitlines()


def test_ctranslate2_divides_threads_among_batches(tmp_path, load):
    class Translator:
        def __init__(self, model, **options):
            made.append((model, options))

        def translate_batch(self, lines, **options):
            made.append((len(lines), options))
            return [SimpleNamespace(hypotheses=[line[::-1], ["worse"]]) for line in lines]

    made = []
    converter = {"ctranslate2.converters.opennmt_py": {"OpenNMTPyConverter": None}}
    driver = load("run_ctranslate2", torch={}, ctranslate2={"Translator": Translator}, **converter)
    source, output = tmp_path / "source", tmp_path / "output"
    source.write_text("▁a b\n▁c\n")
    files = {"source": str(source), "output": str(output), "report": str(tmp_path / "report"), "model": "int8"}
    training = {"max_length": 150, "batch_sentences": 64}
    driver.translate({**files, "training": training, "beam_size": 5, "passes": 2, "threads": 4, "workers": 2})
    assert made[0] == ("int8", {"compute_type": "int8", "inter_threads": 2, "intra_threads": 2})
    search = {"beam_size": 5, "max_decoding_length": 150, "max_batch_size": 64}
    assert made[1:] == [(1, search), (2, search), (2, search)]  # one line to get ready, and two passes
    assert output.read_text() == "b ▁a\n▁c\n"
    assert len(json.loads((tmp_path / "report").read_text())["seconds"]) == 2
