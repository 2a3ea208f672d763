"""What the first version wrote stays readable.

The folder format_1 was written at commit "Every weight has a path of its own", by a model of 16 units that learned to
reverse the words of numbers; its translations are right, not merely the same as before.
"""

from pathlib import Path

from nmt import Translator
from nmt.model_folder import ModelFolder
from nmt.training.checkpoint import read_checkpoint

FORMAT_1 = Path(__file__).parent / "format_1"


def test_a_model_folder_of_format_1_translates_as_ever():
    translator = Translator.load(FORMAT_1 / "model")
    assert translator.translate(["one two", "seven", "nine eight one"]) == ["two one", "seven", "one eight nine"]


def test_a_checkpoint_of_format_1_fits_the_model_of_format_1():
    checkpoint = read_checkpoint(FORMAT_1 / "checkpoint.h5")
    weights = ModelFolder.load(FORMAT_1 / "model").weights
    assert checkpoint.progress.update == 700
    assert {name: array.shape for name, array in checkpoint.arrays["weights"].items()} == {
        name: array.shape for name, array in weights.items()
    }
    assert checkpoint.arrays["averages"].keys() == weights.keys()
    assert any("velocity" in name for name in checkpoint.arrays["optimizer"])
