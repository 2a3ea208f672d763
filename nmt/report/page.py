"""The report of one or several runs as a web page that needs no other file."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nmt.config.file import list_values
from nmt.config.reference import as_words, get_keys
from nmt.errors import UserError
from nmt.evaluation.compare_report import mark_new, name_systems
from nmt.inspection.heat_maps import HeatMap
from nmt.inspection.page import write_maps, write_page
from nmt.report.charts import Line, draw_chart, draw_histogram
from nmt.report.examples import (
    MIN_EPOCHS,
    DevSentence,
    PairLossSummary,
    TrainingPair,
    add_attention,
    examine_pairs,
    open_best,
    rank_sentences,
)
from nmt.report.records import RunRecords, read_run

Found = TypeVar("Found")

TIMES = 5  # validations of which a sample is shown
MAX_BARS = 40  # per histogram
# Names, units, and whether a wide range is drawn on a logarithmic axis. Other recorded values are drawn without a unit.
CHARTS = {
    "learning_rate": ("Learning rate", "learning rate", True),
    "gradient_norm": ("Gradient norm, before clipping", "nats per unit of weight", True),
    "tokens_per_second": ("Speed of training", "target tokens per second", False),
    "memory_mib": ("Highest memory of the process", "MiB", False),
    "divergence": ("Divergence of two readings", "nats per target token", True),
    "bleu": ("Dev BLEU, greedy search", "BLEU", False),
    "chrf": ("Dev chrF, greedy search", "chrF", False),
    "promises": ("Promises kept", "share of promises", False),
    "alignment": ("Cross-entropy of guided alignment", "nats per target token", True),
}


@dataclass(frozen=True)
class RunReport:
    """A run with what the report computes about it."""

    name: str
    records: RunRecords
    origin: str = ""
    """Where the translations of the dev sentences come from."""
    worst: Sequence[DevSentence] = ()
    best: Sequence[DevSentence] = ()
    pairs: PairLossSummary | None = None
    missing: list[str] = field(default_factory=list)
    """What the report lacks, one sentence each."""


def report_runs(
    paths: Sequence[Path], *, examples: int, pairs: int, log: Callable[[str], None] = lambda message: None
) -> list[RunReport]:
    """Reads the records of runs, and computes what the report shows of their best models.

    Args:
        paths: folders of runs, which may still be training.
        examples: sentences per list; 0 shows none, and opens no model.
        pairs: training pairs that are scored to find those with the highest loss, if training did not keep the losses;
            0 looks for none.
        log: receives what takes long.

    Raises:
        UserError: a folder is not that of a run.
    """
    records = [read_run(path) for path in paths]
    return [_examine(name, one, examples, pairs, log) for name, one in zip(name_systems(paths), records, strict=True)]


def _examine(name: str, run: RunRecords, examples: int, pairs: int, log: Callable[[str], None]) -> RunReport:
    missing = list(run.missing)

    def attempt(what: str, compute: Callable[[], Found]) -> Found | None:
        try:
            return compute()
        except UserError as error:
            missing.append(f"{what}: {error}")
            return None

    if not examples:
        return RunReport(name, run, missing=missing)
    translator = attempt("The best model", lambda: open_best(run.path)) if run.facts else None
    origin, ranked = attempt("Dev sentences", lambda: rank_sentences(run, translator)) or ("", [])
    worst, best = ranked[:examples], ranked[examples:][-examples:][::-1]
    scored = None
    if translator is not None:
        both = attempt("Attention", lambda: add_attention([*worst, *best], translator)) or [*worst, *best]
        worst, best = both[: len(worst)], both[len(worst) :]
        if pairs:
            scored = attempt(
                "Training pairs", lambda: examine_pairs(run, translator, sample=pairs, worst=examples, log=log)
            )
    return RunReport(name, run, origin, worst, best, scored, missing)


def write_html(reports: Sequence[RunReport], *, examples: int) -> str:
    """Returns the page.

    Args:
        reports: the runs, in the order in which they are shown.
        examples: dev sentences that are shown over time.
    """
    sections = {
        "summary": ("Summary", _write_summary(reports)),
        "curves": ("Curves", _write_curves(reports)),
        "samples": ("Dev sentences over time", _write_samples(reports, examples)),
        "sentences": ("Worst and best dev sentences", _for_each(reports, _write_sentences)),
        "pairs": ("Training pairs with the highest loss", _for_each(reports, _write_pairs)),
        "data": ("Data", _for_each(reports, _write_data)),
        "config": ("Configuration", _write_configs(reports)),
    }
    shown = {key: section for key, section in sections.items() if section[1]}
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in shown.items())
    body = "\n".join(f'<h2 id="{key}">{title}</h2>\n{text}' for key, (title, text) in shown.items())
    names = ", ".join(one.name for one in reports)
    style = files("nmt.report").joinpath("assets", "style.css").read_text(encoding="utf-8")
    heading = f"Report of {html.escape(names)}"
    return write_page(f"{names} – nmt report", f"<h1>{heading}</h1>\n<nav>{links}</nav>\n{body}", style=style)


def _for_each(reports: Sequence[RunReport], write: Callable[[RunReport], str]) -> str:
    """Returns the text of each run, under its name if there are several; "" if there is none."""
    parts = [(one.name, write(one)) for one in reports]
    if len(parts) == 1:
        return parts[0][1]
    return "\n".join(f"<h3>{html.escape(name)}</h3>\n{text}" for name, text in parts if text)


# Summary


def _write_summary(reports: Sequence[RunReport]) -> str:
    columns = [_summarize(one) for one in reports]
    header = ["", *(one.name for one in reports)]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    missing = [f"<li>{html.escape(f'{one.name}: {text}')}</li>" for one in reports for text in one.missing]
    note = f'<p>Not recorded, or not found:</p><ul class="missing">{"".join(missing)}</ul>' if missing else ""
    return _write_table(header, [row for row in rows if any(row[1:])]) + note


def _summarize(report: RunReport) -> dict[str, str]:
    """Returns the facts of a run by name."""
    run, training = report.records, report.records.config.training
    best, last = run.best, (run.training[-1] if run.training else {})
    intervals = run.intervals[run.dev[0].name] if run.best_translations and len(run.dev) == 1 else {}
    interval = intervals.get(best["update"]) if best else None
    within = f", 95 % interval {interval[0]:.2f} to {interval[1]:.2f}" if interval else ""
    speeds = [one["tokens_per_second"] for one in run.training if one.get("tokens_per_second")]
    versions = run.facts.get("versions") or {}
    return {
        "folder": str(run.path),
        "languages": f"{run.config.data.source_language} to {run.config.data.target_language}",
        "weights": f"{run.num_weights:,}" if run.num_weights else "",
        "updates recorded": f"{run.last_update:,}" + (f" of {training.max_updates:,}" if training.max_updates else ""),
        "epochs": f"{last['epoch'] + 1:,}" if "epoch" in last else "",
        "validations": f"{len(run.validations):,}",
        "dev BLEU of the best model": f"{best['bleu']:.2f} after update {best['update']:,}{within}"
        if best and best.get("bleu") is not None
        else "",
        "dev loss of the best model": f"{best['loss']:.3f} nats per target token"
        if best and best.get("loss") is not None
        else "",
        "average of checkpoints": ", ".join(_describe_average(one) for one in run.averages),
        "median speed": f"{np.median(speeds):,.0f} target tokens per second" if speeds else "",
        "versions of the best model": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }


def _describe_average(record: Mapping[str, Any]) -> str:
    score = "" if record.get("bleu") is None else f"BLEU {record['bleu']:.2f}"
    return f"{record.get('num_checkpoints')} checkpoints: {score}{', kept' if record.get('is_best') else ', not kept'}"


# Curves


def _write_curves(reports: Sequence[RunReport]) -> str:
    charts = [_draw_losses(reports)]
    names = [
        (kind, name)
        for kind in ("validation", "training")
        for name in dict.fromkeys(
            name for one in reports for record in _get_records(one, kind) for name in record if _is_drawn(kind, name)
        )
    ]
    charts += [_draw_metric(reports, kind, name) for kind, name in names]
    drawn = [chart for chart in charts if chart]
    if not drawn:
        return ""
    note = "<p>Point at a line for its values. Long curves are averaged over neighbouring records.</p>"
    return f'{note}<div class="charts">{"".join(drawn)}</div>'


def _get_records(report: RunReport, kind: str) -> Sequence[Mapping[str, Any]]:
    return report.records.training if kind == "training" else report.records.validations


def _is_drawn(kind: str, name: str) -> bool:
    if name in ("update", "kind", "epoch", "loss", "nll", "perplexity"):
        return False
    return not name.startswith(("loss/", "perplexity/"))


def _draw_losses(reports: Sequence[RunReport]) -> str:
    """Draws the loss of training, without label smoothing where that is recorded, and that of the dev text."""
    lines = []
    for number, one in enumerate(reports):
        prefix = f"{one.name}: " if len(reports) > 1 else ""
        training = [(x["update"], x.get("nll", x.get("loss"))) for x in one.records.training]
        dev = [(x["update"], x.get("loss")) for x in one.records.validations]
        lines.append(Line(f"{prefix}training, with dropout", number, training, is_dashed=True))
        lines.append(Line(f"{prefix}dev", number, dev, has_marks=True))
    title = "Negative log-likelihood"
    return draw_chart(title, "nats per target token", [one for one in lines if one.points], may_be_log=True)


def _draw_metric(reports: Sequence[RunReport], kind: str, name: str) -> str:
    measure, _, dev_set = name.partition("/")
    title, unit, may_be_log = CHARTS.get(measure, (measure.replace("_", " ").capitalize(), measure, False))
    if dev_set:
        title = f"{title}: {dev_set}"
    lines = []
    for number, one in enumerate(reports):
        points = [(x["update"], x.get(name)) for x in _get_records(one, kind) if name in x]
        of_all = one.records.dev[0].name if len(one.records.dev) == 1 else ""
        intervals = one.records.intervals.get(dev_set or of_all, {}) if measure == "bleu" else {}
        band = [(update, *bounds) for update, bounds in sorted(intervals.items())]
        if points:
            lines.append(Line(one.name, number, points, band, has_marks=kind == "validation"))
    if any(line.band for line in lines):
        title += ", with 95 % interval"
    return draw_chart(title, unit, lines, may_be_log=may_be_log, names_one=len(reports) > 1)


# Dev sentences


def _write_samples(reports: Sequence[RunReport], count: int) -> str:
    first = next((one.records for one in reports if one.records.translations), None)
    if first is None or not count:
        return ""
    samples = [
        (dev, line)
        for dev in first.dev
        for line in np.unique(np.linspace(0, len(dev.targets) - 1, min(count, len(dev.targets))).astype(int)).tolist()
    ]
    # Evenly over all sets, since each of them has as many.
    chosen = [samples[n] for n in np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int))]
    parts = []
    for dev, line in chosen:
        source, target = dev.bare_sources[line], dev.targets[line]
        entries = [("source", html.escape(source)), ("reference", html.escape(target))]
        for one in reports:
            entries += _follow_sample(one, dev.name, line, source, prefix=f"{one.name}, " if len(reports) > 1 else "")
        parts.append(_write_example(_name_line(first, dev.name, line + 1), entries))
    return "<p>Words that changed since the previous validation are marked.</p>" + "".join(parts)


def _follow_sample(report: RunReport, name: str, line: int, source: str, *, prefix: str) -> Iterator[tuple[str, str]]:
    """Yields the translations of a dev sentence by some validations, each with its label; none if it is another one."""
    run = report.records
    sources = next((one.bare_sources for one in run.dev if one.name == name), [])
    if line >= len(sources) or sources[line] != source:
        return
    updates = sorted(update for update, sets in run.translations.items() if name in sets)
    chosen = (
        np.unique(np.linspace(0, len(updates) - 1, min(TIMES, len(updates))).astype(int)).tolist() if updates else []
    )
    before = None
    for update in [updates[n] for n in chosen]:
        text = run.translations[update][name][line]
        yield f"{prefix}update {update:,}", html.escape(text) if before is None else mark_new(before, text)
        before = text


def _write_sentences(report: RunReport) -> str:
    if not report.worst:
        return ""
    parts = [f"<p>{report.origin}, ranked by sentence-level chrF, with the attention between words.</p>"]
    for title, sentences in (("Worst", report.worst), ("Best", report.best)):
        if sentences:
            parts += [f"<h4>{title}</h4>", *(_write_sentence(report.records, one) for one in sentences)]
    return "".join(parts)


def _write_sentence(run: RunRecords, one: DevSentence) -> str:
    entries = [
        ("source", html.escape(one.source)),
        ("reference", html.escape(one.target)),
        ("translation", mark_new(one.target, one.translation)),
    ]
    title = f"{_name_line(run, one.name, one.line)}, chrF {one.chrf:.1f}"
    attention = ""
    if one.links is not None and one.links.weights.size:
        links = one.links
        high = max(float(links.weights.max()), 1e-6)
        picture = HeatMap(title, links.weights, links.source, links.target, 0.0, high, "attention weight")
        attention = f"<details><summary>Attention</summary>{write_maps([picture])}</details>"
    return _write_example(title, entries, attention)


def _name_line(run: RunRecords, name: str, line: int) -> str:
    return f"Line {line:,}" + (f" of {name}" if len(run.dev) > 1 else "")


def _write_example(title: str, entries: Sequence[tuple[str, str]], after: str = "") -> str:
    """Returns texts with labels; the texts are HTML already."""
    rows = "".join(f'<dt>{html.escape(name)}</dt><dd dir="auto">{text}</dd>' for name, text in entries)
    return f'<div class="example"><b>{html.escape(title)}</b><dl>{rows}</dl>{after}</div>'


# Training pairs


def _write_pairs(report: RunReport) -> str:
    found = report.pairs
    if found is None or not len(found.losses):
        return ""
    losses = found.losses
    if found.is_kept:
        origin = (
            f"The lowest loss of {len(losses):,} of {found.num_pairs:,} training pairs in any epoch, kept while "
            "training, with dropout."
        )
        title = "Lowest loss of the training pairs"
    else:
        origin = (
            f"{len(losses):,} of {found.num_pairs:,} training pairs, scored by the best model without dropout, because "
            f"training kept no losses (training.keep_pair_losses) or has not completed {MIN_EPOCHS} epochs yet."
        )
        title = "Loss of the training pairs"
    never = _count_never_learned(found, losses)
    text = (
        f"<p>{origin} The loss is the mean of the target tokens, with EOS. Its median is {np.median(losses):.2f} nats, "
        f"and one pair in a hundred exceeds {np.quantile(losses, 0.99):.2f}. Pairs with a loss of "
        f"{found.even_loss:.2f} or more, that of a model without training: {never}. A pair that is never learned is "
        "often a wrong translation, text in another language, or two lines that do not belong together.</p>"
    )
    edges = np.linspace(0, max(float(losses.max()), 1e-6), MAX_BARS + 1)
    counts, _ = np.histogram(losses, edges)
    bars = list(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True))
    chart = draw_histogram(title, "nats per target token", bars, is_log=True)
    return f'{text}<div class="charts">{chart}</div>{_write_losses_by_corpus(report, found)}' + "".join(
        map(_write_pair, found.worst)
    )


def _write_losses_by_corpus(report: RunReport, found: PairLossSummary) -> str:
    corpora = report.records.config.data.train
    if len(corpora) < 2:
        return ""
    by_corpus = [(str(one.source), found.losses[found.corpora == number]) for number, one in enumerate(corpora)]
    rows = [
        [name, f"{len(losses):,}", f"{np.median(losses):.2f}", _count_never_learned(found, losses)]
        for name, losses in by_corpus
        if len(losses)
    ]
    return _write_table(["source", "pairs", "median loss", f"loss of {found.even_loss:.2f} or more"], rows)


def _count_never_learned(found: PairLossSummary, losses: np.ndarray) -> str:
    return f"{np.count_nonzero(losses >= found.even_loss):,}"


def _write_pair(one: TrainingPair) -> str:
    entries = [
        ("source", html.escape(one.source)),
        ("target", html.escape(one.target)),
        (
            "least probable",
            f"<bdi>{html.escape(one.least)}</bdi> <small>log-probability {one.least_log_prob:.2f}</small>",
        ),
    ]
    loss = f"loss {one.loss:.2f}"
    if one.lowest is not None:
        loss = f"lowest loss in training {one.lowest:.2f}, by the best model {one.loss:.2f}"
    return _write_example(f"{one.place}, {loss}", entries)


# Data and configuration


def _write_data(report: RunReport) -> str:
    data = report.records.data
    if data is None:
        return ""
    corpora = [
        ["training", one["source"], one["target"], f"{one['lines']:,}", as_words(one.get("weight", 1.0))]
        for one in data.get("corpora", [])
    ]
    dev = [[one["name"], one["source"], one["target"], f"{one['lines']:,}", ""] for one in data.get("dev", [])]
    facts = [
        ["pairs with text on both sides", f"{data['pairs']:,}"],
        ["pairs with a blank side, left out", f"{data['blank']:,}"],
        *([f"dropped by data.{name}", f"{count:,}"] for name, count in data.get("dropped", {}).items()),
        ["pairs kept", f"{data['kept']:,}"],
        ["training examples", f"{data['examples']:,}"],
        ["source tokens, with EOS", f"{data['tokens'][0]:,}"],
        ["target tokens, with EOS", f"{data['tokens'][1]:,}"],
        ["vocabulary, source and target", " and ".join(f"{size:,}" for size in data["vocabularies"])],
    ]
    charts = [
        draw_histogram(
            f"Length of the examples, {side}", "tokens", _group_lengths(counts), marks="examples", is_whole=True
        )
        for side, counts in zip(("source", "target"), data.get("lengths", []), strict=False)
        if any(counts)
    ]
    return (
        _write_table(["", "source", "target", "lines", "weight"], [*corpora, *dev])
        + _write_table(["", ""], facts)
        + f'<div class="charts">{"".join(charts)}</div>'
    )


def _group_lengths(counts: Sequence[int]) -> list[tuple[float, float, int]]:
    """Returns the number of examples in ranges of equal width, given that of each length from 0 on."""
    size = -(-len(counts) // MAX_BARS)
    return [(start, start + size, sum(counts[start : start + size])) for start in range(0, len(counts), size)]


def _write_configs(reports: Sequence[RunReport]) -> str:
    values = [list_values(one.records.config) for one in reports]
    keys = list(dict.fromkeys(key for one in values for key in one))
    names = [one.name for one in reports]
    rows = [[key, *(one.get(key, "–") for one in values)] for key in keys]
    everything = f"<details><summary>All keys</summary>{_write_table(['key', *names], rows)}</details>"
    if len(reports) > 1:
        differing = [row for row in rows if len(set(row[1:])) > 1]
        table = _write_table(["key", *names], differing) if differing else "<p>The configurations are equal.</p>"
        return f"<p>Keys in which the runs differ:</p>{table}{everything}"
    defaults = {key: one.default for key, one in get_keys().items()}
    changed = [row for row in rows if row[1] != defaults.get(re.sub(r"\.\d+\.", ".N.", row[0]), row[1])]
    return f"<p>Keys with another value than the default:</p>{_write_table(['key', *names], changed)}{everything}"


def _write_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table. A first column with the header "key" is set like code."""
    first = "key" if header[0] == "key" else "name"
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = [
        "".join(
            f'<td class="{"value" if n else first}"><bdi>{html.escape(cell)}</bdi></td>' for n, cell in enumerate(row)
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
