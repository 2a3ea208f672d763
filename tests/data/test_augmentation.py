import numpy as np
import pytest

from nmt.config.schema import AugmentConfig, Config, DataConfig
from nmt.data.augmentation import drop_final_punctuation, make_typos, to_capitals, to_title_case
from nmt.data.batching import BatchLoader, BatchPlan
from nmt.data.preparation import prepare_training_data
from nmt.errors import UserError

WORDS = ["ba", "dofu", "kilo", "mu", "nasa", "rebo", "ti", "sume"]
NUM_PAIRS = 400


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """400 sentences of 1 to 9 words that end in a full stop; the target is the source in reverse."""
    folder = tmp_path_factory.mktemp("augmented")
    random = np.random.default_rng(1)
    lines = [random.choice(WORDS, random.integers(1, 10)) for _ in range(NUM_PAIRS)]
    (folder / "a.en").write_text("".join(" ".join(line) + ".\n" for line in lines))
    (folder / "a.xx").write_text("".join(" ".join(line[::-1]) + ".\n" for line in lines))
    (folder / "a.weights").write_text("".join(f"{0.5 + number}\n" for number in range(NUM_PAIRS)))
    return {"source": folder / "a.en", "target": folder / "a.xx"}, folder / "a.weights"


@pytest.fixture
def prepare(files, tmp_path):
    def prepared(*, sampling_alpha=None, target_language="de", **data):
        train = {**files[0], "weights": data.pop("weights", None)}
        section = DataConfig(source_language="en", target_language=target_language, train=[train], dev=files[0], **data)
        tokenizer = {"vocabulary_size": 284, "sampling_alpha": sampling_alpha}
        config = Config(run_dir=tmp_path, data=section, tokenizer=tokenizer, training={"max_updates": 1})
        return prepare_training_data(config, tmp_path, lambda line: None)

    return prepared


def read_texts(data, epoch, batch=0, examples=None):
    ids = data.tokenized.read_ids(data.kept if examples is None else examples, epoch=epoch, batch=batch)
    return list(zip(data.source_tokenizer.decode(ids[0]), data.target_tokenizer.decode(ids[1]), strict=True))


@pytest.mark.parametrize("sampling_alpha", [None, 0.2])
@pytest.mark.parametrize(("join_pairs", "target_language"), [(0.0, "de"), (0.4, "de"), (0.4, "ja")])
def test_shares_of_the_examples_change_as_configured(prepare, sampling_alpha, join_pairs, target_language):
    options = {"sampling_alpha": sampling_alpha, "join_pairs": join_pairs, "target_language": target_language}
    plain = prepare(**options)
    shares = {"capitals": 0.2, "title_case": 0.15, "no_final_punctuation": 0.25, "typos": 0.1}
    augmented = prepare(augment=shares, **options)
    by_epoch = []
    for epoch in (0, 3):
        kinds = []
        pairs = zip(read_texts(plain, epoch), read_texts(augmented, epoch), strict=True)
        for (source, target), (new_source, new_target) in pairs:
            if new_source == source:
                kinds.append("")
            elif new_source == source.upper():
                kinds.append("capitals")
                assert new_target == target.upper()
                continue
            elif new_source == source.title():
                kinds.append("title_case")
            elif new_source == source.removesuffix("."):
                kinds.append("no_final_punctuation")
            else:
                kinds.append("typos")
                assert 0 < abs(len(new_source) - len(source)) <= 2 or sorted(new_source) == sorted(source)
            assert new_target == target
        for kind, share in shares.items():
            # Three standard deviations; some typos, such as "mu mu" to "um mu", are rare but none changes nothing.
            assert np.mean([kind == one for one in kinds]) == pytest.approx(share, abs=3 * 0.5 / len(kinds) ** 0.5)
        by_epoch.append(kinds)
    assert by_epoch[0] != by_epoch[1]


def test_an_example_changes_alike_in_every_batch_and_another_process(prepare):
    whole = read_texts(prepare(augment={"typos": 0.5}), 2)
    data = prepare(augment={"typos": 0.5})
    for examples in (np.array([7]), np.array([9, 3, 250])):
        assert read_texts(data, 2, batch=5, examples=examples) == [whole[n] for n in examples]


def test_no_example_grows_beyond_the_longest(prepare):
    data = prepare(augment={"capitals": 0.9}, max_length=25)
    # Capitals are spelled in bytes here, so that most sentences would be longer.
    texts = read_texts(data, 0)
    assert any(source.isupper() for source, _ in texts) and any(source.islower() for source, _ in texts)
    assert all(source.isupper() == target.isupper() for source, target in texts)
    for rows in data.tokenized.read_ids(data.kept, epoch=0, batch=0):
        assert max(map(len, rows)) <= 25


def test_changed_examples_resume_and_fit_the_shapes_of_a_compiled_update(prepare):
    def load(epoch, index):
        data = prepare(augment={"capitals": 0.3, "typos": 0.3}, replace_tokens=0.1)
        plan = BatchPlan(data.lengths, by="sentences", size=16, seed=1)
        return BatchLoader(data.tokenized, data.kept, plan, pad_to_buckets=True).load_batch(epoch, index)

    one, other = load(2, 5), load(2, 5)
    np.testing.assert_array_equal(one.source, other.source)
    np.testing.assert_array_equal(one.target, other.target)


def test_source_tokens_are_replaced_by_ordinary_ones(prepare):
    plain, replaced = prepare(), prepare(replace_tokens=0.25)
    allowed = set(replaced.source_tokenizer.text_ids.tolist())
    assert allowed and not allowed & {0, 1, 2, 3} and len(allowed) < 284 - 256
    drawn = []
    for epoch in (0, 1):
        sides = plain.tokenized.read_ids(plain.kept, epoch=epoch, batch=0)
        changed = replaced.tokenized.read_ids(replaced.kept, epoch=epoch, batch=0)
        before, after = (np.concatenate(rows) for rows in (sides[0], changed[0]))
        assert [len(row) for row in sides[0]] == [len(row) for row in changed[0]]
        np.testing.assert_array_equal(np.concatenate(sides[1]), np.concatenate(changed[1]))
        drawn.append(after[before != after])
        # A token in the size of the vocabulary is replaced by itself.
        expected = 0.25 * (1 - 1 / len(allowed))
        assert (before != after).mean() == pytest.approx(expected, abs=0.03)
        assert set(drawn[-1].tolist()) <= allowed
    assert not np.array_equal(*drawn)
    alone = replaced.tokenized.read_ids(replaced.kept[[8]], epoch=1, batch=9)[0][0]
    np.testing.assert_array_equal(alone, changed[0][8])


def test_tags_are_neither_replaced_nor_changed(files, tmp_path):
    train = {**files[0], "tag": "<2xx>"}
    section = DataConfig(
        source_language="en",
        target_language="de",
        train=[train],
        dev=files[0],
        replace_tokens=0.9,
        augment={"typos": 0.9},
    )
    config = Config(run_dir=tmp_path, data=section, tokenizer={"vocabulary_size": 284}, training={"max_updates": 1})
    data = prepare_training_data(config, tmp_path, lambda line: None)
    prefix = data.source_tokenizer.encode(["<2xx>"])[0]
    sources, _ = data.tokenized.read_ids(data.kept, epoch=0, batch=0)
    assert {tuple(row[: len(prefix)]) for row in sources} == {tuple(prefix)}


@pytest.mark.parametrize("kind", ["capitals", "title_case", "no_final_punctuation", "typos"])
def test_user_symbols_are_not_changed(files, tmp_path, kind):
    symbols = ["<blank>", "<blank>-dofu", "nasa.", "\U0010ffff"]
    for side in ("en", "xx"):
        (tmp_path / f"a.{side}").write_text("ba <blank> <blank>-dofu ba \U0010ffff mu sume ti nasa.\n" * 9)
    files = {"source": tmp_path / "a.en", "target": tmp_path / "a.xx"}
    data = DataConfig(source_language="en", target_language="de", train=[files], dev=files, augment={kind: 0.999})
    tokenizer = {"vocabulary_size": 273, "user_symbols": symbols}
    config = Config(run_dir=tmp_path, data=data, tokenizer=tokenizer, training={"max_updates": 1})
    prepared = prepare_training_data(config, tmp_path, lambda line: None)
    for source, target in read_texts(prepared, 0):
        assert source.split()[1:3] == target.split()[1:3] == symbols[:2]
        assert source.split()[4] == target.split()[4] == "\U0010ffff"
        assert source.endswith(" nasa.") and target.endswith(" nasa.")
        assert (source == target) == (kind in ("capitals", "no_final_punctuation"))


def test_texts_are_changed():
    assert to_capitals("Der Fluß im Tal.", "de") == "DER FLUSS IM TAL."
    assert to_capitals("iyi ılık", "tr-TR") == "İYİ ILIK"
    assert to_title_case("she said: don't go, élan!", "en") == "She Said: Don't Go, Élan!"
    assert [drop_final_punctuation(text) for text in ("Yes.", "No?! ", "さようなら。", "1.5", "a. b")] == [
        "Yes",
        "No",
        "さようなら",
        "1.5",
        "a. b",
    ]


def test_typos_are_one_per_ten_words_and_leave_numbers_alone():
    assert make_typos("12 a - 7", np.random.default_rng(1)) == "12 a - 7"
    text = " ".join(["abcdef"] * 30)
    for seed in range(20):
        words = make_typos(text, np.random.default_rng(seed)).split()
        assert 1 <= sum(word != "abcdef" for word in words) <= 3
        for word in words:
            assert len(word) in range(4, 9)


def test_shares_above_one_together_are_refused():
    with pytest.raises(ValueError, match=r"the shares together must be at most 1; found 1\.2"):
        AugmentConfig(capitals=0.7, typos=0.5)


def test_the_loss_of_each_pair_has_its_weight(prepare, files):
    data = prepare(weights=files[1])
    plan = BatchPlan(data.lengths, by="sentences", size=16, seed=1)
    loader = BatchLoader(data.tokenized, data.kept, plan, weigh=data.weigh, multiple=16)
    for index in range(plan.num_batches):
        batch, members = loader.load_batch(1, index), plan.draw_epoch(1)[index]
        np.testing.assert_array_equal(batch.weights[: len(members)], 0.5 + data.kept[members])
        assert not batch.weights[len(members) :].any()
    assert "text of sentence weights" in data.fingerprints


def test_a_joined_example_has_the_mean_weight_of_its_pairs(prepare, files):
    data = prepare(weights=files[1], join_pairs=0.5)
    for epoch in (0, 1):
        pairs = data.texts.plan.draw_epoch(epoch)
        expected = [np.mean([0.5 + pair for pair in row if pair >= 0]) for row in pairs]
        np.testing.assert_allclose(data.weigh(data.kept, epoch), expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1\n" * 6 + "x\n" + "1\n" * 393, ":7: expected a weight above 0 and at most 1,000, found 'x'."),
        ("1\n" * 399 + "0\n", ":400: expected a weight above 0 and at most 1,000, found '0'."),
        ("nan\n" + "1\n" * 399, ":1: expected a weight above 0 and at most 1,000, found 'nan'."),
        ("1e300\n" + "1\n" * 399, ":1: expected a weight above 0 and at most 1,000, found '1e300'."),
        (
            "1\n" * 399,
            "data.train.0.weights: expected a number for each of the 400 lines of the corpus, found 399 lines",
        ),
    ],
)
def test_bad_weights_are_named_with_file_and_line(prepare, tmp_path, content, words):
    (tmp_path / "w.txt").write_text(content)
    with pytest.raises(UserError) as error:
        prepare(weights=tmp_path / "w.txt")
    assert words in str(error.value)
