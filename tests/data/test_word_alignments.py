"""Word alignments of the training text, as targets of the attention between tokens.

Each source word is translated by itself, and the order of the words is reversed, so that a target token must attend to
the tokens of its own word.
"""

import numpy as np
import pytest

from nmt.config.schema import Config, DataConfig
from nmt.data.batching import BatchLoader, BatchPlan
from nmt.data.preparation import prepare_training_data
from nmt.data.word_alignments import SPACE
from nmt.errors import UserError

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(1)
    lines = [list(random.choice(WORDS, random.integers(1, 7))) for _ in range(60)]
    return {
        "source": write(tmp_path / "a.en", [" ".join(line) for line in lines]),
        "target": write(tmp_path / "a.de", [" ".join(line[::-1]) for line in lines]),
        "alignments": write(
            tmp_path / "a.links", [" ".join(f"{n}-{len(line) - 1 - n}" for n in range(len(line))) for line in lines]
        ),
    }


@pytest.fixture
def prepare(files, tmp_path):
    """Prepares the text, with changes of the section `data`, and of its only corpus."""

    def prepared(*, corpus=None, tokenizer=None, training=None, language="de", **data):
        config = Config(
            run_dir=tmp_path,
            data=DataConfig(
                source_language="en", target_language=language, train=[{**files, **(corpus or {})}], dev=dev, **data
            ),
            tokenizer={"vocabulary_size": 26, "byte_fallback": False, **(tokenizer or {})},
            training={"max_updates": 1, "guided_alignment": 0.1, **(training or {})},
        )
        logged = []
        return prepare_training_data(config, tmp_path, logged.append), logged

    dev = {name: files[name] for name in ("source", "target")}
    return prepared


def words_of(tokens):
    """Returns the word that each token belongs to."""
    words, numbers = [], []
    for token in tokens:
        if token.startswith(SPACE) or not words:
            words.append("")
        words[-1] += token.lstrip(SPACE)
        numbers.append(len(words) - 1)
    return [words[number] for number in numbers]


@pytest.mark.parametrize("pad_to_buckets", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tokenizer": {"sampling_alpha": 0.2}, "corpus": {"tag": "<x>"}, "join_pairs": 0.4},
        {"augment": {"capitals": 0.5, "typos": 0.3}, "corpus": {"weight": 2.0}},
    ],
)
def test_every_target_token_is_to_attend_to_the_tokens_of_its_own_word(prepare, settings, pad_to_buckets):
    data, logged = prepare(**settings)
    assert any(line.startswith("Word alignments: ") and line.endswith(" links in 60 pairs.") for line in logged)
    plan = BatchPlan(data.lengths, by="sentences", size=16, seed=1, shares=data.shares)
    loader = BatchLoader(data.tokenized, data.kept, plan, guide=data.guide, multiple=5, pad_to_buckets=pad_to_buckets)
    compared = 0
    for epoch, index in np.ndindex(2, plan.num_batches):
        batch = loader.load_batch(epoch, index)
        assert batch.alignment.dtype == np.float32
        assert batch.alignment.shape == (*batch.target.shape, batch.source.shape[1])
        assert not batch.alignment[batch.weights == 0].any()
        for source, target, alignment in zip(batch.source, batch.target, batch.alignment, strict=True):
            if not alignment.any():
                continue
            sides = [
                words_of([tokenizer.get_token(int(one)) for one in ids[: np.argmin(ids != 3)]])
                for tokenizer, ids in ((data.source_tokenizer, source), (data.target_tokenizer, target))
            ]
            assert not alignment[len(sides[1]) :].any() and not alignment[:, len(sides[0]) :].any()
            np.testing.assert_allclose(alignment[: len(sides[1])].sum(axis=1), 1, rtol=1e-6)
            if "augment" not in settings:  # typos change words
                for n, s in np.argwhere(alignment):
                    assert sides[1][n] == sides[0][s]
            compared += 1
    # The one row in batches that fill up has no words; nothing else is left out.
    assert compared == 2 * (len(data.kept) if data.shares is None else sum(data.shares.counts))


def test_tokens_of_linked_words_share_the_attention_and_unlinked_words_have_none(prepare, files):
    """Source "ab cd", target "x yz": x is linked to both words, yz to none, all by hand."""
    write(files["source"], ["one two"] * 60)
    write(files["target"], ["three four"] * 60)
    write(files["alignments"], ["0-0 1-0 1-0", *[""] * 59])
    data, logged = prepare(tokenizer={"vocabulary_size": 16})
    assert "Word alignments: 2 links in 1 pairs." in logged
    [ids], [others] = data.tokenized.read_ids(np.array([0]), epoch=0, batch=0)
    [found] = data.guide(np.array([0]), 0, [ids], [others])
    of_three = np.array(
        [word == "three" for word in words_of([data.target_tokenizer.get_token(int(x)) for x in others])]
    )
    assert 0 < of_three.sum() < len(others)
    np.testing.assert_allclose(found, np.outer(of_three, np.full(len(ids), 1 / len(ids))), rtol=1e-6)
    assert data.guide(np.array([1]), 0, [ids], [others]) == [None]


def test_an_example_whose_ids_have_other_words_than_its_text_has_no_targets(prepare):
    data, _ = prepare()
    [ids], [others] = data.tokenized.read_ids(np.array([0]), epoch=0, batch=0)
    assert data.guide(np.array([0]), 0, [np.concatenate([ids, ids])], [others]) == [None]


def test_links_are_read_once_and_change_with_their_file(prepare, files, monkeypatch):
    first, _ = prepare()
    assert first.fingerprints["text of word alignments"] == first.guide.alignments.fingerprint
    monkeypatch.setattr("nmt.data.word_alignments._write_links", None)
    again, _ = prepare()
    np.testing.assert_array_equal(again.guide.alignments.links, first.guide.alignments.links)
    monkeypatch.undo()
    write(files["alignments"], ["0-0"] * 60)
    assert prepare()[0].fingerprints["text of word alignments"] != first.fingerprints["text of word alignments"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0-0"] * 59, r"data\.train\.0\.alignments: expected links for each of the 60 lines of the corpus, found 59"),
        (["0-0"] * 59 + ["0-0 1:1"], r"a\.links:60: expected links such as 0-0 1-2, .* found '1:1'\."),
        (["0-0"] * 59 + ["0-0 0?0"], r"a\.links:60: expected links such as 0-0 1-2, .* found '0\?0'\."),
        (
            ["0-0"] * 59 + ["0-99"],
            r"a\.links:60: 0-99 links a word that its pair does not have: the source has \d words",
        ),
        ([""] * 60, r"expected links such as 0-0 1-2, but all lines are blank\."),
    ],
)
def test_mistakes_name_file_and_line(prepare, files, lines, message):
    write(files["alignments"], lines)
    with pytest.raises(UserError, match=message):
        prepare()


def test_tokens_that_do_not_mark_words_are_refused(prepare, monkeypatch):
    monkeypatch.setattr("nmt.data.word_alignments.SPACE", "?")
    with pytest.raises(UserError, match=r"training\.guided_alignment: the tokenizers do not mark where words begin"):
        prepare()


def test_pairs_that_are_joined_without_a_space_are_refused(prepare):
    with pytest.raises(UserError, match=r"data\.join_pairs: sentences of this language are joined without a space"):
        prepare(language="ja", join_pairs=0.4)


def test_keys_that_cannot_act_are_refused(prepare):
    with pytest.raises(
        ValueError, match=r"data\.train\.0\.alignments has no effect without training\.guided_alignment"
    ):
        prepare(training={"guided_alignment": 0.0})
    with pytest.raises(ValueError, match=r"training\.guided_alignment needs data\.train\[\]\.alignments"):
        prepare(corpus={"alignments": None})
    with pytest.raises(ValueError, match=r"data\.replace_tokens contradicts training\.guided_alignment"):
        prepare(replace_tokens=0.1)
