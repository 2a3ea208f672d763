"""What all translators share: lines in windows, settings by name, and opening by path."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from nmt.config.schema import DecodingConfig, SearchSettings
from nmt.decoding.alignment import TokenAttention
from nmt.decoding.inference import split_numbers
from nmt.errors import UserError
from nmt.server.limits import Limits
from nmt.server.text_cutter import TextCutter
from nmt.translators.export_record import read_settings
from nmt.translators.hypothesis import Hypothesis, Translation, TranslationWarning, join_translations
from nmt.translators.opening import find_folder, find_kind, open_translator
from nmt.translators.protocol import Translator
from nmt.translators.sentences import SplitText
from nmt.translators.settings import change_fixed, change_settings
from nmt.translators.tokens import TokenTranslator


class Upper(Translator):
    """Translates into capitals and reads eight characters at most, each of which is a token."""

    source_language = target_language = None
    max_n_best, max_tokens = 3, 8
    settings = SearchSettings()

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def with_settings(self, **changes: Any) -> "Upper":
        return self

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

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


def test_one_long_line_does_not_stop_the_others():
    found = list(Upper().stream(["a", "abcdefghi", "b"]))
    assert [one.text for one in found] == ["A", "ABCDEFGHI", "B"]
    assert [one.is_truncated for one in found] == [False] * 3
    assert [len(one.warnings) for one in found] == [0, 1, 0]


@pytest.mark.parametrize("n_best", [0, 4])
def test_the_number_of_hypotheses_is_checked(n_best):
    with pytest.raises(UserError, match=f"n_best: expected 1 to 3 translations per line, found {n_best}"):
        next(Upper().stream(["a"], n_best=n_best))


def test_settings_change_by_name_and_none_leaves_them_unchanged():
    settings = DecodingConfig(beam_size=7, length_penalty=0.5)
    changed = change_settings(settings, {"beam_size": 2, "length_penalty": None, "pruning_threshold": np.float64(2)})
    assert changed == settings.model_copy(update={"beam_size": 2, "pruning_threshold": 2.0})
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


@pytest.mark.parametrize(
    "others",
    [
        {"min_length": 2},
        {"coverage_penalty": 0.2},
        {"mbr": "chrf"},
        {"beam_size": 1},
        {"beam_size": 1, "temperature": 0.5},
    ],
    ids=str,
)
def test_a_pruning_threshold_is_refused_where_nothing_is_pruned(others):
    given = {"pruning_threshold": 2.0, **others}
    message = r"pruning_threshold has no effect with \w+ \S+: leave it out, or set it to its default, 3.0; found 2.0"
    with pytest.raises(UserError, match=message):
        change_settings(SearchSettings(), given)
    with pytest.raises(UserError, match=message):
        change_settings(SearchSettings(**others), {"pruning_threshold": 2.0})
    with pytest.raises(ValidationError, match=message):
        SearchSettings(**given)
    assert change_settings(SearchSettings(), {**given, "pruning_threshold": 0.0}).pruning_threshold == 0


def test_what_others_turn_off_is_accepted_where_it_was_not_given_here():
    """A request for a minimum length need not know the threshold of the server's model."""
    model = SearchSettings(pruning_threshold=2.0)
    changed = change_settings(model, {"min_length": 2})
    assert (changed.min_length, changed.pruning_threshold) == (2, 2.0)
    assert change_settings(model, changed.model_dump()) == changed
    stored = {"pruning_threshold": 2.0, "min_length": 2}
    assert read_settings({"decoding": stored}) == change_settings(DecodingConfig(pruning_threshold=2.0), stored)


def test_a_length_penalty_is_refused_where_samples_are_ranked_by_their_likeness():
    with pytest.raises(UserError, match="length_penalty has no effect with mbr chrf"):
        change_settings(SearchSettings(), {"beam_size": 1, "temperature": 1.0, "mbr": "chrf", "length_penalty": 0.5})


def test_every_invalid_setting_is_named():
    with pytest.raises(UserError) as caught:
        change_settings(DecodingConfig(), {"beam_size": 0, "length_penalty": 9})
    assert str(caught.value).splitlines() == [
        "decoding.beam_size: expected a whole number from 1 to 64, found 0.",
        "decoding.length_penalty: expected a number from 0 to 5, found 9.",
    ]


def test_fixed_settings_may_be_repeated_but_not_changed():
    settings = DecodingConfig(beam_size=4)
    assert change_fixed(settings, {"beam_size": 4, "length_penalty": None}) == settings
    with pytest.raises(
        UserError, match=r"made with decoding\.beam_size 4 and cannot translate with 2: export the model"
    ):
        change_fixed(settings, {"beam_size": 2})
    with pytest.raises(UserError, match="cannot translate with chrf: translate with the model itself"):
        change_fixed(settings, {"mbr": "chrf"})
    assert change_fixed(settings, {"split_sentences": "never"}).split_sentences == "never"


def test_parts_join_best_with_best():
    text = SplitText(["a", "b", "c"], ["", " ", "\n\n", "\n"])
    first = [Hypothesis("x", -1.0, -2.0, ("▁x",)), Hypothesis("x2", -3.0, -4.0, ("▁x2",), is_finished=False)]
    second = [Hypothesis("y", -2.0, -8.0, ("▁y",))]
    third = [Hypothesis("z", -3.0, -5.0, is_finished=None), Hypothesis("z2", -3.0, -3.0)]
    warning = TranslationWarning("w", "W.")
    parts = [
        Translation("a", first),
        Translation("b", second, warnings=[warning]),
        Translation("c", third, True, [warning]),
    ]
    found = join_translations(text, parts)
    assert found == Translation(
        "a b\n\nc\n",
        [
            Hypothesis("x y\n\nz\n", -2.0, -15.0, ("▁x", "▁y"), is_finished=None),
            Hypothesis("x2 y\n\nz2\n", -8 / 3, -15.0, ("▁x2", "▁y"), is_finished=False),
        ],
        is_truncated=True,
        warnings=(warning,),
    )


def test_a_text_without_parts_is_its_own_translation():
    assert join_translations(SplitText([], [" …\n"]), []) == Translation(" …\n", [Hypothesis(" …\n", 0.0, 0.0)])


def test_the_attention_of_parts_lies_where_they_are():
    def attend(word: str) -> Hypothesis:
        return Hypothesis(word, 0.0, 0.0, attention=[TokenAttention(["▁a"], [f"▁{word}"], [[1.0]])])

    text = SplitText(["a", "bb"], ["  ", " https://a.b/c ", ""])
    inner = join_translations(text, [Translation("a", [attend("xx")]), Translation("bb", [attend("y")])])
    [first, second] = inner.best.attention
    assert (first.source_span, first.target_span) == ((2, 3), (2, 4))
    assert (second.source_span, second.target_span) == ((18, 20), (19, 20))
    # Parts of parts, as of a sentence that was cut.
    outer = join_translations(SplitText([text.text], ["\n", ""]), [inner])
    assert [one.target_span for one in outer.best.attention] == [(3, 5), (20, 21)]


TEXT = " One is. Two is.\n\nThree …\nhttps://a.b/c "


def test_texts_are_split_and_joined():
    upper = Upper()
    [found] = upper.translate_texts([TEXT])
    assert upper.batches == [["One is.", "Two is.", "Three …"]]
    assert found.text == " ONE IS. TWO IS.\n\nTHREE …\nhttps://a.b/c "
    assert not found.is_truncated
    assert upper.translate(["", " …", "www.a.b"]) == ["", " …", "www.a.b"]
    assert len(upper.batches) == 1


@pytest.mark.parametrize(
    ("mode", "share", "is_split"),
    [("auto", 0.0, True), ("auto", 0.9, False), ("always", 0.9, True), ("never", 0.0, False)],
)
def test_texts_are_split_as_the_setting_says(mode, share, is_split):
    upper = Upper()
    upper.settings, upper.multi_sentence_share = SearchSettings(split_sentences=mode), share
    assert upper.translate(["Aa. Bb.", "Cc."]) == ["AA. BB.", "CC."]
    assert upper.batches == [["Aa.", "Bb.", "Cc."] if is_split else ["Aa. Bb.", "Cc."]]


def test_without_splitting_only_what_would_be_truncated_is_cut():
    upper = Upper()
    assert upper.translate(["a. b.", "One is. Two is."], split=False) == ["A. B.", "ONE IS. TWO IS."]
    assert upper.batches == [["a. b.", "One is. Two is."], ["One is.", "Two is."]]


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


class Tagged(Upper):
    """Was trained with two tags, and reads 20 characters."""

    tags = ("<2d>", "<2de>")
    max_tokens = 20

    def with_settings(self, **changes: Any) -> "Tagged":
        return self._with(change_settings(self.settings, changes))


def test_each_sentence_has_the_tag_of_its_text():
    translator = Tagged().with_settings(split_sentences="always")
    texts = ["<2de> It is. We are.", "  <2de>Is it?", "It is. We are.", "", "<2d> Yes."]
    tagged = translator.with_settings(tag="<2d>")
    assert translator.translate(texts[:1]) == ["<2DE> IT IS. <2DE> WE ARE."]
    assert [one.source for one in tagged.stream(texts)] == texts
    translator.batches.pop()
    tagged.translate(texts)
    assert translator.batches == [
        ["<2de> It is.", "<2de> We are."],
        ["<2de> It is.", "<2de> We are.", "<2de> Is it?", "<2d> It is.", "<2d> We are.", "<2d> Yes."],
    ]
    # Without sentence splitting as well, as in `nmt evaluate` and validation.
    tagged.translate(["It is.", "<2de> It is.", " "], split=False)
    assert translator.batches[2] == ["<2d> It is.", "<2de> It is.", " "]


def test_attention_to_a_tag_is_left_out_and_places_are_those_in_the_text():
    text = SplitText(["<x> ab", "<x> c"], ["", "\n", ""], tag="<x>", prefix=" <x>  ")
    assert text.text == " <x>  ab\nc"
    attention = TokenAttention(["▁", "<x>", "▁ab"], ["▁AB"], np.array([[0.1, 0.2, 0.6, 0.1]]))
    parts = [
        Translation(part, [Hypothesis(part[4:].upper(), -1.0, -2.0, attention=[attention])]) for part in text.parts
    ]
    joined = join_translations(text, parts)
    assert (joined.source, joined.text) == (text.text, "AB\nC")
    first, second = joined.best.attention
    assert (first.source, first.source_span, first.target_span) == (["▁ab"], (6, 8), (0, 2))
    np.testing.assert_array_equal(first.weights, [[0.6, 0.1]])
    assert (second.source_span, second.target_span) == ((9, 10), (3, 4))
    assert attention.source == ["▁", "<x>", "▁ab"]
    # One sentence with a tag that the settings give.
    one = join_translations(SplitText(["<x> ab"], ["", ""], tag="<x>"), parts[:1])
    assert (one.source, one.best.attention[0].source_span) == ("ab", (0, 2))


def test_parts_of_a_long_text_have_its_tag_and_are_short_enough():
    translator = Tagged().with_settings(split_sentences="never")
    translator.translate(["<2de> aa bb cc dd ee ff gg hh"])
    [parts] = translator.batches
    assert len(parts) > 1
    assert all(part.startswith("<2de> ") and len(part) <= 20 for part in parts)
    assert "".join(part.removeprefix("<2de>") for part in parts) == " aa bb cc dd ee ff gg hh"


class Spelling(TokenTranslator):
    """Reads 20 characters, each of which is a token, and writes what it read."""

    source_language = target_language = None
    max_n_best, max_tokens, tags = 3, 20, ("<2d>",)
    settings = SearchSettings(tag="<2d>")

    def with_settings(self, **changes: Any) -> "Spelling":
        return self

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(map(ord, text)) for text in texts]

    def _translate_ids(self, ids: list[list[int]], n_best: int, attention: bool) -> list[list[Hypothesis]]:
        return [[Hypothesis("".join(map(chr, row)), 0.0, 0.0)] for row in ids]


def test_a_batch_has_the_tags_that_are_written_in_it_however_long_its_texts():
    """As do requests to `:predict`, which are those of a SavedModel's signature."""
    long = "aa bb cc dd ee ff gg hh ii"
    texts = ["aa", long, f"<2d> {long}"]
    short, untagged, tagged = (one.text for one in Spelling().translate_batch(texts))
    assert (short, untagged) == ("aa", long)
    assert tagged.count("<2d>") > 1
    cut, _ = TextCutter(Spelling(), Limits())._cut_long(texts)
    assert [[part.startswith("<2d> ") for part in text.parts] for text in cut] == [[False], [False] * 2, [True] * 2]
    assert all("<2d>" in part for text in Spelling().split_texts(texts) for part in text.parts)


def test_a_tag_that_the_model_does_not_know_is_refused():
    with pytest.raises(
        UserError, match=r"^decoding\.tag: the model does not know <2fr>; expected one of its tags, <2d>, "
    ):
        Tagged().with_settings(tag="<2fr>")
    with pytest.raises(UserError, match="does not know <2fr>; expected none, because it was trained without"):
        Upper()._with(SearchSettings(tag="<2fr>"))


def test_an_export_may_have_another_tag_and_a_search_is_not_compiled_for_it():
    fixed = DecodingConfig(beam_size=3)
    assert change_fixed(fixed, {"tag": "<2de>"}).tag == "<2de>"
    assert split_numbers(SearchSettings(tag="<2de>"))[0] == split_numbers(SearchSettings())[0]
