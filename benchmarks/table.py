"""docs/benchmarks.md: page.md with the tables of the results put in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.ratios import Spread, alternating_ratio

PAGE = Path(__file__).parent / "page.md"
NONE = "–"
COMMANDS = {"soak": "serving --soak 10"}
FASTER = "nmt, float32, is faster by"

Results = Mapping[str, dict]


def render(results: Results) -> str:
    """The whole page; parts that were not measured say so."""
    sections: dict[str, Callable[[Any, Results], list[str]]] = {
        "training": _training,
        "translation": _translation,
        "latency": _latency,
        "memory": _memory,
        "scale": _scale,
        "ceiling": _ceiling,
        "serving": _serving,
        "soak": _soak,
    }
    rendered = {}
    for part, section in sections.items():
        if part in results:
            lines = [*section(results[part]["figures"], results), "", _provenance(results[part])]
        else:
            lines = [f"Not measured yet: `python -m benchmarks {COMMANDS.get(part, part)}`."]
        rendered[part] = "\n".join(lines)
    return PAGE.read_text(encoding="utf-8").format_map(rendered)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; figures stand on the right.

    >>> table(["System", "tokens/s"], [["a", "1"]])
    ['| System | tokens/s |', '| --- | ---: |', '| a | 1 |']
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, and the extremes where there are several values.

    >>> spread([1200.4, 1100, 1300]), spread([2.54], 1), spread([])
    ('1,200 (1,100–1,300)', '2.5', '–')
    """
    if not values:
        return NONE
    found = Spread.of(values)
    middle = f"{found.median:,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({found.minimum:,.{digits}f}–{found.maximum:,.{digits}f})"


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """How many times the others these values are; "–" where there are not as many of both.

    >>> ratio([8.0, 9.0, 10.0], [2.0, 2.0, 2.0]), ratio([8.0], [])
    ('4.50 × (4.00–5.00)', '–')
    """
    if not others or len(values) != len(others):
        return NONE
    found = alternating_ratio(values, others)
    return f"{found.median:.2f} × ({found.minimum:.2f}–{found.maximum:.2f})"


def replicas(figures: Mapping[str, Sequence[float]]) -> list[str]:
    """Milliseconds an update by arrangement, beside the first one's, run by run.

    >>> replicas({"1 device": [100.0, 200.0], "2 devices": [110.0, 240.0]})[3]
    '| 2 devices | 175.0 (110.0–240.0) | 1.15 × (1.10–1.20) |'
    """
    first = next(iter(figures.values()))
    rows = [[name, spread(values, 1), ratio(values, first)] for name, values in figures.items()]
    return table(["The same batches on", "ms an update", "of the first"], rows)


def _training(figures: dict, results: Results) -> list[str]:
    systems = figures["systems"]
    rows = []
    for entry in systems.values():
        runs = entry["runs"]
        speeds = _column(runs, "pieces_per_second")
        cells = [
            f"{entry['title']}: {entry['description']}",
            spread(speeds),
            ratio(_column(entry["beside"], "pieces_per_second"), speeds),
            *_share_of_ceiling(entry, speeds, results),
            spread(_column(runs, "peak_mb")),
            spread(_column(runs, "startup_seconds"), 1),
        ]
        rows.append(cells)
    header = ["System", "Target tokens/s", FASTER, "MFLOP a token", "Share of the ceiling"]
    return [*table([*header, "Peak memory, MB", "Start-up, s"], rows), *_failures(systems)]


def _share_of_ceiling(entry: dict, speeds: Sequence[float], results: Results) -> tuple[str, str]:
    """Counted MFLOP a token, and the speed as a share of the float32 ceiling."""
    if "ceiling" not in results:
        return NONE, NONE
    ceiling = results["ceiling"]["figures"]
    mflop = sum(ceiling["mflop_per_piece"][entry["title"]].values())
    share = median(speeds) * mflop / 1e3 / median(ceiling["gflops"]["float32"]) if speeds else None
    return f"{mflop:.1f}", NONE if share is None else f"{100 * share:.0f} %"


def _translation(figures: dict, results: Results) -> list[str]:
    lines = [f"{figures['lines']:,} lines; models of {figures['updates']:,} updates."]
    for name, title in (("beam", "Beam 5"), ("plain", "Beam 5, nothing pruned"), ("greedy", "Greedy")):
        rows = []
        for entry in figures[name].values():
            runs = entry["runs"]
            speeds = _column(runs, "sentences_per_second")
            cells = [
                entry["title"],
                spread(speeds, 1),
                ratio(_column(entry["beside"], "sentences_per_second"), speeds),
                spread(_column(runs, "first_pass_seconds"), 1),
                spread(_column(runs, "bleu")[:1], 2),
                spread(_column(runs, "pieces_per_line")[:1], 1),
                spread(_column(runs, "peak_mb")),
                spread(_column(runs, "startup_seconds"), 1),
            ]
            rows.append(cells)
        header = [title, "Sentences/s", FASTER, "First pass, s", "BLEU", "Pieces a line"]
        lines += ["", *table([*header, "Peak memory, MB", "Start-up, s"], rows), *_failures(figures[name])]
    return lines


def _latency(figures: dict, results: Results) -> list[str]:
    single, one = figures["one_by_one"], figures["one_line"]
    files = []
    for entry in figures["files"].values():
        runs, beside = entry["runs"], entry["beside"]
        cells = [entry["title"]]
        for column in ("cold", "warm"):
            seconds = _column(runs, column)
            cells += [spread(seconds, 1), ratio(seconds, _column(beside, column))]
        files.append(cells)
    sentences = [
        [name, *(spread(_column(single[name], column), 1) for column in ("median_ms", "p90_ms", "max_ms"))]
        for name in single
        if name != "lines"
    ]
    return [
        *table([f"{figures['lines']:,} lines", "Cold, s", FASTER, "Warm, s", FASTER], files),
        *_failures(figures["files"]),
        "",
        *table(
            [f"One sentence of {single['lines']}, warm", "Median, ms", "9 of 10 within, ms", "Longest, ms"], sentences
        ),
        "",
        *table(
            [
                "One line, cold",
                "By the clock, s",
                "of it TensorFlow and Keras, s",
                "and our modules, s",
                "Peak memory, MB",
            ],
            [
                [
                    "`nmt translate`",
                    spread(one["seconds"], 1),
                    *(f"{x:.1f}" for x in one["imports"].values()),
                    spread(one["peak_mb"]),
                ]
            ],
        ),
    ]


def _memory(figures: dict, results: Results) -> list[str]:
    course = figures["course"]
    return [
        f"{figures['lines']:,} lines in {figures['seconds']:,.0f} s; at most {figures['peak_mb']:,} MB.",
        "",
        *table(
            ["Second", *(f"{at['seconds']:,.0f}" for at in course)],
            [["Resident, MB", *(f"{at['mb']:,}" for at in course)]],
        ),
    ]


def _scale(figures: list[dict], results: Results) -> list[str]:
    smallest = _column(figures[0]["again"], "pieces_per_second")
    rows = [
        [
            f"{entry['pairs']:,}",
            spread(_column(entry["again"], "pieces_per_second")),
            ratio(_column(entry["again"], "pieces_per_second"), smallest),
            f"{entry['first']['startup_seconds']:.1f}",
            spread(_column(entry["again"], "startup_seconds"), 1),
            spread(_column(entry["again"], "peak_mb")),
        ]
        for entry in figures
    ]
    header = ["Training pairs", "Target tokens/s", "of the first row", "First start-up, s", "Later start-ups, s"]
    return table([*header, "Peak memory, MB"], rows)


def _ceiling(figures: dict, results: Results) -> list[str]:
    products = [[name, spread(values)] for name, values in figures["gflops"].items()]
    counts = figures["mflop_per_piece"]
    names = list(next(iter(counts.values())))
    rows = [
        [title, *(f"{found[name]:.1f}" for name in names), f"{sum(found.values()):.1f}"]
        for title, found in counts.items()
    ]
    lengths = f"{figures['source_length']:.1f} source and {figures['target_length']:.1f} target pieces"
    return [
        *table([f"Product of {figures['size']:,} × {figures['size']:,}", "GFLOP/s"], products),
        "",
        *table(["MFLOP a target token", *names, "in all"], rows),
        "",
        f"For sentences of {lengths}, EOS counted.",
    ]


def _serving(figures: dict, results: Results) -> list[str]:
    rows = []
    ways = figures["ways"]
    slowest = next(iter(ways.values()))
    for way, cells in ways.items():
        for clients, cell in cells.items():
            speed = cell["requests_per_second"]
            rows.append(
                [
                    way,
                    clients,
                    f"{speed:,.1f}",
                    NONE if cells is slowest else f"{speed / slowest[clients]['requests_per_second']:.2f} ×",
                    *(f"{cell[name]:,.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
                    f"{cell['wrong']} of {cell['checked']:,}",
                    f"{cell['cores']:.2f}",
                ]
            )
    header = ["", "Clients", "Requests/s", "of one at a time", "p50, ms", "p95, ms", "p99, ms"]
    return [
        f"{figures['sentences']} sentences; {figures['seconds']:g} s each; Locust {figures['locust']}.",
        "",
        *table([*header, "Wrong answers", "Cores used by Locust"], rows),
    ]


def _soak(figures: dict, results: Results) -> list[str]:
    killed, stopped, memory = figures["killed"], figures["stopped"], figures["memory"]

    def answers(found: dict) -> str:
        others = {status: count for status, count in found["statuses"].items() if status not in ("0", "200")}
        named = "".join(f", {count:,} by {status}" for status, count in sorted(others.items()))
        return (
            f"{found['checked']:,} requests answered by 200{named}; {found['wrong']} wrong answers, "
            f"{found['swapped']} of them another's"
        )

    return [
        f"{figures['minutes']:g} minutes, {figures['clients']} clients, a queue of {figures['queue']} texts: "
        f"{answers(figures)}; {figures['lost']} without an answer. {figures['requests_per_second']:.1f} requests/s, "
        f"p50 {figures['p50_ms']:,.0f} ms, p99 {figures['p99_ms']:,.0f} ms. Resident memory grew by "
        f"{figures['growth_mb']:.1f} MB from the second minute to the last.",
        "",
        *table(
            ["Second", *(f"{at['seconds']:,.0f}" for at in memory)],
            [["Resident, MB", *(f"{at['mb']:,}" for at in memory)]],
        ),
        "",
        f"Killed, and away for {killed['away_seconds']} s: {killed['answered_before']:,} answers before and "
        f"{killed['answered_after']:,} after; {answers(killed)}; {killed['lost_before']} requests were lost with it.",
        "",
        f"Stopped, within {stopped['away_seconds']} s and with exit code {stopped['exit_code']}: {answers(stopped)}; "
        f"{stopped['lost_before']} requests sent before the signal stayed without an answer.",
    ]


def _failures(systems: Mapping[str, dict]) -> list[str]:
    """What stood in a system's way: the last line of its complaint."""
    reasons = [
        (entry["title"], entry["failed"].strip().splitlines()[-1]) for entry in systems.values() if "failed" in entry
    ]
    return [line for title, reason in reasons for line in ("", f"{title} did not run to its end: {reason}")]


def _provenance(record: dict) -> str:
    settings, text = record["settings"], record["text"]
    shared = text and f"{text['name']}: {text['num_train']:,} training pairs, {text['num_pieces']:,} pieces. "
    versions = "; ".join(
        ", ".join(f"{name} {number}" for name, number in of.items()) for of in record["versions"].values()
    )
    return (
        f"*{record['date']}, `{record['command']}`. {record['machine']}; {settings['threads']} threads; "
        f"other work kept {record['other_cores']:.2f} cores busy. "
        f"{shared or ''}{versions}.*"
    )


def _column(runs: Sequence[dict], name: str) -> list[float]:
    return [run[name] for run in runs if name in run]  # what could not be measured is not there
