"""Measures how fast a GPU trains on JAX, compared with PyTorch's cuDNN LSTM and with the peak rates of the card.

    python -m benchmarks.gpu --output gpu.json                       # random ids, with the lengths of image captions
    python -m benchmarks.gpu --corpus train.en train.de              # real text, tokenized for --vocabulary
    python -m benchmarks.gpu --recipe configs/kftt-ja-en.yaml        # the text, batches and model of a configuration
    python -m benchmarks.gpu --train configs/multi30k-en-de.yaml     # also the time to the best validation BLEU
    python -m benchmarks.gpu --smoke                                 # a tiny test that also runs on a CPU

Requires nmt[jax] (with jax[cuda12] or jax[cuda13]) and, for the comparison, PyTorch. TensorFlow is not used.

Both programs get the same padded batches and train with Adam, dropout, label smoothing and clipping. Both read the loss
of an update after the next update has started, as the trainer of nmt does. Products in float32 are TF32 on both. The
programs run in turns, so that other work on the machine slows down both. The time to compile is measured separately.
"""

import argparse
import importlib.util
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from benchmarks.gpu_work import Work, prepare_options, prepare_recipe
from nmt.config.file import load_config
from nmt.config.schema import ModelConfig, TrainingConfig
from nmt.data.batching import Batch
from nmt.errors import UserError
from nmt.files import atomic_write

PRECISIONS = ("float32", "bfloat16")
NAMES = [f"{name} {precision}" for name in ("nmt", "torch") for precision in PRECISIONS]
RATE = 1e-4
# The weights and Adam's two means are each read and written once, and the gradients are read once.
PASSES_OVER_WEIGHTS = 7
MOST_KERNELS = 12
"""Kernels per learner that are recorded by name."""
Learn = Callable[[Batch, int], Callable[[], Any]]
"""Starts an update, and returns a function that waits for its loss."""


def main() -> None:
    """Runs all measurements, prints a table and writes JSON."""
    arguments = read_arguments()
    work = prepare_recipe(Path(arguments.recipe)) if arguments.recipe else prepare_options(arguments)
    model, batches = work.model, work.batches
    makers: dict[str, Callable[[], Learn]] = {f"nmt {p}": partial(make_nmt_learner, work, p) for p in PRECISIONS}
    if importlib.util.find_spec("torch"):
        from benchmarks.torch_peer import make_torch_learner

        makers |= {f"torch {p}": partial(make_torch_learner, model, work.vocabulary, p, RATE) for p in PRECISIONS}
    learners, firsts = start_learners({name: make for name, make in makers.items() if name in arguments.only}, batches)
    record: dict[str, Any] = {
        "machine": describe_device(),
        "ceilings": measure_ceilings(arguments.smoke),
        "batches": describe(batches),
        "model": {**model.model_dump(), "vocabulary": work.vocabulary},
        "first_updates_seconds": firsts,
        "pieces_per_second": measure_speeds(learners, batches, rounds=arguments.rounds, seconds=arguments.seconds),
        "kernels": {name: sum_kernels(list_kernels(learn, batches[0])) for name, learn in learners.items()},
        "training": [],
    }
    record["shares"] = compute_shares(record, model, work.vocabulary)
    print(format_table(record), flush=True)
    write(record, arguments.output)
    for config in arguments.train:
        record["training"].append(measure_time_to_best(Path(config)))
        print(format_training(record["training"][-1]), flush=True)
        write(record, arguments.output)


def read_arguments() -> argparse.Namespace:
    """Parses the command line. --smoke makes all sizes tiny."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs=2, metavar=("SOURCE", "TARGET"))
    parser.add_argument(
        "--recipe",
        metavar="CONFIG",
        help="use its text, batches and model instead of --corpus, --pairs, --batch-size and --vocabulary",
    )
    parser.add_argument("--pairs", type=int, default=29_000, help="sentence pairs to read or to generate")
    parser.add_argument("--batch-size", type=int, default=64, help="sentence pairs per update")
    parser.add_argument("--vocabulary", type=int, default=4000, help="size of the vocabulary")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all learners, in turns")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds per round and learner")
    parser.add_argument(
        "--only", nargs="*", default=NAMES, choices=NAMES, metavar="LEARNER", help=f"any of: {', '.join(NAMES)}"
    )
    parser.add_argument("--train", nargs="*", default=[], metavar="CONFIG", help="configurations to train to the end")
    parser.add_argument("--smoke", action="store_true", help="run a tiny test")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="JSON file for all figures")
    arguments = parser.parse_args()
    if arguments.smoke:
        tiny = {"pairs": 40, "batch_size": 8, "vocabulary": 50, "rounds": 2, "seconds": 0.2}
        vars(arguments).update(tiny)
    return arguments


def make_nmt_learner(work: Work, precision: str) -> Learn:
    """Builds the update of `nmt train`, compiled for the shapes of these batches."""
    import keras

    from nmt.models.seq2seq import make_seq2seq
    from nmt.training.objective import Objective
    from nmt.training.schedules import make_optimizer
    from nmt.training.update_jax import JaxUpdate, make_mesh

    keras.utils.set_random_seed(1)
    model = make_seq2seq(
        work.model, source_vocabulary_size=work.vocabulary, target_vocabulary_size=work.vocabulary, precision=precision
    )
    model.optimizer = make_optimizer(TrainingConfig(max_updates=1))
    options = {"objective": Objective(label_smoothing=0.1), "seed": 1, "clip_norm": 1.0}
    update = JaxUpdate(model, model.optimizer, make_mesh("single"), **options)
    update.precompile(sorted({(*batch.source.shape, batch.target.shape[1]) for batch in work.batches}))
    return lambda batch, number: update.start(batch, update=number, learning_rate=RATE)


def start_learners(
    makers: dict[str, Callable[[], Learn]], batches: list[Batch]
) -> tuple[dict[str, Learn], dict[str, float]]:
    """Builds every learner and runs one update per shape. Returns the learners, and the seconds that each took."""
    of_each_shape = {(batch.source.shape, batch.target.shape): batch for batch in batches}.values()
    learners, seconds = {}, {}
    for name, make in makers.items():
        started = time.perf_counter()
        learners[name] = make()
        for number, batch in enumerate(of_each_shape, 1):
            learners[name](batch, number)()
        seconds[name] = time.perf_counter() - started
    return learners, seconds


def measure_speeds(
    learners: dict[str, Learn], batches: list[Batch], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Measures target tokens per second of every learner and round, in turns."""
    found: dict[str, list[float]] = {name: [] for name in learners}
    order = repeat_endlessly(batches)
    for _ in range(rounds):
        for name, learn in learners.items():
            found[name].append(measure_speed(learn, order, seconds))
    return found


def measure_speed(learn: Learn, batches: Iterator[Batch], seconds: float) -> float:
    """Measures target tokens per second, without padding, over at least `seconds`."""
    started, tokens, number = time.perf_counter(), 0, 0
    wait: Callable[[], Any] = int
    while time.perf_counter() - started < seconds:
        number += 1
        batch = next(batches)
        this = learn(batch, number)
        wait()
        wait = this
        tokens += batch.num_target_tokens
    wait()
    return tokens / (time.perf_counter() - started)


def list_kernels(learn: Learn, batch: Batch, updates: int = 10) -> list[dict[str, Any]]:
    """Lists the GPU kernels of an update with milliseconds and launches, longest first.

    JAX's profiler sees PyTorch's kernels too.
    """
    import jax

    milliseconds: dict[str, float] = defaultdict(float)
    launches: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for number in range(1, updates + 1):
                learn(batch, number)()
        [profile] = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(profile)).planes
        for line in (line for plane in planes if "GPU" in plane.name for line in plane.lines):
            if line.name.startswith("Stream"):  # other lines repeat the same time by operation and by program
                for event in line.events:
                    milliseconds[event.name] += event.duration_ns / 1e6 / updates
                    launches[event.name] += 1 / updates
    longest = sorted(milliseconds, key=lambda name: -milliseconds[name])
    return [{"kernel": name, "ms": milliseconds[name], "launches": launches[name]} for name in longest]


def sum_kernels(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums up all kernels and the recurrent kernels of cuDNN, and keeps the longest."""
    cudnn = [kernel for kernel in found if "RNN" in kernel["kernel"] or "LSTM" in kernel["kernel"]]
    return {
        "ms": sum(kernel["ms"] for kernel in found),
        "cudnn_ms": sum(kernel["ms"] for kernel in cudnn),
        "launches": sum(kernel["launches"] for kernel in found),
        "longest": found[:MOST_KERNELS],
    }


def repeat_endlessly(batches: list[Batch]) -> Iterator[Batch]:
    """Repeats the batches forever."""
    while True:
        yield from batches


def measure_ceilings(smoke: bool) -> dict[str, float]:
    """Measures the peak rates of the card: products of square matrices in TFLOP/s, and copying in GB/s."""
    import jax
    import jax.numpy as jnp

    size = 256 if smoke else 8192
    found = {}
    for precision in PRECISIONS:
        # A GPU multiplies matrices of ones faster than random ones.
        matrix = jax.random.normal(jax.random.key(1), (size, size), precision)
        found[f"{precision}_tflops"] = 2 * size**3 / measure_seconds(jax.jit(jnp.matmul), matrix, matrix) / 1e12
    array = jnp.ones((1 << 20 if smoke else 1 << 30,), "float32")
    found["bandwidth_gbs"] = 2 * array.nbytes / measure_seconds(jax.jit(lambda x: x + 1), array) / 1e9
    return found


def measure_seconds(function: Callable, *arrays: Any, rounds: int = 5, times: int = 10) -> float:
    """Measures the seconds per call of several queued calls, as the median of some rounds."""
    function(*arrays).block_until_ready()
    durations = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(times):
            result = function(*arrays)
        result.block_until_ready()
        durations.append((time.perf_counter() - started) / times)
    return statistics.median(durations)


def compute_shares(record: dict, config: ModelConfig, vocabulary: int) -> dict[str, dict[str, float]]:
    """Computes which share of the peak rates nmt reaches. Padding counts as arithmetic, memory traffic is a minimum."""
    from nmt.models.seq2seq import make_seq2seq

    weights = make_seq2seq(
        config, source_vocabulary_size=vocabulary, target_vocabulary_size=vocabulary
    ).trainable_variables
    sizes = {"encoder": 0, "decoder": vocabulary * config.embedding_units}
    for weight in weights:
        part = weight.path.split("/")[0]
        if part in sizes and len(weight.shape) == 2:
            sizes[part] += int(np.prod(weight.shape))
    batches = record["batches"]
    # Forward and backward take 6 operations per matrix weight and position. Attention energies are not counted.
    per_update = 6 * (sizes["encoder"] * batches["source_positions"] + sizes["decoder"] * batches["target_positions"])
    traffic = 4 * PASSES_OVER_WEIGHTS * sum(int(np.prod(weight.shape)) for weight in weights)
    found = {}
    for precision in (p for p in PRECISIONS if f"nmt {p}" in record["pieces_per_second"]):
        updates = statistics.median(record["pieces_per_second"][f"nmt {precision}"]) / batches["target_pieces"]
        found[precision] = {
            "tflops": per_update * updates / 1e12,
            "of_matrix_products": per_update * updates / 1e12 / record["ceilings"][f"{precision}_tflops"],
            "of_bandwidth_at_least": traffic * updates / 1e9 / record["ceilings"]["bandwidth_gbs"],
        }
    return found


def write(record: dict[str, Any], path: Path) -> None:
    """Writes the figures so far."""
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n")


def describe(batches: list[Batch]) -> dict[str, float]:
    """Computes means over the batches."""
    return {
        "batches": len(batches),
        "shapes": len({(batch.source.shape, batch.target.shape) for batch in batches}),
        "rows": statistics.mean(len(batch.source) for batch in batches),
        "source_positions": statistics.mean(batch.source.size for batch in batches),
        "target_positions": statistics.mean(batch.target.size for batch in batches),
        "target_pieces": statistics.mean(batch.num_target_tokens for batch in batches),
    }


def measure_time_to_best(config: Path) -> dict[str, Any]:
    """Trains a configuration, and records when its best validation came."""
    from nmt.training.train import train

    settings = load_config(config)
    started = time.monotonic()
    course: list[dict[str, Any]] = []

    def listen(line: str) -> None:
        print(line, flush=True)
        if found := re.search(r"validation: BLEU ([\d.]+)", line):
            course.append({"minutes": (time.monotonic() - started) / 60, "bleu": float(found[1]), "said": line})

    train(settings, log=listen)
    best = max(course, key=lambda point: point["bleu"])
    return {"config": str(config), "minutes_in_all": (time.monotonic() - started) / 60, "best": best, "course": course}


def describe_device() -> dict[str, str]:
    """Returns the name of the card and the versions."""
    import jax
    import keras

    found = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "keras": keras.__version__}
    if importlib.util.find_spec("torch"):
        import torch

        found |= {"torch": torch.__version__, "torch device": "cuda" if torch.cuda.is_available() else "cpu"}
    return found


def format_table(record: dict) -> str:
    """Formats all figures as a table of fixed width."""
    batches, limits = record["batches"], record["ceilings"]
    lines = [
        ", ".join(f"{name} {value}" for name, value in record["machine"].items()),
        f"{batches['rows']:.0f} pairs and {batches['target_pieces']:.0f} target tokens per update, "
        f"{batches['shapes']} shapes",
        "",
        f"{'':<16}{'tokens/s':>12}{'minimum':>12}{'maximum':>12}{'first updates':>20}{'kernels':>12}{'cuDNN':>12}",
    ]
    for name, rounds in record["pieces_per_second"].items():
        first, found = f"{record['first_updates_seconds'][name]:.1f} s", record["kernels"][name]
        lines.append(
            f"{name:<16}{statistics.median(rounds):>12,.0f}{min(rounds):>12,.0f}{max(rounds):>12,.0f}{first:>20}"
            f"{found['ms']:>9.2f} ms{found['cudnn_ms']:>9.2f} ms"
        )
    lines.append("")
    for precision, share in record["shares"].items():
        lines.append(
            f"nmt {precision}: {share['tflops']:.3g} TFLOP/s, {share['of_matrix_products']:.1%} of the peak of "
            f"{limits[f'{precision}_tflops']:.3g}. Weights take {share['of_bandwidth_at_least']:.1%} of "
            f"{limits['bandwidth_gbs']:,.0f} GB/s."
        )
    return "\n".join(lines)


def format_training(run: dict[str, Any]) -> str:
    """Formats when the best validation of a training came."""
    return (
        f"{run['config']}: best validation after {run['best']['minutes']:.1f} of {run['minutes_in_all']:.1f} minutes. "
        f"{run['best']['said']}"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
