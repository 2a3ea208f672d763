import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data.batching import (
    NUM_BUCKETS,
    BatchLoader,
    BatchPlan,
    Buckets,
    derive_seed,
    fit_buckets,
    pad,
    prefetch,
    split_chunks,
)
from nmt.data.corpus import ParallelCorpus, read_lines
from nmt.data.token_cache import CachedTokens, SampledTokens
from nmt.data.tokenizer import EOS_ID, PAD_ID, Tokenizer, train_tokenizer

MULTI30K = Path(__file__).parents[3] / "shared" / "data" / "multi30k"
WORDS = ["ba", "dofu", "kilo", "mu", "nasa", "rebo", "ti", "sume"]

LENGTHS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60).map(np.array)
# Fitting buckets is slow on a busy machine.
UNHURRIED = settings(deadline=None, max_examples=25)


def random_lengths(num_pairs, seed=1):
    """Returns lengths [N, 2] whose sides are correlated, as those of sentences are."""
    random = np.random.default_rng(seed)
    source = random.integers(3, 30, num_pairs)
    return np.stack([source, np.maximum(1, source + random.integers(-3, 4, num_pairs))], axis=1)


def same(plan, other, epoch=0):
    pairs = zip(plan.draw_epoch(epoch), other.draw_epoch(epoch), strict=False)
    return plan.num_batches == other.num_batches and all(np.array_equal(*pair) for pair in pairs)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> ParallelCorpus:
    """101 pairs of 1 to 9 words; the target is the source in reverse."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(1)
    lines = [random.choice(WORDS, random.integers(1, 10)) for _ in range(101)]
    (folder / "source").write_text("".join(" ".join(line) + "\n" for line in lines))
    (folder / "target").write_text("".join(" ".join(line[::-1]) + "\n" for line in lines))
    return ParallelCorpus.open([(folder / "source", folder / "target")], folder / "cache")


@pytest.fixture(scope="module")
def tokenizer(corpus) -> Tokenizer:
    texts = corpus.read_sources(np.arange(len(corpus)))
    return train_tokenizer(texts, kind="bpe", vocabulary_size=40, byte_fallback=False)


@pytest.fixture(scope="module")
def multi30k_lengths() -> np.ndarray:
    if not MULTI30K.exists():
        pytest.skip(f"Multi30k is not in {MULTI30K}")
    sides = [read_lines(MULTI30K / f"train.{language}.gz") for language in ("en", "de")]
    # Trained on a part to save time. Its tokens are a little shorter than those of a tokenizer for the whole text.
    tokenizer = train_tokenizer([*sides[0][:2000], *sides[1][:2000]], kind="bpe", vocabulary_size=4000)
    return np.stack([tokenizer.count_tokens(side) + 1 for side in sides], axis=1)


def loader_of(corpus, tokenizer, *, by="sentences", size=7, seed=1, sampling_alpha=None, **options):
    """Loads the pairs with an even number, so that indices of the plan and of the corpus differ."""
    kept = np.arange(0, len(corpus), 2)
    sides = (corpus.read_sources(kept), corpus.read_targets(kept))
    lengths = np.stack([tokenizer.count_tokens(side) + 1 for side in sides], axis=1)
    plan = BatchPlan(lengths, by=by, size=size, seed=seed)
    if sampling_alpha is None:
        with TemporaryDirectory() as folder:  # mapped files stay readable after the folder is deleted
            tokenized = CachedTokens.open(corpus, tokenizer, tokenizer, Path(folder))
    else:
        tokenized = SampledTokens(corpus, tokenizer, tokenizer, alpha=sampling_alpha, seed=seed)
    return BatchLoader(tokenized, kept, plan, **options)


def assert_equal(batch, other):
    assert (batch.epoch, batch.index) == (other.epoch, other.index)
    for name in ("source", "target", "weights"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(other, name))


def taken(batches, count):
    return [next(batches) for _ in range(count)]


@UNHURRIED
@given(lengths=LENGTHS)
def test_buckets_are_a_short_chain_that_holds_every_pair(lengths):
    buckets = fit_buckets(lengths)
    chain = np.stack([buckets.source, buckets.target], axis=1)
    assert len(chain) <= NUM_BUCKETS
    assert (np.diff(chain, axis=0) >= 0).all()
    np.testing.assert_array_equal(chain[-1], lengths.max(axis=0))
    bucket_ids = buckets.assign(lengths)
    assert (chain[bucket_ids] >= lengths).all()
    for bucket, pair in zip(bucket_ids, lengths, strict=True):
        assert not any((chain[smaller] >= pair).all() for smaller in range(bucket))


def test_as_many_buckets_as_lengths_pad_nothing():
    lengths = np.array([[3, 2]] * 5 + [[7, 5]] * 3 + [[13, 11]])
    buckets = fit_buckets(lengths, num_buckets=3)
    np.testing.assert_array_equal(buckets.source, [3, 7, 13])
    np.testing.assert_array_equal(buckets.target, [2, 5, 11])


def test_buckets_of_very_long_pairs_take_little_memory():
    lengths = np.array([[5, 4], [900, 1100], [8000, 6001]], np.int16)
    tracemalloc.start()
    buckets = fit_buckets(lengths)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**27  # a table of all pairs of lengths has 2**28 bytes and more
    assert (buckets.source[-1], buckets.target[-1]) == (8000, 6001)
    np.testing.assert_array_equal(buckets.assign(lengths), np.arange(3))


def test_a_pair_goes_into_the_first_bucket_that_holds_both_sides():
    buckets = Buckets(np.array([3, 7]), np.array([5, 11]))
    np.testing.assert_array_equal(buckets.assign(np.array([[3, 5], [4, 5], [3, 6], [7, 11]])), [0, 1, 1, 1])


@UNHURRIED
@given(lengths=LENGTHS, by=st.sampled_from(["tokens", "sentences"]), size=st.integers(1, 97), epoch=st.integers(0, 5))
def test_every_pair_is_in_exactly_one_batch(lengths, by, size, epoch):
    batches = BatchPlan(lengths, by=by, size=size, seed=1).draw_epoch(epoch)
    assert all(len(batch) for batch in batches)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(len(lengths)))


@pytest.mark.parametrize(("number", "sizes"), [(1009, {30, 31}), (32, {16}), (31, {31}), (30, {30}), (1, {1})])
def test_sizes_of_sentence_batches_differ_by_at_most_one(number, sizes):
    plan = BatchPlan(random_lengths(number), by="sentences", size=31, seed=1)
    assert {len(batch) for batch in plan.draw_epoch(0)} == sizes
    assert plan.num_batches == -(-number // 31)


def test_the_rest_of_the_tokens_is_spread_over_the_batches_of_its_bucket():
    lengths = random_lengths(1009)
    plan = BatchPlan(lengths, by="tokens", size=211, seed=1)
    shapes = [(plan.rows[plan.bucket_ids[batch].max()], len(batch)) for batch in plan.draw_epoch(0)]
    # The bucket of the shortest pairs is the last one to be cut, and has nothing to borrow from.
    missing = [rows - size for rows, size in shapes if rows == max(plan.rows)]
    assert max(missing) - min(missing) <= 1
    assert all(size == rows for rows, size in shapes if rows < max(plan.rows))


def test_batches_of_tokens_stay_within_their_size():
    lengths = random_lengths(1009)
    plan = BatchPlan(lengths, by="tokens", size=211, seed=1)
    padded = [len(batch) * lengths[batch, 1].max() for batch in plan.draw_epoch(0)]
    assert max(padded) <= 211
    assert np.mean(padded) > 0.8 * 211


def test_a_pair_longer_than_a_batch_of_tokens_is_alone():
    plan = BatchPlan(np.array([[5, 41], [5, 43], [5, 3]]), by="tokens", size=7, seed=1)
    assert sorted(len(batch) for batch in plan.draw_epoch(0)) == [1, 1, 1]


@pytest.mark.parametrize("by", ["tokens", "sentences"])
def test_the_order_is_a_function_of_seed_and_epoch(by):
    lengths = random_lengths(499)
    plan, again = (BatchPlan(lengths, by=by, size=101, seed=5) for _ in range(2))
    for epoch in (3, 0, 3):  # whichever epoch was drawn before
        assert same(plan, again, epoch)
        assert same(plan, BatchPlan(lengths, by=by, size=101, seed=5), epoch)
    assert not same(plan, BatchPlan(lengths, by=by, size=101, seed=6))
    assert not np.array_equal(np.concatenate(plan.draw_epoch(0)), np.concatenate(again.draw_epoch(1)))


def test_another_thread_may_draw_another_epoch_meanwhile():
    plan = BatchPlan(random_lengths(499), by="sentences", size=101, seed=5)

    class Late(int):
        """An epoch whose comparison takes so long that another thread draws epoch 0."""

        def __ne__(self, other):
            plan.draw_epoch(0)
            return int(self) != other

    expected = list(plan.draw_epoch(1))
    for batch, other in zip(plan.draw_epoch(Late(1)), expected, strict=True):
        np.testing.assert_array_equal(batch, other)


def test_neighbours_change_from_epoch_to_epoch():
    plan = BatchPlan(random_lengths(2003), by="sentences", size=7, seed=1)
    first, second = ({frozenset(batch.tolist()) for batch in plan.draw_epoch(epoch)} for epoch in (0, 1))
    assert len(first & second) < len(first) / 10


def share_met_again(plan):
    """Returns the share of the pairs that share a batch of epoch 0 and share one of epoch 1, too."""
    numbers = {pair: number for number, batch in enumerate(plan.draw_epoch(1)) for pair in batch.tolist()}
    again = together = 0
    for batch in plan.draw_epoch(0):
        counts = np.array(list(Counter(numbers[pair] for pair in batch.tolist()).values()))
        again += (counts * (counts - 1)).sum()
        together += len(batch) * (len(batch) - 1)
    return again / together


def padding_of(lengths, batches):
    return 1 - lengths.sum() / sum(lengths[batch].max(axis=0).sum() * len(batch) for batch in batches)


def test_pairs_of_equal_lengths_meet_by_chance_alone():
    plan = BatchPlan(np.full((1000, 2), 7), by="sentences", size=10, seed=1)
    assert share_met_again(plan) == pytest.approx(9 / 999, abs=0.004)


def test_pairs_of_many_lengths_seldom_meet_again():
    """With lengths that are sorted exactly, three in five meet again."""
    lengths = random_lengths(3001)
    plan = BatchPlan(lengths, by="sentences", size=31, seed=1)
    assert share_met_again(plan) < 0.3
    assert padding_of(lengths, plan.draw_epoch(0)) < 0.055


def test_short_and_long_batches_are_mixed():
    lengths = random_lengths(2003)
    longest = [lengths[batch].max() for batch in BatchPlan(lengths, by="sentences", size=7, seed=1).draw_epoch(0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2


@pytest.mark.parametrize(("by", "size"), [("sentences", 66), ("tokens", 1600)])
def test_multi30k_is_padded_little_and_neighbours_change(multi30k_lengths, by, size):
    plan = BatchPlan(multi30k_lengths, by=by, size=size, seed=1)
    batches = plan.draw_epoch(0)
    assert padding_of(multi30k_lengths, batches) < 0.055
    assert share_met_again(plan) < 0.14
    assert sum(map(len, batches)) == 29_000
    assert 29_000 / len(batches) >= 64


def test_rows_end_with_eos_and_are_padded_on_the_right():
    padded = pad([[5, 6, 7], [], [8]])
    np.testing.assert_array_equal(padded, [[5, 6, 7, EOS_ID], [EOS_ID, 0, 0, 0], [8, EOS_ID, 0, 0]])
    assert padded.dtype == np.int32
    assert PAD_ID == 0
    assert pad([[5, 6, 7]], 11).shape == (1, 11)
    assert pad([[5, 6, 7]], 2).shape == (1, 4)


def test_batches_hold_the_pairs_of_the_plan(corpus, tokenizer):
    loader = loader_of(corpus, tokenizer)
    for index, members in enumerate(loader.plan.draw_epoch(0)):
        batch = loader.load_batch(0, index)
        pairs = 2 * members
        for rows, texts in ((batch.source, corpus.read_sources(pairs)), (batch.target, corpus.read_targets(pairs))):
            for row, text in zip(rows, texts, strict=True):
                real = row[row != PAD_ID]
                assert [*tokenizer.encode([text])[0], EOS_ID] == real.tolist()
                assert not row[len(real) :].any()
        np.testing.assert_array_equal(batch.weights, np.ones(len(members)))
        assert batch.num_target_tokens == loader.plan.lengths[members, 1].sum()


@pytest.mark.parametrize("multiple", [2, 3, 5])
def test_rows_are_filled_up_with_weight_zero(corpus, tokenizer, multiple):
    plain, filled = loader_of(corpus, tokenizer), loader_of(corpus, tokenizer, multiple=multiple)
    for index in range(plain.plan.num_batches):
        batch, expected = filled.load_batch(0, index), plain.load_batch(0, index)
        num_real = len(expected.source)
        assert len(batch.source) == len(batch.target) == len(batch.weights)
        assert len(batch.source) % multiple == 0
        assert 0 <= len(batch.source) - num_real < multiple
        np.testing.assert_array_equal(batch.source[:num_real], expected.source)
        np.testing.assert_array_equal(batch.target[:num_real], expected.target)
        np.testing.assert_array_equal(batch.weights, [1] * num_real + [0] * (len(batch.weights) - num_real))
        # An empty row would make the encoder read before its first token.
        assert (batch.source[:, 0] != PAD_ID).all()
        assert batch.num_target_tokens == expected.num_target_tokens


@UNHURRIED
@given(
    workers=st.integers(1, 9),
    micro_batches=st.integers(1, 4),
    size=st.integers(1, 97),
    by=st.sampled_from(["tokens", "sentences"]),
    epoch=st.integers(0, 3),
    pad_to_buckets=st.booleans(),
)
def test_every_pair_is_used_once_per_epoch_by_any_number_of_workers(
    corpus, tokenizer, workers, micro_batches, size, by, epoch, pad_to_buckets
):
    shares = workers * micro_batches
    loader = loader_of(corpus, tokenizer, by=by, size=size, multiple=shares, pad_to_buckets=pad_to_buckets)
    learned = Counter()
    for index in range(loader.plan.num_batches):
        batch = loader.load_batch(epoch, index)
        assert len({len(batch.weights[share::shares]) for share in range(shares)}) == 1
        for share in range(shares):
            source, target = (tokenizer.decode(rows[share::shares]) for rows in (batch.source, batch.target))
            weights = batch.weights[share::shares]
            learned.update((s, t) for s, t, weight in zip(source, target, weights, strict=True) if weight)
    assert learned == Counter(zip(corpus.read_sources(loader.kept), corpus.read_targets(loader.kept), strict=True))


def shape_of(batch):
    return (*batch.source.shape, batch.target.shape[1])


@pytest.mark.parametrize(("by", "size"), [("sentences", 7), ("tokens", 100)])
def test_padding_to_buckets_gives_shapes_of_the_plan_alone(corpus, tokenizer, by, size):
    plain, bucketed = (
        loader_of(corpus, tokenizer, by=by, size=size, pad_to_buckets=pad_to_buckets)
        for pad_to_buckets in (False, True)
    )
    plan = bucketed.plan
    shapes = set(plan.shapes)
    for index in range(plain.plan.num_batches):
        batch, expected = bucketed.load_batch(0, index), plain.load_batch(0, index)
        assert shape_of(batch) in shapes
        rows, width = expected.source.shape
        np.testing.assert_array_equal(batch.source[:rows, :width], expected.source)
        assert not batch.source[:, width:].any()
        assert batch.weights.tolist() == [1.0] * rows + [0.0] * (len(batch.weights) - rows)


def test_more_sampled_tokens_than_planned_take_a_larger_bucket(corpus, tokenizer):
    loaders = [
        loader_of(corpus, tokenizer, sampling_alpha=0.1, pad_to_buckets=pad_to_buckets)
        for pad_to_buckets in (False, True)
    ]
    buckets = loaders[1].plan.buckets
    lengths = list(zip(buckets.source.tolist(), buckets.target.tolist(), strict=True))
    lengths += [(2 * source, 2 * target) for source, target in lengths[-1:]]
    planned = [lengths[loaders[1].plan.bucket_ids[members].max()] for members in loaders[1].plan.draw_epoch(0)]
    found = []
    for index in range(len(planned)):
        sampled, batch = (loader.load_batch(0, index) for loader in loaders)
        found.append(shape_of(batch)[1:])
        assert found[-1] in lengths
        rows, width = sampled.target.shape
        np.testing.assert_array_equal(batch.target[:rows, :width], sampled.target)
    assert found != planned  # otherwise this test would prove nothing
    assert lengths[-1] in found


@pytest.mark.parametrize("sampling_alpha", [None, 0.2])
def test_epoch_and_batch_resume(corpus, tokenizer, sampling_alpha):
    through = loader_of(corpus, tokenizer, sampling_alpha=sampling_alpha)
    num_batches = through.plan.num_batches
    batches = taken(through.stream_batches(0, 0), 2 * num_batches + 3)
    assert [(batch.epoch, batch.index) for batch in batches] == [divmod(n, num_batches) for n in range(len(batches))]
    for n in (0, 4, num_batches - 1, num_batches, num_batches + 2):
        resumed = loader_of(corpus, tokenizer, sampling_alpha=sampling_alpha).stream_batches(*divmod(n, num_batches))
        for batch, expected in zip(taken(resumed, 4), batches[n:], strict=False):
            assert_equal(batch, expected)


def test_subword_sampling_depends_on_seed_epoch_and_pair_alone(corpus, tokenizer):
    sampled = loader_of(corpus, tokenizer, sampling_alpha=0.1)
    assert_equal(sampled.load_batch(2, 3), loader_of(corpus, tokenizer, sampling_alpha=0.1).load_batch(2, 3))
    kept = sampled.kept[sampled.plan.draw_epoch(2)[3]]
    texts = corpus.read_sources(kept)
    assert tokenizer.decode(sampled.load_batch(2, 3).source) == texts

    def drawn(loader, epoch, batch):
        return str(loader.tokenized.read_ids(kept, epoch=epoch, batch=batch)[0])

    draws = {drawn(sampled, *place) for place in ((2, 3), (3, 3))}
    draws.add(drawn(loader_of(corpus, tokenizer, sampling_alpha=0.1, seed=2), 2, 3))
    draws.add(str(tokenizer.encode(texts)))
    assert len(draws) == 4
    one_by_one = [sampled.tokenized.read_ids(kept[n : n + 1], epoch=2, batch=n)[0][0] for n in range(len(kept))]
    assert str(one_by_one) == drawn(sampled, 2, 3)


def test_sampled_lengths_are_planned_for(corpus, tokenizer):
    sampled = loader_of(corpus, tokenizer, sampling_alpha=0.2).tokenized
    every = np.arange(len(corpus))
    best = np.stack(
        [tokenizer.count_tokens(side) for side in (corpus.read_sources(every), corpus.read_targets(every))], 1
    )
    growth = sampled.estimate_growth(best, every[::2])
    for side in (0, 1):
        lengths = np.array([len(ids) + 1 for ids in sampled.read_ids(every[::2], epoch=1, batch=0)[side]])
        assert 0.8 <= np.mean(lengths <= np.ceil(growth[side] * (best[::2, side] + 1))) < 1


def test_different_numbers_give_different_seeds():
    seeds = {derive_seed(a, b, c) for a in range(11) for b in range(13) for c in range(17)}
    assert len(seeds) == 11 * 13 * 17
    assert all(0 <= seed < 2**31 - 2 for seed in seeds)


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def wait_until(fact):
    deadline = time.monotonic() + 120
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fact()


def test_prefetching_keeps_the_items_and_their_order():
    assert list(prefetch(range(101), depth=3)) == list(range(101))
    wait_until(lambda: not prefetch_threads())


def test_prefetching_works_at_most_depth_items_ahead():
    made = []

    def items():
        for n in range(101):
            made.append((n, threading.current_thread().name))
            yield n

    ahead = prefetch(items(), depth=3)
    assert next(ahead) == 0
    # One was taken, three are in the queue, and a fifth waits to be put there.
    wait_until(lambda: len(made) == 5)
    time.sleep(0.3)
    assert made == [(n, "prefetch") for n in range(5)]
    ahead.close()


@pytest.mark.parametrize("error", [ValueError("torn file"), KeyboardInterrupt()])
def test_an_exception_in_the_thread_is_raised_at_the_reader(error):
    def items():
        yield from (1, 2)
        raise error

    ahead = prefetch(items())
    assert taken(ahead, 2) == [1, 2]
    with pytest.raises(type(error)) as caught:
        next(ahead)
    assert caught.value is error
    wait_until(lambda: not prefetch_threads())


def test_closing_the_iterator_ends_the_thread():
    ahead = prefetch(iter(int, 1), depth=2)
    next(ahead)
    assert len(prefetch_threads()) == 1
    ahead.close()
    wait_until(lambda: not prefetch_threads())


def test_prefetched_batches_equal_batches_made_in_turn(corpus, tokenizer):
    loader = loader_of(corpus, tokenizer, sampling_alpha=0.2)
    ahead = prefetch(loader.stream_batches(0, 2))
    for batch, expected in zip(
        taken(ahead, 9), loader_of(corpus, tokenizer, sampling_alpha=0.2).stream_batches(0, 2), strict=False
    ):
        assert_equal(batch, expected)
    ahead.close()


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_chunks_keep_the_order_and_are_read_one_at_a_time(size):
    read = []
    chunks = split_chunks((read.append(n) or n for n in range(7)), size)
    assert next(chunks) == list(range(min(size, 7)))
    assert len(read) == min(size, 7)
    assert [n for chunk in chunks for n in chunk] == list(range(min(size, 7), 7))
    assert list(split_chunks([], size)) == []
