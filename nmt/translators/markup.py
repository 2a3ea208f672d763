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
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape, unescape
from html.parser import HTMLParser
from itertools import accumulate

import numpy as np

from nmt.data.batching import split_chunks
from nmt.data.examples import put_tag
from nmt.decoding.alignment import align
from nmt.errors import UserError
from nmt.translators.hypothesis import Hypothesis, Translation, join_translations, shift_attention
from nmt.translators.protocol import WINDOW, Translator, split_tag
from nmt.translators.sentences import LETTER, SplitText

Attributes = Sequence[tuple[str, str | None]]
Span = tuple[int, int]

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
MIN_ATTENTION = 0.1  # to an element, of the word that attends to it most; with less, its words were left out


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


@dataclass
class Node:
    """An element within a segment, or a place in it: a comment, a void element, a code."""

    opening: str
    start: int
    end: int = -1
    """Where its text starts and ends in the text of the segment; equal if it has none."""
    closing: str = ""
    is_kept: bool = False
    """Whether `opening` is all of it, and stands for its text."""
    space: str = ""
    """White space after an element without text, which the text does not have twice."""
    children: list["Node"] = field(default_factory=list)


@dataclass(frozen=True)
class Segment:
    """Text that is translated as a whole, and the elements in it."""

    text: str
    nodes: Sequence[Node]

    def put_tags(self, translation: Hypothesis) -> str:
        """Returns the translation as HTML, with the elements of the text."""
        return _Placing(self.text, translation).write(self.nodes, (0, len(self.text)), (0, len(translation.text)))


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
        return replace(hypothesis, text=text, attention=())


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


class _Placing:
    """Finds the places of the elements of a text in its translation.

    S and T are the words of both, as `align` finds them.
    """

    def __init__(self, text: str, translation: Hypothesis):
        self._text, self._target = text, translation.text
        self._is_copy = text == translation.text
        found = align(text, translation.text, () if self._is_copy else translation.attention)
        self._source_words = [(word.start, word.end) for word in found.source]
        self._words = [(word.start, word.end) for word in found.target]
        self._weights = np.zeros((len(self._words), len(self._source_words)))
        for row, word in zip(self._weights, found.target, strict=True):
            row[word.first : word.first + len(word.weights)] = word.weights
        # [T], the source word that each target word attends to most; -1 for none.
        self._links = np.full(len(self._words), -1)
        if self._source_words:
            self._links = np.where(self._weights.any(axis=1), self._weights.argmax(axis=1), -1)

    def write(self, nodes: Sequence[Node], source: Span, target: Span) -> str:
        """Returns part of the translation as HTML.

        Args:
            nodes: the elements in it.
            source, target: where the part lies in the text and in its translation.
        """
        spans = [(node.start, node.end) for node in nodes] if self._is_copy else self._place(nodes, source, target)
        written, at = [], target[0]
        for (start, end), _, node in sorted(zip(spans, range(len(nodes)), nodes, strict=True), key=lambda one: one[:2]):
            written.append(escape(self._target[at:start], quote=False))
            written.append(self._write_node(node, (start, end)))
            at = end
        return "".join((*written, escape(self._target[at : target[1]], quote=False)))

    def _write_node(self, node: Node, span: Span) -> str:
        start, end = span
        if not node.is_kept:
            inner = self.write(node.children, (node.start, node.end), span)
            return node.opening + inner + node.closing + node.space
        if node.start < node.end and start == end:  # its text has no translation to stand in place of
            before = " " if self._target[:start][-1:].isalnum() else ""
            after = " " if self._target[end : end + 1].isalnum() else ""
            return before + node.opening + after
        return node.opening + node.space

    def _place(self, nodes: Sequence[Node], source: Span, target: Span) -> list[Span]:
        """Returns the span of each element in the translation; no two overlap."""
        wanted = {n: self._measure(node) for n, node in enumerate(nodes) if self._get_text(node)}
        is_free = np.zeros(len(self._target), bool)
        is_free[slice(*target)] = True
        found: dict[int, Span] = {}
        # Those with the clearest place come first.
        for n in sorted(wanted, key=lambda n: -np.maximum(wanted[n] - 0.5, 0).sum()):
            is_all = len(wanted) == 1 and not self._has_text_beside(nodes[n], source)
            span = target if is_all else self._find_span(nodes[n], wanted[n], is_free)
            if span:
                found[n] = span
                is_free[slice(*span)] = False
        taken = [(nodes[n], span) for n, span in found.items()]
        return [
            found[n] if n in found else self._find_point(node.start, source, target, taken)
            for n, node in enumerate(nodes)
        ]

    def _get_text(self, node: Node) -> str:
        return self._text[node.start : node.end].strip()

    def _has_text_beside(self, node: Node, span: Span) -> bool:
        return bool((self._text[span[0] : node.start] + self._text[node.end : span[1]]).strip())

    def _measure(self, node: Node) -> np.ndarray:
        """Returns the attention of each target word to the words of an element: [T]."""
        shares = [
            max(0, min(end, node.end) - max(start, node.start)) / max(1, end - start)
            for start, end in self._source_words
        ]
        return self._weights @ np.array(shares)

    def _find_span(self, node: Node, attention: np.ndarray, is_free: np.ndarray) -> Span | None:
        """Returns the part of the translation that belongs to an element; None if there is none.

        Args:
            node: has text.
            attention: to its words, [T].
            is_free: bool for each character of the translation.
        """
        if (node.is_kept or not attention.any()) and (copy := self._find_copy(self._get_text(node), is_free)):
            return copy
        interval = find_interval(
            (attention - 0.5).tolist(), [bool(is_free[start:end].all()) for start, end in self._words]
        )
        if interval is None:
            return None
        first, last = interval
        if attention[first : last + 1].max() < (0.5 if node.is_kept else MIN_ATTENTION):
            return None
        return self._words[first][0], self._words[last][1]

    def _find_copy(self, text: str, is_free: np.ndarray) -> Span | None:
        """Returns where the translation has a text, as whole words."""
        for found in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", self._target):
            if is_free[slice(*found.span())].all():
                return found.span()
        return None

    def _find_point(self, at: int, source: Span, target: Span, taken: Sequence[tuple[Node, Span]]) -> Span:
        """Returns the place of an element without text, outside of what others take."""
        place = self._find_neighbour(at, source, target)
        for node, (start, end) in taken:
            if start < place < end:
                place = start if at <= node.start else end
        return place, place

    def _find_neighbour(self, at: int, source: Span, target: Span) -> int:
        if not self._text[source[0] : at].strip():
            return target[0]
        if not self._text[at : source[1]].strip():
            return target[1]
        following = bisect_left(self._source_words, (at, 0))
        inside = [n for n, word in enumerate(self._words) if target[0] <= word[0] and word[1] <= target[1]]
        before = [self._words[n][0] for n in inside if self._links[n] == following]
        after = [self._words[n][1] for n in inside if self._links[n] == following - 1]
        # What stands right after a word, and not right before one, follows it.
        if before and not (after and self._text[at].isspace() and not self._text[at - 1].isspace()):
            return before[0]
        earlier = [self._words[n][1] for n in inside if 0 <= self._links[n] < following]
        return (after or earlier or [target[0]])[-1]


def find_interval(gains: Sequence[float], free: Sequence[bool]) -> Span | None:
    """Returns first and last place of the interval of free places with the largest sum; None if no place is free.

    Of several, the longest one is returned (Kadane's algorithm).
    """
    best: tuple[float, int] | None = None
    found: Span | None = None
    total, start = 0.0, 0
    for place, (gain, is_free) in enumerate(zip(gains, free, strict=True)):
        if not is_free:
            total, start = 0.0, place + 1
            continue
        if total < 0:
            total, start = 0.0, place
        total += gain
        if best is None or (total, place - start) > best:
            best, found = (total, place - start), (start, place)
    return found
