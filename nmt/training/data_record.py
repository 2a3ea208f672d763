"""Records what a run has read in its file data.json, for reports."""

import json
from typing import Any

import numpy as np

from nmt.config.schema import Config
from nmt.data.corpus import split_indices
from nmt.data.preparation import TrainingData
from nmt.files import atomic_write
from nmt.training.run_folder import RunFolder


def write_data(folder: RunFolder, config: Config, data: TrainingData) -> None:
    """Writes data.json.

    Raises:
        UserError: the folder cannot be written to.
    """
    with atomic_write(folder.data) as aside:
        aside.write_text(json.dumps(describe_data(config, data), ensure_ascii=False) + "\n", encoding="utf-8")


def describe_data(config: Config, data: TrainingData) -> dict[str, Any]:
    """Returns what training reads, by name.

    "tokens" are those of all examples, source and target, with EOS. "lengths" has, for each side, the number of
    examples of each length from 0 on. With subword sampling, lengths are those that are planned for.
    """
    lengths = [_count_lengths(data.lengths[:, side]) for side in (0, 1)]
    corpora = [
        {
            "source": str(files.source),
            "target": str(files.target),
            "lines": data.corpus.count_lines(number),
            "weight": files.weight,
            "tag": files.tag,
        }
        for number, files in enumerate(config.data.train)
    ]
    dev = [
        {"name": one.name, "source": str(files.source), "target": str(files.target), "lines": len(one.targets)}
        for files, one in zip(config.dev_sets, data.dev, strict=True)
    ]
    return {
        "corpora": corpora,
        "dev": dev,
        "pairs": data.report.num_pairs,
        "blank": data.corpus.num_blank,
        "dropped": data.report.dropped,
        "kept": data.report.kept,
        "examples": len(data.kept),
        "tokens": [int(np.arange(len(counts)) @ counts) for counts in lengths],
        "lengths": [counts.tolist() for counts in lengths],
        "vocabularies": list(data.vocabulary_sizes),
    }


def _count_lengths(lengths: np.ndarray) -> np.ndarray:
    """Returns the number of examples of each length from 0 on: int64 [longest + 1]."""
    counts = np.zeros(int(lengths.max()) + 1, np.int64)
    for rows in split_indices(len(lengths)):  # bincount needs 64 bits per number
        counts += np.bincount(lengths[rows], minlength=len(counts))
    return counts
