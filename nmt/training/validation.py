"""Validation during training: loss and BLEU of greedy search on the dev text, in float32."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from nmt.compilation import compile_function
from nmt.config.schema import GREEDY, Config
from nmt.data.examples import list_tags
from nmt.data.languages import parse_language
from nmt.data.placeholders import Placeholders
from nmt.data.preparation import DevSet, TrainingData
from nmt.data.tokenizer import PAD_ID, Tokenizer
from nmt.decoding.grouping import Group, make_grouping
from nmt.decoding.word_links import WordLinks
from nmt.evaluation.metrics import bleu, chrf
from nmt.evaluation.promises import ALL, Promises, count_kept
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
    sets: Mapping[str, "Validation"] = field(default_factory=dict)
    """The scores of each set by its name, if there are several. BLEU and chrF are then the means over the sets."""
    promises: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Promises kept and promises made, of each tag and of "all"; empty without data.promises."""
    translations: Sequence[str] = field(default=(), repr=False, compare=False)
    """Those of the only dev set; with several, each of `sets` has its own."""

    def __str__(self) -> str:
        by_characters = "" if self.chrf is None else f" · chrF {self.chrf:.2f}"
        each = ", ".join(f"{name} {one.bleu:.2f}" for name, one in self.sets.items())
        mean = f" ({each})" if each else ""
        kept = " · promises {} of {}".format(*self.promises[ALL]) if self.promises else ""
        return f"BLEU {self.bleu:.2f}{mean}{by_characters} · perplexity {self.perplexity:.2f}{kept}"

    def as_record(self) -> dict[str, float]:
        """Returns the scores that were computed, by name.

        Those of one of several sets are called "bleu/NAME"; the share of kept promises is "promises/TAG".
        """
        scores = {"loss": self.loss, "perplexity": self.perplexity, "bleu": self.bleu, "chrf": self.chrf}
        record = {name: value for name, value in scores.items() if value is not None}
        for name, one in self.sets.items():
            record |= {f"{measure}/{name}": value for measure, value in one.as_record().items()}
        return record | {f"promises/{tag}": kept / made for tag, (kept, made) in self.promises.items()}

    def get_translations(self, name: str) -> Sequence[str]:
        """Returns the translations of a dev set by its name, or of the only one; empty if they are not known."""
        return self.sets.get(name, self).translations

    def score(self, best_by: str) -> float:
        """Returns the score by which the best weights are chosen: higher is better."""
        if best_by == "loss":
            # NaN would never compare as lower, and so stay the best for good.
            return -self.loss if math.isfinite(self.loss) else -math.inf
        return self.chrf if best_by == "chrf" and self.chrf is not None else self.bleu


class Validator:
    """Scores weights on the dev sets with a float32 model of its own, so that the trained one is not touched.

    Model, search and batches are made at the first validation, so that the first update does not wait for them.

    Args:
        config: the configuration.
        data: tokenizers and dev sets.
        workers: the processes that train together. Each scores and translates its share.
        promises: those of data.promises, if there are any.
    """

    def __init__(self, config: Config, data: TrainingData, workers: Workers, promises: Promises | None = None):
        self.config, self.data, self.workers, self.promises = config, data, workers, promises

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
            tags=list_tags(self.config.data),
            placeholders=Placeholders.from_config(self.config.data.placeholders, self.data.source_tokenizer),
        ).with_settings(**GREEDY)

    @cached_property
    def batches(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """This worker's share of the dev pairs: the number of their set, source and target, int32 [B, S] and [B, T]."""
        tokenizers = self.data.source_tokenizer, self.data.target_tokenizer
        batches = [
            (number, *batch)
            for number, one in enumerate(self.data.dev)
            for batch in _make_batches(one, tokenizers, self.config.decoding.batch_tokens)
        ]
        return batches[self.workers.number :: self.workers.count]

    @cached_property
    def sum_loss(self) -> Callable:
        """The compiled function from such a batch to the summed loss and the number of target tokens."""
        return compile_function(self._sum_loss, self.model.variables, num_inputs=2)

    def compile(self) -> None:
        """Makes model, search and batches, and compiles search and loss, which the first validation would do otherwise.

        Where each shape is compiled, this covers one shape only.
        """
        for _, *batch in self.batches[:1]:
            self.sum_loss(*batch)
        self.translator.translate([max(self.data.dev[0].sources, key=len)], split=False)

    def validate(self, weights: Mapping[str, np.ndarray]) -> Validation:
        """Scores weights given by variable path."""
        assign_arrays(self.model.trainable_variables, weights, "Validation")
        sums = np.zeros((len(self.data.dev), 2))
        for number, *batch in self.batches:
            sums[number] += [float(x) for x in self.sum_loss(*batch)]
        sums = self.workers.all_reduce_sum(sums)
        sources = [source for one in self.data.dev for source in one.sources]
        promised = self.promises.sources if self.promises else []
        translate = partial(self.translator.translate, split=False)
        translations = iter(self.workers.map_sharded([*sources, *promised], translate))
        sets = {
            one.name: self._score(one, nll, num_tokens, [next(translations) for _ in one.sources])
            for one, (nll, num_tokens) in zip(self.data.dev, sums.tolist(), strict=True)
        }
        nll, num_tokens = sums.sum(axis=0).tolist()
        validation = _combine(sets, nll, num_tokens)
        if self.promises:
            validation = replace(validation, promises=count_kept(self.promises.check(list(translations))))
        return validation

    def read_attention(self, pairs: Sequence[tuple[str, str]]) -> list[WordLinks]:
        """Returns the attention between the words of sources and their translations, by the weights scored last."""
        return list(self.translator.align(pairs))

    def _score(self, dev: DevSet, nll: float, num_tokens: float, translations: list[str]) -> Validation:
        loss = nll / num_tokens
        score = bleu(translations, dev.targets, target_language=dev.target_language)
        by_characters = chrf(translations, dev.targets) if self.config.training.best_by == "chrf" else None
        return Validation(loss, _exponentiate(loss), score, by_characters, translations=translations)

    def _sum_loss(self, source: Any, target: Any) -> tuple[Any, Any]:
        sums = Objective()(self.model, Examples(source, target))
        return sums.loss, sums.num_tokens


def _exponentiate(loss: float) -> float:
    return math.exp(min(loss, 700.0))  # e^710 exceeds float64


def _combine(sets: Mapping[str, Validation], nll: float, num_tokens: float) -> Validation:
    """Returns the scores over all sets; the loss is that of all their tokens."""
    if len(sets) == 1:
        return next(iter(sets.values()))
    loss = nll / num_tokens
    mean_bleu = sum(one.bleu for one in sets.values()) / len(sets)
    by_characters = [one.chrf for one in sets.values() if one.chrf is not None]
    mean_chrf = sum(by_characters) / len(sets) if by_characters else None
    return Validation(loss, _exponentiate(loss), mean_bleu, mean_chrf, sets)


def _make_batches(
    dev: DevSet, tokenizers: tuple[Tokenizer, Tokenizer], batch_tokens: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns dev pairs, shortest first, padded, with at most `batch_tokens` tokens per side and batch."""
    sides = tokenizers[0].encode(dev.sources), tokenizers[1].encode(dev.targets)
    longest = [max(len(source), len(target)) + 1 for source, target in zip(*sides, strict=True)]
    groups = make_grouping(batch_tokens, MAX_ROWS).split(longest)
    return [(group.pad(sides[0]), _blank_filling(group.pad(sides[1]), group)) for group in groups]


def _blank_filling(target: np.ndarray, group: Group) -> np.ndarray:
    """Replaces rows that only fill the batch up by padding, which does not count."""
    target[len(group.members) :] = PAD_ID
    return target


def explain_zero_bleu(config: Config, validation: Validation) -> str:
    """Returns the likely reasons for a BLEU of 0, in words."""
    splits, pairs = [], []
    for one in config.dev_sets:
        language = one.target_language or config.data.target_language
        tokenizer = parse_language(language).bleu_tokenizer
        splits.append(f"'{language}' makes sacreBLEU split {one.target} by the tokenizer {tokenizer}")
        pairs.append(f"the lines of {one.target} do not translate those of {one.source}")
    return (
        f"Either the model has not learned enough yet (its perplexity is {validation.perplexity:.1f} and should fall), "
        f"or target_language does not fit the text ({', '.join(splits)}), or {', or '.join(pairs)}."
    )
