"""Tags around the right words: by hand, and whatever the tags and the attention."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html import escape, unescape
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from nmt.config.schema import SearchSettings
from nmt.decoding.alignment import TokenAttention
from nmt.errors import UserError
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.markup import read_markup, stream_markup
from nmt.translators.placing import find_interval
from nmt.translators.protocol import Translator

# Translations, and the source words that each of their words comes from; "habe … gelesen" is "have read".
KNOWN = {"I have read the old book.": ("Ich habe das alte Buch gelesen.", [[0], [1], [3], [4], [5], [2], [6]])}
TOKEN = re.compile(r"\w+|[^\w\s]")
TAG = re.compile(r"<!--.*?-->|</?[a-z][^<>]*>")


class Fake(Translator):
    """Reverses or copies words, but for the known sentence; each word attends to where it comes from.

    Args:
        mode: reverse or copy.
        noise: draws the attention instead.
    """

    source_language = target_language = None
    settings = SearchSettings(split_sentences="never")
    max_n_best, max_tokens = 9, 1000

    def __init__(self, mode: str = "reverse", noise: np.random.Generator | None = None) -> None:
        self.mode, self.noise = mode, noise
        self.read: list[str] = []

    def with_settings(self, **changes: Any) -> "Fake":
        return self

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(TOKEN.findall(text)) for text in texts]

    def translate_batch(self, texts: Sequence[str], *, n_best: int = 1, attention: bool = False) -> list[Translation]:
        self.read += texts
        return [Translation(text, [self._translate(text, n) for n in range(n_best)]) for text in texts]

    def _translate(self, text: str, rank: int) -> Hypothesis:
        sources = TOKEN.findall(text)
        if text in KNOWN:
            target, links = KNOWN[text]
        elif self.mode == "copy":
            target, links = text, [[n] for n in range(len(sources))]
        else:
            target, links = " ".join(reversed(sources)).upper(), [[n] for n in reversed(range(len(sources)))]
        target += "!" * rank
        targets = TOKEN.findall(target)
        weights = np.zeros((len(targets), len(sources)))
        for row, ours in zip(weights, links, strict=False):
            row[ours] = 1 / len(ours)
        if self.noise:
            weights = self.noise.dirichlet(np.full(len(sources), 0.2), len(targets))
        part = TokenAttention(["▁" + one for one in sources], ["▁" + one for one in targets], weights)
        return Hypothesis(target, -1.0 - rank, -1.0, attention=[part])


def put(text: str, mode: str = "reverse") -> str:
    [found] = stream_markup(Fake(mode), [text])
    assert found.source == text
    return found.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I have read the <b>old</b> book.", "Ich habe das <b>alte</b> Buch gelesen."),
        ("I have read <i>the <b>old</b> book</i>.", "Ich habe <i>das <b>alte</b> Buch</i> gelesen."),
        ("<p>I have read the <a href='x?a&b'>old</a> <EM>book</EM>.</p>",
         "<p>Ich habe das <a href='x?a&b'>alte</a> <EM>Buch</EM> gelesen.</p>"),
        # All of a paragraph, also with white space at its ends.
        ("<b>I have read the old book.</b>", "<b>Ich habe das alte Buch gelesen.</b>"),
        ("<p>\n  <b>I have\n read the old book. </b>\n</p>", "<p>\n  <b>Ich habe das alte Buch gelesen. </b>\n</p>"),
        # What is far apart stays in one pair of tags, around its larger or first part.
        ("I <b>have read</b> the old book.", "Ich <b>habe</b> das alte Buch gelesen."),
        # Void and empty elements, comments.
        ("I have read the <img src=a>old book.", "Ich habe das <img src=a>alte Buch gelesen."),
        ("I have read the old<a name=x></a> book.", "Ich habe das alte<a name=x></a> Buch gelesen."),
        ("I have read <b><img></b> the old book.", "Ich habe <b><img></b> das alte Buch gelesen."),
        ("I have<!-- a > b --> read the old book.", "Ich habe<!-- a > b --> das alte Buch gelesen."),
        ("I have read the old book.<wbr>", "Ich habe das alte Buch gelesen.<wbr>"),
        # Line breaks and blocks divide the text; so do tags without a partner.
        ("a b<br>c d", "B A<br>D C"),
        ("<ul><li>a b<li>c <b>d</b></ul>", "<ul><li>B A<li><b>D</b> C</ul>"),
        ("<b>a b<p>c d</p></b>", "<b>B A<p>D C</p></b>"),
        ("a b</i> c d", "B A</i> D C"),
        ("<i>a b</i> c</i> d", "C <i>B A</i></i> D"),
        ("<b><i>a b</b></i>", "<b><i>B A</b></i>"),
        # Order changes with the words.
        ("<i>a</i> <b>b</b>", "<b>B</b> <i>A</i>"),
        # Entities.
        ("I have read the <b>&#111;ld</b> book.", "Ich habe das <b>alte</b> Buch gelesen."),
        ("a &lt;b&gt; &amp; c", "C &amp; &gt; B &lt; A"),
        ("a &amp;lt; b", "B ; LT &amp; A"),
        ("<p title='&lt;'>&nbsp;</p>", "<p title='&lt;'>\u00a0</p>"),
        # Nothing to translate.
        ("", ""),
        ("<p> – </p>", "<p> – </p>"),
        ("<script>if (a < b) c()</script>", "<script>if (a < b) c()</script>"),
        ("<style>p { }", "<style>p { }"),
        ("<!DOCTYPE html><title>a b</title>", "<!DOCTYPE html><title>B A</title>"),
        # What is not a tag is text.
        ("a < b", "B &lt; A"),
        ("a b <c", "C &lt; B A"),
        ("a <![x[ b", "B [ X [ ! &lt; A"),
    ],
)  # fmt: skip
def test_tags_stand_around_the_words_that_come_from_theirs(text, expected):
    assert put(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('use <code translate="no">&amp;x</code> now', 'NOW <code translate="no">&amp;x</code> USE'),
        ("use <b class=notranslate>git <i>push</i></b> now", "NOW <b class=notranslate>git <i>push</i></b> USE"),
        ('<p translate="no">a <b>b</b></p> c d', '<p translate="no">a <b>b</b></p> D C'),
        ('<g id="1">a b</g> c<x id="2"/> d', 'D C<x id="2"/> <g id="1">B A</g>'),
        ('a <bpt id="1">&lt;b></bpt>b<ept id="1">c</ept>', '<bpt id="1">&lt;b></bpt>B<ept id="1">c</ept> A'),
        ('a <sc id="1"/>b<ec startRef="1"/> c', 'C <sc id="1"/>B<ec startRef="1"/> A'),
        ('a <mrk mtype="protected">b</mrk>', '<mrk mtype="protected">b</mrk> A'),
        ('a <ph id="1">code</ph> b', '<ph id="1">code</ph> B A'),
    ],
)  # fmt: skip
def test_what_is_not_translated_and_codes_of_xliff_stay_as_they_are(text, expected):
    assert put(text) == expected


def test_a_translation_that_equals_its_text_keeps_every_tag():
    text = "<p>a <b>b <i></i>c</b>d<img> e &amp; f <!-- g --></p><hr/>\n<pre> h\n  <u>i</u></pre>"
    assert put(text, "copy") == text


def test_white_space_is_collapsed_outside_of_preformatted_text():
    fake = Fake("copy")
    list(stream_markup(fake, ["<p>a\n b</p>", "<pre>c\n d</pre>"]))
    assert fake.read == ["a b", "c", "d"]
    assert put("<pre>a b&#10;c d</pre>", "copy") == "<pre>a b&#10;c d</pre>"  # a line stays a line


class Tagged(Fake):
    """Was trained with a tag, which is two tokens that it does not translate."""

    tags = ("<bt>",)

    def _translate(self, text: str, rank: int) -> Hypothesis:
        found = super()._translate(text.removeprefix("<bt> "), rank)
        [part] = found.attention
        weights = np.pad(part.weights, ((0, 0), (2, 0)))
        return replace(found, attention=[replace(part, source=["▁", "<bt>", *part.source], weights=weights)])


@pytest.mark.parametrize("tag", ["<bt> ", " &lt;bt&gt;", ""])
def test_the_tag_of_a_model_is_no_element_and_holds_for_all_segments(tag):
    fake, text = Tagged(), f"{tag}a man <b>sees</b> it<br>c <i>d</i>"
    [found] = stream_markup(fake, [text])
    assert (found.source, found.text) == (text, "IT <b>SEES</b> MAN A<br><i>D</i> C")
    assert fake.read == ([f"<bt> {one}" for one in ("a man sees it", "c d")] if tag else ["a man sees it", "c d"])


def test_every_hypothesis_has_its_tags():
    [found] = stream_markup(Fake(), ["a <b>c</b>"], n_best=2)
    assert [one.text for one in found.hypotheses] == ["<b>C</b> A", "<b>C</b> A!"]
    assert found.score == -1


def test_too_many_tags_are_refused():
    for text in ("a" + "<b></b>" * 501, "<i>" * 100 + "a" + "</i>" * 100):
        with pytest.raises(UserError, match="at most 1,000 tags, nested at most 99 deep; found"):
            read_markup(text)
    assert len(read_markup("a <b>b</b><br>" * 2000).segments) == 2000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-0.5, -0.2, 0.1, 0.5]), max_size=7), st.data())
def test_the_interval_is_the_best_of_all(gains, data):
    free = data.draw(st.lists(st.booleans(), min_size=len(gains), max_size=len(gains)))
    all_of_them = [
        (sum(gains[i : j + 1]), j - i, (i, j))
        for i in range(len(gains))
        for j in range(i, len(gains))
        if all(free[i : j + 1])
    ]
    found = find_interval(gains, free)
    if not all_of_them:
        assert found is None
        return
    assert found is not None
    assert all(free[found[0] : found[1] + 1])
    assert sum(gains[found[0] : found[1] + 1]) == pytest.approx(max(all_of_them)[0])


WORDS = st.sampled_from(["a", "bc", "d.", "&lt;", "&amp;e", "f&#103;", " ", "  h", "古", ","])
LEAVES = st.lists(st.one_of(WORDS, st.sampled_from(["<br/>", "<img a='x'/>", "<!-- < -->", "<x/>"])), max_size=4).map(
    "".join
)


def wrap(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.sampled_from(["b", "i", "a", "p", "g"])
    element = st.tuples(names, inner).map(lambda one: f'<{one[0]} k="&amp;&lt;">{one[1]}</{one[0]}>')
    return st.lists(st.one_of(element, inner), max_size=4).map("".join)


TREES = st.recursive(LEAVES, wrap, max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(text=TREES, seed=st.integers(0, 99))
def test_all_tags_come_back_once_and_well_nested_whatever_the_attention(text, seed):
    fake = Fake(noise=np.random.default_rng(seed))
    [found] = stream_markup(fake, [text])
    assert Counter(TAG.findall(found.text)) == Counter(TAG.findall(text))
    tree = etree.fromstring(f"<root>{found.text}</root>")
    # Without tags, it is the translations and what stands between them, apart from white space.
    document = read_markup(text)
    expected = [*fake.translate([segment.text for segment in document.segments]), ""]
    gaps = [unescape(TAG.sub("", gap)) for gap in document.gaps]
    bare = "".join(one for pair in zip(gaps, expected, strict=True) for one in pair)
    assert "".join("".join(tree.itertext()).split()) == "".join(bare.split())
    before = etree.fromstring(f"<root>{text}</root>")
    parents = [Counter((one.tag, one.getparent().tag) for one in root.iter() if one.getparent() is not None)
               for root in (before, tree)]  # fmt: skip
    assert parents[0] == parents[1]


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.one_of(st.sampled_from("<>&;#/! \n=-'\"ab[]"), st.characters(exclude_categories=["Cs"])), max_size=30)
)
def test_any_text_can_be_read_and_no_letter_is_lost(text):
    found = put(text, "copy")
    assert put(found, "copy") == found  # what was written is read as it was meant
    if "<" not in text:
        assert unescape(found).split() == unescape(text).split()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b c", "d & e", "<", "x > y", "."]), max_size=6).map(" ".join))
def test_text_without_tags_is_translated_as_ever(text):
    [plain] = Fake().stream([text])
    assert put(escape(text)) == escape(plain.text, quote=False)
