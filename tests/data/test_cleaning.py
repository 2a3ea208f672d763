import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data import cleaning
from nmt.data import corpus as corpus_module
from nmt.data.cleaning import CleaningReport, clean
from nmt.data.corpus import ParallelCorpus
from nmt.errors import UserError

OFF = {"max_length": None, "max_ratio": None, "drop_identical": False, "drop_duplicates": False}
WORDS = st.sampled_from(["a", "b", "日本", "a "])
ROWS = st.lists(st.tuples(WORDS, WORDS, st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(corpus_module, "CHUNK_PAIRS", 4)


def open_corpus(folder, pairs):
    paths = [Path(folder) / side for side in ("source", "target")]
    for path, lines in zip(paths, zip(*pairs, strict=True), strict=True):
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return ParallelCorpus.open([(paths[0], paths[1])], Path(folder) / "cache")


def of_length_one(corpus):
    return np.ones((len(corpus), 2), dtype=np.int32)


def naive_clean(rows, *, max_length, max_ratio, drop_identical, drop_duplicates):
    """Applies the filters to one pair after the other."""
    kept, seen, dropped = [], set(), {}
    for index, (source, target, *lengths) in enumerate(rows):
        ratio = max(lengths) / min(lengths) if min(lengths) else np.inf
        if max_length is not None and max(lengths) > max_length:
            reason = "max_length"
        elif max_ratio is not None and ratio > max_ratio:
            reason = "max_ratio"
        elif drop_identical and source == target:
            reason = "drop_identical"
        elif drop_duplicates and (source, target) in seen:
            reason = "drop_duplicates"
        else:
            seen.add((source, target))
            kept.append(index)
            continue
        dropped[reason] = dropped.get(reason, 0) + 1
    return kept, dropped


@settings(deadline=None, max_examples=60)
@given(
    rows=ROWS,
    max_length=st.none() | st.integers(3, 6),
    max_ratio=st.none() | st.sampled_from([1.0, 1.5, 2.0]),
    drop_identical=st.booleans(),
    drop_duplicates=st.booleans(),
)
def test_pairs_are_dropped_by_the_first_filter_that_applies(rows, **filters):
    rows = [("unique", "pair", 1, 1), *rows]
    expected, counts = naive_clean(rows, **filters)
    with tempfile.TemporaryDirectory() as folder:
        corpus = open_corpus(folder, [row[:2] for row in rows])
        kept, report = clean(corpus, np.array([row[2:] for row in rows], dtype=np.int32), **filters)
    assert kept.dtype == np.int64
    assert kept.tolist() == expected
    in_use = [name for name, setting in filters.items() if setting not in (None, False)]
    assert report == CleaningReport(len(rows), len(expected), {name: counts.get(name, 0) for name in in_use})


def test_no_filter_keeps_all(tmp_path):
    corpus = open_corpus(tmp_path, [("a", "a"), ("a", "a")])
    kept, report = clean(corpus, of_length_one(corpus), **OFF)
    assert (kept.tolist(), report.dropped) == ([0, 1], {})


def test_the_limits_themselves_are_allowed(tmp_path):
    corpus = open_corpus(tmp_path, [("a", "A"), ("b", "B"), ("c", "C"), ("d", "D")])
    # 115 / 100 equals the literal 1.15, although 1.15 * 100 rounds to less than 115.
    lengths = np.array([[115, 100], [116, 100], [100, 115], [116, 110]], dtype=np.int32)
    kept, report = clean(corpus, lengths, **OFF | {"max_length": 115, "max_ratio": 1.15})
    assert (kept.tolist(), report.dropped) == ([0, 2], {"max_length": 2, "max_ratio": 0})
    kept, report = clean(corpus, lengths, **OFF | {"max_ratio": 1.15})
    assert (kept.tolist(), report.dropped) == ([0, 2, 3], {"max_ratio": 1})


def test_a_pair_with_a_side_of_no_tokens_exceeds_any_ratio(tmp_path):
    corpus = open_corpus(tmp_path, [("\u200b", "a"), ("b", "b"), ("\u200b", "\u200b")])
    kept, _ = clean(corpus, np.array([[0, 1], [1, 1], [0, 0]], dtype=np.int32), **OFF | {"max_ratio": 1e9})
    assert kept.tolist() == [1]


def test_only_a_copy_of_both_sides_is_a_duplicate(tmp_path):
    corpus = open_corpus(tmp_path, [("a", "A"), ("a", "B"), ("b", "A"), ("A", "a"), ("a", "A"), ("a", "A")])
    kept, report = clean(corpus, of_length_one(corpus), **OFF | {"drop_duplicates": True})
    assert (kept.tolist(), report.dropped) == ([0, 1, 2, 3], {"drop_duplicates": 2})


@pytest.mark.parametrize("num_hashes", [1, 2, 5])
def test_pairs_with_equal_hashes_are_compared_by_their_text(tmp_path, monkeypatch, num_hashes):
    monkeypatch.setattr(cleaning, "hash", lambda pair: ord(pair[0]) % num_hashes, raising=False)
    words = [chr(ord("a") + number) for number in np.random.default_rng(0).integers(12, size=60)]
    corpus = open_corpus(tmp_path, [(word, word) for word in words])
    kept, _ = clean(corpus, of_length_one(corpus), **OFF | {"drop_duplicates": True})
    assert kept.tolist() == sorted({word: words.index(word) for word in words}.values())


def test_a_pair_that_another_filter_drops_does_not_make_a_later_one_a_copy(tmp_path):
    corpus = open_corpus(tmp_path, [("a", "A"), ("a", "A")])
    lengths = np.array([[9, 9], [1, 1]], dtype=np.int32)  # subword sampling can split one text in two ways
    kept, _ = clean(corpus, lengths, **OFF | {"max_length": 5, "drop_duplicates": True})
    assert kept.tolist() == [1]


def test_a_report_has_one_line_per_filter():
    report = CleaningReport(num_pairs=1_500_000, kept=1_498_766, dropped={"max_length": 0, "drop_identical": 1234})
    assert str(report).splitlines() == [
        "1,498,766 of 1,500,000 sentence pairs kept",
        "  max_length: 0 dropped",
        "  drop_identical: 1,234 dropped",
    ]


def test_nothing_left_is_an_error_that_shows_the_report(tmp_path):
    corpus = open_corpus(tmp_path, [("a", "a"), ("b", "B")])
    lengths = np.array([[1, 1], [1, 3]], dtype=np.int32)
    message = (
        "Cleaning left no sentence pair to train on. Relax its limits.\n0 of 2 sentence pairs kept\n"
        "  max_length: 1 dropped\n  drop_identical: 1 dropped"
    )
    with pytest.raises(UserError, match=f"^{message}$"):
        clean(corpus, lengths, **OFF | {"max_length": 2, "drop_identical": True})
