"""Prepares what training reads: opens text, trains or loads tokenizers, counts tokens and cleans."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from nmt.config.schema import Config, DataConfig, TokenizerConfig
from nmt.data.batching import TokenizedCorpus
from nmt.data.cleaning import CleaningReport, clean
from nmt.data.corpus import ParallelCorpus, read_parallel, split_indices
from nmt.data.joining import JoinedTokens, JoinPlan
from nmt.data.languages import parse_language
from nmt.data.token_cache import CachedTokens, SampledTokens
from nmt.data.tokenizer import Tokenizer, train_tokenizer

Log = Callable[[str], None]

TOKENIZER_FILES = ("source.model", "target.model")


@dataclass(frozen=True)
class TrainingData:
    """Everything that training reads."""

    corpus: ParallelCorpus
    kept: np.ndarray
    """int64 [N], the examples to train on, as indices into `tokenized`: pairs of the corpus, or examples of
    `JoinedTokens`."""
    lengths: np.ndarray
    """int16 or int32 [N, 2], tokens on both sides of the examples, EOS included. With subword sampling, the length that
    nine in ten samples do not exceed."""
    tokenized: TokenizedCorpus
    """The examples as token ids, sampled or not."""
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    dev_sources: list[str]
    dev_targets: list[str]
    report: CleaningReport

    @property
    def vocabulary_sizes(self) -> tuple[int, int]:
        """Number of source tokens and of target tokens."""
        return self.source_tokenizer.vocabulary_size, self.target_tokenizer.vocabulary_size

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests of what must stay the same when a run is resumed, by their names in messages."""
        return {
            "training text": self.corpus.fingerprint,
            "source tokenizer": self.source_tokenizer.fingerprint,
            "target tokenizer": self.target_tokenizer.fingerprint,
        }

    def sample_sources(self, size: int) -> list[str]:
        """Returns the source text of at most `size` examples, evenly spaced. Some are two sentences joined."""
        sample = self.kept[np.linspace(0, len(self.kept) - 1, min(len(self.kept), size)).astype(np.int64)]
        reader = self.tokenized if isinstance(self.tokenized, JoinedTokens) else self.corpus
        return reader.read_sources(sample)


def prepare_training_data(config: Config, run_dir: Path, log: Log) -> TrainingData:
    """Opens the text, trains or loads the tokenizers, counts tokens and cleans.

    Tokenizers are written to the run folder. A resumed run finds them there.

    Args:
        config: the whole configuration.
        run_dir: the run folder.
        log: receives one message per line.

    Raises:
        UserError: a file is missing, empty or not UTF-8, two parallel files differ in their number of lines, no pair is
            left after cleaning, or the vocabulary size does not suit the text.
    """
    cache = config.data.cache or run_dir / "cache"
    dev_sources, dev_targets = read_dev(config.data)
    pairs = [(files.source, files.target) for files in config.data.train]
    corpus = ParallelCorpus.open(pairs, cache)
    blank = f"; {corpus.num_blank:,} more have a blank side and are left out" if corpus.num_blank else ""
    log(f"Training text: {len(corpus):,} sentence pairs{blank}.")
    source, target = make_tokenizers(config.tokenizer, corpus, run_dir, seed=config.seed, log=log)
    # Needed for cleaning even if training samples its tokens: limits apply to the best segmentation.
    tokens = CachedTokens.open(corpus, source, target, cache)
    kept, report = clean(
        corpus,
        tokens.lengths,
        max_length=config.data.max_length,
        max_ratio=config.data.max_ratio,
        drop_identical=config.data.drop_identical,
        drop_duplicates=config.data.drop_duplicates,
    )
    if report.kept < report.num_pairs:
        log(str(report))
    alpha = config.tokenizer.sampling_alpha
    sampled = None if alpha is None else SampledTokens(corpus, source, target, alpha=alpha, seed=config.seed)
    lengths = _count_eos(tokens.lengths, kept)
    if sampled is not None:
        lengths = _lengthen(lengths, sampled.estimate_growth(tokens.lengths, kept))
    tokenized: TokenizedCorpus = sampled or tokens
    if config.data.join_pairs:
        tokenized = _join_pairs(config, sampled or tokens, corpus, (source, target), kept, tokens.lengths)
        log(f"{len(tokenized.plan):,} examples, {tokenized.plan.num_joined:,} of them joined from two pairs.")
        kept, lengths = np.arange(len(tokenized.plan)), tokenized.plan.add_lengths(lengths)
    return TrainingData(
        corpus,
        kept,
        lengths,
        tokenized,
        source,
        target,
        dev_sources,
        dev_targets,
        report,
    )


def _join_pairs(
    config: Config,
    tokens: CachedTokens | SampledTokens,
    corpus: ParallelCorpus,
    tokenizers: tuple[Tokenizer, Tokenizer],
    kept: np.ndarray,
    best_lengths: np.ndarray,
) -> JoinedTokens:
    data = config.data
    plan = JoinPlan(best_lengths[kept], share=data.join_pairs, max_length=data.max_length, seed=config.seed)
    separators = (
        parse_language(data.source_language).sentence_separator,
        parse_language(data.target_language).sentence_separator,
    )
    return JoinedTokens(tokens, corpus, tokenizers, kept=kept, plan=plan, separators=separators)


def read_dev(data: DataConfig) -> tuple[list[str], list[str]]:
    """Reads both sides of the development set.

    Raises:
        UserError: a file is missing, empty or not UTF-8, or their numbers of lines differ.
    """
    return read_parallel(data.dev.source, data.dev.target)


def make_tokenizers(
    config: TokenizerConfig, corpus: ParallelCorpus, run_dir: Path, *, seed: int, log: Log
) -> tuple[Tokenizer, Tokenizer]:
    """Loads the tokenizers of the run or of the configuration, or trains them, and writes them to the run folder.

    Returns:
        The tokenizers of source and target; the same object twice if they are joint.
    """
    tokenizers = load_tokenizers(config, run_dir)
    if tokenizers is None:
        sides = "for both sides" if config.joint else "for each side"
        log(f"Training a {config.kind} tokenizer {sides}, vocabulary size {config.vocabulary_size:,} …")
        tokenizers = train_tokenizers(config, _read_side(corpus, 0), _read_side(corpus, 1), seed=seed)
    for tokenizer, name in zip(tokenizers, TOKENIZER_FILES, strict=True):
        if not (run_dir / name).is_file():
            tokenizer.save(run_dir / name)
    return tokenizers


def load_tokenizers(config: TokenizerConfig, run_dir: Path) -> tuple[Tokenizer, Tokenizer] | None:
    """Loads the tokenizers in the run folder, or else those that the configuration names; None if it names none."""
    paths = [run_dir / name for name in TOKENIZER_FILES]
    if all(path.is_file() for path in paths):
        return Tokenizer.load_pair(*paths)
    if config.source_model and config.target_model:
        return Tokenizer.load_pair(config.source_model, config.target_model)
    return None


def train_tokenizers(
    config: TokenizerConfig, sources: Iterable[str], targets: Iterable[str], *, seed: int
) -> tuple[Tokenizer, Tokenizer]:
    """Trains one tokenizer on both sides and returns it twice, or trains one on each side."""
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
    """Returns the lengths [N, 2] of the pairs kept, EOS included, in the smallest type that holds them."""
    is_small = lengths.max() < np.iinfo(np.int16).max
    counted = np.empty((len(kept), 2), dtype=np.int16 if is_small else np.int32)
    for rows in split_indices(len(kept)):
        counted[rows] = lengths[kept[rows]] + 1
    return counted


def _lengthen(lengths: np.ndarray, growth: np.ndarray) -> np.ndarray:
    """Multiplies lengths [N, 2] by a factor for each side [2] and rounds up, in the smallest type that holds them."""
    is_small = (lengths.max(axis=0) * growth).max() < np.iinfo(np.int16).max
    lengthened = np.empty(lengths.shape, dtype=np.int16 if is_small else np.int32)
    for rows in split_indices(len(lengths)):
        lengthened[rows] = np.ceil(lengths[rows] * growth)
    return lengthened
