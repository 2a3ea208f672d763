"""How fast a GPU translates with our model on JAX, beside JoeyNMT and OpenNMT-py in the same run.

    python -m benchmarks translation                                 # trains the models, on any machine
    python -m benchmarks.gpu_translation --output gpu-translation.json

Needs requirements-jax.txt (with jax[cuda12] or jax[cuda13]), PyTorch for CUDA, joeynmt==2.3.0 and OpenNMT-py==3.5.1 in
one environment: the drivers are those of the benchmark on a CPU, and run by this Python. All take 64 sentences at
once; ours by itself also as many as it would. Each process translates the text several times, of which the first, with
all compilation, does not count; ours keeps its compilations from process to process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.environment import DRIVERS
from benchmarks.settings import BATCH_SENTENCES, BEAM_SIZE, MAX_LENGTH
from nmt.data.tokenizer import Tokenizer
from nmt.files import written_aside

SYSTEMS: dict[str, dict[str, Any]] = {
    "nmt": {"driver": "run_nmt.py", "model": "nmt-one-layer", "batch": BATCH_SENTENCES},
    "nmt, batches of its own": {"driver": "run_nmt.py", "model": "nmt-one-layer", "batch": None},
    "joeynmt": {"driver": "run_joeynmt.py", "model": "joeynmt", "batch": BATCH_SENTENCES},
    "opennmt-py": {"driver": "run_opennmt_py.py", "model": "opennmt-py", "batch": BATCH_SENTENCES},
}
BEAMS = (BEAM_SIZE, 1)


def main() -> None:
    """Measures in turns, says each figure as it comes, and writes all of them as JSON."""
    arguments = read_arguments()
    found: dict[str, dict[str, list[dict]]] = {f"beam {beam}": {} for beam in BEAMS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for beam in BEAMS:
                for name, system in SYSTEMS.items():
                    run = translate(arguments, system, beam, Path(folder))
                    print(f"round {number + 1}, beam {beam}, {name}: {json.dumps(run)}", flush=True)
                    found[f"beam {beam}"].setdefault(name, []).append(run)
                    with written_aside(arguments.output) as aside:
                        aside.write_text(json.dumps(found, indent=1) + "\n")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work = Path(__file__).parent / ".work" / "full"
    parser.add_argument("--work", type=Path, default=work, help="where the benchmark has its models and texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=4, help="over the text in each process")
    parser.add_argument("--output", type=Path, default=Path("gpu-translation.json"))
    return parser.parse_args()


def translate(arguments: argparse.Namespace, system: dict[str, Any], beam: int, folder: Path) -> dict[str, Any]:
    """One process of one system: its speed, and how long the first pass took and its translations are, or why it
    failed, which ends none of the others."""
    work = arguments.work.absolute()
    ours = system["driver"] == "run_nmt.py"
    job = {
        "task": "translate",
        "gpu": True,
        "model": str(work / "models" / system["model"]),
        "source": str(work / f"{'text' if ours else 'pieces'}.1000.txt"),
        "output": str(folder / "translations.txt"),
        "report": str(folder / "report.json"),
        "training": {"batch_sentences": system["batch"], "max_length": MAX_LENGTH},
        "beam_size": beam,
        "passes": arguments.passes,
        "threads": len(os.sched_getaffinity(0)),
    }
    (folder / "job.json").write_text(json.dumps(job))
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(folder / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = {**os.environ, "KERAS_BACKEND": "jax", **compiled}
    command = [sys.executable, str(DRIVERS / system["driver"]), str(folder / "job.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr[-500:]}
    lines = Path(job["output"]).read_text(encoding="utf-8").splitlines()
    first, *others = json.loads(Path(job["report"]).read_text())["seconds"]
    tokenizer = Tokenizer.load(work / "text" / "joint.model")
    # The others write pieces.
    lengths = tokenizer.count_pieces(lines).tolist() if ours else [len(line.split()) for line in lines]
    return {
        "sentences_per_second": round(len(lines) / statistics.median(others), 1),
        "first_pass_seconds": round(first, 1),
        "pieces_per_line": round(statistics.mean(lengths), 2),
    }


if __name__ == "__main__":
    main()
