"""What `gpu.py` trains on: a recipe's text, batches and model, or those that the command line asks for."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmt.config.file import load_config
from nmt.config.schema import ModelConfig
from nmt.data.batching import Batch, BatchLoader, BatchPlan, Segmentation
from nmt.data.corpus import read_lines
from nmt.data.preparation import prepare
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import UserError

MOST_BATCHES = 500
"""Of an epoch, which may have thousands."""
SMOKE_MODEL = {"embedding_units": 16, "encoder_units": 16, "decoder_units": 16, "attention_heads": 2}


@dataclass(frozen=True)
class Work:
    """What all learners are given."""

    model: ModelConfig
    vocabulary: int
    batches: list[Batch]


@dataclass(frozen=True)
class Pairs:
    """Pieces that lie in memory, as a `Segmentation`."""

    pieces: list[tuple[list[int], list[int]]]

    def ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[list[list[int]], list[list[int]]]:
        """The pieces of both sides of some pairs."""
        return [self.pieces[n][0] for n in pairs], [self.pieces[n][1] for n in pairs]


def of_recipe(path: Path) -> Work:
    """The model of a configuration and batches as it trains on them; its run_dir gets, or has, its tokenizers."""
    config = load_config(path)
    if config.run_dir is None:
        raise UserError(f"{path}: run_dir: nothing given, expected the folder of the run.")
    prepared = prepare(config, config.run_dir, print)
    source_vocabulary, target_vocabulary = prepared.vocabularies
    if source_vocabulary != target_vocabulary:
        raise UserError(f"{path}: expected one joint tokenizer, for PyTorch's model has one embedding; found two.")
    training = config.training
    plan = BatchPlan(prepared.lengths, by=training.batch_by, size=training.batch_size, seed=config.seed)
    return Work(config.model, source_vocabulary, full_batches(prepared.segmentation, prepared.kept, plan))


def of_options(arguments: Namespace) -> Work:
    """A model of Multi30k's width and an epoch of full batches, padded to the plan's shapes."""
    pairs = read_pairs(arguments) if arguments.corpus else made_up_pairs(arguments.pairs, arguments.vocabulary)
    lengths = np.array([[len(source) + 1, len(target) + 1] for source, target in pairs])
    plan = BatchPlan(lengths, by="sentences", size=arguments.batch_size, seed=1)
    batches = full_batches(Pairs(pairs), np.arange(len(pairs)), plan)
    sizes = SMOKE_MODEL if arguments.smoke else {"embedding_units": 512, "attention_hops": 2}
    return Work(ModelConfig.model_validate(sizes), arguments.vocabulary, batches)


def full_batches(segmentation: Segmentation, kept: np.ndarray, plan: BatchPlan) -> list[Batch]:
    """The first epoch's full batches, padded as training on JAX pads them."""
    loader = BatchLoader(segmentation, kept, plan, to_grid=True)
    batches = (loader.batch(0, number) for number in range(min(plan.num_batches, MOST_BATCHES)))
    return [batch for batch in batches if batch.weights.all()]


def read_pairs(arguments: Namespace) -> list[tuple[list[int], list[int]]]:
    """The pieces of real text."""
    sides = [read_lines(Path(path))[: arguments.pairs] for path in arguments.corpus]
    tokenizer = train_tokenizer([*sides[0], *sides[1]], kind="unigram", vocabulary_size=arguments.vocabulary)
    return list(zip(*(tokenizer.encode(side) for side in sides), strict=True))


def made_up_pairs(num_pairs: int, vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """Ids drawn at random, a target about as long as its source."""
    random = np.random.default_rng(1)
    source = np.clip(random.gamma(9, 1.7, num_pairs), 3, 50).astype(int)
    target = np.clip(source * random.uniform(0.8, 1.4, num_pairs), 3, 60).astype(int)
    sides = [[random.integers(4, vocabulary, n).tolist() for n in lengths] for lengths in (source, target)]
    return list(zip(*sides, strict=True))
