"""`nmt compare`: compares systems on a test set, and writes tables, JSON or a web page."""

import difflib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from nmt.data.corpus import read_aligned, read_lines
from nmt.errors import UserError
from nmt.evaluation.breakdown import Breakdown, Change, FrequencyGroup, LengthGroup
from nmt.evaluation.compare import Comparison, compare
from nmt.evaluation.metrics import check_languages

WIDTH = 120  # characters per line of the tables
TEXT_COLUMNS = ("system", "signature")
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-bottom: 2rem; }
th, td { border-bottom: 1px solid #8886; padding: .3rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
dl { border-top: 1px solid #8886; padding-top: .5rem; }
dt { float: left; clear: left; opacity: .7; min-width: 10rem; }
dd { margin: 0 0 0 11rem; }
ins { background: #0072b244; text-decoration: none; }
"""


@dataclass(frozen=True)
class Report:
    """Systems compared on a test set; the first one is the baseline."""

    names: list[str]
    scores: list[dict[str, Comparison]]
    by_length: list[LengthGroup]
    by_frequency: list[FrequencyGroup]
    frequencies_of: str
    """The text in which words were counted."""
    changes: list[list[Change]]
    """For each system but the baseline: the sentences that it translates differently, the most improved one first."""
    translations: list[list[str]]
    """The translations of each system, one per line."""
    context: dict[str, list[str]]
    """The source, if there is one, and the references, by name."""

    def as_record(self) -> dict[str, Any]:
        """Returns the object that `nmt compare --json` prints."""
        systems: list[dict[str, Any]] = [
            {"name": name, **{key: one.as_record() for key, one in scores.items()}}
            for name, scores in zip(self.names, self.scores, strict=True)
        ]
        for system, changes in zip(systems[1:], self.changes, strict=True):
            system["changes"] = [asdict(change) for change in changes]
        return {
            "systems": systems,
            "by_length": [asdict(group) for group in self.by_length],
            "by_frequency": [asdict(group) for group in self.by_frequency],
            "frequencies_of": self.frequencies_of,
        }

    def choose_examples(self, system: int, count: int) -> list[Change]:
        """Returns the changes of a system with the greatest differences, half of them improvements if there are any.

        Args:
            system: number of the system, from 1.
            count: how many sentences at most.
        """
        changes = self.changes[system - 1]
        better = [change for change in changes if change.difference > 0][: (count + 1) // 2]
        worse = [change for change in reversed(changes) if change.difference < 0][: count - len(better)]
        return better + worse


def compare_files(
    systems: Sequence[Path],
    references: Sequence[Path],
    *,
    source: Path | None = None,
    target_language: str | None = None,
    training_text: Path | None = None,
    decoding: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Report:
    """Compares the translations of several systems.

    Args:
        systems: for each system, a file of translations, one per line, or a model that translates the source. The first
            one is the baseline.
        references: files of human translations.
        source: file of the sentences that were translated.
        target_language: see `nmt.evaluation.metrics.score`; None takes that of the models, if there are any.
        training_text: file of target text in which words are counted; None counts them in the first reference.
        decoding: settings by which all models translate instead of their own.
        warn: receives warnings about what may distort the scores.

    Raises:
        UserError: there is only one system, a model but no source, a file that cannot be read, the files differ in
            length, or the models have different target languages and none is given.
    """
    if len(systems) < 2:
        raise UserError(f"A comparison needs two systems or more; found {len(systems)}.")
    models = {path for path in systems if path.is_dir()}
    if models and source is None:
        raise UserError(
            f"{min(models)} is a folder, so it is opened as a model, which needs text to translate. Add --source FILE."
        )
    files = [path for path in systems if path not in models]
    first, *others = [*references, *files, *([source] if source else [])]
    texts = dict(zip([first, *others], read_aligned(first, *others), strict=True))
    languages = {}
    for path in sorted(models):
        assert source is not None
        texts[path], languages[path] = _translate(path, texts[source], decoding or {})
    if target_language is None and len(set(languages.values())) > 1:
        named = " and ".join(f"{path} ({language})" for path, language in languages.items())
        raise UserError(f"The models translate to different languages: {named}. Choose one with --language CODE.")
    target_language = target_language or next(iter(languages.values()), None)
    for warning in check_languages(None, target_language):
        warn(warning)
    translations = [texts[path] for path in systems]
    context = {"source": texts[source]} if source else {}
    for number, path in enumerate(references, 1):
        context[f"reference {number}" if len(references) > 1 else "reference"] = texts[path]
    reference_lines = [texts[path] for path in references]
    breakdown = Breakdown(translations, *reference_lines, target_language=target_language)
    counted = None if training_text is None else read_lines(training_text)
    baseline, *rest = translations
    return Report(
        names=name_systems(systems),
        scores=compare(baseline, rest, *reference_lines, target_language=target_language, randomize=True),
        by_length=breakdown.score_by_length(),
        by_frequency=breakdown.score_by_frequency(counted),
        frequencies_of=str(training_text or references[0]),
        changes=[breakdown.find_changes(system) for system in range(1, len(systems))],
        translations=translations,
        context=context,
    )


def write_json(report: Report) -> str:
    """Returns a report as one JSON object, without the sentences themselves."""
    return json.dumps(report.as_record())


def write_text(report: Report, *, examples: int) -> str:
    """Returns a report as tables for a terminal, with the sentences that changed most."""
    console = Console(file=StringIO(), width=WIDTH, highlight=False, markup=False, emoji=False)
    for title, header, rows in _make_tables(report):
        console.print(title)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number and name not in TEXT_COLUMNS else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for system in range(1, len(report.names)):
        for change in report.choose_examples(system, examples):
            console.print(f"Line {change.line}, chrF {change.difference:+.1f}")
            for name, text in _get_texts(report, system, change):
                console.print(f"  {name}: {text}", soft_wrap=True)
    file = console.file
    assert isinstance(file, StringIO)
    # Not splitlines, since a translation may hold U+2028 and the like.
    return "\n".join(line.rstrip() for line in file.getvalue().removesuffix("\n").split("\n"))


def write_html(report: Report, *, examples: int) -> str:
    """Returns a report as a web page that needs no other file. Words that the baseline does not have are marked."""
    parts = [f"<h1>{html.escape(' and '.join(report.names))}</h1>"]
    for title, header, rows in _make_tables(report):
        parts += [f"<h2>{html.escape(title)}</h2>", '<div class="wide"><table>', _make_row(header, "th")]
        parts += [*(_make_row(row, "td") for row in rows), "</table></div>"]
    for system in range(1, len(report.names)):
        title = f"Sentences that {report.names[system]} and {report.names[0]} translate most differently"
        parts.append(f"<h2>{html.escape(title)}</h2>")
        for change in report.choose_examples(system, examples):
            *others, (baseline, old), (name, new) = _get_texts(report, system, change)
            parts.append(f"<dl><dt>Line {change.line:,}</dt><dd>chrF {change.difference:+.1f}</dd>")
            parts += [_define(label, html.escape(text)) for label, text in [*others, (baseline, old)]]
            parts += [_define(name, mark_new(old, new)), "</dl>"]
    title = html.escape(f"nmt compare: {', '.join(report.names)}")
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title><style>{STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _translate(model: Path, sources: list[str], decoding: Mapping[str, Any]) -> tuple[list[str], str | None]:
    from nmt.translators.opening import open_translator

    translator = open_translator(model, **decoding)
    return translator.translate(sources, split=False), translator.target_language


def name_systems(paths: Sequence[Path]) -> list[str]:
    """Returns the last parts of the paths, or whole paths where these are equal."""
    short = [path.name or str(path) for path in paths]
    names = [str(path) if short.count(name) > 1 else name for name, path in zip(short, paths, strict=True)]
    return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def _make_tables(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns title, header and rows of each table. Systems are named by a letter after the first table."""
    letters = [chr(ord("A") + number) for number in range(len(report.names))]
    scores = [
        [key, f"{letter}: {name}", *_describe_score(comparisons[key])]
        for key in report.scores[0]
        for letter, name, comparisons in zip(letters, report.names, report.scores, strict=True)
    ]
    lengths = [
        [
            _name_range(group.shortest, group.longest),
            f"{group.sentences:,}",
            *(f"{value:.2f}" for value in group.bleu),
            *(_format(value, ".3f") for value in group.length_ratio),
        ]
        for group in report.by_length
    ]
    words = [
        [_name_range(group.rarest, group.commonest), f"{group.words:,}", *(_format(value, ".1f") for value in group.f1)]
        for group in report.by_frequency
    ]
    signatures = [[key, comparison.score.signature] for key, comparison in report.scores[0].items()]
    total = len(report.translations[0])
    changed = [
        [letter, *(f"{count:,}" for count in (*_count_signs(changes), total - len(changes)))]
        for letter, changes in zip(letters[1:], report.changes, strict=True)
    ]
    score_header = ["score", "system", "value", "95 % interval", "p (bootstrap)", "p (randomization)"]
    ratios = [f"length {letter}" for letter in letters]
    return [
        ("Scores", score_header, scores),
        (
            "By number of words in the reference; length is that of the translations relative to the references",
            ["words", "sentences", *(f"BLEU {letter}" for letter in letters), *ratios],
            lengths,
        ),
        (
            f"Words by how often they occur in {report.frequencies_of}",
            ["occurrences", "words", *(f"F1 {letter}" for letter in letters)],
            words,
        ),
        (
            "Sentences whose chrF is better, worse or the same as that of A",
            ["system", "better", "worse", "same chrF", "same text"],
            changed,
        ),
        ("Signatures of sacreBLEU", ["score", "signature"], signatures),
    ]


def _describe_score(one: Comparison) -> list[str]:
    interval = [] if one.score.interval is None else [f"{bound:.2f}" for bound in one.score.interval]
    p_values = [f"{p:.4f}" for p in (one.p_value, one.randomization_p_value) if p is not None]
    return [f"{one.score.score:.2f}", " to ".join(interval), *(p_values or ["baseline", ""])]


def _format(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _count_signs(changes: Sequence[Change]) -> tuple[int, int, int]:
    better, worse = (sum(sign * change.difference > 0 for change in changes) for sign in (1, -1))
    return better, worse, len(changes) - better - worse


def _name_range(first: int, last: int | None) -> str:
    if last is None:
        return f"{first:,} or more"
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _get_texts(report: Report, system: int, change: Change) -> list[tuple[str, str]]:
    """Returns source, references, the baseline's translation and the system's, each with its name."""
    texts = [*report.context.items(), *((report.names[one], report.translations[one]) for one in (0, system))]
    return [(name, lines[change.line - 1]) for name, lines in texts]


def _define(name: str, text: str) -> str:
    return f'<dt>{html.escape(name)}</dt><dd dir="auto">{text}</dd>'


def _make_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def mark_new(old: str, new: str) -> str:
    """Returns a text as HTML, with the words marked that another text does not have at that place.

    >>> mark_new("ein Hund läuft", "ein Hund rennt & bellt")
    'ein Hund <ins>rennt &amp; bellt</ins>'
    """
    ours, theirs = new.split(), old.split()
    parts = []
    for operation, _, _, start, end in difflib.SequenceMatcher(None, theirs, ours, autojunk=False).get_opcodes():
        text = html.escape(" ".join(ours[start:end]))
        if text:
            parts.append(text if operation == "equal" else f"<ins>{text}</ins>")
    return " ".join(parts)
