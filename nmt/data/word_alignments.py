"""Word alignments of the training text (`data.train[].alignments`), as targets for the attention of target tokens.

Words are what white space separates, as in the Pharaoh format. SentencePiece marks the first token of each word by "▁",
whatever segmentation is sampled and whatever letters are changed, so the tokens of each word are known from the ids
alone. An example whose ids have more or fewer words than its text, as after some normalizations, has no targets.

Shapes: N sentence pairs; L links; B examples in a batch; S and T tokens of source and target, without EOS.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nmt.data.batching import TokenizedCorpus
from nmt.data.corpus import (
    DamagedCacheError,
    ParallelCorpus,
    TextFile,
    map_array,
    open_growing_array,
    split_indices,
)
from nmt.data.joining import NO_PAIR
from nmt.data.subword_sampling import SPACE
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.files import compute_digest

LINK = re.compile(r"(\d{1,9})([-?p])(\d{1,9})")
# Pairs that are tokenized to find out whether the tokenizers mark words.
CHECKED_PAIRS = 500

Link = tuple[int, int]
Rows = Sequence[Sequence[int] | np.ndarray]


@dataclass(frozen=True, eq=False)
class WordAlignments:
    """The links between the words of each pair of a corpus, mapped from files."""

    fingerprint: str
    """Digest of all files of alignments."""
    num_words: np.ndarray
    """int32 [N, 2], words of source and target."""
    ends: np.ndarray
    """int64 [N], where the links of each pair end."""
    links: np.ndarray
    """int32 [L, 2], a source and a target word, counted from 0; those of one pair follow those of the pair before."""

    @classmethod
    def open(cls, paths: Sequence[Path | None], corpus: ParallelCorpus, cache: Path) -> "WordAlignments":
        """Opens the alignments of a corpus. The first time, they are checked and written to the folder `cache`.

        Args:
            paths: a file for each pair of files that the corpus consists of; None for none.
            corpus: the pairs.
            cache: folder for the line indexes and links.

        Raises:
            UserError: a file is missing, a line is malformed or links words that its pair does not have, or the number
                of lines differs from that of the pairs.
        """
        texts = [None if path is None else TextFile.open(path, cache) for path in paths]
        for number, text in enumerate(texts):
            if text is not None and len(text) != (count := corpus.count_lines(number)):
                raise UserError(
                    f"data.train.{number}.alignments: expected links for each of the {count:,} lines of the corpus, "
                    f"found {len(text):,} lines in {text.path}."
                )
        digest = compute_digest(" ".join(text.fingerprint if text else "-" for text in texts).encode())
        key = f"{corpus.fingerprint[:12]}-{digest[:12]}"
        files = [cache / f"{kind}.{key}.npy" for kind in ("words", "link-ends", "links")]
        try:
            return cls(digest, *map(map_array, files))
        except (OSError, DamagedCacheError):
            _write_links(files, texts, corpus)
        return cls(digest, *map(map_array, files))

    def __len__(self) -> int:
        return len(self.ends)

    def read_links(self, pair: int) -> np.ndarray:
        """Returns the links of a pair: int32 [number of links, 2], source and target words."""
        return self.links[self.ends[pair - 1] if pair else 0 : self.ends[pair]]


def _write_links(files: Sequence[Path], texts: Sequence[TextFile | None], corpus: ParallelCorpus) -> None:
    total = 0
    with (
        open_growing_array(files[0], "<i4", columns=2) as append_words,
        open_growing_array(files[1], "<i8") as append_ends,
        open_growing_array(files[2], "<i4", columns=2) as append_links,
    ):
        for pairs in split_indices(len(corpus)):
            words = np.array(
                [[len(side.split()) for side in pair] for pair in zip(*corpus.read_texts(pairs), strict=True)]
            )
            rows = [
                _parse(*line, *counts) for line, counts in zip(_read_lines(texts, corpus, pairs), words, strict=True)
            ]
            ends = total + np.cumsum([len(row) for row in rows])
            append_words(words)
            append_ends(ends)
            append_links(np.concatenate([*rows, np.zeros((0, 2), np.int32)]))
            total = int(ends[-1])


def _read_lines(
    texts: Sequence[TextFile | None], corpus: ParallelCorpus, pairs: np.ndarray
) -> Iterator[tuple[str, Path, int]]:
    """Yields the line of links of each pair, its file and its number there, from 1."""
    corpora, lines = corpus.find_corpora(pairs), corpus.find_lines(pairs)
    for corpus_number, line in zip(corpora.tolist(), lines.tolist(), strict=True):
        text = texts[corpus_number]
        yield ("", Path(), 0) if text is None else (text[line], text.path, line + 1)


def _parse(line: str, path: Path, number: int, num_source: int, num_target: int) -> np.ndarray:
    """Returns the links of a line: int32 [number of links, 2]; each once."""
    links = {link for link, _ in parse_links(line, num_source, num_target, place=f"{path}:{number}")}
    return np.array(sorted(links), np.int32).reshape(-1, 2)


def parse_links(
    line: str, num_source: int, num_target: int, *, place: str, is_gold: bool = False
) -> Iterator[tuple[Link, bool]]:
    """Yields the links of a line in the Pharaoh format, each with whether it is sure.

    Args:
        line: such as "0-0 1-2".
        num_source, num_target: words of the pair.
        place: file and line, for messages.
        is_gold: whether links may be only possible, such as 1?2 or 1p2.

    Raises:
        UserError: the line is not of this form, or links a word that the pair does not have.
    """
    for field in line.split():
        found = LINK.fullmatch(field)
        if found is None or (found[2] != "-" and not is_gold):
            example = "0-0 (sure) or 1?2 (possible)" if is_gold else "0-0 1-2"
            raise UserError(
                f"{place}: expected links such as {example}, a source and a target word counted from 0, found "
                f"'{field[:40]}'."
            )
        source, target = int(found[1]), int(found[3])
        if source >= num_source or target >= num_target:
            raise UserError(
                f"{place}: {field} links a word that its pair does not have: the source has {num_source} words, the "
                f"target {num_target}, and the first one is number 0."
            )
        yield (source, target), found[2] == "-"


class FindPairs(Protocol):
    """Returns the pairs that examples consist of in an epoch: int [B, 1], or [B, 2] with NO_PAIR where there is one."""

    def __call__(self, examples: np.ndarray, epoch: int) -> np.ndarray:
        """See above."""


class AttentionTargets:
    """Targets for the attention of each target token, for guided alignment (Chen et al. 2016).

    A token attends evenly to all tokens of the words that its own word is linked to. It has no target if that word has
    no link.

    Args:
        alignments: the links between words.
        tokenizers: of source and target.
        find_pairs: which pairs of the corpus the examples consist of; None if they are pairs.
        count_tag: returns the number of tokens of the tag before each example's source; None if there are no tags.
    """

    def __init__(
        self,
        alignments: WordAlignments,
        tokenizers: tuple[Tokenizer, Tokenizer],
        *,
        find_pairs: FindPairs | None = None,
        count_tag: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self.alignments, self.find_pairs, self.count_tag = alignments, find_pairs, count_tag
        self._begins = [_find_beginnings(tokenizer) for tokenizer in tokenizers]

    def __call__(self, examples: np.ndarray, epoch: int, sources: Rows, targets: Rows) -> list[np.ndarray | None]:
        """Returns the targets of examples.

        Args:
            examples: int [B], their numbers.
            epoch: in which they are read.
            sources, targets: their token ids without EOS, with tags.

        Returns:
            For each example, float32 [T, S], in which rows sum to 1 or to 0; None if no token has a target.
        """
        pairs = self.find_pairs(examples, epoch) if self.find_pairs else examples[:, None]
        tags = self.count_tag(examples) if self.count_tag else np.zeros(len(examples), np.int64)
        rows = zip(pairs.tolist(), tags.tolist(), sources, targets, strict=True)
        return [self._align(*row) for row in rows]

    def measure_usable(self, pairs: np.ndarray, sources: Rows, targets: Rows) -> float:
        """Returns the share of pairs whose ids, given without tags, have as many words as their text."""
        sides = (self._number_words(side, rows) for side, rows in enumerate((sources, targets)))
        counts = np.array([[_count_words(numbers) for numbers in side] for side in sides]).T
        return float((counts == self.alignments.num_words[pairs]).all(axis=1).mean())

    def _align(
        self, pairs: Sequence[int], tag: int, source: Sequence[int] | np.ndarray, target: Sequence[int] | np.ndarray
    ) -> np.ndarray | None:
        links, num_words = self._join([pair for pair in pairs if pair != NO_PAIR])
        if not len(links):
            return None
        [source_words], [target_words] = (
            self._number_words(side, [ids]) for side, ids in ((0, source[tag:]), (1, target))
        )
        if [_count_words(source_words), _count_words(target_words)] != num_words.tolist():
            return None
        linked = np.zeros(num_words[::-1], np.float32)  # [target words, source words]
        linked[links[:, 1], links[:, 0]] = 1
        weights = np.zeros((len(target), len(source)), np.float32)
        weights[:, tag:] = linked[target_words][:, source_words]
        return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)

    def _join(self, pairs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the links of pairs that stand one after the other, and their words: int [links, 2] and [2]."""
        counts = np.cumsum(self.alignments.num_words[pairs], axis=0, dtype=np.int64)
        starts = [np.zeros(2, np.int64), *counts]
        links = [self.alignments.read_links(pair) + start for pair, start in zip(pairs, starts, strict=False)]
        return np.concatenate(links), counts[-1]

    def _number_words(self, side: int, rows: Rows) -> list[np.ndarray]:
        """Returns the number of each token's word, from 0."""
        found = []
        for ids in rows:
            begins = self._begins[side][np.asarray(ids, np.int64)]
            begins[:1] = 1  # some tokenizers do not mark the first word
            found.append(np.cumsum(begins) - 1)
        return found


def _count_words(numbers: np.ndarray) -> int:
    return int(numbers[-1]) + 1 if len(numbers) else 0


def _find_beginnings(tokenizer: Tokenizer) -> np.ndarray:
    """Returns for each token whether a word begins with it: int64 [vocabulary size], 1 or 0."""
    tokens = (tokenizer.get_token(one) for one in range(tokenizer.vocabulary_size))
    return np.array([token.startswith(SPACE) for token in tokens], np.int64)


def make_attention_targets(
    alignments: WordAlignments,
    tokenizers: tuple[Tokenizer, Tokenizer],
    tokens: TokenizedCorpus,
    *,
    find_pairs: FindPairs | None,
    count_tag: Callable[[np.ndarray], np.ndarray] | None,
    log: Callable[[str], None],
) -> AttentionTargets:
    """Makes the targets of a corpus, after it has checked that the tokenizers mark words.

    Args:
        alignments, tokenizers, find_pairs, count_tag: see `AttentionTargets`.
        tokens: the pairs of the corpus as token ids, without tags.
        log: receives a message.

    Raises:
        UserError: there are no links, or the tokens do not tell where words begin.
    """
    made = AttentionTargets(alignments, tokenizers, find_pairs=find_pairs, count_tag=count_tag)
    linked = np.flatnonzero(np.diff(alignments.ends, prepend=0))
    if not len(linked):
        raise UserError("data.train[].alignments: expected links such as 0-0 1-2, but all lines are blank.")
    # Single words need no mark.
    several = linked[(alignments.num_words[linked] > 1).any(axis=1)]
    sample = several[np.linspace(0, max(0, len(several) - 1), min(len(several), CHECKED_PAIRS)).astype(np.int64)]
    usable = made.measure_usable(sample, *tokens.read_ids(sample, epoch=0, batch=0)) if len(sample) else 1.0
    if not usable:
        raise UserError(
            "training.guided_alignment: the tokenizers do not mark where words begin (by ▁), so that links between "
            "words do not tell which tokens are linked. Train new tokenizers, or set it to 0."
        )
    rest = "" if usable == 1 else f" About {1 - usable:.1%} of these are not used: normalization changes their words."
    log(f"Word alignments: {len(alignments.links):,} links in {len(linked):,} pairs.{rest}")
    return made
