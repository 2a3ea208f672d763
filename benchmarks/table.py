"""Renders docs/explanation/benchmarks.md: page.md with a table for each result."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.ratios import Spread, compute_ratio

PAGE = Path(__file__).parent / "page.md"
NONE = "–"
COMMANDS = {"soak": "serving --soak 10"}
COMPARED = "Compared with nmt, float32"

Results = Mapping[str, dict]


def render(results: Results) -> str:
    """Renders the whole page.

    Args:
        results: records of `results.load_all`, by part. The page names the command for a part that is missing.
    """
    sections: dict[str, Callable[[Any, Results], list[str]]] = {
        "training": _render_training,
        "translation": _render_translation,
        "latency": _render_latency,
        "memory": _render_memory,
        "scale": _render_scale,
        "ceiling": _render_ceiling,
        "serving": _render_serving,
        "soak": _render_soak,
    }
    rendered = {}
    for part, section in sections.items():
        if part in results:
            lines = [*section(results[part]["figures"], results), "", _render_provenance(results[part])]
        else:
            lines = [f"Not measured yet: `python -m benchmarks {COMMANDS.get(part, part)}`."]
        rendered[part] = "\n".join(lines)
    return PAGE.read_text(encoding="utf-8").format_map(rendered)


def make_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table whose columns, except the first, are right-aligned.

    >>> make_table(["System", "tokens/s"], [["a", "1"]])
    ['| System | tokens/s |', '| --- | ---: |', '| a | 1 |']
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def format_spread(values: Sequence[float], digits: int = 0) -> str:
    """Formats the median, and the minimum and maximum if there are several values.

    >>> format_spread([1200.4, 1100, 1300]), format_spread([2.54], 1), format_spread([])
    ('1,200 (1,100–1,300)', '2.5', '–')
    """
    if not values:
        return NONE
    found = Spread.from_values(values)
    middle = f"{found.median:,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({found.minimum:,.{digits}f}–{found.maximum:,.{digits}f})"


def compare(own: Sequence[float], baseline: Sequence[float]) -> str:
    """Formats how much faster or slower a system is than its baseline, as a factor of 1 or more.

    Args:
        own: speeds of the system, by run. Pass `baseline` and `own` in reverse for seconds.
        baseline: speeds of the runs that it is compared with. If there are not as many, no factor can be given.

    >>> compare([8.0, 9.0, 10.0], [2.0, 2.0, 2.0]), compare([2.0, 2.0, 2.0], [8.0, 9.0, 10.0])
    ('4.50 × faster (4.00–5.00)', '4.50 × slower (4.00–5.00)')
    >>> compare([8.0, 8.0], [8.0, 8.0]), compare([8.0], [])
    ('1.00 × (1.00–1.00)', '–')
    """
    if not baseline or len(own) != len(baseline):
        return NONE
    found, word = compute_ratio(own, baseline), " faster"
    if found.median < 1:
        found, word = compute_ratio(baseline, own), " slower"
    factor = f"{found.median:.2f}"
    return f"{factor} ×{'' if factor == '1.00' else word} ({found.minimum:.2f}–{found.maximum:.2f})"


def render_replicas(figures: Mapping[str, Sequence[float]]) -> list[str]:
    """Returns a table of milliseconds per update, each arrangement compared with the first, run by run.

    >>> render_replicas({"1 device": [100.0, 200.0], "2 devices": [110.0, 240.0]})[3]
    '| 2 devices | 175.0 (110.0–240.0) | 1.15 × slower (1.10–1.20) |'
    """
    name, first = next(iter(figures.items()))
    rows = [
        [other, format_spread(values, 1), NONE if other == name else compare(first, values)]
        for other, values in figures.items()
    ]
    return make_table(["The same batches on", "ms per update", f"Compared with {name}"], rows)


def _render_training(figures: dict, results: Results) -> list[str]:
    systems = figures["systems"]
    rows = []
    for entry in systems.values():
        runs = entry["runs"]
        speeds = _get_column(runs, "pieces_per_second")
        cells = [
            entry["title"],
            format_spread(speeds),
            compare(speeds, _get_column(entry["beside"], "pieces_per_second")),
            *_format_share_of_ceiling(entry, speeds, results),
            format_spread(_get_column(runs, "peak_mb")),
            format_spread(_get_column(runs, "startup_seconds"), 1),
        ]
        rows.append(cells)
    header = ["System", "Target tokens/s", COMPARED, "MFLOP per token", "Share of float32 peak"]
    return [*make_table([*header, "Peak memory, MB", "Start-up, s"], rows), *_render_failures(systems)]


def _format_share_of_ceiling(entry: dict, speeds: Sequence[float], results: Results) -> tuple[str, str]:
    """Formats the counted MFLOP per token, and the speed as a share of the float32 peak."""
    if "ceiling" not in results:
        return NONE, NONE
    ceiling = results["ceiling"]["figures"]
    mflop = sum(ceiling["mflop_per_piece"][entry["title"]].values())
    share = median(speeds) * mflop / 1e3 / median(ceiling["gflops"]["float32"]) if speeds else None
    return f"{mflop:.1f}", NONE if share is None else f"{100 * share:.0f} %"


def _render_translation(figures: dict, results: Results) -> list[str]:
    lines = [f"{figures['lines']:,} lines. Models trained for {figures['updates']:,} updates."]
    for name, title in (("beam", "Beam 5"), ("plain", "Beam 5, no pruning"), ("greedy", "Greedy")):
        rows = []
        for entry in figures[name].values():
            runs = entry["runs"]
            speeds = _get_column(runs, "sentences_per_second")
            cells = [
                entry["title"],
                format_spread(speeds, 1),
                compare(speeds, _get_column(entry["beside"], "sentences_per_second")),
                format_spread(_get_column(runs, "first_pass_seconds"), 1),
                format_spread(_get_column(runs, "bleu")[:1], 2),
                format_spread(_get_column(runs, "pieces_per_line")[:1], 1),
                format_spread(_get_column(runs, "peak_mb")),
                format_spread(_get_column(runs, "startup_seconds"), 1),
            ]
            rows.append(cells)
        header = [title, "Sentences/s", COMPARED, "First pass, s", "BLEU", "Tokens per line"]
        lines += ["", *make_table([*header, "Peak memory, MB", "Start-up, s"], rows), *_render_failures(figures[name])]
    return lines


def _render_latency(figures: dict, results: Results) -> list[str]:
    single, one = figures["one_by_one"], figures["one_line"]
    files = []
    for entry in figures["files"].values():
        runs, beside = entry["runs"], entry["beside"]
        cells = [entry["title"]]
        for column in ("cold", "warm"):
            seconds = _get_column(runs, column)
            cells += [format_spread(seconds, 1), compare(_get_column(beside, column), seconds)]
        files.append(cells)
    sentences = [
        [name, *(format_spread(_get_column(single[name], column), 1) for column in ("median_ms", "p90_ms", "max_ms"))]
        for name in single
        if name != "lines"
    ]
    return [
        *make_table([f"{figures['lines']:,} lines", "Cold, s", COMPARED, "Warm, s", COMPARED], files),
        *_render_failures(figures["files"]),
        "",
        *make_table(
            [f"One of {single['lines']} sentences, warm", "Median, ms", "90th percentile, ms", "Maximum, ms"], sentences
        ),
        "",
        *make_table(
            [
                "One line, cold",
                "Total, s",
                "Import of TensorFlow and Keras, s",
                "Import of nmt, s",
                "Peak memory, MB",
            ],
            [
                [
                    "`nmt translate`",
                    format_spread(one["seconds"], 1),
                    *(f"{x:.1f}" for x in one["imports"].values()),
                    format_spread(one["peak_mb"]),
                ]
            ],
        ),
    ]


def _render_memory(figures: dict, results: Results) -> list[str]:
    course = figures["course"]
    return [
        f"{figures['lines']:,} lines took {figures['seconds']:,.0f} s and at most {figures['peak_mb']:,} MB.",
        "",
        *make_table(
            ["Elapsed, s", *(f"{at['seconds']:,.0f}" for at in course)],
            [["Resident memory, MB", *(f"{at['mb']:,}" for at in course)]],
        ),
    ]


def _render_scale(figures: list[dict], results: Results) -> list[str]:
    smallest = _get_column(figures[0]["again"], "pieces_per_second")
    rows = [
        [
            f"{entry['pairs']:,}",
            format_spread(_get_column(entry["again"], "pieces_per_second")),
            NONE if entry is figures[0] else compare(_get_column(entry["again"], "pieces_per_second"), smallest),
            f"{entry['first']['startup_seconds']:.1f}",
            format_spread(_get_column(entry["again"], "startup_seconds"), 1),
            format_spread(_get_column(entry["again"], "peak_mb")),
        ]
        for entry in figures
    ]
    header = [
        "Training pairs",
        "Target tokens/s",
        "Compared with the first row",
        "First start-up, s",
        "Later start-ups, s",
    ]
    return make_table([*header, "Peak memory, MB"], rows)


def _render_ceiling(figures: dict, results: Results) -> list[str]:
    products = [[name, format_spread(values)] for name, values in figures["gflops"].items()]
    counts = figures["mflop_per_piece"]
    names = list(next(iter(counts.values())))
    rows = [
        [title, *(f"{found[name]:.1f}" for name in names), f"{sum(found.values()):.1f}"]
        for title, found in counts.items()
    ]
    lengths = f"{figures['source_length']:.1f} source and {figures['target_length']:.1f} target tokens"
    return [
        *make_table([f"Product of two {figures['size']:,} × {figures['size']:,} matrices", "GFLOP/s"], products),
        "",
        *make_table(["MFLOP per target token", *names, "total"], rows),
        "",
        f"The average sentence has {lengths}, with EOS.",
    ]


def _render_serving(figures: dict, results: Results) -> list[str]:
    rows = []
    ways = figures["ways"]
    slowest_name, slowest = next(iter(ways.items()))
    for way, cells in ways.items():
        for clients, cell in cells.items():
            speed = cell["requests_per_second"]
            rows.append(
                [
                    way,
                    clients,
                    f"{speed:,.1f}",
                    NONE if cells is slowest else _format_factor(speed, slowest[clients]["requests_per_second"]),
                    *(f"{cell[name]:,.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
                    f"{cell['wrong']} of {cell['checked']:,}",
                    f"{cell['cores']:.2f}",
                ]
            )
    header = ["Mode", "Clients", "Requests/s", f"Compared with {slowest_name}", "p50, ms", "p95, ms", "p99, ms"]
    return [
        f"{figures['sentences']} sentences, {figures['seconds']:g} s per row, Locust {figures['locust']}.",
        "",
        *make_table([*header, "Wrong answers", "Cores used by Locust"], rows),
    ]


def _render_soak(figures: dict, results: Results) -> list[str]:
    killed, stopped, memory = figures["killed"], figures["stopped"], figures["memory"]
    phases = [
        (f"{figures['minutes']:g} minutes of overload", figures, figures["lost"]),
        ("killed and restarted", killed, killed["lost_before"]),
        ("stopped", stopped, stopped["lost_before"]),
    ]
    # "0" stands for requests without an answer, most of them sent while no server was running.
    refusals = sorted({status for _, found, _ in phases for status in found["statuses"]} - {"0", "200"})
    rows = [
        [
            name,
            f"{found['checked']:,}",
            *(f"{found['statuses'].get(status, 0):,}" for status in refusals),
            str(found["wrong"]),
            str(found["swapped"]),
            str(lost),
        ]
        for name, found, lost in phases
    ]
    header = ["Phase", *(f"HTTP {status}" for status in ("200", *refusals)), "Wrong", "Swapped", "Lost"]
    return [
        f"{figures['clients']} clients and a queue of {figures['queue']} texts. Under overload the server answers "
        f"{figures['requests_per_second']:.1f} requests/s, with a p50 of {figures['p50_ms']:,.0f} ms and a p99 of "
        f"{figures['p99_ms']:,.0f} ms. Its resident memory grew by {figures['growth_mb']:.1f} MB from the second "
        "minute to the last.",
        "",
        *make_table(header, rows),
        "",
        "A request is lost if it gets no answer. For a kill or a stop, only requests sent before the signal count.",
        "",
        *make_table(
            ["Elapsed, s", *(f"{at['seconds']:,.0f}" for at in memory)],
            [["Resident memory, MB", *(f"{at['mb']:,}" for at in memory)]],
        ),
        "",
        f"The killed server was away for {killed['away_seconds']} s. It gave {killed['answered_before']:,} answers "
        f"before and {killed['answered_after']:,} after. The stopped server exited within {stopped['away_seconds']} s "
        f"with code {stopped['exit_code']}.",
    ]


def _render_failures(systems: Mapping[str, dict]) -> list[str]:
    """Returns a paragraph for each system that failed, with the last line of its error message."""
    reasons = [
        (entry["title"], entry["failed"].strip().splitlines()[-1]) for entry in systems.values() if "failed" in entry
    ]
    return [line for title, reason in reasons for line in ("", f"{title} failed: {reason}")]


def _format_factor(own: float, baseline: float) -> str:
    """Formats the factor between two single speeds."""
    return compare([own], [baseline]).partition(" (")[0]


def _render_provenance(record: dict) -> str:
    settings, text = record["settings"], record["text"]
    shared = ""
    if text:
        shared = (
            f"{text['name']}: {text['num_train']:,} training pairs, {text['num_pieces']:,} tokens in the vocabulary. "
        )
    versions = ". ".join(
        ", ".join(f"{name} {number}" for name, number in packages.items()) for packages in record["versions"].values()
    )
    # A difference of two clocks, which may come out slightly below 0.
    others = max(0.0, record["other_cores"])
    return (
        f"*{record['date']}, `{record['command']}`. {record['machine']}, {settings['threads']} threads. "
        f"Other programs used {others:.2f} cores. {shared}{versions}.*"
    )


def _get_column(runs: Sequence[dict], name: str) -> list[float]:
    """Returns one figure of every run in which it was measured."""
    return [run[name] for run in runs if name in run]
