"""Splits texts into the parts that a model translates one by one, and joins their translations.

A part is a sentence, or as much of a text as a translator reads at once. What stands between the parts is kept as it
is: line breaks, spaces, and parts that need no translation. Nothing is ever left out, so that parts and gaps together
are the text, character by character.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Literal

from nmt.data.languages import parse_language

SplitMode = Literal["auto", "always", "never"]

# `auto` splits unless most of the training lines held several sentences. A model can be relied on to translate what its
# typical training line looked like: one sentence up to here. Of the dev sets' lines, 0 % (Multi30k), 0.3 % to 2.6 %
# (KFTT) and 0.7 % to 1.3 % (Tatoeba) hold more; text that was aligned by paragraph or document, most.
MANY_SENTENCES = 0.5

# Written without spaces, with marks as wide as characters, after which no space stands either.
WIDE = "\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60\U00020000-\U0003ffff"
IS_WIDE = re.compile(f"[{WIDE}]")
# The same without spaces between words, but with spaces between sentences: Thai, Lao, Tibetan, Burmese, Khmer.
IS_UNSPACED = re.compile(f"[{WIDE}\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")

LETTER = re.compile(r"[^\W_]")
# A mailbox begins after a space or an @, and a scheme has few letters. If either could begin anywhere and have any
# length, the time for text without spaces would grow with the square of its length.
ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]{0,30}://|www\.)\S+|(?<![^\s@])[^\s@]+@[^\s@]+\.[^\s@]+", re.IGNORECASE)

OPENERS = "\"'“”„‟«»‹›‘‚‛`「『《〈（(【\\[<{"
CLOSERS = "\"'”“‟»«›‹’‘`」』》〉）)】\\]>}"
# What hides sentence ends from the library: quotation marks, brackets, bullets.
HIDING = re.compile(f"[{OPENERS}•‣◦●▪]")
PLAIN = {ord(mark): " " for mark in OPENERS + CLOSERS + "•‣◦●▪" if mark not in "\\'’"}
OUTER_APOSTROPHE = re.compile(r"\B['’]|['’]\B")  # not that of don't
OPENS = re.compile(rf"\s*[{OPENERS}•‣◦●▪]")
CLOSES = re.compile(rf"[.!?…。！？]*[{CLOSERS}]+[.!?…。！？]*\s*\Z|\s*[•‣◦●▪].*", re.DOTALL)
INNER_END = re.compile(rf"[.!?…][{CLOSERS}]*\s+\W*\w|[。！？۔।][{CLOSERS}]*\s*[{OPENERS}]*\w")
WINDOW = 1000  # characters in which the library looks for sentence ends at a time
SEVERAL = 3  # sentences within one pair of marks that are translated one by one

# Ends that the library does not know: full-width marks before digits and Latin letters, the marks of Tibetan and Khmer,
# and the particles that end polite sentences in Thai, which has no marks.
MORE_ENDS = re.compile(
    r"(?:(?<=[。！？])|(?<=[。！？][”」』]))(?=[0-9A-Za-z])|(?<=[།༎།។៕])\s+(?=\S)|(?:(?<=ครับ)|(?<=ค่ะ)|(?<=คะ)|(?<=จ้ะ)|(?<=จ้า))\s+(?=\S)"
)
HAS_MORE_ENDS = re.compile("[。！？།༎។៕\u0e00-\u0e7f]")

# Ends of text in small letters whose marks are tokens.
LONE_END = re.compile(r"(?<=\s[.!?])\s+(?=\w)")

# Where a sentence goes on although the library ended it.
CLAUSE_MARKS = ",;:،؛、，；："
LIST_NUMBER = re.compile(r"(?:\A|[:;](?: and| or)?)\s*\(?\d{1,3}[.)]\s*\Z")
ORDINAL = re.compile(r"(?<![\w.,])\d{1,3}\.\s*\Z")
GERMAN_ORDINAL = re.compile(
    r"(?:\A|\s)(?:[Aa][mb]|[Ii][mn]s?|[Bb]eim|[Bb]is|[Dd](?:as|e[mnrs]|ie)|[Ff]ürs?|[Ss]eit|[VvZz]o[nm]|[Zz]u[mr]"
    r"|(?:[DdKkMmSs]?ein|[Ii]hr|[Uu]nser)(?:e[mnrs]?)?)"
    r"\s+\d{1,3}\.\s*\Z"
)
GERMAN_STARTER = re.compile(
    r"(?:Aber|Ach|Als|Am|An|Auch|Auf|Bei|Bis|Da|Dabei|Dafür|Damals|Damit|Danach|Dann|Darum|Das|Dazu|Dem|Den"
    r"|Denn|Der|Deshalb|Die|Dies|Diese|Dieser|Dieses|Doch|Dort|Du|Ein|Eine|Einer|Er|Es|Für|Heute|Hier|Ich"
    r"|Ihr|Im|In|Ist|Ja|Jetzt|Kein|Man|Mein|Mit|Nach|Nein|Noch|Nun|Nur|Ob|Oder|Schon|Sehr|Sein|Seine|Seit"
    r"|Sie|So|Und|Uns|Unser|Von|Vor|Wann|War|Warum|Was|Weil|Wenn|Wer|Wie|Wir|Wo|Zu|Zum)\b"
)
INITIAL = re.compile(r"(?<![^\W_])[^\W\d_]\.\Z")  # U.S. without a space
BEFORE_NUMBER = re.compile(
    r"(?<!\w)(?:Abb|Abs|Art|Bd|Ch|Cf|Div|Eq|Fig|Kap|No|Nr|Nos|pp?|S|Sec|Tab|Vol|[ap]\.m|[AP]\.M)\.\s*\Z"
)
# Titles and the like, which do not end sentences, that the library's lists lack.
TITLES = {
    "fr": "M MM Mme Mmes Mlle Mlles Mgr Dr Drs Pr Me St Ste",
    "hi": "डॉ श्री श्रीमती प्रो पं",
    "mr": "डॉ श्री प्रो",
    "ne": "डा श्री प्रा",
    "bn": "ডা ড মো",
    "ur": "ڈاکٹر",
    "ro": "dl dna dr prof nr",
    "hu": "dr Dr ifj id özv",
    "sv": "dr Dr prof kl nr st",
    "tr": "Dr Prof Doç Av Sn",
    "cs": "Dr Ing Mgr Bc MUDr JUDr prof doc č",
    "sl": "dr ga prof g",
    "hr": "dr prof gđa g",
}
WORD_BEFORE_POINT = re.compile(r"([^\s.()\"'„“«]+)\.\s*\Z")
# A Japanese quotation goes on with a particle.
QUOTED = re.compile(r"[」』”）)？！?!]\s*\Z")
PARTICLE = re.compile(r"と(?!て|に|こ|り|き|う|し|く|も|な|は|ん|ど)|って|など|の(?!ち|ん)|を|が(?!ん)")

# Where a sentence that is too long is cut: after marks between clauses, with the space that follows them, if any.
CLAUSE_END = re.compile(
    r"(?<![,;:،؛፣፤፥၊])[,;:،؛፣፤፥၊]+\s+|(?<=\s)[–—-]+\s+|—|[、，；：﹐﹑﹔﹕､。！？…།༎។]+" f"[{CLOSERS}]*"
)
# Wherever else words end. Marks as wide as characters count, since no space follows them.
WORD_END = re.compile(rf"\s+|[、，；：﹐﹑﹔﹕､。！？…།༎]+[{CLOSERS}]*\s*")
CHARACTERS_PER_TOKEN = 4  # the first guess in searching for a part that is as long as allowed


@dataclass(frozen=True)
class SplitText:
    """A text in parts.

    Args:
        parts: what is to be translated, without spaces at the ends.
        gaps: what stands before, between and after the parts, one more than these; a text of gaps alone has no parts.
        num_cuts: how often a sentence was cut because it was too long.
        tag: symbol that every part begins with, and a space after it; None for none.
        prefix: what stands before the first gap, the tag as it was written in the text; it has no translation.
    """

    parts: Sequence[str]
    gaps: Sequence[str]
    num_cuts: int = 0
    tag: str | None = None
    prefix: str = ""

    @property
    def text(self) -> str:
        """The text itself."""
        return self.prefix + "".join(chain.from_iterable(zip(self.gaps, [*self.bare_parts, ""], strict=True)))

    @property
    def bare_parts(self) -> Sequence[str]:
        """The parts without the tag."""
        return [part[len(self.tag) + 1 :] for part in self.parts] if self.tag else self.parts

    def join(self, translations: Sequence[str]) -> str:
        """Returns the translation of the text, given those of its parts."""
        return "".join(chain.from_iterable(zip(self._fit_gaps(translations), [*translations, ""], strict=True)))

    def find_starts(self) -> list[int]:
        """Returns where each part starts in the text, in characters."""
        return [len(self.prefix) + start for start in _find_starts(self.gaps, self.bare_parts)]

    def find_translated_starts(self, translations: Sequence[str]) -> list[int]:
        """Returns where the translation of each part starts in the translation of the text, in characters."""
        return _find_starts(self._fit_gaps(translations), translations)

    def _fit_gaps(self, translations: Sequence[str]) -> list[str]:
        """Returns the gaps of the translation: between sentences, scripts differ in whether there is a space."""
        gaps, parts = list(self.gaps), self.bare_parts
        for number in range(1, len(parts)):
            gap = gaps[number]
            if gap in ("", " "):
                source = parts[number - 1][-1:] + parts[number][:1]
                target = translations[number - 1][-1:] + translations[number][:1]
                gaps[number] = _fit_gap(gap, source, target)
        return gaps


class TextSplitter:
    """Splits texts of any number of lines and sentences.

    Args:
        language: code of the texts' language; None if unknown.
        by_sentence: whether every sentence is a part of its own; else every line is, and lines that are too long are
            divided into as many whole sentences as fit.
        count_tokens: returns the number of tokens of each text.
        max_tokens: of a part. A single character with more tokens cannot be cut and is a part of its own.
        max_characters: of a part; None if there is no such limit.
    """

    def __init__(
        self,
        *,
        language: str | None,
        by_sentence: bool,
        count_tokens: Callable[[list[str]], Sequence[int]],
        max_tokens: int,
        max_characters: int | None = None,
    ):
        self._language = language
        self._by_sentence = by_sentence
        self._count_tokens = count_tokens
        self._max_tokens = max_tokens
        self._max_characters = max_characters

    def split(self, texts: Sequence[str]) -> list[SplitText]:
        """Splits each text as if it were alone.

        Text without letters and digits, and addresses of the web and of mail that stand alone, need no translation and
        are in the gaps.
        """
        # Found in all texts first and counted in one call, which takes a thirtieth of the time of one call each.
        pieces = [self._divide(text) for text in texts]
        wanted = [one for row in pieces for one in row if _needs_translation(one)]
        lengths = iter(self._count_tokens(wanted) if wanted else ())
        return [self._arrange(row, lengths) for row in pieces]

    def _divide(self, text: str) -> list[str]:
        """Returns sentences, or lines, and what stands between them, in order."""
        pieces: list[str] = []
        for line in text.splitlines(keepends=True):
            for sentence in find_sentences(line, self._language) if self._by_sentence else (line,):
                pieces += _split_spaces(sentence)
        return pieces

    def _arrange(self, pieces: list[str], lengths: Iterable[int]) -> SplitText:
        lengths = iter(lengths)
        parts, gaps, num_cuts = [], [""], 0
        for piece in pieces:
            # What is spelt in no tokens, such as a space without width, has no translation either.
            length = next(lengths) if _needs_translation(piece) else 0
            if not length:
                gaps[-1] += piece
            elif self._is_short(piece, length):
                parts.append(piece)
                gaps.append("")
            else:
                cut = list(self._cut(piece))
                num_cuts += len(cut) - 1
                for one in chain.from_iterable(map(_split_spaces, cut)):
                    if _needs_translation(one) and self._count_tokens([one])[0]:
                        parts.append(one)
                        gaps.append("")
                    else:
                        gaps[-1] += one
        return SplitText(parts, gaps, num_cuts)

    def _is_short(self, text: str, length: int) -> bool:
        return length <= self._max_tokens and (self._max_characters is None or len(text) <= self._max_characters)

    def _cut(self, text: str) -> Iterable[str]:
        guess = CHARACTERS_PER_TOKEN * self._max_tokens
        return _Cutter(text, self._language, self.is_short_enough, guess).cut()

    def is_short_enough(self, text: str) -> bool:
        """Returns whether a part may be so long."""
        if self._max_characters is not None and len(text) > self._max_characters:
            return False
        return self._count_tokens([text])[0] <= self._max_tokens


class _Cutter:
    """Cuts a text that is too long into parts that are as long as allowed.

    Args:
        text: of one line.
        language: of the text.
        fits: returns whether a part may be so long.
        guess: characters that probably fit, from 1.
    """

    def __init__(self, text: str, language: str | None, fits: Callable[[str], bool], guess: int):
        self._text = text
        self._language = language
        self._fits_alone = fits
        self._guess = guess

    def cut(self) -> Iterable[str]:
        """Yields the parts, which make up the text."""
        start = 0
        while start < len(self._text):
            end = self._find_end(start)
            yield self._text[start:end]
            self._guess = max(1, end - start)
            start = end

    def _find_end(self, start: int) -> int:
        end = self._find_furthest(start, self._word_ends)
        if end is None:
            return self._find_end_in_word(start)
        return end if end == len(self._text) else self._find_better(start, end)

    def _find_better(self, start: int, end: int) -> int:
        """Returns the last end of a sentence up to `end`; else the last one of a clause, unless it halves the part."""
        for ends, least in ((self._sentence_ends, start), (self._clause_ends, start + (end - start) // 2)):
            place = bisect_right(ends, end) - 1
            if place >= 0 and ends[place] > least and (ends[place] == end or self._fits(start, ends[place])):
                return ends[place]
        return end

    def _find_end_in_word(self, start: int) -> int:
        end = self._find_furthest(start, self._graphemes)
        if end is None:
            # A grapheme may have any number of combining characters.
            until = self._graphemes[bisect_right(self._graphemes, start)]
            end = self._find_furthest(start, range(start + 1, until + 1))
        return start + 1 if end is None else end

    def _find_furthest(self, start: int, ends: Sequence[int]) -> int | None:
        """Returns the furthest of the ends beyond `start` up to which the text fits; None if there is none.

        The number of tokens hardly ever falls as a text grows. Where it does, the part is shorter than allowed.
        """
        low = bisect_right(ends, start) - 1  # fits: it is empty
        first = low
        high = max(low + 1, bisect_right(ends, start + self._guess) - 1)
        step = 1
        while high < len(ends) and self._fits(start, ends[high]):
            low, high, step = high, high + max(step, (high - low) // 4), step * 2
        if high >= len(ends):
            high = len(ends)
        while high - low > 1:
            middle = (low + high) // 2
            if self._fits(start, ends[middle]):
                low = middle
            else:
                high = middle
        return ends[low] if low > first else None

    def _fits(self, start: int, end: int) -> bool:
        return self._fits_alone(self._text[start:end].strip())

    @cached_property
    def _sentence_ends(self) -> list[int]:
        sentences = find_sentences(self._text, self._language)
        ends, end = [], 0
        for sentence in sentences:
            end += len(sentence)
            ends.append(end)
        return ends

    @cached_property
    def _clause_ends(self) -> list[int]:
        return [found.end() for found in CLAUSE_END.finditer(self._text)]

    @cached_property
    def _word_ends(self) -> list[int]:
        ends = [found.end() for found in WORD_END.finditer(self._text)]
        return ends if ends[-1:] == [len(self._text)] else [*ends, len(self._text)]

    @cached_property
    def _graphemes(self) -> list[int]:
        import regex

        return [found.end() for found in regex.finditer(r"\X", self._text)]


def find_sentences(line: str, language: str | None) -> list[str]:
    """Returns the sentences of a line, each with the spaces that follow it; together they are the line.

    >>> find_sentences("Dr. Jones is here. Is he hungry? Yes.", "en")
    ['Dr. Jones is here. ', 'Is he hungry? ', 'Yes.']
    """
    code = _find_code(language)
    if len(line) <= WINDOW:
        return _find_sentences(line, code)
    # The library's time grows with the square of the length where there are many quotation marks: 150 s for 100,000
    # characters at once, 2 s in windows.
    ends, start = [], 0
    while len(line) - start > WINDOW:
        window = line[start : start + WINDOW]
        *whole, _ = _find_sentences(window, code)
        for sentence in whole:
            start += len(sentence)
            ends.append(start)
        if not whole:
            # No end in sight: go on after the last space.
            start += window.rfind(" ", 1) + 1 or WINDOW
    for sentence in _find_sentences(line[start:], code):
        start += len(sentence)
        ends.append(start)
    return _split_at(line, ends)


def needs_splitting(mode: SplitMode, share: float) -> bool:
    """Returns whether texts are split into sentences.

    Args:
        mode: `decoding.split_sentences`.
        share: of the training lines that hold more than one sentence, see `measure_share`.
    """
    return mode == "always" or (mode == "auto" and share < MANY_SENTENCES)


def measure_share(lines: Iterable[str], language: str | None) -> float:
    """Returns the share of lines that hold more than one sentence, of those that are not blank; 0 if all are."""
    total = several = 0
    for line in lines:
        if line.strip():
            total += 1
            several += sum(LETTER.search(one) is not None for one in find_sentences(line, language)) > 1
    return several / total if total else 0.0


def _find_sentences(line: str, code: str) -> list[str]:
    sentences = _segment(line, code)
    if len(sentences) > 1:
        sentences = _rejoin(sentences, code)
    if HIDING.search(line):
        sentences = [part for one in sentences for part in _split_hidden(one, code)]
    if not line.isascii() and HAS_MORE_ENDS.search(line):
        sentences = [part for one in sentences for part in _split_at(one, [m.end() for m in MORE_ENDS.finditer(one)])]
    return sentences


def _segment(line: str, code: str) -> list[str]:
    import sentencex  # 1 ms; not wanted by commands that do not translate

    is_lower = line.islower()
    if is_lower:
        code = "en"  # in other languages small letters after a full stop mean that the sentence goes on
    try:
        sentences = sentencex.segment(code, line)
    except UnicodeEncodeError:  # half a surrogate
        return [line]
    except BaseException as error:
        # Version 1.0.32 panics at some list markers before a line break of Unicode; the exception cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        return [line]
    if sum(map(len, sentences)) != len(line):
        return [line]
    if is_lower and len(sentences) == 1:
        return _split_at(line, [found.end() for found in LONE_END.finditer(line)])
    return sentences


_codes: dict[str | None, str] = {}


def _find_code(language: str | None) -> str:
    """Returns the library's code of a language; languages that it does not know are treated as English."""
    code = _codes.get(language)
    if code is None:
        parsed = parse_language(language)
        code = "zh" if parsed.is_chinese else parsed.language
        code = _codes[language] = "en" if code == "und" else code
    return code


def _rejoin(sentences: list[str], code: str) -> list[str]:
    """Joins what the library parted within a sentence."""
    joined = [sentences[0]]
    for sentence in sentences[1:]:
        if _goes_on(joined[-1], sentence, code):
            joined[-1] += sentence
        else:
            joined.append(sentence)
    return joined


def _goes_on(before: str, after: str, code: str) -> bool:
    """Returns whether a sentence goes on after an end that the library found."""
    start = after[0]
    if not LETTER.search(after):
        # A bracket belongs to its sentence; an emoji or an ellipsis after a space stands alone.
        return not before[-1].isspace() or start in CLOSERS
    if not LETTER.search(before):
        return True
    if LIST_NUMBER.search(before) or start in CLAUSE_MARKS:
        return True
    if not before[-1].isspace() and (INITIAL.search(before) or (before[-1] in ".!?" and start in "([")):
        return True
    if start.isdigit() and BEFORE_NUMBER.search(before):
        return True
    if ORDINAL.search(before):
        if start.islower():
            return True
        if code == "de" and GERMAN_ORDINAL.search(before):
            return GERMAN_STARTER.match(after) is None
    if code == "ja" and QUOTED.search(before) and PARTICLE.match(after):
        return True
    word = WORD_BEFORE_POINT.search(before) if code in TITLES else None
    return word is not None and word[1] in TITLES[code].split()


def _split_hidden(sentence: str, code: str) -> list[str]:
    """Splits what stands in quotation marks or brackets, where the library looks for no end.

    A short quotation within a sentence, He said: "Go! Now!", is left alone. What is all in quotation marks or holds
    many sentences is split, since a model translates the first of them and drops the others.
    """
    if not INNER_END.search(sentence):
        return [sentence]
    ends, end = [], 0
    for one in _segment(OUTER_APOSTROPHE.sub(" ", sentence.translate(PLAIN)), code)[:-1]:
        end += len(one)
        # Marks right before the next word open what it begins.
        place = end
        while place > 0 and sentence[place - 1] in OPENERS:
            place -= 1
        ends.append(place if place and sentence[place - 1].isspace() else end)
    parts = _rejoin(_split_at(sentence, ends), code)
    is_enclosed = OPENS.match(sentence) and CLOSES.search(sentence)
    return parts if len(parts) >= (2 if is_enclosed else SEVERAL) else [sentence]


def _split_at(text: str, ends: Sequence[int]) -> list[str]:
    bounds = [0, *ends, len(text)]
    return [text[start:end] for start, end in pairwise(bounds) if start < end]


def _split_spaces(text: str) -> list[str]:
    """Returns the spaces before a text, the text without them, and the spaces after it, as far as there are any."""
    bare = text.strip()
    if len(bare) == len(text):
        return [text] if text else []
    start = len(text) - len(text.lstrip()) if bare else len(text)
    return [one for one in (text[:start], bare, text[start + len(bare) :]) if one]


def _needs_translation(text: str) -> bool:
    return LETTER.search(text) is not None and (len(text) > WINDOW or ADDRESS.fullmatch(text) is None)


def _find_starts(gaps: Sequence[str], parts: Sequence[str]) -> list[int]:
    starts, at = [], 0
    for gap, part in zip(gaps, parts, strict=False):
        starts.append(at + len(gap))
        at = starts[-1] + len(part)
    return starts


def _fit_gap(gap: str, source: str, target: str) -> str:
    """Returns what stands between two translated parts, given the characters on both sides of the gap."""
    if gap == "":
        for unspaced in (IS_WIDE, IS_UNSPACED):
            if len(target) == 2 and unspaced.search(source) and not unspaced.search(target):
                return " "
    elif len(target) == 2 and IS_WIDE.match(target[0]) and IS_WIDE.match(target[1]) and not IS_WIDE.search(source):
        return ""
    return gap
