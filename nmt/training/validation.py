"""Validation during training: loss and BLEU of greedy search on the dev text, in float32."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from nmt.compilation import compile_function
from nmt.config.schema import Config
from nmt.data.languages import parse_language
from nmt.data.preparation import TrainingData
from nmt.data.tokenizer import PAD_ID
from nmt.decoding.grouping import Group, make_grouping
from nmt.evaluation.metrics import bleu, chrf
from nmt.models.seq2seq import Seq2Seq, make_seq2seq
from nmt.training.objective import Examples, Objective
from nmt.training.workers import Workers
from nmt.translators.model import ModelTranslator
from nmt.weights import assign_arrays

MAX_ROWS = 128  # the loss holds the probabilities of all positions of a batch at once


@dataclass(frozen=True)
class Validation:
    """Scores on the dev text. The history stores them by these names."""

    loss: float
    """Negative log-likelihood in nats per target token, EOS included."""
    perplexity: float
    bleu: float
    """Detokenized sacreBLEU of greedy search, 0 to 100."""
    chrf: float | None = None
    """chrF of the same translations, 0 to 100; None unless `training.best_by` is chrf."""

    def __str__(self) -> str:
        by_characters = "" if self.chrf is None else f" · chrF {self.chrf:.2f}"
        return f"BLEU {self.bleu:.2f}{by_characters} · perplexity {self.perplexity:.2f}"

    def as_record(self) -> dict[str, float]:
        """Returns the scores that were computed, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def score(self, best_by: str) -> float:
        """Returns the score by which the best weights are chosen: higher is better."""
        if best_by == "loss":
            # NaN would never compare as lower, and so stay the best for good.
            return -self.loss if math.isfinite(self.loss) else -math.inf
        return self.chrf if best_by == "chrf" and self.chrf is not None else self.bleu


class Validator:
    """Scores weights on the dev text with a float32 model of its own, so that the trained one is not touched.

    Model, search and batches are made at the first validation, so that the first update does not wait for them.

    Args:
        config: the configuration.
        data: tokenizers and dev text.
        workers: the processes that train together. Each scores and translates its share.
    """

    def __init__(self, config: Config, data: TrainingData, workers: Workers):
        self.config, self.data, self.workers = config, data, workers

    @cached_property
    def model(self) -> Seq2Seq:
        """The model that holds the weights to be scored."""
        source_vocabulary_size, target_vocabulary_size = self.data.vocabulary_sizes
        return make_seq2seq(
            self.config.model,
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
        )

    @cached_property
    def translator(self) -> ModelTranslator:
        """The greedy search with that model."""
        return ModelTranslator(
            self.model,
            self.data.source_tokenizer,
            self.data.target_tokenizer,
            self.config.decoding,
            max_tokens=self.config.data.max_length,
        ).with_settings(beam_size=1)

    @cached_property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """This worker's share of the dev pairs: source and target, int32 [B, S] and [B, T]."""
        return _make_batches(self.data, self.config.decoding.batch_tokens)[self.workers.number :: self.workers.count]

    @cached_property
    def sum_loss(self) -> Callable:
        """The compiled function from such a batch to the summed loss and the number of target tokens."""
        return compile_function(self._sum_loss, self.model.variables, num_inputs=2)

    def validate(self, weights: Mapping[str, np.ndarray]) -> Validation:
        """Scores weights given by variable path."""
        assign_arrays(self.model.trainable_variables, weights, "Validation")
        sums = np.zeros(2)
        for batch in self.batches:
            sums += [float(x) for x in self.sum_loss(*batch)]
        nll, num_tokens = self.workers.all_reduce_sum(sums)
        loss = float(nll / num_tokens)
        translations = self.workers.map_sharded(self.data.dev_sources, partial(self.translator.translate, split=False))
        references = self.data.dev_targets
        score = bleu(translations, references, target_language=self.config.data.target_language)
        by_characters = chrf(translations, references) if self.config.training.best_by == "chrf" else None
        return Validation(loss, math.exp(min(loss, 700.0)), score, by_characters)  # e^710 exceeds float64

    def _sum_loss(self, source: Any, target: Any) -> tuple[Any, Any]:
        sums = Objective()(self.model, Examples(source, target))
        return sums.loss, sums.num_tokens


def _make_batches(data: TrainingData, batch_tokens: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the dev pairs, shortest first, padded, with at most `batch_tokens` tokens per side and batch."""
    sides = data.source_tokenizer.encode(data.dev_sources), data.target_tokenizer.encode(data.dev_targets)
    longest = [max(len(source), len(target)) + 1 for source, target in zip(*sides, strict=True)]
    groups = make_grouping(batch_tokens, MAX_ROWS).split(longest)
    return [(group.pad(sides[0]), _blank_filling(group.pad(sides[1]), group)) for group in groups]


def _blank_filling(target: np.ndarray, group: Group) -> np.ndarray:
    """Replaces rows that only fill the batch up by padding, which does not count."""
    target[len(group.members) :] = PAD_ID
    return target


def explain_zero_bleu(config: Config, validation: Validation) -> str:
    """Returns the likely reasons for a BLEU of 0, in words."""
    language = config.data.target_language
    return (
        f"Either the model has not learned enough yet (its perplexity is {validation.perplexity:.1f} and should fall), "
        f"or data.target_language does not fit the text ('{language}' makes sacreBLEU split it by the tokenizer "
        f"{parse_language(language).bleu_tokenizer}), or the lines of {config.data.dev.target} do not translate "
        f"those of {config.data.dev.source}."
    )
