"""The best model of a run: weights are scored on the dev text, and the best are written as a model folder."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nmt.backend import keras
from nmt.config.schema import Config
from nmt.data.preparation import TrainingData
from nmt.files import get_current_version
from nmt.model_folder import WEIGHTS, ModelFolder, get_fingerprints
from nmt.training.checkpoint import Progress
from nmt.training.run_folder import Writer
from nmt.training.validation import Validation, Validator
from nmt.training.workers import Workers
from nmt.translators.sentences import measure_share
from nmt.version import __version__
from nmt.weights import load_arrays

# Lines from which the share of those with several sentences is estimated, within 1 % in 50 ms.
SENTENCE_SAMPLE = 10_000


class Scored(NamedTuple):
    """Weights as the dev text judges them."""

    validation: Validation
    score: float
    """BLEU, chrF, or the negative loss: higher is better."""
    is_best: bool


class Candidate(NamedTuple):
    """The best weights so far, while they are not written yet."""

    weights: Mapping[str, np.ndarray]
    scored: Scored
    update: int


class BestModel:
    """Scores weights and keeps the best.

    A model that cannot be written, as on a full disk, is kept in memory and written later. Checkpoints count a model as
    the best only once it is written: a run that is killed before that writes the next one in its place.

    Args:
        config: the configuration that is stored with the model.
        data: tokenizers that are stored with the model, and the text that they were trained on.
        validator: scores weights; every worker must call it.
        path: the model folder to write.
        workers: the processes that train together. The chief writes.
        writer: writes the folder.
    """

    def __init__(
        self, config: Config, data: TrainingData, validator: Validator, path: Path, workers: Workers, writer: Writer
    ):
        self.config, self.data, self.validator, self.path = config, data, validator, path
        self.workers, self.writer = workers, writer
        self.unwritten: Candidate | None = None
        self._last_try = -1  # the update of the last attempt to write

    def score(self, weights: Mapping[str, np.ndarray], progress: Progress) -> Scored:
        """Validates weights, and compares them with the best so far. Equal scores are ranked by the loss."""
        validation = self.validator.validate(weights)
        score = validation.score(self.config.training.best_by)
        best_score, best_loss = self._get_best(progress)
        if best_score is None:
            return Scored(validation, score, True)
        is_lower = best_loss is not None and validation.loss < best_loss
        return Scored(validation, score, score > best_score or (score == best_score and is_lower))

    def describe(self, progress: Progress) -> dict[str, float]:
        """Returns the scores of the best weights so far, by the names in their record in the history."""
        score, loss = self._get_best(progress)
        scores = {"loss": loss, self.config.training.best_by: score}
        return {name: abs(value) for name, value in scores.items() if value is not None}

    def _get_best(self, progress: Progress) -> tuple[float | None, float | None]:
        """Returns score and loss of the best weights so far, written or not."""
        if self.unwritten:
            return self.unwritten.scored.score, self.unwritten.scored.validation.loss
        return progress.best_score, progress.best_loss

    def save(self, weights: Mapping[str, np.ndarray], scored: Scored, progress: Progress) -> Progress:
        """Writes weights as the best model, and returns the progress, with their score if they were written."""
        self.unwritten, self._last_try = Candidate(weights, scored, progress.update), -1
        progress = self.save_unwritten(progress)
        if self.unwritten:
            # The weights may share memory with training, which continues.
            self.unwritten = self.unwritten._replace(weights={name: np.array(a) for name, a in weights.items()})
        return progress

    def save_unwritten(self, progress: Progress) -> Progress:
        """Writes the best weights if they could not be written before, and returns the progress as `save` does."""
        if self.unwritten is None or self._last_try == progress.update:
            return progress
        self._last_try = progress.update
        weights, scored, update = self.unwritten
        is_written = False
        if self.workers.is_chief:
            model = self._make_model(weights, scored.validation, update)
            is_written = self.writer.try_write(lambda: model.save(self.path), "the best model", update=progress.update)
        [written] = self.workers.all_gather(is_written)
        if not written[0]:
            return progress
        self.unwritten = None
        return replace(progress, best_score=scored.score, best_loss=scored.validation.loss)

    def load_weights(self) -> Mapping[str, np.ndarray]:
        """Returns the best weights so far, from memory if they could not be written.

        Raises:
            UserError: the model folder is damaged or missing.
        """
        return self.unwritten.weights if self.unwritten else load_arrays(get_current_version(self.path) / WEIGHTS)[0]

    def _make_model(self, weights: Mapping[str, np.ndarray], validation: Validation, update: int) -> ModelFolder:
        facts = {
            "update": update,
            "dev_bleu": validation.bleu,
            "dev_loss": validation.loss,
            **({} if validation.chrf is None else {"dev_chrf": validation.chrf}),
            "seed": self.config.seed,
            "versions": get_versions(),
            "multi_sentence_share": self._multi_sentence_share,
            **get_fingerprints(self.data.source_tokenizer, self.data.target_tokenizer),
        }
        return ModelFolder(self.config, self.data.source_tokenizer, self.data.target_tokenizer, weights, facts)

    @cached_property
    def _multi_sentence_share(self) -> float:
        """Share of the training lines with several sentences, estimated from a sample; `decoding.split_sentences`."""
        return measure_share(self.data.sample_sources(SENTENCE_SAMPLE), self.config.data.source_language)


def get_versions() -> dict[str, str]:
    """Returns the versions of the packages that a result depends on."""
    packages = ("keras", keras.backend.backend(), "sentencepiece")
    return {"nmt": __version__, **{name: import_module(name).__version__ for name in packages}}
