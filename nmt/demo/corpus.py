"""The demo corpus: sentences drawn from our own grammar, split so that held-out sentences combine words in new ways.

A tenth of all combinations is reserved, chosen by a hash of the seed and the combination. A combination is an adjective
with its noun, or a subject with its verb and object. Training sentences contain no reserved combination, dev and test
sentences contain no other, and all of their words occur in training. To translate them, a model must combine words
that it knows in ways that it has not seen.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nmt.demo.grammar import PHENOMENA, Combination, Positions, find_combinations, render_english, render_german
from nmt.demo.sampler import SentenceSampler
from nmt.demo.scoring import look_up_glosses
from nmt.errors import UserError
from nmt.files import atomic_write

NUM_DEV = 500
NUM_TEST = 1_000
# With fewer pairs, some words of the held-out sentences would never occur in training.
MIN_PAIRS = 6_000


@dataclass(frozen=True)
class DemoPair:
    """A sentence and its translation."""

    source: str
    target: str
    positions: Positions
    """Words of the target that depend on each phenomenon."""
    combinations: frozenset[Combination]


@dataclass(frozen=True)
class DemoReport:
    """Size of a corpus."""

    num_train: int
    """Sentence pairs for training."""
    num_dev: int
    num_test: int
    num_lemmas: int
    """Lemmas that occur in training."""
    fewest_uses: int
    """How often the rarest of them occurs there."""


def make_demo_corpus(folder: Path, *, seed: int = 1, num_pairs: int = 22_000) -> DemoReport:
    """Writes train, dev and test, each as .en and .de, and {dev,test}.tags.jsonl with the positions of the phenomena.

    All pairs are distinct. 500 pairs are for dev and 1,000 for test.

    Args:
        folder: the folder to write to.
        seed: the same seed gives the same bytes.
        num_pairs: number of sentence pairs of all three parts.

    Raises:
        UserError: `num_pairs` is too small for every held-out word to occur in training, or the folder cannot be
            written to.
    """
    if num_pairs < MIN_PAIRS:
        raise UserError(f"The demo corpus requires num_pairs of at least {MIN_PAIRS}, found {num_pairs}.")
    train, dev, test = draw_parts(seed=seed, num_pairs=num_pairs)
    for name, pairs in (("train", train), ("dev", dev), ("test", test)):
        _write_lines(folder / f"{name}.en", (pair.source for pair in pairs))
        _write_lines(folder / f"{name}.de", (pair.target for pair in pairs))
    for name, pairs in (("dev", dev), ("test", test)):
        _write_lines(folder / f"{name}.tags.jsonl", (json.dumps(pair.positions) for pair in pairs))
    uses = Counter(gloss for pair in train for gloss in look_up_glosses(pair.source))
    return DemoReport(len(train), len(dev), len(test), len(uses), min(uses.values()))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as aside:
        aside.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def draw_parts(*, seed: int, num_pairs: int) -> tuple[list[DemoPair], list[DemoPair], list[DemoPair]]:
    """Returns the pairs of train, dev and test."""

    def is_reserved(combination: Combination) -> bool:
        digest = hashlib.blake2b(f"{seed} {' '.join(combination)}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") % 10 == 0

    rng = random.Random(seed)
    known = draw_distinct_pairs(SentenceSampler(rng, lambda combination: not is_reserved(combination)))
    train = [next(known) for _ in range(num_pairs - NUM_DEV - NUM_TEST)]
    vocabulary = {word for pair in train for word in split_words(pair)}
    new = (
        pair
        for pair in draw_distinct_pairs(SentenceSampler(rng, is_reserved))
        if vocabulary.issuperset(split_words(pair))
    )
    held_out = [next(new) for _ in range(NUM_DEV + NUM_TEST)]
    return train, held_out[:NUM_DEV], held_out[NUM_DEV:]


def draw_distinct_pairs(sampler: SentenceSampler) -> Iterator[DemoPair]:
    """Yields pairs without end, none of them twice."""
    seen = set()
    while True:
        sentence = sampler.draw_sentence()
        source = render_english(sentence)
        if source not in seen:
            seen.add(source)
            target = render_german(sentence)
            positions = {name: [at for at, word in enumerate(target) if name in word.phenomena] for name in PHENOMENA}
            text = " ".join(word.text for word in target)
            yield DemoPair(source, text, positions, frozenset(find_combinations(sentence)))


def split_words(pair: DemoPair) -> Iterator[tuple[str, str]]:
    """Yields language and text of each word of a pair, without punctuation."""
    for language, text in (("en", pair.source), ("de", pair.target)):
        yield from ((language, word) for word in re.findall(r"[\w']+", text))
