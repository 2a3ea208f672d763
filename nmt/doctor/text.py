"""Checks of the parallel text: unusual bytes, useless pairs, overlap with test sets, and languages."""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from nmt.config.schema import Config, DataConfig
from nmt.data.batching import split_chunks
from nmt.data.cleaning import clean
from nmt.data.corpus import ParallelCorpus, TextFile, split_indices
from nmt.data.languages import find_labels, find_warnings, parse_language
from nmt.data.preparation import count_drawn, find_tag_warnings
from nmt.data.weighting import SentenceWeights
from nmt.data.word_alignments import WordAlignments
from nmt.doctor.findings import Finding, report_count
from nmt.errors import UserError
from nmt.evaluation.metrics import check_languages
from nmt.evaluation.promises import read_promises

# UTF-8 that was decoded as Latin-1 or Windows-1252 and encoded again looks like this: the bytes 80 to BF, and sequences
# beginning with C2 to C5 (Ã¤ for ä), CE to D1 and D7 to D9 (two letters of Greek, Cyrillic, Hebrew, Arabic), E2 80 (â€™
# for an apostrophe), E0 A4 to E0 B9 (India, Thailand) and E3 to ED (two signs of Chinese, Japanese, Korean).
_WINDOWS = "".join(bytes([one]).decode("cp1252", errors="ignore") for one in range(0x80, 0xA0))
_BYTE = rb"(?:\xc2[\x80-\xbf]|" + b"|".join(re.escape(letter.encode()) for letter in _WINDOWS) + rb")"
# Both patterns begin with one byte, which Python looks for quickly.
MOJIBAKE = (
    rb"\xc3(?:[\x82-\x85]"
    + _BYTE
    + rb"|[\x8e-\x91\x97-\x99]"
    + _BYTE
    + rb"\xc3[\x8e-\x91\x97-\x99]"
    + _BYTE
    + rb"|\xa2(?:\xc2\x80|\xe2\x82\xac)"
    + _BYTE
    + rb"|\xa0\xc2[\xa4-\xb9]"
    + _BYTE
    + rb"|[\xa3-\xad]"
    + _BYTE
    + _BYTE
    + rb"\xc3[\xa3-\xad]"
    + _BYTE
    + _BYTE
    + rb")"
)
# Names of elements that web pages are full of; <2de> and the like are tokens that users add.
HTML_TAG = (
    rb"<(?i:/?(?:a|abbr|article|b|blockquote|body|br|button|center|cite|code|dd|div|dl|dt|em|font|footer|form|h[1-6]|head"
    rb"|header|hr|html|i|img|input|label|li|link|meta|nav|ol|option|p|pre|q|s|script|section|select|small|span|strong"
    rb"|style|sub|sup|table|tbody|td|th|thead|title|tr|u|ul|video)(?:\s[^<>\n]*)?/?>|!--|!doctype)"
)
HTML_ENTITY = rb"&(?:[A-Za-z][A-Za-z0-9]{1,7}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});"

# Patterns in the bytes of UTF-8 text, and what they mean.
ODDITIES = {
    "carriage returns": (rb"\r(?!\n)", "Windows or an old Mac may end the line there"),
    "unusual line breaks": (rb"\xe2\x80[\xa8\xa9]|\xc2\x85|[\x0b\x0c\x1c-\x1e]", "nmt treats them as characters"),
    "control characters": (rb"[\x00-\x08\x0e-\x1b\x7f]", "no text needs them"),
    "replacement characters": (rb"\xef\xbf\xbd", "U+FFFD: an earlier conversion lost a character"),
    "mojibake": (MOJIBAKE, "UTF-8 that was decoded as Latin-1 or Windows-1252 and encoded again"),
    "HTML tags": (HTML_TAG, "the model would learn to write them"),
    "HTML entities": (HTML_ENTITY, "&amp; stands for &"),
    "tabs": (rb"\t", "columns of a TSV file? A line is one sentence, columns included"),
}
# Up to this share of the lines, mojibake, tags and the like are what any corpus from the web contains.
USUAL_SHARE = 0.001
UNUSUAL_BYTES = ("carriage returns", "unusual line breaks", "control characters", "replacement characters")

# Sides are shifted where the lengths of a window of lines hardly agree, but agree well with those of lines before or
# after. In windows of 200 lines, unrelated lengths have a correlation of 0 ± 0.07, those of translations about 0.9.
SHIFT_WINDOW, SHORTEST_SHIFTED = 200, 40
SHIFTS = (-3, -2, -1, 1, 2, 3)
MIN_SHIFTED_CORRELATION, MIN_CORRELATION_GAIN = 0.5, 0.35
LANGUAGE_SAMPLE = 400
LINES_TOGETHER = 8  # one short line is not enough to identify its language


def open_texts(data: DataConfig, cache: Path) -> list[TextFile]:
    """Opens every training file of both sides."""
    return [TextFile.open(path, cache) for files in data.train for path in (files.source, files.target)]


def examine_corpora(config: Config, corpus: ParallelCorpus, cache: Path) -> Iterator[Finding]:
    """Checks the weights of corpora and pairs and word alignments, and reports tags that no dev set has.

    Args:
        config: the whole configuration.
        corpus: the training text.
        cache: folder for the line indexes of files of weights and alignments.
    """
    data = config.data
    paths = [files.weights for files in data.train]
    if any(paths):
        try:
            values = SentenceWeights.read(paths, corpus, cache).values
            yield Finding("sentence weights", "ok", f"from {values.min():g} to {values.max():g}")
        except UserError as error:
            yield Finding("sentence weights", "error", str(error))
    paths = [files.alignments for files in data.train]
    if any(paths):
        try:
            alignments = WordAlignments.open(paths, corpus, cache)
            yield Finding("word alignments", "ok", f"{len(alignments.links):,} links")
        except UserError as error:
            yield Finding("word alignments", "error", str(error))
    for warning in find_tag_warnings(config):
        yield Finding("tags", "warning", warning)
    if all(files.weight == 1 for files in data.train):
        return
    sizes = np.bincount(corpus.find_corpora(np.arange(len(corpus))), minlength=len(data.train)).tolist()
    try:
        counts = [count_drawn(data, number, size) for number, size in enumerate(sizes)]
    except UserError as error:
        yield Finding("weights", "error", str(error))
        return
    pairs = zip(data.train, counts, sizes, strict=True)
    each = "; ".join(f"{count:,} of {files.source.name} ({size:,} pairs)" for files, count, size in pairs)
    yield Finding("weights", "note", f"an epoch reads {sum(counts):,} pairs: {each}, less what cleaning drops")


def examine_files(texts: Sequence[TextFile]) -> Iterator[Finding]:
    """Searches the bytes of every training file for `ODDITIES`."""
    total = sum(map(len, texts))
    for check, (pattern, meaning) in ODDITIES.items():
        lines = [(text, text.find_lines(re.compile(pattern))) for text in texts]
        first = next((f"{text.path}:{found[0] + 1} ({meaning})" for text, found in lines if len(found)), "")
        number = sum(len(found) for _, found in lines)
        is_usual = check not in UNUSUAL_BYTES and number <= USUAL_SHARE * total
        noun = "line" if number == 1 else "lines"
        yield report_count(check, number, noun, first, verdict="note" if is_usual else "warning")


def examine_alignment(files: Sequence[tuple[TextFile, TextFile]]) -> Iterator[Finding]:
    """Looks for lines whose translation stands a few lines before or after, by the lengths of the lines.

    A line that was lost on one side shifts all that follow, and from those the model learns nothing but noise.
    """
    shifted = [found for pair in files if (found := _find_shift(*pair)) is not None]
    if not shifted:
        yield Finding("alignment", "ok", "no sign of sides that are shifted by a line")
    for path, line, shift, share in shifted:
        lines = f"{abs(shift)} line{'s' if abs(shift) > 1 else ''} {'later' if shift > 0 else 'earlier'}"
        yield Finding(
            "alignment",
            "warning",
            f"from about {path}:{line} on, {share:.0%} of the lines seem to have their source {lines}. Is one missing?",
        )


def _find_shift(source: TextFile, target: TextFile) -> tuple[Path, int, int, float] | None:
    """Finds where the sides of a pair of files are shifted against each other.

    Returns:
        The target file, its first line that seems shifted (counted from 1), by how many lines its source comes later
        (negative for earlier), and the share of the windows after this line that are shifted; or None.
    """
    count = min(len(source), len(target))
    size = min(SHIFT_WINDOW, count)
    if size < SHORTEST_SHIFTED:
        return None
    sides = [np.log(text.line_sizes[:count] + 1.0) for text in (source, target)]
    correlations = {shift: _correlate(_shift(sides[0], shift), sides[1], size) for shift in (0, *SHIFTS)}
    num_windows = min(map(len, correlations.values()))
    best, gains = 0, np.zeros(num_windows)
    for shift in SHIFTS:
        high = correlations[shift][:num_windows]
        gain = np.where(high > MIN_SHIFTED_CORRELATION, high - correlations[0][:num_windows], 0)
        if (gain > MIN_CORRELATION_GAIN).sum() > (gains > MIN_CORRELATION_GAIN).sum():
            best, gains = shift, gain
    windows = np.flatnonzero(gains > MIN_CORRELATION_GAIN)
    if not len(windows):
        return None
    first = _find_start(sides, best, int(windows[0]) * size, size)
    after = gains[-(-first // size) :] > MIN_CORRELATION_GAIN
    return target.path, first + 1, best, float(after.mean()) if len(after) else 1.0


def _shift(values: np.ndarray, shift: int) -> np.ndarray:
    """Returns for each place the value that is `shift` places later, or 0 if there is none."""
    start, end = max(0, shift), len(values) + min(0, shift)
    return np.pad(values[start:end], (max(0, -shift), max(0, shift)))


def _correlate(source: np.ndarray, target: np.ndarray, size: int) -> np.ndarray:
    """Returns the correlation of each window of `size` lines: float64 [number of whole windows]."""
    sides = [side[: len(side) // size * size].reshape(-1, size) for side in (source, target)]
    centred = [side - side.mean(axis=1, keepdims=True) for side in sides]
    scale = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    return (centred[0] * centred[1]).sum(axis=1) / np.maximum(scale, 1e-9)


def _find_start(sides: Sequence[np.ndarray], shift: int, start: int, size: int) -> int:
    """Returns the line from which the shifted source fits better, in a window or in the one before it."""
    lines = slice(max(0, start - size), start + size)
    straight, moved = sides[0][lines], _shift(sides[0], shift)[lines]
    target = sides[1][lines] - sides[1][lines].mean()
    # Where the sum of all differences before a line is largest, the lines change sides.
    advantage = target * (straight - moved)
    return lines.start + int(np.argmax(np.concatenate([[0.0], np.cumsum(advantage)])))


def examine_pairs(corpus: ParallelCorpus) -> Iterator[Finding]:
    """Counts pairs that teach nothing: with a blank side, with equal sides, and repeated ones."""
    of = f"of {len(corpus) + corpus.num_blank:,} pairs"
    yield report_count("blank sides", corpus.num_blank, f"{of}; they are always dropped", verdict="note")
    no_lengths = np.zeros((len(corpus), 2), dtype=np.int32)
    filters = {"drop_identical": True, "drop_duplicates": True}
    try:
        _, report = clean(corpus, no_lengths, max_length=None, max_ratio=None, **filters)
    except UserError:
        yield Finding("identical sides", "warning", "all pairs have the same text on both sides")
        return
    identical, repeated = report.dropped["drop_identical"], report.dropped["drop_duplicates"]
    yield _report_share("identical sides", identical, len(corpus), "data.drop_identical drops them")
    yield _report_share("duplicate pairs", repeated, len(corpus), "data.drop_duplicates drops them")


def _report_share(check: str, number: int, of: int, remedy: str) -> Finding:
    """Reports a number of pairs: a warning above one in a hundred, otherwise a note."""
    verdict: Literal["note", "warning"] = "warning" if number * 100 > of else "note"
    return report_count(check, number, f"of {of:,} pairs; {remedy}", verdict=verdict)


def examine_held_out(held_out: dict[str, tuple[list[str], list[str]]]) -> Iterator[Finding]:
    """Counts the blank lines of dev and test sets: a blank reference counts as a translation that should be empty.

    Args:
        held_out: sources and references by the name of the set.
    """
    for name, sides in held_out.items():
        for side, lines in zip(("sources", "references"), sides, strict=True):
            blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
            every = "; no score can be computed from them" if len(blank) == len(lines) else ""
            first = f"line {blank[0]}{every}" if blank else ""
            yield report_count(f"blank {name} {side}", len(blank), f"of {len(lines):,} lines", first)


def examine_overlap(corpus: ParallelCorpus, held_out: dict[str, tuple[list[str], list[str]]]) -> Iterator[Finding]:
    """Counts the sentences of dev and test sets that are also training text, which makes a score meaningless.

    Args:
        corpus: the training text.
        held_out: sources and references by the name of the set.
    """
    wanted = {name: (set(sides[0]), set(zip(*sides, strict=True))) for name, sides in held_out.items()}
    sources: dict[str, set[str]] = {name: set() for name in held_out}
    pairs: dict[str, set[tuple[str, str]]] = {name: set() for name in held_out}
    for indices in split_indices(len(corpus)):
        for pair in zip(corpus.read_sources(indices), corpus.read_targets(indices), strict=True):
            for name, (source_set, pair_set) in wanted.items():
                if pair[0] in source_set:
                    sources[name].add(pair[0])
                    if pair in pair_set:
                        pairs[name].add(pair)
    for name, sides in held_out.items():
        seen = sum(source in sources[name] for source in sides[0])
        whole = sum(pair in pairs[name] for pair in zip(*sides, strict=True))
        first = next((f"line {n}: {s}" for n, s in enumerate(sides[0], 1) if s in sources[name]), "")
        of = f"of {len(sides[0]):,} sources are in the training text, {whole:,} with their translation"
        yield report_count(f"{name} in training", seen, of, first)


def examine_promises(path: Path) -> Finding:
    """Checks that a file of promises can be read."""
    try:
        return Finding("promises", "ok", f"{len(read_promises(path).entries):,} in {path}")
    except UserError as error:
        return Finding("promises", "error", str(error))


def examine_language_codes(source_language: str, target_language: str) -> Iterator[Finding]:
    """Checks the language codes of a training or dev set, and that BLEU can be counted in the target language."""
    try:
        warnings = check_languages(source_language, target_language)
    except UserError as error:
        yield Finding("scoring", "error", str(error))
        warnings = list(find_warnings(source=source_language, target=target_language))
    yield from (Finding("language codes", "warning", warning) for warning in warnings)
    if not warnings:
        source, target = parse_language(source_language), parse_language(target_language)
        found = f"{source.code} and {target.code}; BLEU uses the tokenizer {target.bleu_tokenizer}"
        yield Finding("language codes", "ok", found)


def examine_languages(corpus: ParallelCorpus, data: DataConfig) -> Iterator[Finding]:
    """Compares the language of each side with the configuration, using py3langid (Lui and Baldwin 2012)."""
    if importlib.util.find_spec("py3langid") is None:
        yield Finding("languages", "note", "not checked; requires: pip install py3langid")
        return
    import py3langid

    indices = select_evenly(len(corpus), LANGUAGE_SAMPLE)
    found = [
        _detect_language(lines, py3langid.classify)
        for lines in (corpus.read_sources(indices), corpus.read_targets(indices))
    ]
    configured = data.source_language, data.target_language
    labels = [label for label, _ in py3langid.rank("")]
    expected = [find_labels(parse_language(code), labels) for code in configured]
    unknown = [code for code, possible in zip(configured, expected, strict=True) if not possible]
    if unknown:
        missing = " and ".join(unknown)
        yield Finding(
            "languages", "note", f"not checked; py3langid does not know {missing}, it found {' and '.join(found)}"
        )
    elif found[0] in expected[0] and found[1] in expected[1]:
        yield Finding("languages", "ok", f"{found[0]} and {found[1]}, as configured")
    else:
        is_swapped = found[0] in expected[1] and found[1] in expected[0]
        swapped = "; source and target may be swapped" if is_swapped else ""
        yield Finding(
            "languages",
            "warning",
            f"{found[0]} and {found[1]}, but {configured[0]} and {configured[1]} are configured{swapped}",
        )


def _detect_language(lines: Sequence[str], classify: Callable[[str], tuple[str, float]]) -> str:
    """Returns the language of most groups of lines."""
    votes = Counter(classify(" ".join(group))[0] for group in split_chunks(lines, LINES_TOGETHER))
    return votes.most_common(1)[0][0]


def select_evenly(number: int, size: int) -> np.ndarray:
    """Returns at most `size` of the indices 0 to `number` - 1, evenly spaced: int64."""
    return np.unique(np.linspace(0, number - 1, min(number, size)).astype(np.int64))
