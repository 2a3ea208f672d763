"""Prepares what training reads: opens text, trains or loads tokenizers, counts tokens and cleans."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nmt.config.schema import Config, DataConfig, TokenizerConfig
from nmt.data.augmentation import AugmentedTokens
from nmt.data.batching import TokenizedCorpus
from nmt.data.cleaning import CleaningReport, clean
from nmt.data.corpus import ParallelCorpus, read_parallel, split_indices
from nmt.data.examples import ReplacedTokens, TaggedTokens, find_tag_ids, list_tags, put_tag
from nmt.data.glossary import Glossary, read_glossary
from nmt.data.joining import JoinedTokens, JoinPlan
from nmt.data.languages import parse_language
from nmt.data.placeholders import PairMasker, Placeholders, check_symbols
from nmt.data.token_cache import CachedTokens, SampledTokens
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.data.weighting import CorpusShares, FindKeys, SentenceWeights, keep_keys, tell_copies_apart
from nmt.data.word_alignments import AttentionTargets, WordAlignments, make_attention_targets
from nmt.errors import UserError
from nmt.files import compute_digest

Log = Callable[[str], None]

TOKENIZER_FILES = ("source.model", "target.model")


class DevSet(NamedTuple):
    """Text to validate on."""

    name: str
    sources: list[str]
    """Each with the tag of the set, if it has one, except blank ones."""
    targets: list[str]
    target_language: str | None = None
    """By which BLEU splits the targets into words."""
    tag: str | None = None

    @property
    def bare_sources(self) -> list[str]:
        """The sources without the tag."""
        return [source.removeprefix(f"{self.tag} ") if self.tag else source for source in self.sources]


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
    texts: ParallelCorpus | JoinedTokens
    """The text of the examples, without tags."""
    tokenized: TokenizedCorpus
    """The examples as token ids, sampled or not, with tags."""
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    shares: CorpusShares | None
    """How many examples of each corpus an epoch has; None for every example once."""
    weights: SentenceWeights | None
    """Factors for the loss of each pair; None weighs all alike."""
    dev: list[DevSet]
    report: CleaningReport
    glossary_fingerprint: str | None = None
    """Digest of the glossary of data.placeholders; None without one."""
    guide: AttentionTargets | None = None
    """What the attention should be; None without training.guided_alignment."""

    @property
    def vocabulary_sizes(self) -> tuple[int, int]:
        """Number of source tokens and of target tokens."""
        return self.source_tokenizer.vocabulary_size, self.target_tokenizer.vocabulary_size

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests of what must stay the same when a run is resumed, by their names in messages."""
        optional = {
            "text of sentence weights": self.weights.fingerprint if self.weights else None,
            "glossary": self.glossary_fingerprint,
            "text of word alignments": self.guide.alignments.fingerprint if self.guide else None,
        }
        return {
            **{name: digest for name, digest in optional.items() if digest is not None},
            "training text": self.corpus.fingerprint,
            "source tokenizer": self.source_tokenizer.fingerprint,
            "target tokenizer": self.target_tokenizer.fingerprint,
        }

    @cached_property
    def dev_fingerprint(self) -> str:
        """Digest of the dev text."""
        lines = (line for one in self.dev for side in (one.sources, one.targets) for line in side)
        return compute_digest("\n".join(lines).encode())

    def weigh(self, examples: np.ndarray, epoch: int) -> np.ndarray:
        """Returns the weights of examples in an epoch: float32; 1 unless `data.train[].weights` is set."""
        if self.weights is None:
            return np.ones(len(examples), np.float32)
        if isinstance(self.texts, JoinedTokens):
            return self.texts.average(self.weights.values, examples, epoch)
        return self.weights.values[examples]

    def find_pairs(self, examples: np.ndarray, epoch: int) -> np.ndarray:
        """Returns the pairs of the corpus that examples consist of in an epoch: int [B, 1], or [B, 2] with NO_PAIR."""
        return self.texts.find_pairs(examples, epoch) if isinstance(self.texts, JoinedTokens) else examples[:, None]

    def sample_sources(self, size: int) -> list[str]:
        """Returns the source text of at most `size` examples, evenly spaced. Some are two sentences joined."""
        sample = self.kept[np.linspace(0, len(self.kept) - 1, min(len(self.kept), size)).astype(np.int64)]
        return self.texts.read_sources(sample)


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
    dev = read_dev(config)
    pairs = [(files.source, files.target) for files in config.data.train]
    corpus = ParallelCorpus.open(pairs, cache)
    blank = f"; {corpus.num_blank:,} more have a blank side and are left out" if corpus.num_blank else ""
    log(f"Training text: {len(corpus):,} sentence pairs{blank}.")
    for warning in find_tag_warnings(config):
        log(f"Warning: {warning}")
    source, target = make_tokenizers(config, corpus, run_dir, log=log)
    tags = make_tag_ids(config.data, source)
    glossary = read_glossary(config.data.placeholders.glossary)
    masker = make_masker(config.data, (source, target), glossary)
    # Needed for cleaning even if training samples its tokens: limits apply to the best segmentation.
    tokens = CachedTokens.open(corpus, source, target, cache)
    kept, report = clean(
        corpus,
        _add_tag_lengths(tokens.lengths, tags, corpus.find_corpora) if any(tags) else tokens.lengths,
        max_length=config.data.max_length,
        max_ratio=config.data.max_ratio,
        drop_identical=config.data.drop_identical,
        drop_duplicates=config.data.drop_duplicates,
    )
    if report.kept < report.num_pairs:
        log(str(report))
    alpha = config.tokenizer.sampling_alpha
    find_keys = tell_copies_apart if any(files.weight > 1 for files in config.data.train) else keep_keys
    sampled = None
    if alpha is not None:
        sampled = SampledTokens(corpus, source, target, alpha=alpha, seed=config.seed, find_keys=find_keys)
    lengths = _count_eos(tokens.lengths, kept)
    if sampled is not None:
        lengths = _lengthen(lengths, sampled.estimate_growth(tokens.lengths, kept))
    tokenized: TokenizedCorpus = sampled or tokens
    texts: ParallelCorpus | JoinedTokens = corpus
    find_corpora: Callable[[np.ndarray], np.ndarray] = corpus.find_corpora
    corpora = None
    if _tells_corpora_apart(config.data):
        corpora = corpus.find_corpora(kept).astype(np.min_scalar_type(len(config.data.train)))
    room = config.data.max_length - max(map(len, tags))
    if config.data.join_pairs:
        plan = JoinPlan(
            tokens.lengths[kept],
            share=config.data.join_pairs,
            max_length=room,
            seed=config.seed,
            corpora=corpora,
        )
        log(f"{len(plan):,} examples, {plan.num_joined:,} of them joined from two pairs.")
        tokenized = texts = _join_pairs(config.data, sampled or tokens, corpus, (source, target), kept, plan, find_keys)
        kept, lengths = np.arange(len(plan)), plan.add_lengths(lengths)
        if corpora is not None:
            corpora = plan.find_corpora(corpora)
            find_corpora = corpora.__getitem__
    if config.data.augment.shares or masker:
        tokenized = AugmentedTokens(
            tokenized,
            sampled or tokens,
            texts.read_texts,
            config.data.augment,
            seed=config.seed,
            max_length=room,
            languages=(config.data.source_language, config.data.target_language),
            user_symbols=(source.user_symbols, target.user_symbols),
            find_keys=find_keys,
            masker=masker,
            masked_share=config.data.placeholders.share,
        )
    if config.data.replace_tokens:
        ids = source.text_ids
        tokenized = ReplacedTokens(
            tokenized, share=config.data.replace_tokens, ids=ids, seed=config.seed, find_keys=find_keys
        )
    if any(tags):
        tokenized = TaggedTokens(tokenized, find_corpora, tags)
        lengths = _add_tag_lengths(lengths, tags, lambda rows: find_corpora(kept[rows]))
    shares = None if corpora is None else _share_epoch(config.data, corpora)
    if shares is not None:
        log(f"An epoch has {sum(shares.counts):,} examples, as data.train weighs its corpora.")
    paths = [files.weights for files in config.data.train]
    weights = SentenceWeights.read(paths, corpus, cache) if any(paths) else None
    fingerprint = glossary.fingerprint if glossary.entries else None
    guide = None
    if config.training.guided_alignment:
        sizes = np.array([len(ids) for ids in tags])
        guide = make_attention_targets(
            WordAlignments.open([files.alignments for files in config.data.train], corpus, cache),
            (source, target),
            tokens,
            find_pairs=_check_joins_words(texts).find_pairs if isinstance(texts, JoinedTokens) else None,
            count_tag=(lambda examples: sizes[find_corpora(examples)]) if any(tags) else None,
            log=log,
        )
    return TrainingData(
        corpus, kept, lengths, texts, tokenized, source, target, shares, weights, dev, report, fingerprint, guide
    )


def _check_joins_words(texts: JoinedTokens) -> JoinedTokens:
    """Raises UserError if the last word of one sentence and the first of the next become one when they are joined."""
    if "" in texts.separators:
        raise UserError(
            "data.join_pairs: sentences of this language are joined without a space, so that the words of "
            "data.train[].alignments could not be counted. Leave one of the two out."
        )
    return texts


def _join_pairs(
    data: DataConfig,
    tokens: CachedTokens | SampledTokens,
    corpus: ParallelCorpus,
    tokenizers: tuple[Tokenizer, Tokenizer],
    kept: np.ndarray,
    plan: JoinPlan,
    find_keys: FindKeys,
) -> JoinedTokens:
    separators = (
        parse_language(data.source_language).sentence_separator,
        parse_language(data.target_language).sentence_separator,
    )
    return JoinedTokens(tokens, corpus, tokenizers, kept=kept, plan=plan, separators=separators, find_keys=find_keys)


def _tells_corpora_apart(data: DataConfig) -> bool:
    """Returns whether it matters which corpus a pair is from."""
    return any(files.weight != 1 or files.tag for files in data.train)


def _share_epoch(data: DataConfig, corpora: np.ndarray) -> CorpusShares | None:
    """Returns how many examples of each corpus an epoch has by their weights; None for every example once.

    Args:
        data: the data section.
        corpora: int [N], the corpus of each example.
    """
    weights = [files.weight for files in data.train]
    if all(weight == 1 for weight in weights):
        return None
    sizes = np.bincount(corpora, minlength=len(weights)).tolist()
    return CorpusShares(corpora, [count_drawn(data, n, size) for n, size in enumerate(sizes)])


def count_drawn(data: DataConfig, number: int, size: int) -> int:
    """Returns how many examples of a corpus an epoch has.

    Args:
        data: the data section.
        number: of the corpus in `data.train`.
        size: examples of the corpus.

    Raises:
        UserError: the corpus has a weight, but an epoch has none of its examples.
    """
    files = data.train[number]
    count = int(size * files.weight + 0.5)
    if count or files.weight == 1:
        return count
    key = f"data.train.{number}.weight"
    if not size:
        raise UserError(f"{key}: cleaning left no pair of {files.source}, so that the weight has no effect.")
    raise UserError(
        f"{key}: {files.weight:g} of the {size:,} examples of {files.source} is less than half an example per epoch, "
        f"so that none would be read. Expected {0.5 / size:.2g} or more, or the corpus left out."
    )


def find_tag_warnings(config: Config) -> Iterator[str]:
    """Yields what the tags of dev sets leave untested, in words."""
    scored = {files.tag for files in config.dev_sets}
    for tag in list_tags(config.data):
        if tag not in scored:
            yield f"no set of data.dev has the tag {tag}, so that no score shows what the model learns from its text."
    if None in scored and all(files.tag for files in config.data.train):
        yield "data.dev has text without a tag, but all text of data.train has one."


def make_tag_ids(data: DataConfig, tokenizer: Tokenizer) -> list[list[int]]:
    """Returns the ids of the tag of each corpus, none for a corpus without one.

    Raises:
        UserError: a tag is not one token of the tokenizer.
    """
    keys = {files.tag: f"data.train.{n}.tag" for n, files in reversed(list(enumerate(data.train)))}
    ids = {tag: find_tag_ids(tokenizer, tag, key) if tag else [] for tag, key in keys.items()}
    return [ids[files.tag] for files in data.train]


def make_masker(data: DataConfig, tokenizers: tuple[Tokenizer, Tokenizer], glossary: Glossary) -> PairMasker | None:
    """Returns what puts placeholders into pairs; None without data.placeholders.

    Raises:
        UserError: a symbol is not one token of both tokenizers.
    """
    if not data.placeholders.kinds:
        return None
    check_symbols(data.placeholders, tokenizers)
    return PairMasker(Placeholders.from_config(data.placeholders, tokenizers[0]), glossary)


def read_dev(config: Config) -> list[DevSet]:
    """Reads the development sets, with their tags.

    Raises:
        UserError: a file is missing, empty, blank or not UTF-8, or the numbers of lines of two files differ.
    """
    sets = []
    for files in config.dev_sets:
        sources, targets = read_parallel(files.source, files.target)
        for path, lines in ((files.source, sources), (files.target, targets)):
            if not any(line.strip() for line in lines):
                raise UserError(f"Expected text in {path}, but all {len(lines):,} lines are blank.")
        tagged = [put_tag(files.tag, source) for source in sources]
        sets.append(DevSet(files.name or "", tagged, targets, files.target_language, files.tag))
    return sets


def make_tokenizers(config: Config, corpus: ParallelCorpus, run_dir: Path, *, log: Log) -> tuple[Tokenizer, Tokenizer]:
    """Loads the tokenizers of the run or of the configuration, or trains them, and writes them to the run folder.

    Returns:
        The tokenizers of source and target; the same object twice if they are joint.
    """
    settings = config.tokenizer
    tokenizers = load_tokenizers(settings, run_dir)
    if tokenizers is None:
        sides = "for both sides" if settings.joint else "for each side"
        log(f"Training a {settings.kind} tokenizer {sides}, vocabulary size {settings.vocabulary_size:,} …")
        tokenizers = train_tokenizers(
            settings,
            _read_side(corpus, 0),
            _read_side(corpus, 1),
            tags=list_tags(config.data),
            placeholders=Placeholders.from_config(config.data.placeholders).symbols,
            seed=config.seed,
        )
    for tokenizer, name in zip(tokenizers, TOKENIZER_FILES, strict=True):
        if not (run_dir / name).is_file():
            tokenizer.save(run_dir / name)
    return tokenizers


def load_tokenizers(config: TokenizerConfig, run_dir: Path) -> tuple[Tokenizer, Tokenizer] | None:
    """Loads the tokenizers in the run folder, or else those that the configuration names; None if it names none.

    Raises:
        UserError: one of them is missing or damaged.
    """
    found = [name for name in TOKENIZER_FILES if (run_dir / name).is_file()]
    if len(found) == 1:  # others, trained beside it, would make a run that cannot be resumed
        [missing] = {*TOKENIZER_FILES} - {*found}
        raise UserError(f"{run_dir} has {found[0]}, but no {missing}. Restore it, or remove {found[0]} to train both.")
    if found:
        return Tokenizer.load_pair(*(run_dir / name for name in TOKENIZER_FILES))
    return load_named_tokenizers(config)


def has_tokenizers(run_dir: Path) -> bool:
    """Returns whether the tokenizers of both sides are in a run folder."""
    return all((run_dir / name).is_file() for name in TOKENIZER_FILES)


def load_named_tokenizers(config: TokenizerConfig) -> tuple[Tokenizer, Tokenizer] | None:
    """Loads the tokenizers that the configuration names; None if it names none."""
    if config.source_model and config.target_model:
        return Tokenizer.load_pair(config.source_model, config.target_model)
    return None


def train_tokenizers(
    config: TokenizerConfig,
    sources: Iterable[str],
    targets: Iterable[str],
    *,
    tags: Sequence[str] = (),
    placeholders: Sequence[str] = (),
    seed: int,
) -> tuple[Tokenizer, Tokenizer]:
    """Trains one tokenizer on both sides and returns it twice, or trains one on each side.

    Args:
        config: the tokenizer section.
        sources, targets: lines of text without tags.
        tags: symbols that stand before sources.
        placeholders: symbols of both sides.
        seed: chooses the lines if there are too many.
    """
    for_target = list(dict.fromkeys([*config.user_symbols, *placeholders])) if placeholders else config.user_symbols
    for_source = [*for_target, *(tag for tag in tags if tag not in for_target)]
    if config.joint:
        joint = _train_tokenizer(config, chain(sources, targets), for_source, seed)
        return joint, joint
    return (
        _train_tokenizer(config, sources, for_source, seed),
        _train_tokenizer(config, targets, for_target, seed),
    )


def _train_tokenizer(config: TokenizerConfig, lines: Iterable[str], user_symbols: list[str], seed: int) -> Tokenizer:
    return train_tokenizer(
        lines,
        kind=config.kind,
        vocabulary_size=config.vocabulary_size,
        character_coverage=config.character_coverage,
        byte_fallback=config.byte_fallback,
        user_symbols=user_symbols,
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


def _add_tag_lengths(
    lengths: np.ndarray, tags: Sequence[list[int]], find_corpora: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Adds the tokens of tags to the sources of lengths [N, 2], given a function from their rows to their corpora."""
    sizes = np.array([len(ids) for ids in tags])
    added = lengths.astype(np.int32)
    for rows in split_indices(len(lengths)):
        added[rows, 0] += sizes[find_corpora(rows)]
    return added


def _lengthen(lengths: np.ndarray, growth: np.ndarray) -> np.ndarray:
    """Multiplies lengths [N, 2] by a factor for each side [2] and rounds up, in the smallest type that holds them."""
    is_small = (lengths.max(axis=0) * growth).max() < np.iinfo(np.int16).max
    lengthened = np.empty(lengths.shape, dtype=np.int16 if is_small else np.int32)
    for rows in split_indices(len(lengths)):
        lengthened[rows] = np.ceil(lengths[rows] * growth)
    return lengthened
