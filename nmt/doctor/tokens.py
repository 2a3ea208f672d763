"""Checks of the tokenizers: how they segment the text, what they lose, and which pairs are too long or too unequal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmt.config.schema import Config, DataConfig, TokenizerConfig
from nmt.data.augmentation import to_capitals
from nmt.data.corpus import ParallelCorpus
from nmt.data.examples import list_tags
from nmt.data.glossary import read_glossary
from nmt.data.languages import parse_language
from nmt.data.placeholders import TERM, Placeholders
from nmt.data.preparation import (
    DevSet,
    has_tokenizers,
    load_named_tokenizers,
    load_tokenizers,
    make_masker,
    make_tag_ids,
    train_tokenizers,
)
from nmt.data.token_cache import PAIR_BYTES, CachedTokens
from nmt.data.tokenizer import UNK_ID, Tokenizer
from nmt.doctor.findings import Finding, report_count
from nmt.doctor.text import select_evenly
from nmt.errors import UserError

# Large enough to show how a tokenizer will segment the text, small enough to train one in seconds.
TOKENIZER_SAMPLE = 20_000
LENGTH_SAMPLE = 50_000
PLACEHOLDER_SAMPLE = 20_000
# The longest of that sample, whose tokens in capitals are counted as well.
CAPITALS_SAMPLE = 1000
# Pairs whose lengths differ by more than this factor are rarely translations of each other.
ODD_RATIO = 4.0
# Short pairs differ by large factors for good reasons.
MIN_ODD_LENGTH = 8

Tokenizers = tuple[Tokenizer, Tokenizer]


def examine_start(config: Config, run_dir: Path) -> tuple[Config, Tokenizers | None, Finding]:
    """Checks the model that the run will start from (`training.start_from`).

    Returns:
        The configuration as it takes effect, the tokenizers of the model if the run will use them, and the finding.
    """
    from nmt.training.run_folder import RunFolder  # imports Keras, which takes seconds
    from nmt.training.start import find_start, has_tokenizers_of

    said: list[str] = []
    try:
        config, start = find_start(config, RunFolder(run_dir), said.append)
    except UserError as error:
        return config, None, Finding("start", "error", str(error))
    if start is None:
        return config, None, Finding("start", "ok", f"the run in {run_dir} has begun already")
    kept = has_tokenizers_of(start.config.tokenizer, config.tokenizer)
    return config, (start.source_tokenizer, start.target_tokenizer) if kept else None, Finding("start", "ok", said[0])


def try_tokenizers(
    config: Config, corpus: ParallelCorpus, run_dir: Path, *, start: Tokenizers | None = None
) -> tuple[Tokenizers | None, Finding]:
    """Loads the tokenizers of the run or of the configuration, or trains them on a sample. Nothing is written.

    Args:
        config: the configuration as it takes effect.
        corpus: the training text.
        run_dir: the run folder.
        start: the tokenizers of the model that the run will start from, if it will use them.

    Returns:
        The tokenizers, None if they cannot be loaded or trained, and the finding.
    """
    try:
        found = start or _load_tokenizers(config.tokenizer, run_dir)
        if found is not None:
            return found, Finding("tokenizer", "ok", f"{found[0].vocabulary_size:,} tokens, loaded")
        indices = select_evenly(len(corpus), TOKENIZER_SAMPLE)
        trained = train_tokenizers(
            config.tokenizer,
            corpus.read_sources(indices),
            corpus.read_targets(indices),
            tags=list_tags(config.data),
            placeholders=Placeholders.from_config(config.data.placeholders).symbols,
            seed=config.seed,
        )
    except UserError as error:
        whole = len(corpus) <= TOKENIZER_SAMPLE
        on_sample = "" if whole else f" (on a sample of {TOKENIZER_SAMPLE:,} pairs; the whole text may allow it)"
        return None, Finding("tokenizer", "error" if whole else "note", f"{error}{on_sample}")
    sample = f"{len(indices):,} pairs" if len(indices) < len(corpus) else "the whole text"
    return trained, Finding("tokenizer", "ok", f"{trained[0].vocabulary_size:,} tokens, trained on {sample}")


def _load_tokenizers(config: TokenizerConfig, run_dir: Path) -> Tokenizers | None:
    """Loads the tokenizers that training would load; None if it would train them."""
    if has_tokenizers(run_dir):
        from nmt.training.run_folder import RunFolder  # imports Keras, which takes seconds

        if RunFolder(run_dir).can_keep_tokenizers():
            return load_tokenizers(config, run_dir)
    return load_named_tokenizers(config)


@dataclass(frozen=True)
class LengthSample:
    """Some pairs of the training text and their lengths."""

    indices: np.ndarray
    """int64 [S], the pairs of the corpus, evenly spaced."""
    lengths: np.ndarray
    """int32 [S, 2], tokens of source and target, without EOS."""


def measure_lengths(corpus: ParallelCorpus, tokenizers: Tokenizers) -> LengthSample:
    """Counts the tokens of a sample of the training pairs."""
    indices = select_evenly(len(corpus), LENGTH_SAMPLE)
    texts = corpus.read_sources(indices), corpus.read_targets(indices)
    lengths = [tokenizer.count_tokens(side) for tokenizer, side in zip(tokenizers, texts, strict=True)]
    return LengthSample(indices, np.stack(lengths, axis=1))


def examine_lengths(config: Config, corpus: ParallelCorpus, sample: LengthSample) -> Iterator[Finding]:
    """Counts training pairs that are too long or too unequal, in tokens."""
    indices, lengths = sample.indices, sample.lengths
    of = f"of {len(indices):,} pairs" + (" sampled" if len(indices) < len(corpus) else "")
    longer = np.flatnonzero(lengths.max(axis=1) > config.data.max_length)
    limit = f"{of} exceed data.max_length {config.data.max_length:,} and are dropped"
    yield report_count("long pairs", len(longer), limit, _locate_first(corpus, indices, longer), verdict="note")
    unequal = _find_unequal(lengths)
    times = f"{of} differ from the usual ratio by more than a factor of {ODD_RATIO:g}"
    yield report_count("unequal lengths", len(unequal), times, _locate_first(corpus, indices, unequal))
    quantiles = np.percentile(lengths, [50, 95, 100], axis=0).astype(int)
    sides = [f"{side} {' / '.join(map(str, quantiles[:, n]))}" for n, side in enumerate(("source", "target"))]
    yield Finding("tokens per sentence", "note", f"median / 95 % / longest: {', '.join(sides)}")


def _find_unequal(lengths: np.ndarray) -> np.ndarray:
    """Finds the rows of lengths [N, 2] whose ratio is far from the median, which depends on the two languages."""
    ratio = np.maximum(lengths[:, 0], 1) / np.maximum(lengths[:, 1], 1)  # what is invisible has no tokens
    ratio = ratio / np.median(ratio)
    factor = np.maximum(ratio, 1 / ratio)
    return np.flatnonzero((factor > ODD_RATIO) & (lengths.max(axis=1) > MIN_ODD_LENGTH))


def _locate_first(corpus: ParallelCorpus, indices: np.ndarray, found: np.ndarray) -> str:
    return corpus.locate(int(indices[found[0]])) if len(found) else ""


def find_longest_pair(
    config: Config, corpus: ParallelCorpus, tokenizers: Tokenizers, sample: LengthSample
) -> tuple[int, int]:
    """Returns the tokens of the longest source and target to train on, as a sample shows them, EOS included."""
    data, longest = config.data, sample.lengths.max(axis=0)
    if data.augment.capitals:
        longest = np.maximum(longest, _measure_capitals(config, corpus, tokenizers, sample))
    source, target = (int(length) * (2 if data.join_pairs else 1) for length in longest)
    tag = max((len(ids) for ids in tokenizers[0].encode(list_tags(data))), default=0)
    return min(source + tag, data.max_length) + 1, min(target, data.max_length) + 1


def _measure_capitals(
    config: Config, corpus: ParallelCorpus, tokenizers: Tokenizers, sample: LengthSample
) -> np.ndarray:
    """Returns the tokens of the longest source and target in capitals, which have more than small letters: int [2]."""
    long = sample.indices[np.argsort(sample.lengths.max(axis=1))[-CAPITALS_SAMPLE:]]
    languages = config.data.source_language, config.data.target_language
    sides = corpus.read_texts(long)
    capitals = [[to_capitals(text, language) for text in side] for side, language in zip(sides, languages, strict=True)]
    return np.array([one.count_tokens(side).max() for one, side in zip(tokenizers, capitals, strict=True)])


def estimate_token_cache(corpus: ParallelCorpus, tokenizers: Tokenizers, sample: LengthSample, cache: Path) -> int:
    """Returns the bytes that the token ids of the corpus will take in the cache; 0 if they are there already."""
    files = CachedTokens.find_files(corpus, *tokenizers, cache)
    if all(file.exists() for file in files):
        return 0
    id_bytes = 2 if max(tokenizer.vocabulary_size for tokenizer in tokenizers) <= 1 << 16 else 4
    return int(len(corpus) * (PAIR_BYTES + id_bytes * sample.lengths.sum(axis=1).mean()))


def examine_tags(data: DataConfig, tokenizers: Tokenizers) -> Iterator[Finding]:
    """Checks that the tags of the corpora are tokens of the source tokenizer."""
    if tags := list_tags(data):
        try:
            make_tag_ids(data, tokenizers[0])
        except UserError as error:
            yield Finding("tags", "error", str(error))
        else:
            yield Finding("tags", "ok", f"each is one token of the source tokenizer: {', '.join(tags)}")


def examine_placeholders(data: DataConfig, corpus: ParallelCorpus, tokenizers: Tokenizers) -> Iterator[Finding]:
    """Counts the pairs that have something to copy on both sides, and the terms that no pair has."""
    try:
        glossary = read_glossary(data.placeholders.glossary)
        masker = make_masker(data, tokenizers, glossary)
    except UserError as error:
        yield Finding("placeholders", "error", str(error))
        return
    if masker is None:
        return
    indices = select_evenly(len(corpus), PLACEHOLDER_SAMPLE)
    pairs = zip(*corpus.read_texts(indices), strict=True)
    found = [masker.find_common(*pair) for pair in pairs]
    of = f"of {len(indices):,} pairs" + (" sampled" if len(indices) < len(corpus) else "")
    for kind in data.placeholders.kinds:
        number = sum(any(one == kind for one, _ in keys) for keys in found)
        meaning = "" if number else ", so that the model cannot learn what to do with its symbols"
        yield Finding(
            f"placeholders: {kind}", "ok" if number else "warning", f"on both sides of {number:,} {of}{meaning}"
        )
    seen = {text for keys in found for kind, text in keys if kind == TERM}
    unseen = [source for source, target in glossary.entries.items() if target not in seen]
    terms = f"of {len(glossary.entries):,} terms are in no pair {of} with their translation"
    if glossary.entries:
        yield report_count("glossary", len(unseen), terms, unseen[0] if unseen else "", verdict="note")


def examine_dev(config: Config, dev: Sequence[DevSet], tokenizers: Tokenizers) -> Iterator[Finding]:
    """Reports how the tokenizers segment the development sets, and which references they cannot reproduce."""
    languages = config.data.source_language, config.data.target_language
    sides = [line for one in dev for line in one.bare_sources], [line for one in dev for line in one.targets]
    for side, lines, tokenizer, language in zip(("source", "target"), sides, tokenizers, languages, strict=True):
        yield _examine_segmentation(side, lines, tokenizer, language)
    changed = [
        f"line {number} of {files.target}"
        for files, one in zip(config.dev_sets, dev, strict=True)
        for number, line in enumerate(one.targets, start=1)
        if tokenizers[1].decode(tokenizers[1].encode([line]))[0] != line
    ]
    of = f"of {len(sides[1]):,} lines change when tokenized and detokenized, so that no model can reproduce them"
    yield report_count("dev references", len(changed), of, changed[0] if changed else "", verdict="note")


def _examine_segmentation(side: str, lines: Sequence[str], tokenizer: Tokenizer, language: str) -> Finding:
    ids = tokenizer.encode(lines)
    num_tokens, num_unknown = sum(map(len, ids)), sum(row.count(UNK_ID) for row in ids)
    num_bytes = sum(tokenizer.get_token(one).startswith("<0x") for row in ids for one in row)
    unit = "character" if parse_language(language).is_written_without_spaces else "word"
    num_units = sum(len(line) if unit == "character" else len(line.split()) for line in lines)
    found = (
        f"{num_tokens / max(1, num_units):.2f} tokens per {unit}, {num_unknown / max(1, num_tokens):.2%} unknown, "
        f"{num_bytes / max(1, num_tokens):.2%} byte tokens"
    )
    return Finding(f"dev {side}", "warning" if num_unknown * 100 > num_tokens else "ok", found)
