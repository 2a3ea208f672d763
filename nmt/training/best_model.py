"""The best model of a run: weights are scored on the dev text, and the best are written as a model folder."""

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nmt.backend import keras
from nmt.config.schema import Config
from nmt.data.preparation import Log, TrainingData
from nmt.model_folder import ModelFolder, get_fingerprints
from nmt.training.checkpoint import Progress, average_checkpoints
from nmt.training.run_folder import Writer
from nmt.training.validation import Validation, Validator
from nmt.translators.sentences import measure_share
from nmt.version import __version__

# Lines from which the share of those with several sentences is estimated, within 1 % in 50 ms.
SENTENCE_SAMPLE = 10_000


class Scored(NamedTuple):
    """Weights as the dev text judges them."""

    validation: Validation
    score: float
    """BLEU, or the negative loss: higher is better."""
    is_best: bool


class BestModel:
    """Scores weights and keeps the best.

    Args:
        config: the configuration that is stored with the model.
        data: tokenizers that are stored with the model, and the text that they were trained on.
        validator: scores weights; every worker must call it.
        path: the model folder to write.
        writer: writes it; None on workers that do not write.
    """

    def __init__(self, config: Config, data: TrainingData, validator: Validator, path: Path, writer: Writer | None):
        self.config, self.data, self.validator, self.path, self.writer = config, data, validator, path, writer

    def score(self, weights: Mapping[str, np.ndarray], progress: Progress) -> Scored:
        """Validates weights, and compares them with the best so far. Equal weights are not better."""
        validation = self.validator.validate(weights)
        score = validation.score(self.config.training.best_by)
        return Scored(validation, score, progress.best_score is None or score > progress.best_score)

    def save(self, weights: Mapping[str, np.ndarray], validation: Validation, progress: Progress) -> None:
        """Writes weights as the best model."""
        if self.writer is None:
            return
        facts = {
            "update": progress.update,
            "dev_bleu": validation.bleu,
            "dev_loss": validation.loss,
            "seed": self.config.seed,
            "versions": get_versions(),
            "multi_sentence_share": self._multi_sentence_share,
            **get_fingerprints(self.data.source_tokenizer, self.data.target_tokenizer),
        }
        model = ModelFolder(self.config, self.data.source_tokenizer, self.data.target_tokenizer, weights, facts)
        self.writer.try_write(lambda: model.save(self.path), "the best model", update=progress.update)

    def try_average(self, checkpoints: list[Path], progress: Progress, log: Log) -> None:
        """Scores the average of several checkpoints, and keeps it if it is the best.

        Args:
            checkpoints: their files.
            progress: where the run stands.
            log: receives the score.
        """
        weights = average_checkpoints(checkpoints)
        scored = self.score(weights, progress)
        log(f"Average of the last {len(checkpoints)} checkpoints: BLEU {scored.validation.bleu:.2f}.")
        if scored.is_best:
            self.save(weights, scored.validation, progress)

    @cached_property
    def _multi_sentence_share(self) -> float:
        """Share of the training lines with several sentences, estimated from a sample; `decoding.split_sentences`."""
        kept = self.data.kept
        sample = kept[np.linspace(0, len(kept) - 1, min(len(kept), SENTENCE_SAMPLE)).astype("int64")]
        return measure_share(self.data.corpus.read_sources(sample), self.config.data.source_language)


def get_versions() -> dict[str, str]:
    """Returns the versions of the packages that a result depends on."""
    packages = ("keras", keras.backend.backend(), "sentencepiece")
    return {"nmt": __version__, **{name: import_module(name).__version__ for name in packages}}
