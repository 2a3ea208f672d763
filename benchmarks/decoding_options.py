"""Measures what each option of translation costs per sentence, compared with the model's own settings.

    python -m benchmarks.decoding_options runs/multi30k-en-de data/multi30k/val.en.gz --lines 100

Every option translates the same sentences several times in a row, and the first time is not counted because it
compiles. (In turn, options would be compiled again and again, because a model keeps a few compiled searches only.) The
model's own settings come first and, once more, last. Prefixes and required phrases are the first two words and the
longest word of the translations.
"""

import statistics
import time
from collections.abc import Callable
from datetime import date
from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import describe_machine
from benchmarks.table import make_table
from nmt.data.corpus import read_lines
from nmt.translators.markup import stream_markup
from nmt.translators.opening import open_translator
from nmt.translators.protocol import Translator

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy search": {"beam_size": 1},
    "sampling": {"beam_size": 1, "temperature": 1.0},
    "sampling, top_k 10": {"beam_size": 1, "temperature": 1.0, "top_k": 10},
    "no_repeat_ngram 4": {"no_repeat_ngram": 4},
    "repetition_penalty 1.2": {"repetition_penalty": 1.2},
    "coverage_penalty 0.2": {"coverage_penalty": 0.2},
    "on_warning retry": {"on_warning": "retry"},
    "mbr chrf, 16 candidates": {"mbr": "chrf"},
    "mbr bleu, 16 candidates": {"mbr": "bleu"},
}


def list_options(model: Path, sources: list[str]) -> dict[str, Callable[[], object]]:
    """Returns what to run for each option; all of them translate the sources, except scores and alternatives."""
    plain = open_translator(model)
    targets = plain.translate(sources)
    prefixes = [" ".join(text.split()[:2]) for text in targets]
    required = [[max(text.split(), key=len)] if text.split() else [] for text in targets]
    marked = ["{{" + first + "}} " + rest for first, _, rest in (text.partition(" ") for text in sources)]
    html = [f"<b>{escape(first)}</b> {escape(rest)}" for first, _, rest in (text.partition(" ") for text in sources)]

    def translate(translator: Translator, texts: list[str] = sources, **options: Any) -> Callable[[], object]:
        return lambda: translator.translate_texts(texts, split=False, **options)

    return {
        "own settings": translate(plain),
        **{name: translate(plain.with_settings(**changes)) for name, changes in SETTINGS.items()},
        "n-best list of 5": translate(plain, n_best=5),
        "attention": translate(plain, attention=True),
        "prefix": translate(plain, prefixes=prefixes),
        "required phrase": translate(plain, required=required),
        "marks": translate(plain.with_terms(marks=True), marked),
        "markup": lambda: list(stream_markup(plain, html)),
        "reranking by a model of the same size": translate(open_translator(model, rerank=model)),
        "scores of given translations": lambda: list(plain.score(zip(sources, targets, strict=True))),
        "5 alternatives after a prefix": lambda: plain.list_alternatives(sources, prefixes),
        "own settings, again": translate(plain),
    }


def measure(options: dict[str, Callable[[], object]], num_texts: int, rounds: int) -> dict[str, list[float]]:
    """Returns the milliseconds per sentence of each option in each round."""
    found: dict[str, list[float]] = {}
    for name, run in options.items():
        run()
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - started) / num_texts)
        found[name] = times
    return found


def main(
    model: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    source: Annotated[Path, typer.Argument(help="File of sentences, plain or compressed.")],
    lines: Annotated[int, typer.Option(min=1, help="Sentences to read.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median is shown.")] = 3,
) -> None:
    """Print the cost of each option of translation as a Markdown table."""
    sources = read_lines(source)[:lines]
    found = measure(list_options(model, sources), len(sources), rounds)
    medians = {name: statistics.median(values) for name, values in found.items()}
    base = medians["own settings"]
    rows = [
        [name, f"{value:.1f} ({min(found[name]):.1f}–{max(found[name]):.1f})", f"{value / base:.2f}"]
        for name, value in medians.items()
    ]
    print("\n".join(make_table(["Option", "ms per sentence", "Ratio"], rows)))
    print(f"\n*{date.today().isoformat()}, {len(sources)} sentences, {rounds} rounds. {describe_machine()}.*")


if __name__ == "__main__":
    typer.run(main)
