"""Translates text with HTML tags or XLIFF inline elements, and puts the same tags around the right words.

1. The model's own tag (`data.train[].tag`) is taken off the beginning, and put before every segment.
2. The text is read with Python's own `html.parser`, which gives every tag as it was written. Parsers that build a tree,
   such as lxml and html5lib, repair fragments and write other tags than those they were given.
3. Block elements and line breaks divide the text into segments. So does a tag without a partner, which stays where it
   is. Tags are stripped from each segment, entities are decoded, and white space is collapsed outside of `<pre>`.
4. Segments are translated as any other text.
5. Tags go back from the outside in. The words that belong to an element are the interval of target words with the
   largest sum of (attention to the words of the element - 1/2), among those that the elements beside it have left. So
   an element is never divided, never overlaps another one, and lies within its parent. An element that holds all the
   words of its parent does so in the translation. One whose words were left out is empty, and stands where an empty
   element such as an image does: beside the translation of its neighbour.
6. What must not be translated (`translate="no"`) is part of the text that is translated, as context. Its copy in the
   translation, or the words that attend to it, are then replaced with what was written. Scripts, styles, formulas and
   the codes of XLIFF are not part of the text.

If a translation equals its text, all tags stay where they are.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape, unescape
from html.parser import HTMLParser
from itertools import accumulate

from nmt.data.batching import split_chunks
from nmt.data.examples import put_tag
from nmt.errors import UserError
from nmt.translators.hypothesis import Hypothesis, Translation, join_translations, shift_attention
from nmt.translators.placing import Node, Segment
from nmt.translators.protocol import WINDOW, Translator, split_tag
from nmt.translators.sentences import LETTER, SplitText

Attributes = Sequence[tuple[str, str | None]]

BLOCK_LIST = """
address article aside base blockquote body br caption center col colgroup dd details dialog dir div dl dt fieldset
figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html iframe legend li link main
menu meta nav noembed noframes noscript ol optgroup option p param pre script search section select source style summary
table tbody td template textarea tfoot th thead title tr track ul xmp seg-source segment target
"""
BLOCKS = frozenset(BLOCK_LIST.split())
VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "track", "wbr"))
PREFORMATTED = frozenset(("pre", "textarea"))
# Elements of which nothing is translated. Those of XLIFF hold codes of another format.
OPAQUE_LIST = "iframe math noembed noframes script style svg xmp bpt bx ec ept ex it ph sc"
OPAQUE = frozenset(OPAQUE_LIST.split())
# Codes of XLIFF that mark where an element of the other format begins and ends.
CODE_STARTS, CODE_ENDS = frozenset(("bpt", "bx", "sc")), frozenset(("ept", "ex", "ec"))
CODE = "#code"
SPACE = re.compile(r"[ \t\n\f\r]+")  # not the no-break space
MAX_TAGS = 1000  # per segment
MAX_DEPTH = 100


def stream_markup(translator: Translator, lines: Iterable[str], *, n_best: int = 1) -> Iterator[Translation]:
    """Yields the translation of each line of HTML, in order; see `Translator.stream`.

    Raises:
        UserError: the translator returns no attention, or there are too many tags.
    """
    for chunk in split_chunks(lines, WINDOW):
        documents = [read_markup(line, translator.tags) for line in chunk]
        texts = [text for document in documents for text in document.texts]
        found = iter(translator.translate_texts(texts, n_best=n_best, attention=True))
        for document in documents:
            yield document.join([next(found) for _ in document.segments])


@dataclass(frozen=True)
class Markup:
    """A text with tags, read."""

    source: str
    segments: Sequence[Segment]
    gaps: Sequence[str]
    """What stands before, between and after the segments, as HTML."""
    tag: str | None = None
    """Symbol of the model that the text begins with."""

    @property
    def text(self) -> str:
        """The text that is translated."""
        return "\n".join(segment.text for segment in self.segments)

    @property
    def texts(self) -> list[str]:
        """The texts of the segments, each with the symbol."""
        return [put_tag(self.tag, segment.text) for segment in self.segments]

    def join(self, translations: Sequence[Translation]) -> Translation:
        """Returns the translation with tags, given those of the segments, which must have attention."""
        parts = [
            replace(one, hypotheses=[self._put(segment, hypothesis) for hypothesis in one.hypotheses])
            for segment, one in zip(self.segments, translations, strict=True)
        ]
        joined = join_translations(SplitText([segment.text for segment in self.segments], list(self.gaps)), parts)
        if "\n" in self.source:
            return replace(joined, source=self.source)
        # Line breaks were given as entities, and stay these where a line is one text.
        hypotheses = [replace(one, text=_encode_breaks(one.text)) for one in joined.hypotheses]
        return replace(joined, source=self.source, hypotheses=hypotheses)

    def _put(self, segment: Segment, hypothesis: Hypothesis) -> Hypothesis:
        size = len(segment.text)
        before = len(put_tag(self.tag, segment.text)) - size
        attention = tuple(shift_attention(hypothesis.attention, (-before, before + size), (0, len(hypothesis.text))))
        text = segment.put_tags(replace(hypothesis, attention=attention) if before else hypothesis)
        return replace(hypothesis, text=text, attention=(), part_confidences=())


def _encode_breaks(text: str) -> str:
    return text.replace("\n", "&#10;").replace("\r", "&#13;")


def read_markup(source: str, tags: Iterable[str] = ()) -> Markup:
    """Reads a text with tags.

    Args:
        source: the text.
        tags: symbols of the model, one of which may begin the text, with its < and > encoded or not.

    Raises:
        UserError: there are more than 1,000 tags between two block elements, or they are nested too deeply.
    """
    spellings = {spelling: tag for tag in tags for spelling in (tag, escape(tag))}
    written, text = split_tag(source, spellings)
    events = _Reader(text).events
    _find_partners(events)
    segments: list[Segment] = []
    gaps = [""]
    waiting: list[_Event] = []
    depth = 0  # of preformatted elements
    for event in events:
        if not event.is_boundary:
            waiting.append(event)
            continue
        _add_segment(waiting, depth > 0, segments, gaps)
        waiting = []
        gaps[-1] += event.raw
        if event.name in PREFORMATTED:
            depth += {"start": 1, "end": -1}.get(event.kind, 0)
    _add_segment(waiting, depth > 0, segments, gaps)
    return Markup(source, segments, gaps, spellings[written] if written else None)


@dataclass
class _Event:
    """A piece of a text with tags.

    Args:
        kind: text, start, end, or point: all that stands for itself.
        raw: as it was written; of text, its decoded form.
        name: of the element.
        text: of an element that is not translated.
        is_boundary: whether it divides segments.
    """

    kind: str
    raw: str
    name: str = ""
    text: str = ""
    is_boundary: bool = False


class _Reader(HTMLParser):
    """Reads tags, as they were written, and decoded text."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.events: list[_Event] = []
        self._text = text
        self._line_starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        self._kept: tuple[int, str, Attributes] | None = None  # start, name and attributes of what is not translated
        self._depth = 0  # of elements of that name
        self._kept_text: list[str] = []
        self._unfinished: tuple[_Event, int] | None = None  # a comment or the like, which ends where the next begins
        self.feed(text)
        # What is left is text, a tag that has no end, or a script. `close` would drop some of it.
        rest = self.rawdata
        self._finish(len(text) - len(rest))
        if self._kept:
            self._end_kept(len(text))
        elif rest:
            self.events.append(_Event("text", unescape(rest)))

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        start = self._begin()
        if self._kept:
            self._depth += tag == self._kept[1]
        elif tag in VOID:
            self._add_point(tag, attrs, self._get_tag())
        elif tag in OPAQUE or _is_untranslated(attrs):
            self._kept, self._depth, self._kept_text = (start, tag, attrs), 1, []
        else:
            self.events.append(_Event("start", self._get_tag(), tag))

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        self._begin()
        if not self._kept:
            self._add_point(tag, attrs, self._get_tag())

    def handle_endtag(self, tag: str) -> None:
        start = self._begin()
        end = self._text.find(">", start) + 1 or len(self._text)
        if not self._kept:
            self.events.append(_Event("end", self._text[start:end], tag))
        elif tag == self._kept[1]:
            self._depth -= 1
            if not self._depth:
                self._end_kept(end)

    def handle_data(self, data: str) -> None:
        self._begin()
        if self._kept:
            self._kept_text.append(data)
        else:
            self.events.append(_Event("text", data))

    def handle_comment(self, data: str) -> None:
        self._add_unfinished(is_boundary=False)

    def handle_pi(self, data: str) -> None:
        self._add_unfinished(is_boundary=False)

    def unknown_decl(self, data: str) -> None:
        self._add_unfinished(is_boundary=False)

    def handle_decl(self, decl: str) -> None:
        self._add_unfinished(is_boundary=True)

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Reads <![CDATA[…]]> and <![if …]>; that of the library fails at others."""
        mark = "]]>" if self.rawdata.startswith("<![CDATA[", i) else ">"
        end = self.rawdata.find(mark, i)
        if end < 0:
            return -1
        self.unknown_decl("")
        return end + len(mark)

    def _begin(self) -> int:
        """Returns where the current piece starts."""
        line, column = self.getpos()
        start = self._line_starts[line - 1] + column
        self._finish(start)
        return start

    def _finish(self, end: int) -> None:
        if self._unfinished:
            event, start = self._unfinished
            event.raw = self._text[start:end]
            self._unfinished = None

    def _get_tag(self) -> str:
        return self.get_starttag_text() or ""

    def _add_unfinished(self, *, is_boundary: bool) -> None:
        start = self._begin()
        if not self._kept:
            self.events.append(_Event("point", "", is_boundary=is_boundary))
            self._unfinished = self.events[-1], start

    def _end_kept(self, end: int) -> None:
        assert self._kept
        start, name, attributes = self._kept
        self._kept = None
        text = "" if name in OPAQUE else "".join(self._kept_text)
        self._add_point(name, attributes, self._text[start:end], text)

    def _add_point(self, name: str, attributes: Attributes, raw: str, text: str = "") -> None:
        if name in CODE_STARTS | CODE_ENDS:
            given = dict(attributes)
            key = next((given[one] for one in ("startref", "rid", "i", "id") if given.get(one)), "")
            self.events.append(_Event("start" if name in CODE_STARTS else "end", raw, f"{CODE}{key}"))
        else:
            self.events.append(_Event("point", raw, name, text, is_boundary=name in BLOCKS))


def _is_untranslated(attributes: Attributes) -> bool:
    given = {name: (value or "").lower() for name, value in attributes}
    return (
        given.get("translate") == "no"
        or given.get("mtype") == "protected"
        or "notranslate" in given.get("class", "").split()
    )


def _find_partners(events: Sequence[_Event]) -> None:
    """Marks the tags that divide segments: block elements, those without a partner, and all elements around these."""
    stack: list[_Event] = []
    names: Counter[str] = Counter()

    def mark() -> None:
        for one in reversed(stack):
            if one.is_boundary:
                break  # as are all around it
            one.is_boundary = True

    def leave_alone(event: _Event) -> None:
        if event.name.startswith(CODE):
            event.kind, event.is_boundary = "point", False
        else:
            event.is_boundary = True
            mark()

    for event in events:
        if event.kind == "start":
            stack.append(event)
            names[event.name] += 1
            if event.name in BLOCKS:
                mark()
        elif event.kind == "end" and names[event.name]:
            while (start := stack.pop()).name != event.name:
                names[start.name] -= 1
                leave_alone(start)
            names[event.name] -= 1
            event.is_boundary = start.is_boundary
        elif event.kind == "end":
            leave_alone(event)
        elif event.is_boundary:
            mark()
    while stack:
        leave_alone(stack.pop())


def _add_segment(events: Sequence[_Event], is_preformatted: bool, segments: list[Segment], gaps: list[str]) -> None:
    """Adds what stands between two boundaries: as a segment if it has words, else to the gap."""
    if not any(event.kind == "text" and LETTER.search(event.raw) for event in events):
        gaps[-1] += "".join(escape(one.raw, quote=False) if one.kind == "text" else one.raw for one in events)
        return
    # White space at the ends, such as the indentation of tags, stays as it is.
    raws = [event.raw for event in events]
    before = after = ""
    if events[0].kind == "text":
        raws[0] = raws[0].lstrip()
        before = events[0].raw[: len(events[0].raw) - len(raws[0])]
    if events[-1].kind == "text":
        last = raws[-1]
        raws[-1] = last.rstrip()
        after = last[len(raws[-1]) :]
    gaps[-1] += escape(before, quote=False)
    segments.append(_make_segment(events, raws, is_preformatted))
    gaps.append(escape(after, quote=False))


def _make_segment(events: Sequence[_Event], raws: Sequence[str], is_preformatted: bool) -> Segment:
    text = ""
    root = Node("", 0)
    stack = [root]
    empty: Node | None = None  # the element without text that stands last
    tags = sum(event.kind != "text" for event in events)
    for event, raw in zip(events, raws, strict=True):
        more = event.text if event.kind == "point" else raw if event.kind == "text" else ""
        if more and not is_preformatted:
            more = SPACE.sub(" ", more)
            if more[0] == " " and text.endswith(" "):
                more = more[1:]
                if empty:
                    empty.space = " "
        if more:
            empty = None
        if event.kind == "start":
            stack.append(Node(raw, len(text)))
        elif event.kind == "end":
            node = stack.pop()
            node.end, node.closing = len(text), raw
            stack[-1].children.append(node)
            empty = node if node.start == node.end else empty
        elif event.kind == "point":
            empty = Node(raw, len(text), len(text) + len(more), is_kept=True)
            stack[-1].children.append(empty)
            empty = None if more else empty
        text += more
        if tags > MAX_TAGS or len(stack) > MAX_DEPTH:
            raise UserError(
                f"A paragraph can have at most {MAX_TAGS:,} tags, nested at most {MAX_DEPTH - 1} deep; found {tags:,} "
                f"tags in the one that begins with '{text.strip()[:40]}'."
            )
    return Segment(text, root.children)
