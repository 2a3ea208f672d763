"""Attention and log-probabilities of given translations, read by teacher forcing (forced decoding)."""

from collections.abc import Iterator, Sequence

import numpy as np

from nmt.compilation import compile_function, has_static_shapes
from nmt.data.batching import pad
from nmt.data.tokenizer import Tokenizer
from nmt.decoding.alignment import TokenAttention
from nmt.decoding.grouping import round_to_bucket_width
from nmt.decoding.inference import read_attention, read_log_probs
from nmt.models.ensemble import DecodingModel

# Source and target, as ids without EOS.
Pair = tuple[Sequence[int], Sequence[int]]

MAX_WEIGHTS = 1 << 20  # attention weights per head in memory at once
MAX_LOGITS = 1 << 24


class ForcedDecoding:
    """Reads given translations; compiled on first use.

    Args:
        model: in inference.
        source_tokenizer, target_tokenizer: ids to tokens.
    """

    def __init__(self, model: DecodingModel, source_tokenizer: Tokenizer, target_tokenizer: Tokenizer):
        self._source_tokenizer = source_tokenizer
        self._target_tokenizer = target_tokenizer
        self._run = compile_function(lambda *ids: read_attention(model, *ids), model.variables, num_inputs=2)
        self._score = compile_function(lambda *ids: read_log_probs(model, *ids), model.variables, num_inputs=2)

    def read_attention(self, pairs: Sequence[Pair]) -> list[TokenAttention]:
        """Returns the attention of the target tokens of each pair.

        Args:
            pairs: sources and their translations, preferably sorted by length.
        """
        return [
            TokenAttention(
                _as_tokens(self._source_tokenizer, source), _as_tokens(self._target_tokenizer, target), weights
            )
            for batch in split_batches(pairs, MAX_WEIGHTS)
            for (source, target), weights in zip(batch, self._read_weights(batch), strict=True)
        ]

    def score(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        """Returns the log-probabilities (nats) of the target tokens of each pair and of EOS: float32 [T + 1].

        Args:
            pairs: see `read_attention`.
        """
        batches = split_batches(pairs, MAX_LOGITS, num_logits=self._target_tokenizer.vocabulary_size)
        return [row for batch in batches for row in self._read_log_probs(batch)]

    def _read_log_probs(self, pairs: Sequence[Pair]) -> Iterator[np.ndarray]:
        found = np.asarray(self._score(*(pad_rows(side) for side in zip(*pairs, strict=True))))
        for (_, target), row in zip(pairs, found, strict=True):
            yield row[: len(target) + 1].copy()

    def _read_weights(self, pairs: Sequence[Pair]) -> Iterator[np.ndarray]:
        found = np.asarray(self._run(*(pad_rows(side) for side in zip(*pairs, strict=True))))
        for (source, target), weights in zip(pairs, found, strict=True):
            yield weights[: len(target), : len(source) + 1].copy()  # not a view, which would keep the whole batch


def split_batches(pairs: Sequence[Pair], limit: int, num_logits: int = 0) -> Iterator[list[Pair]]:
    """Yields batches for which a model computes at most so many weights or logits."""
    batch: list[Pair] = []
    width = height = 0  # longest source and target with EOS
    for pair in pairs:
        width, height = max(width, len(pair[0]) + 1), max(height, len(pair[1]) + 1)
        # With static shapes one pair at a time, since every number of rows would be compiled.
        size = (len(batch) + 1) * height * max(width, num_logits)
        if batch and (has_static_shapes() or size > limit):
            yield batch
            batch, width, height = [], len(pair[0]) + 1, len(pair[1]) + 1
        batch.append(pair)
    if batch:
        yield batch


def pad_rows(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns ids with EOS as a matrix, padded with 0, with few different widths where each costs a compilation."""
    width = max(map(len, rows)) + 1
    return pad(rows, round_to_bucket_width(width) if has_static_shapes() else width)


def _as_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return [tokenizer.get_token(int(one)) for one in ids]
