from types import SimpleNamespace

import numpy as np
import pytest

from nmt.data.tokenizer import EOS_ID
from nmt.decoding import grouping
from nmt.training.validation import _make_batches


class Letters:
    """A piece for each letter."""

    def encode(self, texts):
        return [[4 + ord(letter) - ord("a") for letter in text] for text in texts]


PREPARED = SimpleNamespace(
    source_tokenizer=Letters(),
    target_tokenizer=Letters(),
    dev_sources=["abc", "a" * 17, "b", "cabcabc", ""],
    dev_targets=["cb", "b" * 20, "c", "a", "abcd"],
)


@pytest.mark.parametrize("each_shape", [False, True])
def test_every_pair_is_validated_once_and_what_fills_up_does_not_count(monkeypatch, each_shape):
    monkeypatch.setattr(grouping, "has_static_shapes", lambda: each_shape)
    pairs = []
    for source, target in _make_batches(PREPARED, batch_tokens=64):
        assert len(source) == len(target)
        for row, other in zip(source, target, strict=True):
            assert np.count_nonzero(row == EOS_ID) == 1  # the encoder takes no empty row
            if other.any():
                pairs.append((row[row != 0].tolist(), other[other != 0].tolist()))
    sides = Letters().encode(PREPARED.dev_sources), Letters().encode(PREPARED.dev_targets)
    assert sorted(pairs) == sorted(([*s, EOS_ID], [*t, EOS_ID]) for s, t in zip(*sides, strict=True))
