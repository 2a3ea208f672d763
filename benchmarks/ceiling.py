"""Measures the peak speed of the machine, and counts the arithmetic of the models."""

import sys

from benchmarks.arithmetic import count_mflop
from benchmarks.corpus import ROOT, Text
from benchmarks.environment import DRIVERS
from benchmarks.measure import run_driver
from benchmarks.peers import TRAINING
from benchmarks.settings import Settings

SIZE = 2048


def measure(settings: Settings, text: Text) -> dict:
    """Times the product of two large matrices, and counts the products of each model."""
    job = {"size": SIZE, "seconds": 2 if settings.quick else 10}
    found = []
    for _ in range(settings.rounds):
        run = run_driver(
            [sys.executable, str(DRIVERS / "run_matmul.py")],
            job,
            folder=settings.work / "ceiling",
            threads=settings.threads,
            environment={"PYTHONPATH": str(ROOT)},
        )
        found.append(run.report)
        print(f"ceiling: {run.report}", flush=True)
    lengths = {"source_length": text.source_length, "target_length": text.target_length}
    counts = {system.title: count_mflop(system.shapes(text.vocabulary_size), **lengths) for system in TRAINING}
    return {
        "size": SIZE,
        "gflops": {name: [round(run[name], 1) for run in found] for name in ("float32", "bfloat16")},
        "tensorflow": found[0]["tensorflow"],
        **lengths,
        "mflop_per_piece": counts,
    }
