"""Links between whitespace words, by hand."""

import numpy as np

from nmt.decoding.alignment import TokenAttention
from nmt.decoding.word_links import align_words


def test_tokens_and_punctuation_belong_to_whitespace_words():
    """ "b" attends to "x" for 0.2 and "." to "y" alone; of "bb." two of three characters are letters."""
    part = TokenAttention(
        source=["▁x", "▁y", ","],
        target=["▁a", "▁b", "b", "."],
        weights=[[0.1, 0.6, 0.3, 0.0], [0.8, 0.2, 0.0, 0.0], [0.8, 0.2, 0.0, 0.0], [0.0, 0.5, 0.0, 0.5]],
    )
    found = align_words("x y,", "a bb.", [part])
    assert (found.source, found.target) == (["x", "y,"], ["a", "bb."])
    np.testing.assert_allclose(found.weights, [[0.1, 0.9], [0.8 * 2 / 3, (0.2 * 2 + 1) / 3]], atol=1e-4)
    assert found.links == [(0, 1), (1, 0)]
    assert found.as_pharaoh() == "0-1 1-0"
    assert found.as_record()["links"] == [(0, 1), (1, 0)]


def test_words_are_numbered_across_parts_and_what_lies_between_them_has_no_links():
    parts = [
        TokenAttention(["▁a", "▁b"], ["▁x", "▁y"], [[0, 1], [1, 0]], (0, 3), (0, 3)),
        TokenAttention(["▁c"], ["▁z"], [[1]], (15, 16), (15, 16)),
    ]
    found = align_words("a b\nhttp://d.e c", "x y\nhttp://d.e z", parts)
    assert found.as_pharaoh() == "0-1 1-0 3-3"
    assert found.weights[2].tolist() == [0, 0, 0, 0]


def test_blank_text_has_no_links():
    found = align_words(" ", "", [])
    assert (found.as_pharaoh(), found.weights.shape, found.as_record()["weights"]) == ("", (0, 0), [])
    assert align_words("a", "b c", []).as_pharaoh() == ""
