"""Files that the first version wrote can be read.

The folder format_1 was written at commit "Every weight has a path of its own" by a model of 16 units that learned to
reverse the order of number words. Its translations are correct, not merely unchanged.
"""

from pathlib import Path

import pytest

from nmt import open_translator, process
from nmt.model_folder import ModelFolder
from nmt.training.checkpoint import read_checkpoint

FORMAT_1 = Path(__file__).parent / "format_1"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_translates_in_either_precision(precision):
    translator = open_translator(FORMAT_1 / "model", precision=precision)
    assert {str(v.dtype) for v in translator.model.trainable_variables} == {precision}
    assert translator.settings.precision == precision
    assert translator.translate(["one two", "seven", "nine eight one"]) == ["two one", "seven", "one eight nine"]


@pytest.mark.parametrize(
    ("flags", "precision"),
    [({"avx2", "amx_bf16"}, "bfloat16"), ({"avx512f", "avx512_bf16"}, "bfloat16"), ({"avx512f"}, "float32")],
)
def test_it_uses_the_precision_that_is_fastest_on_the_processor(monkeypatch, flags, precision):
    monkeypatch.setattr(process, "read_processor_flags", lambda: frozenset(flags))
    assert open_translator(FORMAT_1 / "model").settings.precision == precision


def test_a_checkpoint_of_format_1_fits_the_model_of_format_1():
    checkpoint = read_checkpoint(FORMAT_1 / "checkpoint.h5")
    weights = ModelFolder.load(FORMAT_1 / "model").weights
    assert checkpoint.progress.update == 700
    assert {name: array.shape for name, array in checkpoint.arrays["weights"].items()} == {
        name: array.shape for name, array in weights.items()
    }
    assert checkpoint.arrays["averages"].keys() == weights.keys()
    assert any("velocity" in name for name in checkpoint.arrays["optimizer"])
