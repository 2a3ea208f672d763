"""Measures how fast a GPU translates on JAX, compared with JoeyNMT and OpenNMT-py.

    python -m benchmarks translation                                 # trains the models, on any machine
    python -m benchmarks.gpu_translation --output gpu-translation.json

Requires nmt[jax] (with jax[cuda12] or jax[cuda13]), PyTorch for CUDA, joeynmt==2.3.0 and OpenNMT-py==3.5.1 in one
environment. The drivers are those of the CPU benchmark, run by the current Python.

All systems take 64 sentences at once. nmt is also measured with its own batch sizes. Each process translates the text
several times. The first pass includes compilation and does not count. nmt keeps its compilations for later processes.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import joeynmt, opennmt_py
from benchmarks.corpus import ROOT, Text, make_text
from benchmarks.environment import DRIVERS
from benchmarks.measure import run_driver
from benchmarks.ours import ONE_LAYER
from benchmarks.settings import BATCH_SENTENCES, BEAM_SIZE, make_settings
from benchmarks.system import TRAINING, System
from benchmarks.translation import write_first_lines
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.files import atomic_write

SYSTEMS: dict[str, tuple[System, int | None]] = {
    "nmt": (ONE_LAYER, BATCH_SENTENCES),
    "nmt, batches of its own": (ONE_LAYER, None),
    "joeynmt": (joeynmt.SYSTEM, BATCH_SENTENCES),
    "opennmt-py": (opennmt_py.SYSTEM, BATCH_SENTENCES),
}
"""Systems, and the number of sentences that each takes at once. None leaves the choice to nmt."""
BEAMS = (BEAM_SIZE, 1)


def main() -> None:
    """Measures the systems in turns, prints each figure, and writes all of them as JSON."""
    arguments = read_arguments()
    settings = make_settings(quick=False)
    text = make_text(settings.work / "text")
    found: dict[str, dict[str, list[dict]]] = {f"beam {beam}": {name: [] for name in SYSTEMS} for beam in BEAMS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for beam in BEAMS:
                for name, (system, batch) in SYSTEMS.items():
                    job = {
                        "model": str(settings.work / "models" / system.key),
                        "source": str(write_first_lines(text, system, settings.test_lines, settings.work)),
                        "training": {**TRAINING, "batch_sentences": batch},
                        "beam_size": beam,
                        "passes": arguments.passes,
                    }
                    run = translate(system, job, text, Path(folder), threads=settings.threads)
                    print(f"round {number + 1}, beam {beam}, {name}: {json.dumps(run)}", flush=True)
                    found[f"beam {beam}"][name].append(run)
                    with atomic_write(arguments.output) as aside:
                        aside.write_text(json.dumps(found, indent=1) + "\n")


def read_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes per system and beam size, in turns")
    parser.add_argument(
        "--passes", type=int, default=4, help="passes over the text in each process, the first of which does not count"
    )
    parser.add_argument("--output", type=Path, default=Path("gpu-translation.json"), help="JSON file for all figures")
    return parser.parse_args()


def translate(system: System, job: dict[str, Any], text: Text, folder: Path, *, threads: int) -> dict[str, Any]:
    """Runs one process of one system.

    Returns:
        Its speed, the seconds of its first pass and the length of its translations. If it fails, the error message
        instead, and the benchmark continues.
    """
    output = folder / "translations.txt"
    job = {**job, "task": "translate", "gpu": True, "output": str(output)}
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(DRIVERS / system.driver)]
    try:
        run = run_driver(command, job, folder=folder, threads=threads, environment=environment)
    except UserError as error:
        return {"failed": str(error)[-500:]}
    lines = read_lines(output)
    first, *others = run.report["seconds"]
    translations = text.join_tokens(lines) if system.reads_tokens else lines
    return {
        "sentences_per_second": round(len(lines) / statistics.median(others), 1),
        "first_pass_seconds": round(first, 1),
        "pieces_per_line": round(float(Tokenizer.load(text.tokenizer).count_tokens(translations).mean()), 2),
    }


if __name__ == "__main__":
    main()
