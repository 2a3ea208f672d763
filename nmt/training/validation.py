"""Validation while training: loss and greedy BLEU of the dev text, in float32, with the weights in question."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from nmt.compilation import compile_function
from nmt.config.schema import Config
from nmt.data.preparation import TrainingData
from nmt.data.tokenizer import PAD_ID
from nmt.decoding.grouping import Group, make_grouping
from nmt.evaluation.metrics import bleu
from nmt.models.seq2seq import Seq2Seq, make_seq2seq
from nmt.training.objective import Examples, Objective
from nmt.training.workers import Workers
from nmt.translators.model import ModelTranslator
from nmt.weights import assign_arrays

MAX_ROWS = 128  # the loss is made of the logits of all positions at once


@dataclass(frozen=True)
class Validation:
    """How good some weights are on the dev text."""

    loss: float
    """Negative log-likelihood, nats a target piece, EOS counted."""
    perplexity: float
    bleu: float
    """Detokenised sacreBLEU of greedy search, 0 to 100."""

    def score(self, best_by: str) -> float:
        """What the best weights have most of."""
        return self.bleu if best_by == "bleu" else -self.loss


class Validator:
    """Scores weights on the dev text with a float32 model of its own, so that training's are left alone.

    Each worker scores and translates its share.
    """

    def __init__(self, config: Config, prepared: TrainingData, workers: Workers):
        self.config, self.prepared, self.workers = config, prepared, workers
        self.sources, self.targets = prepared.dev_sources, prepared.dev_targets
        self.language = config.data.target_language

    # What follows is made when it is first asked for: the first update need not wait for it.

    @cached_property
    def model(self) -> Seq2Seq:
        """Holds the weights in question."""
        source_vocabulary_size, target_vocabulary_size = self.prepared.vocabulary_sizes
        return make_seq2seq(
            self.config.model,
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
        )

    @cached_property
    def translator(self) -> ModelTranslator:
        """The greedy search with them."""
        return ModelTranslator(
            self.model,
            self.prepared.source_tokenizer,
            self.prepared.target_tokenizer,
            self.config.decoding,
            max_tokens=self.config.data.max_length,
        ).with_settings(beam_size=1)

    @cached_property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """This worker's share of the dev pairs: source and target, int32 [B, S] and [B, T]."""
        return _batches(self.prepared, self.config.decoding.batch_tokens)[self.workers.number :: self.workers.count]

    @cached_property
    def losses(self) -> Callable:
        """Of such a batch: the sum of the loss, and the number of target pieces."""
        return compile_function(self._loss, self.model.variables, num_inputs=2)

    def validate(self, weights: Mapping[str, np.ndarray]) -> Validation:
        """Scores weights given by variable path."""
        assign_arrays(self.model.trainable_variables, weights, "Validation")
        sums = np.zeros(2)
        for batch in self.batches:
            sums += [float(x) for x in self.losses(*batch)]
        nll, pieces = self.workers.all_reduce_sum(sums)
        loss = float(nll / pieces)
        translations = self.workers.map_sharded(self.sources, partial(self.translator.translate, split=False))
        score = bleu(translations, self.targets, target_language=self.language)
        return Validation(loss, math.exp(min(loss, 700.0)), score)

    def _loss(self, source: Any, target: Any) -> tuple[Any, Any]:
        sums = Objective()(self.model, Examples(source, target))
        return sums.loss, sums.num_tokens


def _batches(prepared: TrainingData, batch_tokens: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The dev pairs, shortest first, padded, at most `batch_tokens` pieces of either side a batch."""
    sides = (
        prepared.source_tokenizer.encode(prepared.dev_sources),
        prepared.target_tokenizer.encode(prepared.dev_targets),
    )
    longest = [max(len(source), len(target)) + 1 for source, target in zip(*sides, strict=True)]
    groups = make_grouping(batch_tokens, MAX_ROWS).split(longest)
    return [(group.pad(sides[0]), _without_filling(group.pad(sides[1]), group)) for group in groups]


def _without_filling(target: np.ndarray, group: Group) -> np.ndarray:
    """Makes rows that only fill up all padding, which no loss counts."""
    target[len(group.members) :] = PAD_ID
    return target
