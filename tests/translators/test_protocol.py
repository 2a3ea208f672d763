"""What all translators share: lines in windows, settings by name, and opening by path."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nmt.config.schema import DecodingConfig, SearchSettings
from nmt.errors import UserError
from nmt.translators.hypothesis import Hypothesis, Translation, join_hypotheses, merge_parts
from nmt.translators.opening import find_folder, find_kind, open_translator
from nmt.translators.protocol import Translator, change_settings, check_fixed


class Upper(Translator):
    """Translates into capitals and reads eight characters at most."""

    source_language = target_language = None
    max_n_best = 3
    settings = SearchSettings()

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def with_settings(self, **changes: Any) -> "Upper":
        return self

    def translate_batch(self, texts: Sequence[str], *, n_best: int = 1, attention: bool = False) -> list[Translation]:
        self.check_n_best(n_best)
        self.batches.append(list(texts))
        return [
            Translation(text, [Hypothesis(text.upper(), -0.5, -1.0)] * n_best, is_truncated=len(text) > 8)
            for text in texts
        ]


def test_lines_are_translated_in_windows_and_in_order():
    upper = Upper()
    stream = upper.stream(iter("abcde"), window=2)
    assert next(stream).text == "A"
    assert upper.batches == [["a", "b"]]
    assert [one.source for one in stream] == ["b", "c", "d", "e"]
    assert upper.batches[1:] == [["c", "d"], ["e"]]
    assert upper.translate(["x", ""]) == ["X", ""]


def test_a_translation_has_the_values_of_its_best_hypothesis():
    [one] = Upper().stream(["a"], n_best=2)
    assert (one.best, one.text, one.score, one.log_prob) == (one.hypotheses[0], "A", -0.5, -1.0)


def test_one_text_instead_of_lines_is_refused():
    with pytest.raises(UserError, match="Expected a list of lines to translate, found one text: put it in brackets"):
        Upper().translate("abc")


def test_a_line_that_would_be_truncated_is_refused():
    with pytest.raises(UserError, match="The line 'abcdefghi…' of 9 characters is longer than the translator reads"):
        Upper().translate(["a", "abcdefghi"])


@pytest.mark.parametrize("n_best", [0, 4])
def test_the_number_of_hypotheses_is_checked(n_best):
    with pytest.raises(UserError, match=f"n_best: expected 1 to 3 translations per line, found {n_best}"):
        next(Upper().stream(["a"], n_best=n_best))


def test_settings_change_by_name_and_none_leaves_them_unchanged():
    settings = DecodingConfig(beam_size=7, length_penalty=0.5)
    changed = change_settings(settings, {"beam_size": 1, "length_penalty": None, "pruning_threshold": np.float64(2)})
    assert changed == settings.model_copy(update={"beam_size": 1, "pruning_threshold": 2.0})
    assert change_settings(changed, {"length_penalty": 1}).length_penalty == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_sise": 2}, r"There is no decoding setting 'beam_sise'. Did you mean 'beam_size'?"),
        ({"pruning": 2.0}, r"There is no decoding setting 'pruning'. Did you mean 'pruning_threshold'?"),
        ({"beam_size": 65}, r"decoding.beam_size: expected a whole number from 1 to 64, found 65."),
        ({"beam_size": "5"}, r"decoding.beam_size: expected a whole number from 1 to 64, found '5'."),
        ({"beam_size": True}, r"decoding.beam_size: expected a whole number from 1 to 64, found True."),
        ({"pruning_threshold": np.inf}, r"decoding.pruning_threshold: expected a number of 0 or more, found inf."),
        ({"precision": "float8"}, r"decoding.precision: expected one of auto, float32, bfloat16, found 'float8'."),
        ({"min_length": 256}, r"decoding: min_length must be below max_length; found 256 and 256"),
    ],
)
def test_invalid_settings_are_refused_by_name(changes, message):
    with pytest.raises(UserError) as caught:
        change_settings(DecodingConfig(), changes)
    assert str(caught.value) == message


def test_every_invalid_setting_is_named():
    with pytest.raises(UserError) as caught:
        change_settings(DecodingConfig(), {"beam_size": 0, "length_penalty": 9})
    assert str(caught.value).splitlines() == [
        "decoding.beam_size: expected a whole number from 1 to 64, found 0.",
        "decoding.length_penalty: expected a number from 0 to 5, found 9.",
    ]


def test_fixed_settings_may_be_repeated_but_not_changed():
    settings = DecodingConfig(beam_size=4)
    check_fixed(settings, {"beam_size": 4, "length_penalty": None})
    with pytest.raises(
        UserError, match=r"made with decoding\.beam_size 4 and cannot translate with 2: export the model"
    ):
        check_fixed(settings, {"beam_size": 2})


def test_parts_join_best_with_best():
    first = [Hypothesis("a", -1.0, -2.0, ("▁a",)), Hypothesis("b", -3.0, -4.0, ("▁b",), is_finished=False)]
    second = [Hypothesis("c", -2.0, -8.0, ("▁c",))]
    assert join_hypotheses([first, second], n_best=3) == [
        Hypothesis("a c", -1.5, -10.0, ("▁a", "▁c")),
        Hypothesis("b c", -2.5, -12.0, ("▁b", "▁c"), is_finished=False),
    ]
    assert join_hypotheses([first], n_best=2) == first
    assert join_hypotheses([]) == [Hypothesis("", 0.0, 0.0)]


def test_what_one_part_does_not_tell_is_unknown_of_the_whole():
    parts = [Hypothesis("a", -1.0, -2.0), Hypothesis("b", -3.0, None, is_finished=None)]
    assert merge_parts("a\nb", parts) == Hypothesis("a\nb", -2.0, None, is_finished=None)


def test_kinds_are_told_by_their_files(tmp_path):
    for path in ("served/3/saved_model.pb", "phone/model.tflite", "model/config.yaml", "run/best/config.yaml"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    names = {name: find_kind(tmp_path / name).name for name in ("served", "served/3", "phone", "model", "run")}
    assert names == {
        "served": "SavedModel", "served/3": "SavedModel", "phone": "LiteRT", "model": "model", "run": "model"
    }  # fmt: skip
    assert find_folder(tmp_path / "served") == tmp_path / "served"


def test_what_is_nothing_is_refused_as_a_model(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        open_translator(tmp_path / "nowhere", beam_size=3)
