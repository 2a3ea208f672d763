"""Prepares the model and batches of `gpu.py`, from a configuration or from command-line options."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmt.config.file import load_config
from nmt.config.schema import ModelConfig
from nmt.data.batching import Batch, BatchLoader, BatchPlan
from nmt.data.corpus import read_lines
from nmt.data.preparation import prepare_training_data
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import UserError

MOST_BATCHES = 500
"""Batches taken from an epoch, which may have thousands."""
SMOKE_MODEL = {"embedding_units": 16, "encoder_units": 16, "decoder_units": 16, "attention_heads": 2}


@dataclass(frozen=True)
class Work:
    """The model and the batches that all learners train on."""

    model: ModelConfig
    vocabulary: int
    batches: list[Batch]


@dataclass(frozen=True)
class Pairs:
    """Tokenized pairs in memory."""

    tokens: list[tuple[list[int], list[int]]]

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[list[list[int]], list[list[int]]]:
        """Returns the source ids and the target ids of some pairs."""
        return [self.tokens[n][0] for n in pairs], [self.tokens[n][1] for n in pairs]


def prepare_recipe(path: Path) -> Work:
    """Prepares the model of a configuration, and its batches as in training on JAX.

    Its tokenizers are written to run_dir, if missing.
    """
    config = load_config(path)
    if config.run_dir is None:
        raise UserError(f"{path}: run_dir is required here. Set it to a folder for the run.")
    prepared = prepare_training_data(config, config.run_dir, print)
    source_vocabulary_size, target_vocabulary_size = prepared.vocabulary_sizes
    if source_vocabulary_size != target_vocabulary_size:
        raise UserError(f"{path}: expected a joint tokenizer, found two. The PyTorch model has a single embedding.")
    training = config.training
    plan = BatchPlan(
        prepared.lengths, by=training.batch_by, size=training.batch_size, seed=config.seed, shares=prepared.shares
    )
    loader = BatchLoader(prepared.tokenized, prepared.kept, plan, weigh=prepared.weigh, pad_to_buckets=True)
    return Work(config.model, source_vocabulary_size, load_full_batches(loader))


def prepare_options(arguments: Namespace) -> Work:
    """Builds a model with the widths of the Multi30k recipe, and an epoch of full batches padded as in training."""
    pairs = read_pairs(arguments) if arguments.corpus else draw_pairs(arguments.pairs, arguments.vocabulary)
    lengths = np.array([[len(source) + 1, len(target) + 1] for source, target in pairs])
    plan = BatchPlan(lengths, by="sentences", size=arguments.batch_size, seed=1)
    batches = load_full_batches(BatchLoader(Pairs(pairs), np.arange(len(pairs)), plan, pad_to_buckets=True))
    sizes = SMOKE_MODEL if arguments.smoke else {"embedding_units": 512, "attention_hops": 2}
    return Work(ModelConfig.model_validate(sizes), arguments.vocabulary, batches)


def load_full_batches(loader: BatchLoader) -> list[Batch]:
    """Returns the full batches of the first epoch."""
    batches = (loader.load_batch(0, number) for number in range(min(loader.plan.num_batches, MOST_BATCHES)))
    return [batch for batch in batches if batch.weights.all()]


def read_pairs(arguments: Namespace) -> list[tuple[list[int], list[int]]]:
    """Reads and tokenizes real text."""
    sides = [read_lines(Path(path))[: arguments.pairs] for path in arguments.corpus]
    tokenizer = train_tokenizer([*sides[0], *sides[1]], kind="unigram", vocabulary_size=arguments.vocabulary)
    return list(zip(*(tokenizer.encode(side) for side in sides), strict=True))


def draw_pairs(num_pairs: int, vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """Draws random ids. A target is about as long as its source."""
    random = np.random.default_rng(1)
    source = np.clip(random.gamma(9, 1.7, num_pairs), 3, 50).astype(int)
    target = np.clip(source * random.uniform(0.8, 1.4, num_pairs), 3, 60).astype(int)
    sides = [[random.integers(4, vocabulary, n).tolist() for n in lengths] for lengths in (source, target)]
    return list(zip(*sides, strict=True))
