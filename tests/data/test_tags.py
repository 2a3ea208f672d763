import numpy as np
import pytest

from nmt.config.file import config_from_text, dump_config
from nmt.config.schema import Config, DataConfig, TokenizerConfig
from nmt.data.batching import BatchLoader, BatchPlan
from nmt.data.examples import find_tag_ids, put_tag
from nmt.data.preparation import find_tag_warnings, prepare_training_data, read_dev
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import UserError

WORDS = ["ba", "dofu", "kilo", "mu", "nasa", "rebo", "ti", "sume"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Corpora of 60, 40 and 20 pairs: words with the letter a, b or c before them, in reverse on the target side."""
    folder = tmp_path_factory.mktemp("tagged")
    made = []
    for name, count in (("a", 60), ("b", 40), ("c", 20)):
        random = np.random.default_rng(count)
        lines = [[f"{name}{word}" for word in random.choice(WORDS, random.integers(1, 6))] for _ in range(count)]
        (folder / f"{name}.en").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{name}.xx").write_text("".join(" ".join(line[::-1]) + "\n" for line in lines))
        made.append({"source": folder / f"{name}.en", "target": folder / f"{name}.xx"})
    return made


@pytest.fixture
def make_config(files, tmp_path):
    def made(*settings, dev=None, tokenizer=None, decoding=None, **data):
        train = [{**one, **changes} for one, changes in zip(files, settings, strict=True)]
        return Config(
            run_dir=tmp_path,
            data=DataConfig(source_language="en", target_language="de", train=train, dev=dev or files[0], **data),
            tokenizer={"vocabulary_size": 32, "byte_fallback": False, **(tokenizer or {})},
            model={"tied_embeddings": "target"},
            training={"max_updates": 1},
            decoding=decoding or {},
        )

    return made


TAGS = ({"tag": "<2aa>"}, {"tag": "<bt>"}, {})


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("alpha", [None, 0.2])
@pytest.mark.parametrize("join_pairs", [0.0, 0.4])
def test_sources_begin_with_the_tag_of_their_corpus(make_config, tmp_path, join_pairs, alpha, joint):
    settings = {"sampling_alpha": alpha, "joint": joint}
    config = make_config(*TAGS, join_pairs=join_pairs, tokenizer=settings)
    data = prepare_training_data(config, tmp_path, lambda line: None)
    plan = BatchPlan(data.lengths, by="sentences", size=16, seed=1, shares=data.shares)
    loader = BatchLoader(data.tokenized, data.kept, plan)
    expected = {"a": "<2aa> ", "b": "<bt> ", "c": ""}
    for index in range(plan.num_batches):
        batch = loader.load_batch(1, index)
        if alpha is None:
            real = np.count_nonzero(batch.source, axis=1)
            np.testing.assert_array_equal(real, data.lengths[plan.draw_epoch(1)[index], 0])
        sources, targets = data.source_tokenizer.decode(batch.source), data.target_tokenizer.decode(batch.target)
        for source, target in zip(sources, targets, strict=True):
            tag = expected[target[0]]
            assert source.startswith(tag)
            bare = source.removeprefix(tag).split()
            assert sorted(bare) == sorted(target.split())  # one tag, also where two pairs are joined
            assert alpha or data.source_tokenizer.encode([source])[0] in [
                row[: np.flatnonzero(row == 3)[0]].tolist() for row in batch.source
            ]


def test_training_without_tags_reads_the_same_batches_as_a_corpus_with_a_weight_of_one(make_config, tmp_path):
    data = prepare_training_data(make_config({}, {}, {}), tmp_path, lambda line: None)
    assert data.shares is None and data.weights is None
    assert type(data.tokenized).__name__ == "CachedTokens"


def test_the_tokenizer_has_tags_as_symbols_and_learns_nothing_from_them(make_config, tmp_path):
    (tmp_path / "tagged").mkdir()
    (tmp_path / "symbols").mkdir()
    tagged = prepare_training_data(make_config(*TAGS), tmp_path / "tagged", lambda line: None).source_tokenizer
    config = make_config({}, {}, {}, tokenizer={"user_symbols": ["<2aa>", "<bt>"]})
    assert prepare_training_data(config, tmp_path / "symbols", lambda line: None).source_tokenizer.model == tagged.model
    assert tagged.tokenize(put_tag("<bt>", "bba"))[:2] == ["▁", "<bt>"]


def test_a_tokenizer_without_the_tag_is_refused(make_config, tmp_path):
    path = tmp_path / "other.model"
    train_tokenizer(WORDS * 9, kind="bpe", vocabulary_size=28, byte_fallback=False).save(path)
    files = TokenizerConfig(source_model=path, target_model=path)
    config = make_config({}, {}, {"tag": "<2cc>"}).model_copy(update={"tokenizer": files})
    with pytest.raises(
        UserError, match=r"^data\.train\.2\.tag: the source tokenizer does not have the symbol <2cc>, but"
    ):
        prepare_training_data(config, tmp_path, lambda line: None)


def test_a_tokenizer_that_puts_no_space_before_text_is_refused():
    class Bare:
        def encode(self, texts):
            return [[5] if text == "<x>" else [7] if text == "a" else [5, 6, 7] for text in texts]

        def get_token(self, token_id):
            return {5: "<x>"}[token_id]

    with pytest.raises(UserError, match="key: the source tokenizer reads a text after a tag in another way"):
        find_tag_ids(Bare(), "<x>", "key")


def test_the_longest_source_counts_its_tag(make_config, tmp_path):
    lengths = []
    for name, settings in (("plain", ({}, {}, {})), ("tagged", TAGS)):
        (tmp_path / name).mkdir()
        config = make_config(*settings, max_length=9)
        lengths.append(prepare_training_data(config, tmp_path / name, lambda line: None).lengths)
    assert lengths[0][:, 0].max() == lengths[1][:, 0].max() == 10  # with EOS
    assert len(lengths[1]) < len(lengths[0])


def test_dev_sets_have_tags_and_names(make_config, files, tmp_path):
    dev = [{**files[0], "tag": "<2aa>"}, {**files[1], "name": "plain"}, files[2]]
    config = make_config(*TAGS, dev=dev)
    assert [(one.name, one.tag) for one in config.dev_sets] == [("2aa", "<2aa>"), ("plain", None), ("c", None)]
    assert config_from_text(dump_config(config), "stored") == config
    lines: list[str] = []
    data = prepare_training_data(config, tmp_path, lines.append)
    assert [one.sources[0].startswith("<2aa> ") for one in data.dev] == [True, False, False]
    assert data.dev[0].bare_sources == [line.removeprefix("<2aa> ") for line in data.dev[0].sources]
    warning = (
        "Warning: no set of data.dev has the tag <bt>, so that no score shows what the model learns from its text."
    )
    assert [line for line in lines if line.startswith("Warning")] == [warning]


def test_blank_lines_of_a_dev_set_have_no_tag(make_config, tmp_path):
    dev = {"source": tmp_path / "dev.en", "target": tmp_path / "dev.xx", "tag": "<2aa>"}
    for path in (dev["source"], dev["target"]):
        path.write_text("ba\n\nmu\n")
    [found] = read_dev(make_config(*TAGS, dev=dev))
    assert found.sources == ["<2aa> ba", "", "<2aa> mu"]
    assert found.bare_sources == found.targets == ["ba", "", "mu"]


def test_a_dev_set_with_a_blank_side_is_refused(make_config, tmp_path):
    dev = {"source": tmp_path / "dev.en", "target": tmp_path / "dev.xx"}
    dev["source"].write_text("ba\nmu\n")
    dev["target"].write_text(" \n\n")
    with pytest.raises(UserError, match=r"^Expected text in .*dev\.xx, but all 2 lines are blank\.$"):
        read_dev(make_config(*TAGS, dev=dev))


def test_a_run_folder_with_one_of_two_tokenizers_is_refused(make_config, tmp_path):
    config = make_config(*TAGS)
    prepare_training_data(config, tmp_path, lambda line: None)
    (tmp_path / "target.model").unlink()
    words = r" has source\.model, but no target\.model\. Restore it, or remove source\.model to train both\.$"
    with pytest.raises(UserError, match=words):
        prepare_training_data(config, tmp_path, lambda line: None)


def test_a_dev_set_takes_the_tag_that_translation_takes(make_config):
    config = make_config(*TAGS, decoding={"tag": "<bt>"})
    assert config.dev_sets[0].tag == "<bt>"
    untagged = make_config({"tag": "<x>"}, {"tag": "<x>"}, {"tag": "<x>"})
    assert "data.dev has text without a tag, but all text of data.train has one." in list(find_tag_warnings(untagged))


@pytest.mark.parametrize(
    ("train", "rest", "words"),
    [
        ("tag: de", "", "data.train.0.tag: expected a symbol without spaces that begins with no letter or digit, such"),
        ("tag: '<2 de>'", "", "data.train.0.tag: expected a symbol without spaces"),
        ("tag: </s>", "", "data.train.0.tag: </s> is a special token of every tokenizer; expected another symbol"),
        (
            "tag: <x>",
            "dev: {source: a, target: b, tag: <y>}",
            "data.dev.tag must be a tag of data.train, which has <x>; f",
        ),
        (
            "weight: 1",
            "dev: [{source: a, target: b, tag: <y>}]",
            "data.dev.0.tag must be a tag of data.train, which has",
        ),
        ("weight: 1", "dev: [{source: a, target: b}, {source: a, target: c}]", "data.dev has two sets called a; give"),
        ("weight: 1", "dev: [{source: a}]", "data.dev.0: the key 'target' is missing. File of target"),
        (
            "weight: 1",
            "dev: {source: a, target: b, name: x}",
            "data.dev.name has no effect on a single set, whose scores",
        ),
        ("weight: 1", "dev: 5", "data.dev: expected a section or a list of 1 or more entries, each a section, found 5"),
    ],
)
def test_mistakes_in_tags_and_dev_sets_are_named(train, rest, words):
    text = (
        f"data:\n  source_language: en\n  target_language: de\n  train: [{{source: a, target: b, {train}}}]\n"
        f"  {rest or 'dev: {source: a, target: b}'}\ntraining: {{max_updates: 1}}\n"
    )
    with pytest.raises(UserError) as error:
        config_from_text(text, "x.yaml")
    assert words in str(error.value)
