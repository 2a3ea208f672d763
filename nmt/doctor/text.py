"""Checks of the parallel text: unusual bytes, useless pairs, overlap with test sets, and languages."""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from nmt.config.schema import DataConfig
from nmt.data.batching import split_chunks
from nmt.data.cleaning import clean
from nmt.data.corpus import ParallelCorpus, TextFile, split_indices
from nmt.data.languages import find_labels, find_warnings, parse_language
from nmt.doctor.findings import Finding, report_count
from nmt.errors import UserError
from nmt.evaluation.metrics import check_languages

# Patterns in the bytes of UTF-8 text, and what they mean.
ODDITIES = {
    "carriage returns": (rb"\r(?!\n)", "Windows or an old Mac may end the line there"),
    "unusual line breaks": (rb"\xe2\x80[\xa8\xa9]|\xc2\x85|[\x0b\x0c\x1c-\x1e]", "nmt treats them as characters"),
    "control characters": (rb"[\x00-\x08\x0e-\x1b\x7f]", "no text needs them"),
    "replacement characters": (rb"\xef\xbf\xbd", "U+FFFD: an earlier conversion lost a character"),
}
LANGUAGE_SAMPLE = 400
LINES_TOGETHER = 8  # one short line is not enough to identify its language


def open_texts(data: DataConfig, cache: Path) -> list[TextFile]:
    """Opens every training file of both sides."""
    return [TextFile.open(path, cache) for files in data.train for path in (files.source, files.target)]


def examine_files(texts: Sequence[TextFile]) -> Iterator[Finding]:
    """Searches the bytes of every training file for `ODDITIES`."""
    for check, (pattern, meaning) in ODDITIES.items():
        lines = [(text, text.find_lines(re.compile(pattern))) for text in texts]
        first = next((f"{text.path}:{found[0] + 1} ({meaning})" for text, found in lines if len(found)), "")
        yield report_count(check, sum(len(found) for _, found in lines), "lines", first)


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


def examine_language_codes(data: DataConfig) -> Iterator[Finding]:
    """Checks the language codes of the configuration, and that BLEU can be counted in the target language."""
    try:
        warnings = check_languages(data.source_language, data.target_language)
    except UserError as error:
        yield Finding("scoring", "error", str(error))
        warnings = list(find_warnings(source=data.source_language, target=data.target_language))
    yield from (Finding("language codes", "warning", warning) for warning in warnings)
    if not warnings:
        source, target = parse_language(data.source_language), parse_language(data.target_language)
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
