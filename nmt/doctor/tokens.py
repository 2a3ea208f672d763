"""The tokenizer: how it cuts the text, what it loses, and which pairs are too long or too unequal for it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nmt.config.schema import Config
from nmt.data.corpus import ParallelCorpus
from nmt.data.preparation import load_tokenizers, train_tokenizers
from nmt.data.tokenizer import UNK_ID, Tokenizer
from nmt.doctor.findings import Finding, report_count
from nmt.doctor.text import select_evenly
from nmt.errors import UserError

# Enough to tell how a tokenizer will cut, few enough for seconds.
TOKENIZER_SAMPLE = 20_000
LENGTH_SAMPLE = 50_000
# Lengths in pieces of which one is so many times the other are rarely those of translations.
ODD_RATIO = 4.0
# Languages that write no spaces, whose pieces are counted a character.
WITHOUT_SPACES = {"ja", "zh", "th", "lo", "km", "my"}

Tokenizers = tuple[Tokenizer, Tokenizer]


def try_tokenizers(config: Config, corpus: ParallelCorpus, run_dir: Path) -> tuple[Tokenizers | None, Finding]:
    """The run's tokenizers, the configured ones, or ones learned from a sample of the text."""
    try:
        found = load_tokenizers(config.tokenizer, run_dir)
        if found is not None:
            return found, Finding("tokenizer", "ok", f"{found[0].vocabulary_size:,} pieces, read")
        indices = select_evenly(len(corpus), TOKENIZER_SAMPLE)
        learned = train_tokenizers(
            config.tokenizer, corpus.read_sources(indices), corpus.read_targets(indices), seed=config.seed
        )
    except UserError as error:
        whole = len(corpus) <= TOKENIZER_SAMPLE
        on_sample = "" if whole else f" (on a sample of {TOKENIZER_SAMPLE:,} pairs; the whole text may allow it)"
        return None, Finding("tokenizer", "error" if whole else "note", f"{error}{on_sample}")
    sampled = f"{len(indices):,} pairs" if len(indices) < len(corpus) else "the whole text"
    return learned, Finding("tokenizer", "ok", f"{learned[0].vocabulary_size:,} pieces, tried on {sampled}")


def examine_lengths(config: Config, corpus: ParallelCorpus, tokenizers: Tokenizers) -> Iterator[Finding]:
    """Looks for training pairs that are too long or too unequal, in pieces."""
    indices = select_evenly(len(corpus), LENGTH_SAMPLE)
    texts = corpus.read_sources(indices), corpus.read_targets(indices)
    lengths = np.stack([tokenizer.count_tokens(side) for tokenizer, side in zip(tokenizers, texts, strict=True)], 1)
    of = f"of {len(indices):,} pairs" + (" sampled" if len(indices) < len(corpus) else "")
    longer = np.flatnonzero(lengths.max(axis=1) > config.data.max_length)
    limit = f"{of} beyond data.max_length {config.data.max_length:,}, left out"
    yield report_count("long pairs", len(longer), limit, _locate_first(corpus, indices, longer), verdict="note")
    usual = np.median(lengths[:, 0] / np.maximum(lengths[:, 1], 1))
    ratio = lengths[:, 0] / np.maximum(lengths[:, 1], 1) / usual
    odd = np.flatnonzero((np.maximum(ratio, 1 / np.maximum(ratio, 1e-9)) > ODD_RATIO) & (lengths.max(axis=1) > 8))
    times = f"{of} with {ODD_RATIO:g} times the usual ratio"
    yield report_count("unequal lengths", len(odd), times, _locate_first(corpus, indices, odd))
    quantiles = np.percentile(lengths, [50, 95, 100], axis=0).astype(int)
    sides = [f"{side} {' / '.join(map(str, quantiles[:, n]))}" for n, side in enumerate(("source", "target"))]
    yield Finding("pieces a sentence", "note", f"median / 95 % / longest: {', '.join(sides)}")


def find_longest_pair(config: Config, corpus: ParallelCorpus, tokenizers: Tokenizers) -> tuple[int, int]:
    """Pieces, EOS counted, of the longest source and target that a batch may hold, as far as a sample shows."""
    indices = select_evenly(len(corpus), LENGTH_SAMPLE)
    texts = corpus.read_sources(indices), corpus.read_targets(indices)
    source, target = (int(t.count_tokens(side).max()) for t, side in zip(tokenizers, texts, strict=True))
    return min(source, config.data.max_length) + 1, min(target, config.data.max_length) + 1


def examine_dev(config: Config, dev: tuple[list[str], list[str]], tokenizers: Tokenizers) -> Iterator[Finding]:
    """Looks at what the tokenizers make of the dev text."""
    languages = config.data.source_language, config.data.target_language
    for side, lines, tokenizer, language in zip(("source", "target"), dev, tokenizers, languages, strict=True):
        yield _examine_segmentation(side, lines, tokenizer, language)
    changed = [n for n, line in enumerate(dev[1]) if tokenizers[1].decode(tokenizers[1].encode([line]))[0] != line]
    example = f"line {changed[0] + 1} of {config.data.dev.target}" if changed else ""
    of = f"of {len(dev[1]):,} lines change when cut and put together again, so that no model can score in full"
    yield report_count("dev references", len(changed), of, example, verdict="note")


def _examine_segmentation(side: str, lines: Sequence[str], tokenizer: Tokenizer, language: str) -> Finding:
    ids = tokenizer.encode(lines)
    num_pieces, num_unknown = sum(map(len, ids)), sum(row.count(UNK_ID) for row in ids)
    spelt = sum(tokenizer.get_token(one).startswith("<0x") for row in ids for one in row)
    unit = "character" if language.split("-")[0] in WITHOUT_SPACES else "word"
    num_units = sum(len(line) if unit == "character" else len(line.split()) for line in lines)
    found = (
        f"{num_pieces / max(1, num_units):.2f} pieces a {unit}, {num_unknown / max(1, num_pieces):.2%} unknown, "
        f"{spelt / max(1, num_pieces):.2%} spelt in bytes"
    )
    return Finding(f"dev {side}", "warning" if num_unknown * 100 > num_pieces else "ok", found)


def _locate_first(corpus: ParallelCorpus, indices: np.ndarray, found: np.ndarray) -> str:
    return corpus.locate(int(indices[found[0]])) if len(found) else ""
