"""A tiny task, digit words to be reversed, and stand-ins for the slow parts of a training."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from nmt.config.schema import Config, CorpusFiles, DataConfig
from nmt.models.seq2seq import make_seq2seq
from nmt.training import trainer
from nmt.training.train import train
from nmt.training.update import Outcome, Update
from nmt.training.validation import Validation

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MODEL = {
    "embedding_units": 16,
    "encoder_units": 16,
    "decoder_units": 16,
    "decoder_layers": 1,
    "attention_heads": 2,
}
TOKENIZER = {"vocabulary_size": 28, "byte_fallback": False}
TRAINING = {"batch_size": 16, "max_updates": 20, "log_every": 1, "tensorboard": False, "learning_rate": 2**-7}


def write_pairs(folder: Path, name: str, num_lines: int) -> CorpusFiles:
    random = np.random.default_rng(num_lines)
    sources = [list(random.choice(WORDS, size=random.integers(2, 7))) for _ in range(num_lines)]
    files = CorpusFiles(source=folder / f"{name}.en", target=folder / f"{name}.rev")
    files.source.write_text("".join(f"{' '.join(line)}\n" for line in sources))
    files.target.write_text("".join(f"{' '.join(line[::-1])}\n" for line in sources))
    return files


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """100 pairs to train on, which make 7 batches of 16, and 7 to validate on."""
    folder = tmp_path_factory.mktemp("digits")
    train, dev = write_pairs(folder, "train", 100), write_pairs(folder, "dev", 7)
    return DataConfig(source_language="en", target_language="en", train=[train], dev=dev)


@pytest.fixture(scope="session")
def recipe(digits: DataConfig) -> Callable[..., Config]:
    """Makes a configuration for a run folder; keywords change its training section, `model` and `tokenizer` theirs."""

    def made(run_dir: Path, *, model: Mapping = {}, tokenizer: Mapping = {}, **training: Any) -> Config:
        return Config(
            run_dir=run_dir,
            data=digits,
            model={**MODEL, **model},
            tokenizer={**TOKENIZER, **tokenizer},
            training={**TRAINING, **training},
        )

    return made


class CountingUpdate(Update):
    """Stands in for the update: adds 1 to every weight instead of training, and reports what it was told to report."""

    rows_multiple = 1
    runs_ahead = True
    averaged = ()
    averages = ()
    frozen = ()
    state_variables = ()

    def __init__(self, model: keras.Model):
        self.model = model
        self.state_variables = [keras.Variable(0, dtype="int32", trainable=False, name="updates")]
        self.optimizer = SimpleNamespace(variables=self.state_variables)
        self.unapplied: range = range(0)
        self.high: range = range(0)
        self.tolerated_rate = 0.0
        self.rates: list[float] = []
        self.course: list[tuple[str, int]] = []
        self.batches: list[Any] = []

    def start(self, batch: Any, *, update: int, learning_rate: float) -> Callable[[], Outcome]:
        is_tolerated = learning_rate <= self.tolerated_rate
        applied = update not in self.unapplied or is_tolerated
        for weight in self.model.trainable_variables:
            weight.assign_add(keras.ops.full_like(weight, float(applied)))
        self.state_variables[0].assign_add(1)
        self.rates.append(learning_rate)
        self.course.append(("started", update))
        self.batches.append(batch)
        loss = 1 / update if applied else float("nan")
        if update in self.high and not is_tolerated:
            loss = 50.0
        outcome = Outcome({"loss": loss, "nll": loss, "gradient_norm": 2.0}, batch.num_target_tokens, applied)

        def wait() -> Outcome:
            self.course.append(("awaited", update))
            return outcome

        return wait

    def precompile(self, shapes: list[tuple[int, int, int]]) -> None:
        self.course.append(("precompiled", len(shapes)))

    def close(self) -> None:
        self.course.append(("closed", 0))


class ScriptedValidator:
    """Stands in for the validator: gives the next outcome it was told, and keeps the weights it was asked about."""

    def __init__(self, outcomes: list[Validation]):
        self.outcomes = list(outcomes)
        self.asked: list[dict[str, np.ndarray]] = []

    def compile(self) -> None:
        pass

    def validate(self, weights: Mapping[str, np.ndarray]) -> Validation:
        self.asked.append({path: np.array(array) for path, array in weights.items()})
        if not self.outcomes:
            raise RuntimeError("no outcome was told")
        return self.outcomes.pop(0)


class Rehearsal:
    """Trainings whose update and validator are stand-ins, so that only the loop around them is tested."""

    def __init__(self) -> None:
        self.update: CountingUpdate
        self.validator: ScriptedValidator
        self.said: list[str] = []
        self.unapplied = self.high = range(0)
        self.tolerated_rate = 0.0
        self.outcomes: list[Validation] = []

    def make_update(
        self, config: Config, sizes: tuple[int, int], strategy: Any, banned_ids: Sequence[int]
    ) -> tuple[keras.Model, CountingUpdate]:
        model = make_seq2seq(config.model, source_vocabulary_size=sizes[0], target_vocabulary_size=sizes[1])
        for weight in model.trainable_variables:
            weight.assign(keras.ops.zeros_like(weight))
        model.optimizer = keras.optimizers.SGD()
        self.update = CountingUpdate(model)
        self.update.unapplied, self.update.high = self.unapplied, self.high
        self.update.tolerated_rate = self.tolerated_rate
        return model, self.update

    def make_validator(self, *_: Any) -> ScriptedValidator:
        self.validator = ScriptedValidator(self.outcomes)
        return self.validator

    def train(self, config: Config, *, bleu: list[float], loss: list[float] | None = None, **kwargs: Any) -> Path:
        """Trains with these outcomes of validation; fails where more validations happen than were told."""
        losses = loss or [1.0] * len(bleu)
        self.outcomes = [Validation(loss, 2.0, score) for loss, score in zip(losses, bleu, strict=True)]
        self.said = []
        return train(config, log=self.said.append, **kwargs)


@pytest.fixture
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    made = Rehearsal()
    monkeypatch.setattr(trainer, "make_update", made.make_update)
    monkeypatch.setattr(trainer, "Validator", made.make_validator)
    return made
