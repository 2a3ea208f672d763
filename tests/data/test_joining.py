from itertools import islice

import numpy as np
import pytest
import sentencepiece.sentencepiece_model_pb2 as protobuf

from nmt.config.schema import Config, CorpusFiles, DataConfig
from nmt.data.batching import BatchLoader, BatchPlan
from nmt.data.corpus import ParallelCorpus
from nmt.data.joining import NO_PAIR, JoinedTokens, JoinPlan
from nmt.data.languages import parse_language
from nmt.data.preparation import prepare_training_data
from nmt.data.token_cache import CachedTokens, SampledTokens
from nmt.data.tokenizer import Tokenizer, train_tokenizer

WORDS = ["ba", "dofu", "kilo", "mu", "nasa", "rebo", "ti", "sume"]
SIGNS = ["猫", "が", "いる", "犬", "と", "山", "へ", "行く"]
NUM_PAIRS = 211


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> ParallelCorpus:
    """Sentences of 1 to 5 words, and the same in Japanese signs without spaces."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(1)
    lines = [random.integers(0, len(WORDS), random.integers(1, 6)) for _ in range(NUM_PAIRS)]
    (folder / "source").write_text("".join(f"{' '.join(WORDS[n] for n in line)}.\n" for line in lines))
    (folder / "target").write_text("".join(f"{''.join(SIGNS[n] for n in line)}。\n" for line in lines))
    return ParallelCorpus.open([(folder / "source", folder / "target")], folder / "cache")


@pytest.fixture(scope="module")
def tokenizers(corpus) -> tuple[Tokenizer, Tokenizer]:
    every = np.arange(len(corpus))
    source, target = (
        train_tokenizer(lines, kind="unigram", vocabulary_size=28, byte_fallback=False)
        for lines in (corpus.read_sources(every), corpus.read_targets(every))
    )
    return source, target


def without_prefix(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a tokenizer that does not put ▁ before the first word."""
    proto = protobuf.ModelProto.FromString(tokenizer.model)
    proto.normalizer_spec.add_dummy_prefix = False
    return Tokenizer(proto.SerializeToString())


def lengths_of(num_pairs=NUM_PAIRS):
    random = np.random.default_rng(2)
    return np.stack([random.integers(1, 9, num_pairs), random.integers(1, 7, num_pairs)], axis=1)


@pytest.mark.parametrize(("share", "num_joined"), [(0.0, 0), (0.25, 42), (0.5, 70), (0.9, 100)])
def test_every_pair_is_in_one_example_and_a_share_of_the_examples_has_two(share, num_joined):
    plan = JoinPlan(lengths_of(), share=share, max_length=100, seed=1)
    assert (plan.num_joined, len(plan)) == (num_joined, NUM_PAIRS - num_joined)
    assert num_joined == pytest.approx(share * len(plan), abs=1)
    for epoch in (0, 3):
        pairs = plan.draw_epoch(epoch).ravel()
        np.testing.assert_array_equal(np.sort(pairs[pairs != NO_PAIR]), np.arange(NUM_PAIRS))


def test_lengths_are_the_same_in_every_epoch_and_within_the_limit():
    lengths = lengths_of()
    plan = JoinPlan(lengths, share=0.4, max_length=9, seed=1)
    planned = plan.add_lengths(lengths + 1)
    assert planned.dtype == np.int16
    for epoch in range(4):
        first, second = plan.draw_epoch(epoch).T
        joined = second != NO_PAIR
        added = lengths[first] + np.where(joined[:, None], lengths[second], 0)
        np.testing.assert_array_equal(planned, added + 1)  # one EOS, however many pairs
        assert added[joined].max() <= 9
    assert joined.any() and not joined.all()


def test_pairs_that_do_not_fit_together_stay_apart():
    assert JoinPlan(np.full((10, 2), 6), share=0.5, max_length=11, seed=1).num_joined == 0
    assert JoinPlan(np.full((1, 2), 6), share=0.5, max_length=50, seed=1).num_joined == 0


def test_joined_pairs_depend_on_seed_and_epoch_alone():
    def joined(epoch, seed=1):
        plan = JoinPlan(lengths_of(), share=0.5, max_length=50, seed=seed)
        plan.draw_epoch(7)
        return {(one, other) for one, other in plan.draw_epoch(epoch).tolist() if other != NO_PAIR}

    assert joined(2) == joined(2)
    assert len(joined(2) & joined(3)) < 15 and len(joined(2) & joined(2, seed=2)) < 15
    alone = [NUM_PAIRS - len(set(sum(joined(epoch), ()))) for epoch in (2, 3)]
    both = NUM_PAIRS - len({one for epoch in (2, 3) for pair in joined(epoch) for one in pair})
    assert both < 0.6 * min(alone)  # a pair that was alone in one epoch may be joined in the next


def test_another_thread_may_draw_another_epoch_meanwhile():
    plan = JoinPlan(lengths_of(), share=0.5, max_length=50, seed=1)

    class Late(int):
        """An epoch whose comparison takes so long that another thread draws epoch 0."""

        def __ne__(self, other):
            plan.draw_epoch(0)
            return int(self) != other

    expected = plan.draw_epoch(1)
    np.testing.assert_array_equal(plan.draw_epoch(Late(1)), expected)


def join(corpus, tokenizers, *, separators=(" ", ""), sampling_alpha=None):
    kept = np.arange(1, len(corpus), 2)  # so that indices of the plan and of the corpus differ
    sides = (corpus.read_sources(kept), corpus.read_targets(kept))
    lengths = np.stack([t.count_tokens(side) for t, side in zip(tokenizers, sides, strict=True)], axis=1)
    plan = JoinPlan(lengths, share=0.5, max_length=20, seed=1)
    if sampling_alpha is None:
        tokens = CachedTokens.open(corpus, *tokenizers, corpus._sources[0].path.parent / "cache")
    else:
        tokens = SampledTokens(corpus, *tokenizers, alpha=sampling_alpha, seed=1)
    joined = JoinedTokens(tokens, corpus, tokenizers, kept=kept, plan=plan, separators=separators)
    return joined, plan.add_lengths(lengths + 1)


def joined_texts(joined, corpus, examples, epoch):
    """Returns the texts of both sides, joined here."""
    found = []
    for read, separator in ((corpus.read_sources, joined.separators[0]), (corpus.read_targets, joined.separators[1])):
        pairs = [[joined.kept[one] for one in row if one != NO_PAIR] for row in joined.plan.draw_epoch(epoch)[examples]]
        found.append([separator.join(read(np.array(row))) for row in pairs])
    return found


@pytest.mark.parametrize("separators", [(" ", ""), (" ", " ")])
@pytest.mark.parametrize("has_prefix", [True, False])
def test_ids_are_those_of_the_joined_text(corpus, tokenizers, separators, has_prefix):
    """With and without a space between the sentences, and a ▁ before the first word."""
    tokenizers = tokenizers if has_prefix else tuple(map(without_prefix, tokenizers))
    joined, _ = join(corpus, tokenizers, separators=separators)
    examples = np.random.default_rng(1).permutation(len(joined.plan))
    for epoch in (0, 2):
        texts = joined_texts(joined, corpus, examples, epoch)
        for side, rows in enumerate(joined.read_ids(examples, epoch=epoch, batch=1)):
            assert [list(row) for row in rows] == tokenizers[side].encode(texts[side])
    assert joined.read_sources(examples) == joined_texts(joined, corpus, examples, 0)[0]
    assert any("。" in text[:-1] for text in texts[1])


def test_sampled_ids_spell_the_joined_text_differently_in_every_epoch(corpus, tokenizers):
    joined, _ = join(corpus, tokenizers, sampling_alpha=0.1)
    examples = np.arange(len(joined.plan))
    drawn = []
    for epoch in (0, 1):
        ids = joined.read_ids(examples, epoch=epoch, batch=0)
        drawn.append({str(list(row)) for row in ids[0]})
        for tokenizer, texts, rows in zip(tokenizers, joined_texts(joined, corpus, examples, epoch), ids, strict=True):
            assert tokenizer.decode(rows) == texts
    assert len(drawn[0] & drawn[1]) < len(drawn[0]) / 2


@pytest.mark.parametrize("sampling_alpha", [None, 0.2])
def test_batches_of_joined_pairs_resume(corpus, tokenizers, sampling_alpha):
    def stream(epoch, index):
        joined, lengths = join(corpus, tokenizers, sampling_alpha=sampling_alpha)
        plan = BatchPlan(lengths, by="sentences", size=7, seed=1)
        return plan, BatchLoader(joined, np.arange(len(lengths)), plan).stream_batches(epoch, index)

    plan, through = stream(0, 0)
    batches = list(islice(through, plan.num_batches + 3))
    if sampling_alpha is None:
        real = sum(np.count_nonzero(batch.source) for batch in batches[: plan.num_batches])
        assert real == plan.lengths[:, 0].sum()
    for expected, batch in zip(batches[plan.num_batches - 2 :], stream(0, plan.num_batches - 2)[1], strict=False):
        np.testing.assert_array_equal(batch.source, expected.source)
        np.testing.assert_array_equal(batch.target, expected.target)


def test_training_data_is_joined_as_configured(corpus, tmp_path):
    files = CorpusFiles(source=corpus._sources[0].path, target=corpus._targets[0].path)
    data = DataConfig(source_language="en", target_language="ja", train=[files], dev=files, join_pairs=0.5)
    tokenizer = {"vocabulary_size": 45, "byte_fallback": False}
    config = Config(data=data, tokenizer=tokenizer, training={"max_updates": 1})
    messages: list[str] = []
    prepared = prepare_training_data(config, tmp_path, messages.append)
    assert f"{len(prepared.kept):,} examples, {NUM_PAIRS // 3:,} of them joined from two pairs." in messages
    assert prepared.lengths.shape == (len(prepared.kept), 2)
    sources, targets = prepared.tokenized.read_ids(prepared.kept, epoch=0, batch=0)
    assert [len(row) + 1 for row in sources] == prepared.lengths[:, 0].tolist()
    assert "。" in prepared.target_tokenizer.decode(targets[:1])[0][:-1]
    assert " " not in prepared.target_tokenizer.decode(targets[:1])[0]
    # By which `decoding.split_sentences: auto` goes.
    several = [text.count(".") > 1 for text in prepared.sample_sources(1000)]
    assert np.mean(several) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("code", "separator"),
    [("ja", ""), ("yue", ""), ("zh-Hant", ""), ("ja-Latn", " "), ("ko", " "), ("th", " "), ("de", " ")],
)
def test_a_space_stands_between_sentences_unless_the_language_has_none(code, separator):
    assert parse_language(code).sentence_separator == separator
