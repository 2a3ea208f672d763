"""What is copied into translations, seen through a translator that reverses words, but copies symbols."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nmt.config.schema import SearchSettings
from nmt.data.glossary import Glossary
from nmt.data.placeholders import Placeholders
from nmt.decoding.alignment import TokenAttention
from nmt.decoding.word_links import align_words
from nmt.errors import UserError
from nmt.translators.demands import MAX_PHRASES, Demand, report_unmet
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.markup import stream_markup
from nmt.translators.protocol import Translator
from nmt.translators.sentences import SplitText
from nmt.translators.terms import TermRules, restore_all

GLOSSARY = {"printer": "Drucker", "ink jet": "Tinte"}


class Reversing(Translator):
    """Reverses every word, leaves out "lost" and the symbol after it, and appends "more <url2>" to "more"."""

    source_language = target_language = None
    max_n_best, max_tokens = 3, 100
    settings = SearchSettings()

    def __init__(self, *kinds: str, tags: Sequence[str] = ()):
        self.terms = TermRules(Placeholders(kinds, 2, kept=tags))
        self.tags = tags
        self.read: list[str] = []
        self.required: list[Sequence[str]] = []
        self.attention: dict[str, bool] = {}

    def with_settings(self, **changes: Any) -> "Reversing":
        return self

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def check_demands(self, demands: Sequence[Demand]) -> None:
        if any(len(phrase) > 20 for demand in demands for phrase in demand.required):
            raise UserError("required: too long")

    def translate_batch(
        self,
        texts: Sequence[str],
        *,
        n_best: int = 1,
        attention: bool = False,
        required: Sequence[Sequence[str]] | None = None,
        **options: Any,
    ) -> list[Translation]:
        self.read += texts
        self.attention |= dict.fromkeys(texts, attention)
        self.required += map(list, required or [])
        return [self._reverse(text) for text in texts]

    def _reverse(self, text: str) -> Translation:
        words = text.split()
        kept = [
            n for n, word in enumerate(words) if word not in self.tags and "lost" not in words[max(0, n - 1) : n + 1]
        ]
        target = [words[n] if words[n].startswith("<") else words[n][::-1] for n in kept]
        target += ["<url2>"] if "more" in words else []
        weights = np.eye(len(words) + 1)[[*kept, *[len(words)] * (len(target) + 1 - len(kept))]]
        tokens = [[f"▁{word}" if word[0] != "<" else word for word in side] for side in (words, target)]
        one = Hypothesis(" ".join(target), -0.5, -1.0, attention=[TokenAttention(*tokens, weights)])
        return Translation(text, [one])


def translate(translator, *texts):
    return list(translator.stream(texts))


def test_placeholders_are_copied_into_the_translation():
    translator = Reversing("url", "number")
    [one] = translate(translator, "see http://x.org/ab for 12")
    assert translator.read == ["see <url1> for <number1>"]
    assert (one.source, one.text) == ("see http://x.org/ab for 12", "ees http://x.org/ab rof 12")
    assert one.warnings == ()


def test_references_get_the_symbols_of_their_sources():
    rules = TermRules(Placeholders(["number", "url"], 2))
    one = rules.protect("12 at http://x.de/12, 5")
    assert one.text == "<number1> at <url1>, <number2>"
    assert one.put_symbols("5 bei http://x.de/12 125 12") == "<number2> bei <url1> 125 <number1>"
    assert one.restore_text(one.put_symbols("5 bei 12")) == "5 bei 12"


def test_what_was_lost_is_reported_and_what_stands_for_nothing_is_removed():
    [one] = translate(Reversing("url", "number", "tag"), "lost 12 more <b> <b2>")
    assert one.text == "erom <b> <b2>"
    assert [(warning.kind, warning.message) for warning in one.warnings] == [
        ("lost_number", "Missing in the translation: '12'.")
    ]


def test_terms_are_copied_by_models_with_placeholders_for_them():
    translator = Reversing("term").with_terms(GLOSSARY)
    [one, other] = translate(translator, "an ink jet printer", "lost printer")
    assert translator.read == ["an <term1> <term2>", "lost <term1>"]
    assert (one.text, one.warnings) == ("na Tinte Drucker", ())
    assert [(warning.kind, warning.message) for warning in other.warnings] == [
        ("lost_term", "Missing in the translation: 'Drucker', the translation of 'printer'.")
    ]
    assert translator.required == []
    assert translator.translate(["printer"]) == ["Drucker"]
    assert translator.without_terms().translate(["printer"]) == ["retnirp"]


def test_terms_are_required_of_other_models():
    translator = Reversing("url")
    assert translator.translate(["an ink jet printer, a printer", "none"], glossary=GLOSSARY)
    assert translator.read == ["an ink jet printer, a printer", "none"]
    assert translator.required == [["Tinte", "Drucker"], []]
    # The search accepts 16 phrases, and may write a term as part of a word.
    many = {f"w{n}x": f"t{n}x" for n in range(18)}
    [one] = translate(translator.with_terms(many), " ".join([*many, "x71t", "ax5t"]))
    assert translator.required[-1] == [f"t{n}x" for n in range(16)]
    missing = "Missing in the translation as a whole word: "
    assert [warning.message for warning in one.warnings] == [f"{missing}'t5x'.", f"{missing}'t16x'."]


@pytest.mark.parametrize("kinds", [(), ("term",)])
def test_marked_text_is_copied(kinds):
    translator = Reversing(*kinds).with_terms(marks=True)
    [one] = translate(translator, r"press {{Save. As \}} b}} or \{{ and \\")
    if kinds:
        assert one.text == r"sserp Save. As }} b ro {{ dna " + "\\"
    else:
        # In place of the words that attend to it.
        assert translator.read == [r"press Save. As }} b or {{ and " + "\\"]
        assert one.text == r"sserp Save. As }} b ro {{ dna " + "\\"
    assert translator.required == [] and one.best.attention == []
    assert one.source == r"press {{Save. As \}} b}} or \{{ and \\"
    [open_mark] = translate(translator, "a {{b. C d")[0].warnings
    assert (open_mark.kind, open_mark.message) == ("open_mark", "A mark {{ has no end in 'a {{b.'.")


def test_attention_is_requested_for_marked_text_alone():
    translator = Reversing().with_terms(marks=True)
    found = translate(translator, "a b", "{{c}} d", "e", "f {{g}}")
    assert [one.text for one in found] == ["a b", "c d", "e", "f g"]
    assert translator.attention == {"a b": False, "e": False, "c d": True, "f g": True}


def test_translations_that_differ_in_a_removed_symbol_are_one():
    [text], _ = TermRules(Placeholders(["url"], 2)).protect_all(["http://x.de a"], [Demand()])
    found = [Hypothesis(one, -1.0, -1.0) for one in ("<url1> a", "<url1> a <url2>", "<url1> b", "<url1> a")]
    [one] = restore_all([text], [Translation(text.text, found)], keep_attention=False)
    # Samples that were drawn twice stay.
    assert [each.text for each in one.hypotheses] == ["http://x.de a", "http://x.de b", "http://x.de a"]


def test_marked_text_is_placed_among_symbols_and_signs_of_html():
    translator = Reversing("url").with_terms({"c": "<C>"}, marks=True)
    [one] = translate(translator, "a & http://x.de {{<i> &amp; e}} lost {{d}} c")
    assert translator.read == ["a & <url1> <i> &amp; e lost d c"]
    assert one.text == "a & http://x.de <i> &amp; e d c"
    assert one.warnings == ()


def test_sentences_do_not_end_between_marks():
    translator = Reversing("term").with_terms(marks=True)
    [one] = translate(translator, "Press {{Save. Then}} now. And go.\nStay.")
    assert translator.read == ["Press <term1> now.", "And go.", "Stay."]
    assert one.text == "sserP Save. Then .won dnA .og\n.yatS"


def test_an_open_mark_in_another_line_divides_no_marked_text():
    translator = Reversing("term").with_terms(marks=True)
    translate(translator, "Press {{Save. Then. Go}} now.\nAn {{ open one.")
    assert translator.read == ["Press <term1> now.", "An {{ open one."]


def test_sentences_do_not_end_within_terms():
    terms = {"Who? Weekly": "Wer"}
    translator = Reversing("term").with_terms(terms)
    translate(translator, "I read Who? Weekly now. And go.")
    assert translator.read == ["I read <term1> now.", "And go."]
    divided = SplitText(["I read Who?", "Weekly now."], ["", " ", ""])
    assert TermRules(glossary=Glossary(terms)).join_copied(divided, lambda part: len(part) < 20) == divided


def test_the_tag_of_a_model_is_no_placeholder():
    translator = Reversing("tag", "term", tags=["<2de>"])
    [one] = translate(translator.with_terms({"2de": "x"}), "<2de> a <b>")
    assert translator.read == ["<2de> a <tag1>"]
    assert (one.source, one.text) == ("<2de> a <b>", "a <b>")


@pytest.mark.parametrize(("kinds", "glossary"), [(("tag",), None), ((), {"a": "a"})])
def test_the_tag_of_a_model_is_not_reported_as_lost(kinds, glossary):
    translator = Reversing(*kinds, tags=["<de>"]).with_terms(glossary)
    [one] = translate(translator, "<de> a <b>")
    assert (one.source, one.text, one.warnings) == ("<de> a <b>", "a <b>", ())


def test_words_are_aligned_with_what_symbols_stand_for():
    translator = Reversing("url", "term").with_terms(GLOSSARY)
    [one] = translator.translate_texts(["see http://x.de ink jet now"], attention=True)
    links = align_words(one.source, one.text, one.best.attention)
    assert one.text == "ees http://x.de Tinte won"
    assert links.as_pharaoh() == "0-0 1-1 2-2 4-3"


def test_terms_keep_tags_around_them():
    [one] = stream_markup(Reversing("term").with_terms(GLOSSARY), ["<p>my <b>ink jet</b> is</p>"])
    assert one.text == "<p>ym <b>Tinte</b> si</p>"


def test_a_glossary_given_in_python_is_checked():
    with pytest.raises(UserError, match=r"glossary: expected a term, a tab and its translation, found 'a.tb.nc'"):
        Reversing().with_terms({"a": "b\nc"})
    with pytest.raises(UserError, match="required: too long"):
        Reversing().with_terms({"a": "b" * 21})
    Reversing("term").with_terms({"a": "b" * 21})


def test_what_is_demanded_has_the_symbols_of_its_text():
    rules = TermRules(Placeholders(["url", "number"], 2))
    [text], [demand] = rules.protect_all(["http://x.de in 2024"], [Demand("Im Jahr 2024", ("http://x.de", "so"))])
    assert demand == Demand("Im Jahr <number1>", ("<url1>", "so"))
    [found] = restore_all(
        [text], [report_unmet(Translation(text.text, [Hypothesis("so", 0.0, 0.0)]), demand)], keep_attention=False
    )
    assert "The translation lacks what it must contain: http://x.de." in map(str, found.warnings)


def test_terms_leave_room_for_the_phrases_of_a_request():
    rules = TermRules(glossary=Glossary({"a": "A", "b": "B"}))
    wanted = tuple(map(str, range(MAX_PHRASES - 1)))
    [text], [demand] = rules.protect_all(["a b"], [Demand("", wanted)])
    assert demand.required == (*wanted, "A")
    found = text.restore(Translation("a b", [Hypothesis("A", 0.0, 0.0)]), keep_attention=False)
    assert [str(one) for one in found.warnings] == ["Missing in the translation as a whole word: 'B'."]


def test_prefixes_of_other_texts_do_not_split_a_text_that_is_to_stay_whole():
    translator = Reversing()
    translator.translate_texts(["One two. Three."] * 2, prefixes=["", "x"], split=False)
    assert translator.read == ["One two. Three."] * 2
