"""Measures a Transformer of OpenNMT-py in CTranslate2, with int8 weights, and models of nmt beside it.

All translate in turns, each time in a new process, on the same cores.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.corpus import ROOT, join_tokens, write_lines
from benchmarks.environment import DRIVERS, TORCH, Environment
from benchmarks.equal_time import TRANSLATION
from benchmarks.machine import OtherWork
from benchmarks.measure import run_driver
from benchmarks.results import describe_run
from benchmarks.settings import BEAM_SIZE
from benchmarks.table import format_spread, make_table
from nmt.data.corpus import read_lines, read_parallel
from nmt.data.tokenizer import Tokenizer
from nmt.evaluation.metrics import bleu
from nmt.files import atomic_write

ENVIRONMENT = Environment(
    name="ctranslate2", python="3.11", packages=[TORCH, "numpy<2.4", "setuptools<81", "ctranslate2==4.8.5"]
)
PASSES = 3
"""Passes over the text in one process. The first may compile and does not count."""


def compare_engines(
    checkpoint: Path,
    tokenizer: Tokenizer,
    models: Sequence[Path],
    into: Path,
    *,
    text: tuple[Path, Path],
    language: str,
    threads: int,
    rounds: int,
    command: str,
) -> str:
    """Translates with CTranslate2 and each model in turns, and writes ctranslate2.json to a folder.

    Args:
        checkpoint: a Transformer of OpenNMT-py, such as averaged/model_step_0.pt of `equal_time`.
        tokenizer: its tokenizer.
        models: model folders or exports of nmt.
        text: source and reference.
        language: of the reference.
        threads: of each system, one per core.
        command: to be written down.

    Returns:
        The table, in Markdown.
    """
    other, (sources, references) = OtherWork(), read_parallel(*text)
    peer = [str(ENVIRONMENT.build()), str(DRIVERS / "run_ctranslate2.py")]
    converted = {"task": "convert", "checkpoint": str(checkpoint), "model": str(into / "int8")}
    run_driver(peer, converted, folder=into / "convert", threads=threads, environment={"PYTHONPATH": ""})
    for name, lines in (("text", sources), ("tokens", [" ".join(tokenizer.tokenize(line)) for line in sources])):
        write_lines(into / f"{name}.txt", lines)

    jobs: dict[str, tuple[list[str], dict[str, Any]]] = {
        # Several batches at once suit a file. Threads inside a batch are what a single request can use.
        f"CTranslate2, int8, {workers} × {threads // workers} threads": (
            peer,
            {
                "model": str(into / "int8"),
                "source": str(into / "tokens.txt"),
                "workers": workers,
                "training": TRANSLATION,
            },
        )
        for workers in sorted({1, threads})
    }
    for model in models:
        training: dict[str, int | None] = {**TRANSLATION, "batch_sentences": None}
        job: dict[str, Any] = {"model": str(model.absolute()), "source": str(into / "text.txt"), "training": training}
        jobs[f"nmt, {model}"] = [sys.executable, str(DRIVERS / "run_nmt.py")], job

    systems: dict[str, dict[str, Any]] = {name: {"speeds": [], "peaks": []} for name in jobs}
    for _ in range(rounds):
        for number, (name, (driver, job)) in enumerate(jobs.items(), start=1):
            folder, is_peer = into / f"system-{number}", driver is peer
            output = folder / "translations.txt"
            run = run_driver(
                driver,
                {**job, "task": "translate", "output": str(output), "beam_size": BEAM_SIZE, "passes": PASSES},
                folder=folder,
                threads=threads,
                environment={"PYTHONPATH": "" if is_peer else str(ROOT)},
            )
            lines = join_tokens(tokenizer, read_lines(output)) if is_peer else read_lines(output)
            found = systems[name]
            found["speeds"].append(len(lines) / median(run.report["seconds"][1:]))
            found["peaks"].append(run.peak_mb)
            found["bleu"] = bleu(lines, references, target_language=language)
    versions = {name: version(name) for name in ("tensorflow", "keras")} | ENVIRONMENT.get_versions(("ctranslate2",))
    record = {
        **describe_run(command),
        "other_cores": round(other.measure_cores(), 2),
        "versions": versions,
        "sentences": len(sources),
        "systems": systems,
    }
    with atomic_write(into / "ctranslate2.json") as aside:
        aside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return render(record)


def render(record: Mapping[str, Any]) -> str:
    """Returns the table of a record and where it is from, in Markdown."""
    rows = [
        [name, format_spread(found["speeds"]), f"{found['bleu']:.2f}", format_spread(found["peaks"])]
        for name, found in record["systems"].items()
    ]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        *make_table(["System", "Sentences/s", "BLEU", "Peak memory, MB"], rows),
        "",
        f"*{record['date']}, `{record['command']}`, {record['sentences']:,} sentences. Other programs used "
        f"{record['other_cores']:.2f} cores. {record['machine']}. {versions}.*",
    ]
    return "\n".join(lines) + "\n"
