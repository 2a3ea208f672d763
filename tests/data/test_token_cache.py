from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nmt.data import corpus as corpus_module
from nmt.data.corpus import ParallelCorpus
from nmt.data.token_cache import CachedTokens
from nmt.data.tokenizer import Tokenizer, train_tokenizer

WORDS = ["ba", "dofu", "kilo", "mu", "nasa", "rebo", "ti", "sume"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> ParallelCorpus:
    """25 pairs of 1 to 9 words with different text on both sides."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(1)
    for side in ("source", "target"):
        lines = [" ".join(random.choice(WORDS, random.integers(1, 10))) for _ in range(25)]
        (folder / side).write_text("".join(f"{line}\n" for line in lines))
    return ParallelCorpus.open([(folder / "source", folder / "target")], folder / "cache")


@pytest.fixture(scope="module")
def tokenizers(corpus) -> tuple[Tokenizer, Tokenizer]:
    everything = np.arange(len(corpus))
    sides = corpus.read_sources(everything), corpus.read_targets(everything)
    source, target = (
        train_tokenizer(side, kind="bpe", vocabulary_size=size, byte_fallback=False)
        for side, size in zip(sides, (30, 40), strict=True)
    )
    return source, target


def assert_holds(found: CachedTokens, corpus, tokenizers):
    shuffled = np.random.default_rng(2).permutation(len(corpus))
    texts = corpus.read_sources(shuffled), corpus.read_targets(shuffled)
    for side, ids in enumerate(found.read_ids(shuffled, epoch=3, batch=4)):
        expected = tokenizers[side].encode(texts[side])
        assert [row.tolist() for row in ids] == expected
        assert found.lengths[shuffled, side].tolist() == [len(row) for row in expected]


@pytest.mark.parametrize("size", [1, 7, 25, 1000])
def test_cached_tokens_equal_encoded_text(monkeypatch, corpus, tokenizers, tmp_path, size):
    monkeypatch.setattr(corpus_module, "CHUNK_PAIRS", size)
    assert_holds(CachedTokens.open(corpus, *tokenizers, tmp_path), corpus, tokenizers)


def test_text_is_segmented_once(monkeypatch, corpus, tokenizers, tmp_path):
    CachedTokens.open(corpus, *tokenizers, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "encode", None)
        found = CachedTokens.open(corpus, *tokenizers, tmp_path)
    assert_holds(found, corpus, tokenizers)


def test_each_pair_of_tokenizers_has_its_own_cache(corpus, tokenizers, tmp_path):
    CachedTokens.open(corpus, *tokenizers, tmp_path)
    swapped = tokenizers[::-1]
    assert_holds(CachedTokens.open(corpus, *swapped, tmp_path), corpus, swapped)


def test_ids_above_16_bits_are_kept(corpus, tmp_path):
    largest = 69_999
    tokenizer = SimpleNamespace(
        fingerprint="0" * 64, vocabulary_size=70_000, encode=lambda texts: [[4, largest]] * len(texts)
    )
    found = CachedTokens.open(corpus, tokenizer, tokenizer, tmp_path)
    assert [row.tolist() for row in found.read_ids(np.array([24]), epoch=0, batch=0)[1]] == [[4, largest]]


def test_an_interrupted_cache_is_rebuilt(monkeypatch, corpus, tokenizers, tmp_path):
    monkeypatch.setattr(corpus_module, "CHUNK_PAIRS", 10)
    segmented = []

    def encode(self: Tokenizer, texts: list[str]) -> list[list[int]]:
        segmented.append(len(texts))
        if len(segmented) == 4:
            raise KeyboardInterrupt
        return self._processor.encode(texts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Tokenizer, "encode", encode)
        CachedTokens.open(corpus, *tokenizers, tmp_path)
    assert list(Path(tmp_path).iterdir()) == []
    assert_holds(CachedTokens.open(corpus, *tokenizers, tmp_path), corpus, tokenizers)


@pytest.mark.parametrize("how", ["cut", "flipped"])
@pytest.mark.parametrize("name", ["tokens.*", "lengths.*", "starts.*"])
def test_a_damaged_cache_is_rebuilt(corpus, tokenizers, tmp_path, name, how):
    CachedTokens.open(corpus, *tokenizers, tmp_path)
    [file] = tmp_path.rglob(name)
    content = bytearray(file.read_bytes())
    if how == "cut":
        del content[-1]
    else:
        content[-20] ^= 1  # one of the last numbers
    file.write_bytes(content)
    assert_holds(CachedTokens.open(corpus, *tokenizers, tmp_path), corpus, tokenizers)


def test_a_cache_with_other_file_names_is_ignored(corpus, tokenizers, tmp_path):
    CachedTokens.open(corpus, *tokenizers, tmp_path)
    [file] = tmp_path.rglob("tokens.*")
    file.rename(file.with_name(file.name.replace("tokens", "pieces")))
    assert_holds(CachedTokens.open(corpus, *tokenizers, tmp_path), corpus, tokenizers)


def test_two_runs_may_segment_the_same_text_at_once(monkeypatch, corpus, tokenizers, tmp_path):
    segmenting, first = Tokenizer.encode, []

    def encode(self: Tokenizer, texts: list[str]) -> list[list[int]]:
        if not first:  # while the first one segments, a second one starts and finishes
            first.append(None)
            first.append(CachedTokens.open(corpus, *tokenizers, tmp_path))
        return segmenting(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "encode", encode)
        patch.setattr("os.getpid", iter(range(1, 100)).__next__)  # stands for two processes
        last = CachedTokens.open(corpus, *tokenizers, tmp_path)
    for found in (first[1], last):
        assert_holds(found, corpus, tokenizers)
