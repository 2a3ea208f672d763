"""What the pieces of translations attended to, found by reading them once more."""

from collections.abc import Iterator, Sequence

import numpy as np

from nmt.compilation import compile_function, has_static_shapes
from nmt.data.batching import pad
from nmt.data.tokenizer import Tokenizer
from nmt.decoding.alignment import TokenAttention
from nmt.decoding.grouping import doubled_width
from nmt.decoding.inference import read_attention
from nmt.models.seq2seq import Seq2Seq

MAX_WEIGHTS = 1 << 20  # of one head that are in memory at once


class ForcedDecoding:
    """Reads translations that are there already; compiled when it is first used.

    Args:
        model: in inference.
        source_tokenizer, target_tokenizer: name the pieces.
    """

    def __init__(self, model: Seq2Seq, source_tokenizer: Tokenizer, target_tokenizer: Tokenizer):
        self._source_tokenizer = source_tokenizer
        self._target_tokenizer = target_tokenizer
        self._run = compile_function(lambda *ids: read_attention(model, *ids), model.variables, num_inputs=2)

    def read_attention(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[TokenAttention]:
        """What the pieces of each pair's target attended to.

        Args:
            pairs: ids of a source and of a translation of it, both without EOS; best sorted by length.
        """
        return [
            TokenAttention(_pieces(self._source_tokenizer, source), _pieces(self._target_tokenizer, target), weights)
            for chunk in _chunks(pairs)
            for (source, target), weights in zip(chunk, self._weights(chunk), strict=True)
        ]

    def _weights(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[np.ndarray]:
        found = np.asarray(self._run(*(_padded(side) for side in zip(*pairs, strict=True))))
        for (source, target), weights in zip(pairs, found, strict=True):
            yield weights[: len(target), : len(source) + 1].copy()  # not a view, which would hold the whole batch


def _chunks(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[list]:
    chunk: list = []
    longest = (0, 0)
    for pair in pairs:
        longest = (max(longest[0], len(pair[0]) + 1), max(longest[1], len(pair[1]) + 1))
        # Where each shape must be compiled, there should not be many numbers of rows.
        if chunk and (has_static_shapes() or (len(chunk) + 1) * longest[0] * longest[1] > MAX_WEIGHTS):
            yield chunk
            chunk, longest = [], (len(pair[0]) + 1, len(pair[1]) + 1)
        chunk.append(pair)
    if chunk:
        yield chunk


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    width = max(map(len, rows)) + 1
    return pad(rows, doubled_width(width) if has_static_shapes() else width)


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return [tokenizer.get_token(int(one)) for one in ids]
