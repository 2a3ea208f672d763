from collections import Counter, defaultdict
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config.schema import Config, DataConfig
from nmt.data.batching import BatchLoader, BatchPlan
from nmt.data.joining import NO_PAIR, JoinPlan
from nmt.data.preparation import prepare_training_data
from nmt.data.weighting import CorpusShares, WeightedDraw
from nmt.errors import UserError

UNHURRIED = settings(deadline=None, max_examples=25)
WORDS = ["ba", "dofu", "kilo", "mu", "nasa", "rebo", "ti", "sume"]


@UNHURRIED
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=3).filter(any),
    weights=st.lists(st.floats(0.05, 3), min_size=3, max_size=3),
    num_epochs=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_all_examples_of_a_corpus_come_up_equally_often(sizes, weights, num_epochs, seed):
    counts = [round(size * weight) for size, weight in zip(sizes, weights, strict=False)]
    corpora = np.repeat(np.arange(len(sizes)), sizes)
    buckets = np.random.default_rng(seed).integers(4, size=len(corpora))
    draw = WeightedDraw(CorpusShares(corpora, counts), buckets, 4, seed=seed)
    places = draw.count_places()
    assert places.min() >= 0
    assert places.sum() == sum(counts)
    drawn = Counter()
    for epoch in range(num_epochs):
        examples = draw.draw_epoch(epoch)
        assert np.bincount(corpora[examples], minlength=len(sizes)).tolist() == counts
        in_buckets = np.bincount(buckets[examples], minlength=4)
        # An example fits into its own bucket and all larger ones.
        assert (np.cumsum(in_buckets[::-1]) <= np.cumsum(places[::-1])).all()
        drawn.update(examples.tolist())
    for example, corpus in enumerate(corpora):
        expected = Fraction(num_epochs * counts[corpus], sizes[corpus])
        assert floor(expected) <= drawn[example] <= ceil(expected)


def test_half_of_a_corpus_is_the_other_half_in_the_next_epoch_and_new_halves_after_that():
    corpora, buckets = np.repeat([0, 1], 40), np.tile([0, 1], 40)
    draw = WeightedDraw(CorpusShares(corpora, [40, 20]), buckets, 2, seed=1)
    epochs = [draw.draw_epoch(epoch) for epoch in range(4)]
    for epoch in epochs:
        assert sorted(epoch[epoch < 40]) == list(range(40))  # weight 1: every pair once
    halves = [set(epoch[epoch >= 40].tolist()) for epoch in epochs]
    assert [len(half) for half in halves] == [20] * 4
    assert halves[0] | halves[1] == halves[2] | halves[3] == set(range(40, 80))
    assert halves[2] not in halves[:2]


def random_lengths(num_pairs):
    random = np.random.default_rng(num_pairs)
    return np.stack([random.integers(2, 30, num_pairs), random.integers(2, 30, num_pairs)], axis=1)


def test_weights_of_one_change_nothing():
    lengths = random_lengths(200)
    plain = BatchPlan(lengths, by="tokens", size=200, seed=3)
    shares = CorpusShares(np.zeros(200, int), [200])
    weighted = BatchPlan(lengths, by="tokens", size=200, seed=3, shares=shares)
    np.testing.assert_array_equal(plain._cuts, weighted._cuts)
    assert sorted(np.concatenate(list(weighted.draw_epoch(1)))) == list(range(200))


@pytest.mark.parametrize(("by", "size"), [("sentences", 7), ("tokens", 150)])
def test_batches_of_weighted_corpora_keep_number_and_size(by, size):
    lengths = random_lengths(300)
    corpora = np.arange(300) % 3
    plan = BatchPlan(lengths, by=by, size=size, seed=1, shares=CorpusShares(corpora, [150, 33, 100]))
    for epoch in range(5):
        batches = list(plan.draw_epoch(epoch))
        assert len(batches) == plan.num_batches
        for batch in batches:
            assert len(batch) <= plan.rows[int(plan.bucket_ids[batch].max())]
        assert np.bincount(corpora[np.concatenate(batches)]).tolist() == [150, 33, 100]
    again = BatchPlan(lengths, by=by, size=size, seed=1, shares=CorpusShares(corpora, [150, 33, 100]))
    for one, other in zip(again.draw_epoch(4), batches, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Corpora of 90 and 30 pairs: words of a, and words of b, in reverse on the target side."""
    folder = tmp_path_factory.mktemp("weighted")
    made = []
    for name, count in (("a", 90), ("b", 30)):
        random = np.random.default_rng(count)
        lines = [[f"{name}{word}" for word in random.choice(WORDS, random.integers(1, 6))] for _ in range(count)]
        (folder / f"{name}.en").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{name}.xx").write_text("".join(" ".join(line[::-1]) + "\n" for line in lines))
        made.append({"source": folder / f"{name}.en", "target": folder / f"{name}.xx"})
    return made


@pytest.fixture
def make_config(files, tmp_path):
    def made(*settings, **data):
        train = [{**one, **changes} for one, changes in zip(files, settings, strict=True)]
        return Config(
            run_dir=tmp_path,
            data=DataConfig(source_language="en", target_language="de", train=train, dev=files[0], **data),
            tokenizer={"vocabulary_size": 30, "byte_fallback": False},
            training={"max_updates": 1},
        )

    return made


@pytest.mark.parametrize("alpha", [None, 0.2])
@pytest.mark.parametrize("join_pairs", [0.0, 0.4])
def test_corpora_are_weighted_with_joined_pairs_and_sampled_tokens(make_config, tmp_path, join_pairs, alpha):
    config = make_config({"weight": 0.5}, {"weight": 3}, join_pairs=join_pairs)
    config = config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update={"sampling_alpha": alpha})})
    data = prepare_training_data(config, tmp_path, lambda line: None)
    plan = BatchPlan(data.lengths, by="sentences", size=16, seed=1, shares=data.shares)
    loader = BatchLoader(data.tokenized, data.kept, plan)
    sizes = np.bincount(data.shares.corpora)
    assert join_pairs or sizes.tolist() == [90, 30]
    for epoch in (0, 1, 2):
        texts = []
        for index in range(plan.num_batches):
            batch = loader.load_batch(epoch, index)
            sides = (data.source_tokenizer.decode(rows) for rows in (batch.source, batch.target))
            texts += zip(*sides, strict=True)
        firsts = Counter(source[0] for source, _ in texts)
        assert firsts == {"a": (sizes[0] + 1) // 2, "b": 3 * sizes[1]}
        for source, target in texts:
            assert {word[0] for word in source.split()} == {source[0]}  # joined within a corpus
            assert sorted(source.split()) == sorted(target.split())


@pytest.mark.parametrize("join_pairs", [0.0, 0.4])
@pytest.mark.parametrize(
    ("alpha", "change"), [(0.2, {}), (None, {"augment": {"typos": 0.9}}), (None, {"replace_tokens": 0.5})]
)
def test_copies_of_a_pair_in_an_epoch_differ_and_resume(make_config, tmp_path, join_pairs, alpha, change):
    config = make_config({}, {"weight": 9}, join_pairs=join_pairs, **change)
    config = config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update={"sampling_alpha": alpha})})
    data = prepare_training_data(config, tmp_path, lambda line: None)
    plan = BatchPlan(data.lengths, by="sentences", size=64, seed=1, shares=data.shares)
    loader = BatchLoader(data.tokenized, data.kept, plan)
    rows = defaultdict(list)
    for index in range(plan.num_batches):
        for example, row in zip(plan.draw_epoch(1)[index], loader.load_batch(1, index).source, strict=True):
            rows[example].append(tuple(row[row > 0]))
    distinct = [len(set(copies)) for copies in rows.values() if len(copies) == 9]
    assert len(distinct) == np.bincount(data.shares.corpora)[1] and np.mean(distinct) > 1.2
    again = BatchLoader(data.tokenized, data.kept, plan).load_batch(1, 2)
    np.testing.assert_array_equal(again.source, loader.load_batch(1, 2).source)


def test_a_weight_that_draws_nothing_is_refused(make_config, files, tmp_path):
    expected = (
        f"data.train.1.weight: 0.01 of the 30 examples of {files[1]['source']} is less than half an example per epoch, "
        "so that none would be read. Expected 0.017 or more, or the corpus left out."
    )
    with pytest.raises(UserError) as error:
        prepare_training_data(make_config({}, {"weight": 0.01}), tmp_path, lambda line: None)
    assert str(error.value) == expected


def test_the_weight_of_a_corpus_without_pairs_is_refused(make_config, files, tmp_path):
    for name in ("en", "xx"):
        (tmp_path / f"long.{name}").write_text("ba mu ti " * 20 + "\n")
    long = {"source": tmp_path / "long.en", "target": tmp_path / "long.xx"}
    config = make_config({}, {**long, "weight": 2}, max_length=30)
    with pytest.raises(UserError, match=r"data.train.1.weight: cleaning left no pair of .*long.en, so that the weight"):
        prepare_training_data(config, tmp_path, lambda line: None)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_pairs_are_joined_within_their_corpus_and_all_corpora_alike(share):
    sizes = np.array([61, 41, 25])  # odd, so that a pair without a partner remains in each
    corpora = np.repeat([0, 1, 2], sizes)
    lengths = random_lengths(sizes.sum())
    plan = JoinPlan(lengths, share=share, max_length=100, seed=2, corpora=corpora)
    examples = plan.find_corpora(corpora)
    for epoch in (0, 1):
        first, second = plan.draw_epoch(epoch).T
        assert sorted([*first, *second[second != NO_PAIR]]) == list(range(sizes.sum()))
        np.testing.assert_array_equal(corpora[first], examples)
        joined = second != NO_PAIR
        np.testing.assert_array_equal(corpora[second[joined]], examples[joined])
    shares = np.bincount(examples[joined], minlength=3) / np.bincount(examples)
    assert shares == pytest.approx(share, abs=0.15)
