"""Trains a model of OpenNMT-py on the text of a recipe for so many minutes, and scores it on the dev text.

Both toolkits read the same tokens: the tokenizer is the one that the recipe names, or is trained as by `nmt train`. The
minutes count from the first update on. The translations are kept, so that `nmt compare` can compare them with those of
nmt.
"""

import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.corpus import join_tokens, list_tokens, write_lines
from benchmarks.environment import DRIVERS
from benchmarks.machine import OtherWork
from benchmarks.measure import run_driver
from benchmarks.opennmt_py import ENVIRONMENT
from benchmarks.results import describe_run
from benchmarks.settings import BEAM_SIZE
from benchmarks.table import make_table
from nmt.config.file import load_config
from nmt.config.schema import Config, DataConfig
from nmt.data.corpus import read_lines, read_parallel
from nmt.data.preparation import load_tokenizers, train_tokenizers
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.evaluation.metrics import bleu
from nmt.files import atomic_write

MODELS: dict[str, dict[str, Any]] = {
    # OpenNMT-py's defaults: two layers of 500 units, dropout of 0.3, SGD with a rate of 1, 64 sentences. Only the
    # bucket in which pairs are sorted is smaller. The default one has copies of sentences, of which a batch takes one.
    "lstm": {"bucket_size": 65536, "save_checkpoint_steps": 5000},
    # Transformer-Tiny of Wu et al. (2021), "Good for Misconceived Reasons: An Empirical Revisiting on the Need for
    # Visual Context in Multimodal Machine Translation". The highest rate is 2.5 / sqrt(128 * 2000), which is 0.005.
    "transformer": {
        "share_vocab": True,
        "share_embeddings": True,
        "share_decoder_embeddings": True,
        "encoder_type": "transformer",
        "decoder_type": "transformer",
        "position_encoding": True,
        "enc_layers": 4,
        "dec_layers": 4,
        "hidden_size": 128,
        "word_vec_size": 128,
        "heads": 4,
        "transformer_ff": 256,
        "dropout": [0.3],
        "attention_dropout": [0.1],
        "param_init": 0,
        "param_init_glorot": True,
        "label_smoothing": 0.1,
        "optim": "adam",
        "adam_beta2": 0.98,
        "max_grad_norm": 0,
        "decay_method": "noam",
        "warmup_steps": 2000,
        "learning_rate": 2.5,
        "batch_type": "tokens",
        "batch_size": 4096,
        "normalization": "tokens",
        "bucket_size": 32768,
    },
}
NUM_AVERAGED = 10
COMMON = {"num_workers": 1, "prefetch_factor": 100, "report_every": 500, "save_checkpoint_steps": 500}
TRANSLATION = {"max_length": 150, "batch_sentences": 64}
# OpenNMT-py's default, with which a score is divided by the length.
SEARCH = ["-length_penalty", "avg"]

Checkpoint = Sequence[Any]  # updates, seconds, path


def train_and_score(
    recipe: str, model: str, into: Path, *, minutes: float, seed: int, threads: int, gpu: bool, command: str
) -> str:
    """Trains, translates the dev text with checkpoints on the way and the last one, and writes results.json.

    Args:
        recipe: name of a recipe or file.
        model: one of `MODELS`.
        into: folder of the text, the tokenizer, the checkpoints, the translations and the results.
        gpu: whether to train on a GPU, with the PyTorch and the OpenNMT-py of this environment.
        command: to be written down.

    Returns:
        The table, in Markdown.
    """
    if model not in MODELS:
        raise UserError(f"Expected one of {', '.join(MODELS)}, found {model}.")
    config, other = load_config(recipe), OtherWork()
    source, target = config.data.source_language, config.data.target_language
    num_pairs = write_text(config, into)
    interpreter = sys.executable if gpu else str(ENVIRONMENT.build())

    def run(task: str, **values: Any) -> dict[str, Any]:
        driver, job = [interpreter, str(DRIVERS / "run_opennmt_py.py")], {"task": task, "gpu": gpu, **values}
        environment = {} if gpu else {"PYTHONPATH": ""}
        return run_driver(driver, job, folder=into / task, threads=threads, environment=environment).report

    trained = run(
        "train_for",
        seconds=60 * minutes,
        options={**COMMON, **MODELS[model]},
        model=str(into / "checkpoints"),
        vocabulary=str(into / "vocabulary.txt"),
        train=str(into / "train"),
        dev=str(into / "dev"),
        source_language=source,
        target_language=target,
        seed=seed,
    )
    checkpoints, (_, references) = trained["checkpoints"], read_dev(config)
    tokenizer = Tokenizer.load(into / "tokenizer.model")
    curve: list[dict[str, Any]] = []
    for averaged in choose_averages(checkpoints) if model == "transformer" else [checkpoints[-1:]]:
        updates, seconds, _ = averaged[-1]
        run("average", model=str(into / "averaged"), checkpoints=[path for _, _, path in averaged])
        output = into / f"dev.{updates:06d}.txt"
        run(
            "translate",
            model=str(into / "averaged"),
            source=str(into / f"dev.{source}"),
            output=str(output),
            beam_size=BEAM_SIZE,
            passes=1,
            training=TRANSLATION,
            search=SEARCH,
        )
        lines = join_tokens(tokenizer, read_lines(output))
        write_lines(output, lines)
        score = bleu(lines, references, target_language=target)
        curve.append({"updates": updates, "minutes": seconds / 60, "averaged": len(averaged), "bleu": score})
    updates, seconds, _ = checkpoints[-1]
    record = {
        **describe_run(command),
        "other_cores": round(other.measure_cores(), 2),
        "versions": ENVIRONMENT.get_versions(("OpenNMT-py", "torch", "numpy")),
        "seed": seed,
        "updates_per_second": updates / seconds,
        "epochs": trained["num_pairs"] / num_pairs,
        "options": MODELS[model],
        "curve": curve,
    }
    with atomic_write(into / "results.json") as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return render(record)


def write_text(config: Config, into: Path) -> int:
    """Writes the recipe's tokenizer, its vocabulary and the tokens of both texts. Returns the number of training pairs.

    Raises:
        UserError: the recipe has two tokenizers, although the models share their embeddings, or it has weights, tags or
            placeholders.
    """
    check_text(config.data)
    named = load_tokenizers(config.tokenizer, into)
    if named[0] is not named[1] if named else not config.tokenizer.joint:
        raise UserError("Expected a recipe with one tokenizer for both languages, found two.")
    pairs = [
        pair for files in config.data.train for pair in zip(*read_parallel(files.source, files.target), strict=True)
    ]
    pairs = [pair for pair in pairs if all(map(str.strip, pair))]
    sources, targets = zip(*pairs, strict=True)
    tokenizer, _ = named or train_tokenizers(config.tokenizer, sources, targets, seed=config.seed)
    into.mkdir(parents=True, exist_ok=True)
    tokenizer.save(into / "tokenizer.model")
    write_lines(into / "vocabulary.txt", list_tokens(tokenizer))
    # Tatoeba is sorted by length, and OpenNMT-py shuffles only within a bucket.
    random.Random(1).shuffle(pairs)
    texts: dict[str, Iterable[Sequence[str]]] = {"train": zip(*pairs, strict=True), "dev": read_dev(config)}
    for part, sides in texts.items():
        for language, lines in zip((config.data.source_language, config.data.target_language), sides, strict=True):
            write_lines(into / f"{part}.{language}", [" ".join(tokenizer.tokenize(line)) for line in lines])
    return len(pairs)


def check_text(data: DataConfig) -> None:
    """Raises UserError if nmt trains on other text than what is in the files, which OpenNMT-py is given."""
    found = [
        f"data.train.{n}.{key}"
        for n, files in enumerate(data.train)
        for key, is_set in (("weight", files.weight != 1), ("weights", files.weights), ("tag", files.tag))
        if is_set
    ]
    if data.placeholders.kinds:
        found.append("data.placeholders")
    if found:
        raise UserError(f"Expected a recipe without weights, tags and placeholders, found {', '.join(found)}.")


def read_dev(config: Config) -> tuple[list[str], list[str]]:
    """Reads the sentences and references of the first dev text."""
    files = config.dev_sets[0]
    return read_parallel(files.source, files.target)


def choose_averages(checkpoints: Sequence[Checkpoint]) -> list[Sequence[Checkpoint]]:
    """Chooses what to average for each point of the curve: every second checkpoint, and the last.

    Each point is the mean of the newest ten checkpoints, or of the newer half if that is fewer.

    >>> [list(found) for found in choose_averages("abcde")]
    [['b'], ['c', 'd'], ['c', 'd', 'e']]
    """
    points = [*range(2, len(checkpoints), 2), len(checkpoints)]
    return [checkpoints[:point][-min(NUM_AVERAGED, (point + 1) // 2) :] for point in points]


def render(record: Mapping[str, Any]) -> str:
    """Returns the curve as a table, and where it is from, in Markdown."""
    rows = [
        [f"{point['updates']:,}", f"{point['minutes']:.1f}", str(point["averaged"]), f"{point['bleu']:.2f}"]
        for point in record["curve"]
    ]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        *make_table(["Updates", "Minutes", "Checkpoints averaged", "BLEU"], rows),
        "",
        f"*{record['date']}, `{record['command']}`. {record['updates_per_second']:.2f} updates/s, "
        f"{record['epochs']:.1f} epochs. Other programs used {record['other_cores']:.2f} cores. "
        f"{record['machine']}. {versions}.*",
    ]
    return "\n".join(lines) + "\n"
