"""Trains a model with and without attention and compares their BLEU by length of sentences.

Without attention, every position of the decoder reads the same summary of the source: the encoder's states of its first
and last token (Cho et al. 2014). Everything else stays as it is. Such a model is loaded inside `remove_attention` only,
since its configuration names an attention that it does not have.

B sentences, Q queries per sentence, S source tokens, M memory units, C = 2 M context units.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.results import describe_run
from benchmarks.table import make_table
from nmt.backend import keras, ops
from nmt.config.file import load_config
from nmt.data.corpus import read_parallel
from nmt.evaluation.breakdown import Breakdown
from nmt.evaluation.metrics import bleu
from nmt.files import atomic_write
from nmt.models.attention import Attention, AttentionMemory
from nmt.training.train import train
from nmt.translators.model import ModelTranslator

# Colours of Okabe and Ito, told apart by colour-blind readers.
SYSTEMS = {"with attention": ("#0072B2", "o", "-"), "without attention": ("#D55E00", "s", "--")}


class SourceSummary(Attention):
    """Reads the states of the first and the last source token, whatever the query.

    The first one ends the backward direction of the encoder, and the last one the forward direction.

    Args:
        memory_units: M.
    """

    def __init__(self, memory_units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.context_units = 2 * memory_units
        self.built = True

    def project_memory(self, memory: Any, mask: Any) -> AttentionMemory:
        """Summarizes the memory [B, S, M], whose real tokens the mask bool [B, S] marks, as [B, 1, C]."""
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        last = ops.take_along_axis(memory, lengths[:, None, None] - 1, axis=1)  # [B, 1, M]
        summary = ops.concatenate([memory[:, :1], last], axis=-1)
        return AttentionMemory(summary, summary, mask)

    def call(self, query: Any, memory: AttentionMemory, drop_mask: Any = None) -> tuple[Any, Any]:
        """Returns the summary for each query, [B, Q, C], and equal weights, [B, Q, S]."""
        zeros = ops.zeros_like(query[..., :1])  # [B, Q, 1]
        share = ops.cast(memory.mask, "float32")[:, None]
        share = share / ops.sum(share, axis=-1, keepdims=True)
        return memory.values + zeros, share + ops.cast(zeros, "float32")


@contextmanager
def remove_attention() -> Iterator[None]:
    """Makes models that are built inside the block read a summary of the source instead of attending to it."""

    def make(kind: str, units: int, memory_units: int, *, num_heads: int, name: str, dropout: float) -> Attention:
        return SourceSummary(memory_units, name=name)

    with patch("nmt.models.decoder.make_attention", make):
        yield


def compare_by_length(
    config: str, overrides: Sequence[str], into: Path, *, test: tuple[Path, Path] | None, command: str
) -> str:
    """Trains both models, or resumes their runs, and writes without-attention.json, .md and .png to a folder.

    Args:
        config: name of a recipe or file.
        overrides: KEY=VALUE.
        into: folder of the runs and the results.
        test: source and reference to score on; the dev text by default.
        command: to be written down.

    Returns:
        The tables, in Markdown.
    """
    translations, minutes = {}, {}
    for name in SYSTEMS:
        run = into / name.replace(" ", "-")
        settings = load_config(config, [*overrides, f"run_dir={run}"])
        started = time.monotonic()
        with remove_attention() if name == "without attention" else nullcontext():
            train(settings)
            minutes[name] = (time.monotonic() - started) / 60
            files = test or (settings.dev_sets[0].source, settings.dev_sets[0].target)
            sources, references = read_parallel(*files)
            translations[name] = [
                one.text for one in ModelTranslator.load(run, precision="float32").translate_batch(sources)
            ]
    language = settings.data.target_language
    breakdown = Breakdown(list(translations.values()), references, target_language=language)
    record = {
        **describe_run(command),
        "backend": keras.backend.backend(),
        "versions": {name: version(name) for name in (keras.backend.backend(), "keras", "sacrebleu")},
        "seed": settings.seed,
        "text": str(files[0]),
        "minutes": {name: round(value, 1) for name, value in minutes.items()},
        "bleu": {name: bleu(lines, references, target_language=language) for name, lines in translations.items()},
        "groups": [asdict(group) for group in breakdown.score_by_length()],
    }
    for suffix, content in (("json", json.dumps(record, indent=1)), ("md", text := render(record))):
        with atomic_write(into / f"without-attention.{suffix}") as aside:
            aside.write_text(content, encoding="utf-8")
    draw(record, into / "without-attention.png")
    return text


def render(record: dict[str, Any]) -> str:
    """Returns the table of a record and where it is from, in Markdown."""
    rows = [
        [_name_group(group), f"{group['sentences']:,}", *(f"{value:.1f}" for value in group["bleu"])]
        for group in record["groups"]
    ]
    total = sum(group["sentences"] for group in record["groups"])
    rows.append(["all", f"{total:,}", *(f"{value:.1f}" for value in record["bleu"].values())])
    minutes = ", ".join(f"{value:g} {name}" for name, value in record["minutes"].items())
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        *make_table(["Words in the reference", "Sentences", *(f"BLEU {name}" for name in SYSTEMS)], rows),
        "",
        f"*{record['date']}, `{record['command']}`, seed {record['seed']}, {record['text']}. {record['machine']}. "
        f"Minutes of training: {minutes}. {versions}.*",
    ]
    return "\n".join(lines) + "\n"


def draw(record: dict[str, Any], path: Path) -> None:
    """Draws BLEU by length of both systems, as PNG."""
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    groups = record["groups"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    for number, (name, (color, marker, style)) in enumerate(SYSTEMS.items()):
        scores = [group["bleu"][number] for group in groups]
        panel.plot(range(len(groups)), scores, color=color, marker=marker, linestyle=style, label=name)
    labels = [f"{_name_group(group)}\n({group['sentences']:,})" for group in groups]
    panel.set_xticks(range(len(groups)), labels)
    panel.set_xlabel("words in the reference (sentences)")
    panel.set_ylabel("BLEU")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend()
    with atomic_write(path) as aside:
        figure.savefig(aside, format="png", dpi=110)


def _name_group(group: dict[str, Any]) -> str:
    longest = group["longest"]
    return f"{group['shortest']} or more" if longest is None else f"{group['shortest']} to {longest}"
