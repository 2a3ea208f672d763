"""The parallel text: what is in its bytes, which pairs repeat, and whether the test sets are in it."""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from nmt.config.schema import DataConfig
from nmt.data.cleaning import clean
from nmt.data.corpus import ParallelCorpus, TextFile, split_indices
from nmt.doctor.findings import Finding, report_count
from nmt.errors import UserError

# What is looked for in the bytes of UTF-8 text, and how it is called.
ODDITIES = {
    "carriage returns": (rb"\r(?!\n)", "a line that Windows or an old Mac would end elsewhere"),
    "odd line breaks": (rb"\xe2\x80[\xa8\xa9]|\xc2\x85|[\x0b\x0c\x1c-\x1e]", "here they are characters like others"),
    "control characters": (rb"[\x00-\x08\x0e-\x1b\x7f]", "NUL among them, no text needs them"),
    "broken characters": (rb"\xef\xbf\xbd", "U+FFFD: an earlier conversion lost what stood there"),
}
LANGUAGE_SAMPLE = 400
LINES_TOGETHER = 8  # a single caption is too short to tell its language


def examine_files(texts: Sequence[TextFile]) -> Iterator[Finding]:
    """Looks at the bytes of every training file."""
    for check, (pattern, meaning) in ODDITIES.items():
        lines = [(text, text.find_lines(re.compile(pattern))) for text in texts]
        first = next((f"{text.path}:{found[0] + 1} ({meaning})" for text, found in lines if len(found)), "")
        yield report_count(check, sum(len(found) for _, found in lines), "lines", first)


def examine_pairs(corpus: ParallelCorpus) -> Iterator[Finding]:
    """Looks for pairs that teach nothing."""
    of = f"of {len(corpus) + corpus.num_blank:,} pairs"
    yield report_count("blank sides", corpus.num_blank, f"{of}, left out", verdict="note")
    no_lengths = np.zeros((len(corpus), 2), dtype=np.int32)
    filters = {"drop_identical": True, "drop_duplicates": True}
    try:
        _, report = clean(corpus, no_lengths, max_length=None, max_ratio=None, **filters)
    except UserError:
        yield Finding("identical sides", "warning", "all pairs have the same text on both sides")
        return
    identical, repeated = report.dropped["drop_identical"], report.dropped["drop_duplicates"]
    yield _report_share("identical sides", identical, len(corpus), "data.drop_identical leaves them out")
    yield _report_share("duplicate pairs", repeated, len(corpus), "data.drop_duplicates leaves them out")


def examine_overlap(corpus: ParallelCorpus, held_out: dict[str, tuple[list[str], list[str]]]) -> Iterator[Finding]:
    """Looks for sentences of dev and test sets, by name, among the training pairs: a score on them means little."""
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


def examine_languages(corpus: ParallelCorpus, data: DataConfig) -> Iterator[Finding]:
    """Asks py3langid (Lui and Baldwin 2012) whether each side is in the language that the configuration names."""
    if importlib.util.find_spec("py3langid") is None:
        yield Finding("languages", "note", "not looked at: pip install py3langid")
        return
    import py3langid

    indices = select_evenly(len(corpus), LANGUAGE_SAMPLE)
    found = [
        _detect_language(lines, py3langid.classify)
        for lines in (corpus.read_sources(indices), corpus.read_targets(indices))
    ]
    named = [_strip_region(data.source_language), _strip_region(data.target_language)]
    known = {code for code, _ in py3langid.rank("")}
    unknown = [code for code in named if code not in known]
    if unknown:
        yield Finding("languages", "note", f"not looked at: py3langid does not know {' and '.join(unknown)}")
    elif found == named:
        yield Finding("languages", "ok", f"{found[0]} and {found[1]}, as named")
    else:
        swapped = "; the sides look swapped" if found == named[::-1] else ""
        yield Finding(
            "languages", "warning", f"{found[0]} and {found[1]}, where {named[0]} and {named[1]} are named{swapped}"
        )


def select_evenly(number: int, size: int) -> np.ndarray:
    """At most `size` of the first `number` indices, evenly spaced."""
    return np.unique(np.linspace(0, number - 1, min(number, size)).astype(np.int64))


def open_texts(data: DataConfig, cache: Path) -> list[TextFile]:
    """Every training file of both sides."""
    return [TextFile.open(path, cache) for files in data.train for path in (files.source, files.target)]


def _detect_language(lines: Sequence[str], classify: Callable[[str], tuple[str, float]]) -> str:
    together = [" ".join(lines[start : start + LINES_TOGETHER]) for start in range(0, len(lines), LINES_TOGETHER)]
    votes = Counter(classify(text)[0] for text in together)
    return votes.most_common(1)[0][0]


def _strip_region(code: str) -> str:
    return re.split("[-_]", code.lower())[0]


def _report_share(check: str, number: int, of: int, remedy: str) -> Finding:
    """A note below one pair in a hundred, a warning above."""
    verdict: Literal["note", "warning"] = "warning" if number * 100 > of else "note"
    return report_count(check, number, f"of {of:,} pairs; {remedy}", verdict=verdict)
