"""From the configuration's files to what training reads: text, tokenizers, lengths, and the pairs that are kept."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from nmt.config.schema import Config, DataConfig, TokenizerConfig
from nmt.data.batching import TokenizedCorpus
from nmt.data.cleaning import CleaningReport, clean
from nmt.data.corpus import ParallelCorpus, read_parallel, split_indices
from nmt.data.token_cache import CachedTokens, SampledTokens
from nmt.data.tokenizer import Tokenizer, train_tokenizer

Log = Callable[[str], None]

TOKENIZER_FILES = ("source.model", "target.model")


@dataclass(frozen=True)
class TrainingData:
    """All that training reads."""

    corpus: ParallelCorpus
    kept: np.ndarray
    """int64 [N], the corpus' pairs to train on."""
    lengths: np.ndarray
    """int16 or int32 [N, 2], pieces of both sides of the kept pairs, EOS counted."""
    tokenized: TokenizedCorpus
    """The corpus in pieces, as training reads it."""
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    dev_sources: list[str]
    dev_targets: list[str]
    report: CleaningReport

    @property
    def vocabulary_sizes(self) -> tuple[int, int]:
        """How many pieces source and target have."""
        return self.source_tokenizer.vocabulary_size, self.target_tokenizer.vocabulary_size

    @property
    def fingerprints(self) -> dict[str, str]:
        """What must not change between the parts of one run."""
        return {
            "training text": self.corpus.fingerprint,
            "source tokenizer": self.source_tokenizer.fingerprint,
            "target tokenizer": self.target_tokenizer.fingerprint,
        }


def prepare_training_data(config: Config, run_dir: Path, log: Log) -> TrainingData:
    """Opens the text, trains or loads the tokenizers, counts lengths and cleans.

    Tokenizers are written to the run folder and found there when the run is resumed.

    Raises:
        UserError: a file is missing, empty, not UTF-8 or of another length than its partner, or the vocabulary does not
            fit.
    """
    cache = config.data.cache or run_dir / "cache"
    dev_sources, dev_targets = read_dev(config.data)
    pairs = [(files.source, files.target) for files in config.data.train]
    corpus = ParallelCorpus.open(pairs, cache)
    blank = f", {corpus.num_blank:,} with a blank side left out" if corpus.num_blank else ""
    log(f"Training text: {len(corpus):,} pairs{blank}.")
    source, target = make_tokenizers(config.tokenizer, corpus, run_dir, seed=config.seed, log=log)
    pieces = CachedTokens.open(corpus, source, target, cache)
    kept, report = clean(
        corpus,
        pieces.lengths,
        max_length=config.data.max_length,
        max_ratio=config.data.max_ratio,
        drop_identical=config.data.drop_identical,
        drop_duplicates=config.data.drop_duplicates,
    )
    if report.kept < report.num_pairs:
        log(str(report))
    alpha = config.tokenizer.sampling_alpha
    sampled = None if alpha is None else SampledTokens(corpus, source, target, alpha=alpha, seed=config.seed)
    return TrainingData(
        corpus,
        kept,
        _count_eos(pieces.lengths, kept),
        sampled or pieces,
        source,
        target,
        dev_sources,
        dev_targets,
        report,
    )


def read_dev(data: DataConfig) -> tuple[list[str], list[str]]:
    """The lines of the dev corpus; raises UserError where its sides differ in length or are empty."""
    return read_parallel(data.dev.source, data.dev.target)


def make_tokenizers(
    config: TokenizerConfig, corpus: ParallelCorpus, run_dir: Path, *, seed: int, log: Log
) -> tuple[Tokenizer, Tokenizer]:
    """Loads the run's tokenizers or the configured ones, or trains them; writes them to the run folder."""
    found = load_tokenizers(config, run_dir)
    if found is None:
        number = "a joint" if config.joint else "one for each side, each an"
        log(f"Training {number} {config.kind} tokenizer of {config.vocabulary_size:,} pieces …")
        found = train_tokenizers(config, _read_side(corpus, 0), _read_side(corpus, 1), seed=seed)
    for tokenizer, name in zip(found, TOKENIZER_FILES, strict=True):
        if not (run_dir / name).is_file():
            tokenizer.save(run_dir / name)
    return found


def load_tokenizers(config: TokenizerConfig, run_dir: Path) -> tuple[Tokenizer, Tokenizer] | None:
    """The tokenizers that the run has already, or else those that the configuration names; None where it names none."""
    paths = [run_dir / name for name in TOKENIZER_FILES]
    if all(path.is_file() for path in paths):
        return Tokenizer.load_pair(*paths)
    if config.source_model and config.target_model:
        return Tokenizer.load_pair(config.source_model, config.target_model)
    return None


def train_tokenizers(
    config: TokenizerConfig, sources: Iterable[str], targets: Iterable[str], *, seed: int
) -> tuple[Tokenizer, Tokenizer]:
    """Trains one tokenizer on both sides, twice the same, or one on each."""
    if config.joint:
        joint = _train_tokenizer(config, chain(sources, targets), seed)
        return joint, joint
    return _train_tokenizer(config, sources, seed), _train_tokenizer(config, targets, seed)


def _train_tokenizer(config: TokenizerConfig, lines: Iterable[str], seed: int) -> Tokenizer:
    return train_tokenizer(
        lines,
        kind=config.kind,
        vocabulary_size=config.vocabulary_size,
        character_coverage=config.character_coverage,
        byte_fallback=config.byte_fallback,
        user_symbols=config.user_symbols,
        normalization=config.normalization,
        seed=seed,
    )


def _read_side(corpus: ParallelCorpus, side: int) -> Iterator[str]:
    read = (corpus.read_sources, corpus.read_targets)[side]
    for indices in split_indices(len(corpus)):
        yield from read(indices)


def _count_eos(lengths: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The lengths [N, 2] of the kept pairs, EOS counted, in as little memory as they need."""
    small = lengths.max() < np.iinfo(np.int16).max
    found = np.empty((len(kept), 2), dtype=np.int16 if small else np.int32)
    for rows in split_indices(len(kept)):
        found[rows] = lengths[kept[rows]] + 1
    return found
