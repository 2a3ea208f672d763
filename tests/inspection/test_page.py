import base64
import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from inspection_cases import MODELS, SOURCE, TARGET, make_model

from nmt.config.schema import SearchSettings
from nmt.inspection.beam import trace_beam
from nmt.inspection.beam_picture import LETTER, measure_letters
from nmt.inspection.heat_maps import make_attention_maps, make_layer_maps, rank_units
from nmt.inspection.inspect import Inspection
from nmt.inspection.neighbours import Neighbour, Sentence
from nmt.inspection.page import write_html
from nmt.inspection.pictures import choose_fonts, find_warnings
from nmt.inspection.trace import trace

NASTY = '<script>alert("1")</script>&amp;\'"'
SCRIPTS = ["\u05e9\u05dc\u05d5\u05dd", "\u65e5\u672c\u8a9e", NASTY, "\u0645\u0631\u062d\u0628\u0627", "</s>"]


class Page(HTMLParser):
    """Collects tags with their attributes, and text outside of style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("style", "script"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if tag in ("style", "script"):
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.text.append(data)


@pytest.fixture(scope="module")
def found():
    model = make_model(**MODELS["bridge"])
    beam = trace_beam(model, SOURCE, settings=SearchSettings(max_length=5), banned_ids=[0, 1, 2])
    return Inspection(
        source=NASTY,
        translation=SCRIPTS[0],
        target=SCRIPTS[1],
        is_reference=True,
        source_tokens=SCRIPTS,
        target_tokens=SCRIPTS[1:],
        alternatives=[[(token, 0.25) for token in SCRIPTS] for _ in TARGET],
        trace=trace(model, SOURCE, TARGET),
        beam=beam,
        beam_tokens=[SCRIPTS[node.token_id % 5] for node in beam.nodes],
        neighbours=[[Neighbour(0.5, Sentence("<a>.en", 7, NASTY, "".join(SCRIPTS[:4])), SCRIPTS, 2)] for _ in TARGET],
    )


def test_the_page_needs_no_other_file_and_escapes_all_text(found):
    text = write_html(found)
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not re.findall(r"(?:src|href)=(?!\"#)|@import|url\(", text)
    shown = "".join(page.text)
    for token in SCRIPTS:
        assert token in shown
    assert {attributes.get("dir") for tag, attributes in page.tags if tag in ("bdi", "dd")} == {"auto", None}


def test_the_token_of_a_neighbour_is_marked(found):
    text = write_html(found)
    mark = f"{SCRIPTS[0]}{SCRIPTS[1]}<mark>{html.escape(NASTY)}</mark>{SCRIPTS[3]}"
    assert text.count(mark) == text.count("0.500") == text.count("<small>&lt;a&gt;.en:7</small>") == len(TARGET)
    assert "Nearest training sentences" not in write_html(replace(found, neighbours=()))


def test_a_heat_map_holds_the_values(found):
    canvases = [attributes for tag, attributes in Page(write_html(found)).tags if tag == "canvas"]
    hops, heads = found.trace.attention.shape[:2]
    assert len(canvases) == 1 + hops * heads + 1 + 6 * len(found.trace.layers)
    by_title = {one["aria-label"]: one for one in canvases[: 1 + hops * heads]}
    one = by_title["Hop 2, head 1"]
    values = np.frombuffer(base64.b64decode(one["data-values"]), "uint8").reshape(int(one["data-rows"]), -1)
    low, high = float(one["data-low"]), float(one["data-high"])
    np.testing.assert_allclose(low + values / 255 * (high - low), found.trace.attention[1, 0], atol=1 / 255)


def test_units_are_ordered_by_the_position_of_their_largest_cell(found):
    layer = found.trace.layers["decoder.layer_1"]
    order = rank_units(layer)
    assert sorted(order) == list(range(layer.cell.shape[1]))
    peaks = np.abs(layer.cell).argmax(axis=0)[order]
    assert (np.diff(peaks) >= 0).all()
    maps = dict(make_layer_maps(found))["Decoder, layer 2"]
    np.testing.assert_array_equal(maps[3].values, layer.cell.T[order])
    assert (maps[3].columns, maps[3].order) == (found.target_tokens, order.tolist())


def test_a_single_head_has_no_picture_of_its_mean_twice(found):
    one_head = replace(found, trace=replace(found.trace, attention=found.trace.attention[:1, :1]))
    assert [one.title for one in make_attention_maps(one_head)] == ["Mean of all hops and heads"]


def test_the_tree_has_every_hypothesis_once(found):
    text = write_html(found)
    tree = text[text.index("<svg") : text.index("</svg>")]
    assert tree.count("<circle") == len(found.beam.nodes)
    assert tree.count('class="best"') == len(found.beam.get_path(found.beam.best))
    assert tree.count('class="pruned"') == sum(node.fate == "pruned" for node in found.beam.nodes)
    places = re.findall(r'<circle cx="(\d+)" cy="(\d+)"', tree)
    assert len(set(places)) == len(places)
    width = float(re.search(r'width="(\d+)"', tree)[1])
    ends = [float(x) + LETTER * measure_letters(one) for (x, _), one in zip(places, found.beam_tokens, strict=True)]
    assert max(ends) < width


def test_end_of_sentence_after_right_to_left_text_is_isolated(found):
    one = found.neighbours[0][0]
    text = write_html(replace(found, neighbours=[[replace(one, position=4)]] * len(TARGET)))
    assert text.count("<mark><bdi>&lt;/s&gt;</bdi></mark>") == len(TARGET)


def test_fonts_are_chosen_by_their_letters(monkeypatch):
    font_manager = pytest.importorskip("matplotlib.font_manager")
    installed = [font for font in font_manager.fontManager.ttflist if font.name in ("DejaVu Sans", "cmr10")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", installed)
    assert choose_fonts(set("a\u05d0\u200d ")) == (["DejaVu Sans"], [])
    assert choose_fonts(set("a\u65e5\u672c")) == (["DejaVu Sans"], ["\u65e5", "\u672c"])
    [message] = find_warnings(set("a\u65e5"), ["\u65e5"])
    assert "no installed font has the letters \u65e5 (CJK), so that the pictures show boxes" in message
    monkeypatch.setattr("matplotlib.__version_info__", (3, 10, 0))
    [message] = find_warnings(set("a\u05d0"), [])
    assert "draws right-to-left text in the wrong order. Install matplotlib 3.11" in message
