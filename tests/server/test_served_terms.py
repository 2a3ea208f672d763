"""Glossaries, marks and placeholders in requests to /translate."""

import pytest
from server_fakes import FakeTranslator, ask, make_fake, read_error

from nmt.data.placeholders import Placeholders
from nmt.errors import UserError
from nmt.translators.terms import TermRules


class Requiring(FakeTranslator):
    """Puts what is required at the end of a translation, and copies symbols."""

    def with_settings(self, **changes):
        return self

    def check_demands(self, demands):
        pass

    def translate_batch(self, texts, *, required=None, prefixes=None, **options):
        found = super().translate_batch(texts, **options)
        for one, phrases in zip(found, required or [()] * len(found), strict=True):
            text = " ".join([one.text, *phrases])
            object.__setattr__(one.hypotheses[0], "text", text.replace("<URL", "<url").replace("<TERM", "<term"))
        return found


class Free(FakeTranslator):
    """Cannot be told what to write."""

    def with_settings(self, **changes):
        return self

    def check_demands(self, demands):
        raise UserError("required: not by this model")


def translate(server, **fields):
    return ask(server, "POST", "/translate", json=fields).json()["translations"]


@pytest.fixture
def server():
    server = make_fake(Requiring())
    yield server
    server.batcher.close(5)


def test_terms_and_marked_text_are_in_translations(server):
    [one, other] = translate(server, text=["See the cat. Two cats.", "A dog."], glossary={"cat": "Katze"})
    assert (one["text"], other["text"]) == ("SEE THE CAT. Katze TWO CATS.", "A DOG.")
    [one] = translate(server, text="Press {{ok}} now.", marks=True)
    assert one["text"] == "PRESS ok NOW."
    # Together, as HTML, and with a prefix of one's own.
    html = {"format": "html", "text": "<b>Press</b> {{ok}} cat"}
    [one] = translate(server, **html, glossary={"cat": "Katze"}, marks=True)
    assert one["text"] == "<b>PRESS</b> ok CAT Katze"
    [one] = translate(server, text="cat", required=["x"], glossary={"cat": "Katze"})
    assert one["text"] == "CAT x Katze"


def test_attention_is_requested_for_marked_text_alone():
    requested = {}

    class Attending(Requiring):
        def translate_batch(self, texts, *, attention=False, **options):
            requested.update(dict.fromkeys(texts, attention))
            return super().translate_batch(texts, attention=attention, **options)

    server = make_fake(Attending())
    translate(server, text=["Press {{ok}}.", "A cat."], marks=True, glossary={"cat": "Katze"})
    assert requested == {"Press ok.": True, "A cat.": False}
    server.batcher.close(5)


def test_the_tag_of_a_model_is_not_reported_as_lost():
    translator = Requiring()
    translator.tags = ["<de>"]
    server = make_fake(translator)
    [one] = translate(server, text="<de> a cat", glossary={"cat": "Katze"})
    assert one["warnings"] == []
    server.batcher.close(5)


def test_a_model_with_placeholders_copies():
    translator = Requiring()
    translator.terms = TermRules(Placeholders(["url", "term"], 2))
    server = make_fake(translator)
    [one] = translate(server, text="at http://x.de cat", glossary={"cat": "Katze"})
    assert translator.batches[-1] == ["at <url1> <term1>"]
    assert one["text"] == "AT http://x.de Katze"
    server.batcher.close(5)


def test_what_the_model_cannot_search_for_is_refused(server):
    free = make_fake(Free())
    answer = ask(free, "POST", "/translate", json={"text": "a", "glossary": {"a": "b"}})
    assert read_error(answer) == (400, "required: not by this model")
    free.batcher.close(5)
    for glossary, message in (
        ({"a": "b\nc"}, "expected a term, a tab"),
        ({str(n): "a" for n in range(1001)}, "1000"),
        ({"a" * 201: "b"}, "200"),
    ):
        answer = ask(server, "POST", "/translate", json={"text": "a", "glossary": glossary})
        assert answer.status_code == 400 and message in read_error(answer)[1]
