import io
import lzma
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import accumulate, chain
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from nmt.data import subword_sampling
from nmt.data.tokenizer import (
    BOS_ID,
    EOS_ID,
    MAX_TEXTS_WITHOUT_THREADS,
    PAD_ID,
    UNK_ID,
    Tokenizer,
    normalize_special_ids,
    reservoir_sample,
    train_tokenizer,
)
from nmt.errors import UserError

KFTT = Path(__file__).parents[2] / "../shared/data/kftt/dev.ja.xz"
Kind = Literal["unigram", "bpe"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


def sentences(count: int, seed: int = 1) -> list[str]:
    """Returns lines of invented words; shorter words are more frequent."""
    random = Random(seed)
    syllables = [consonant + vowel for consonant in "bdfklmnrst" for vowel in "aeiou"]
    words = ["".join(random.choices(syllables, k=1 + place // 40)) for place in range(160)]
    return [" ".join(random.choices(words, k=random.randint(3, 12))) + "." for _ in range(count)]


TEXT = sentences(500)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def tokenizer(kind: Kind) -> Tokenizer:
    return train_tokenizer(TEXT, kind=kind, vocabulary_size=400)


@pytest.fixture(scope="module")
def without_bytes() -> Tokenizer:
    return train_tokenizer(TEXT, kind="unigram", vocabulary_size=150, byte_fallback=False)


def native(tokenizer: Tokenizer) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)


def foreign(**settings: Any) -> bytes:
    """Trains a model with SentencePiece itself, by default with unk 0, bos 1, eos 2 and no pad."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, minloglevel=3, **{"vocab_size": 150, **settings}
    )
    return model.getvalue()


def test_the_special_ids_are_the_same_in_every_model(tokenizer: Tokenizer, without_bytes: Tokenizer) -> None:
    assert (PAD_ID, UNK_ID, BOS_ID, EOS_ID) == (0, 1, 2, 3)
    for one in (tokenizer, without_bytes):
        assert [one.get_token(token_id) for token_id in range(4)] == SPECIAL
        assert (native(one).pad_id(), native(one).unk_id(), native(one).bos_id(), native(one).eos_id()) == (0, 1, 2, 3)


def test_the_vocabulary_has_the_requested_size(tokenizer: Tokenizer, without_bytes: Tokenizer) -> None:
    assert tokenizer.vocabulary_size == 400
    assert without_bytes.vocabulary_size == 150


def test_ids_equal_those_of_sentencepiece_without_bos_and_eos(tokenizer: Tokenizer) -> None:
    texts = [*TEXT[:50], "", " two  blanks ", "Ünseen ½ 日本", "a\tb\u3000c"]
    assert tokenizer.encode(texts) == native(tokenizer).encode(texts)
    assert not {PAD_ID, UNK_ID, BOS_ID, EOS_ID} & {one for row in tokenizer.encode(texts) for one in row}


def test_tokens_join_to_the_text_and_have_the_ids_of_encode(tokenizer: Tokenizer) -> None:
    for text in TEXT[:50]:
        tokens = tokenizer.tokenize(text)
        assert "".join(tokens) == "▁" + text.replace(" ", "▁")
        assert [tokenizer.get_token(one) for one in tokenizer.encode([text])[0]] == tokens


def test_few_and_many_texts_have_the_same_ids(tokenizer: Tokenizer) -> None:
    """Few texts are encoded one by one, many by threads, which must not change their order."""
    many = [f"{line} {n}" for n, line in enumerate(TEXT * (1 + 2 * MAX_TEXTS_WITHOUT_THREADS // len(TEXT)))]
    assert len(many) > MAX_TEXTS_WITHOUT_THREADS
    assert tokenizer.encode(many) == [ids for text in many for ids in tokenizer.encode([text])]
    assert tokenizer.encode(many[:MAX_TEXTS_WITHOUT_THREADS]) == tokenizer.encode(many)[:MAX_TEXTS_WITHOUT_THREADS]


def test_empty_batches_and_empty_lines(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]) == []
    assert tokenizer.encode(["", "ba"])[0] == []
    assert tokenizer.decode([]) == []
    assert tokenizer.decode([[], [EOS_ID]]) == ["", ""]
    assert tokenizer.count_tokens([]).shape == (0,)


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text_but_nul_decodes_to_its_normalized_form(tokenizer: Tokenizer, text: str) -> None:
    normalised = native(tokenizer).normalize(text).replace("▁", " ").strip(" ")
    ids = tokenizer.encode([text])
    assert tokenizer.decode(ids) == [normalised]
    assert not set(ids[0]) & set(tokenizer.banned_ids)


@pytest.fixture(scope="module")
def identity() -> Tokenizer:
    return train_tokenizer(TEXT, kind="bpe", vocabulary_size=400, normalization="identity")


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="▁\0\n\r")))
def test_without_a_normalization_rule_only_spaces_are_trimmed(identity: Tokenizer, text: str) -> None:
    assert identity.decode(identity.encode([text])) == [re.sub(" +", " ", text).strip(" ")]


def test_the_normalization_rule_is_part_of_the_model() -> None:
    folded = train_tokenizer(TEXT, kind="unigram", vocabulary_size=400, normalization="nmt_nfkc_cf")
    assert folded.decode(folded.encode(["BaBe Ⅻ ﬁ"])) == ["babe xii fi"]


def test_japanese_survives_a_round_trip() -> None:
    text = ["京都は日本の都市である。", "清水寺は京都にある寺院。", "日本の都市の寺院である。"] * 5
    tokenizer = train_tokenizer(text, kind="unigram", vocabulary_size=278)
    assert tokenizer.decode(tokenizer.encode([*text, "雪舟の水墨画"])) == [*text, "雪舟の水墨画"]


def test_japanese_of_a_real_corpus_survives_a_round_trip() -> None:
    if not KFTT.exists():
        pytest.skip(f"There is no {KFTT}.")
    text = lzma.decompress(KFTT.read_bytes()).decode().splitlines()
    tokenizer = train_tokenizer(text, kind="bpe", vocabulary_size=2500, normalization="identity")
    assert tokenizer.decode(tokenizer.encode(text)) == [re.sub(" +", " ", line).strip(" ") for line in text]


def test_without_bytes_an_unseen_character_is_unknown(without_bytes: Tokenizer) -> None:
    assert UNK_ID in without_bytes.encode(["ba 雪"])[0]
    assert without_bytes.banned_ids == [PAD_ID, BOS_ID]


def test_banned_are_pad_bos_unk_and_the_bytes_that_break_lines(tokenizer: Tokenizer) -> None:
    tokens = [tokenizer.get_token(token_id) for token_id in tokenizer.banned_ids]
    assert tokens == ["<pad>", "<unk>", "<s>", "<0x00>", "<0x0A>", "<0x0D>"]


def test_tokens_of_another_model_that_contain_a_newline_are_banned() -> None:
    tokenizer = Tokenizer(foreign(user_defined_symbols=["\n\n"], control_symbols=["<2de>"]))
    assert {tokenizer.get_token(one) for one in tokenizer.banned_ids} == {"<pad>", "<s>", "<2de>", "\n\n"}


def test_every_decoded_row_is_one_line_without_specials(tokenizer: Tokenizer) -> None:
    ids = np.random.default_rng(3).integers(tokenizer.vocabulary_size, size=(300, 40))
    ids[:, ::5] = tokenizer.banned_ids[3]
    ids[:, 1::5] = tokenizer.banned_ids[4]
    ids[:, 2::5] = tokenizer.banned_ids[5]
    for text in tokenizer.decode(ids.tolist()) + tokenizer.decode(ids):
        assert not set(text) & set("\0\n\r")
        assert not any(special in text for special in [*SPECIAL, "⁇"])


def test_special_ids_between_tokens_change_nothing(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode(TEXT[:1])[0]
    among = [BOS_ID, *(one for token_id in row for one in (token_id, PAD_ID)), EOS_ID, PAD_ID]
    assert tokenizer.decode([among]) == TEXT[:1]


def test_count_tokens_counts_the_ids_of_encode(tokenizer: Tokenizer) -> None:
    lengths = tokenizer.count_tokens(TEXT)
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [len(tokenizer.tokenize(text)) for text in TEXT]


def test_sampled_tokens_differ_but_spell_the_same_text(tokenizer: Tokenizer) -> None:
    sampled = tokenizer.sample(TEXT, seed=7, alpha=0.2)
    assert tokenizer.decode(sampled) == TEXT
    assert sampled != tokenizer.encode(TEXT)
    assert sum(map(len, sampled)) > tokenizer.count_tokens(TEXT).sum()


def test_sampling_depends_on_its_seed_only(tokenizer: Tokenizer) -> None:
    expected = {seed: tokenizer.sample(TEXT[:50], seed=seed, alpha=0.2) for seed in range(4)}
    assert all(expected[0] != expected[seed] for seed in (1, 2, 3))
    seeds = [0, 1, 2, 3] * 10
    with ThreadPoolExecutor(4) as threads:
        again = list(threads.map(lambda seed: tokenizer.sample(TEXT[:50], seed=seed, alpha=0.2), seeds))
    assert again == [expected[seed] for seed in seeds]


def test_bpe_dropout_ranges_from_the_usual_tokens_to_characters() -> None:
    tokenizer = train_tokenizer(TEXT, kind="bpe", vocabulary_size=400)
    assert tokenizer.sample(TEXT, seed=1, alpha=0.0) == tokenizer.encode(TEXT)
    characters = [[tokenizer.get_token(one) for one in ids] for ids in tokenizer.sample(TEXT, seed=1, alpha=1.0)]
    assert characters == [list("▁" + text.replace(" ", "▁")) for text in TEXT]


def test_a_large_alpha_leaves_the_best_tokens_of_a_unigram_model() -> None:
    tokenizer = train_tokenizer(TEXT, kind="unigram", vocabulary_size=400)
    assert tokenizer.sample(TEXT[:20], seed=1, alpha=1000.0) == tokenizer.encode(TEXT[:20])


def test_bpe_dropout_keeps_user_symbols_and_spells_unknown_characters() -> None:
    lines = [f"{text} <tag> naïve" for text in TEXT]
    tokenizer = train_tokenizer(lines, kind="bpe", vocabulary_size=400, user_symbols=["<tag>"], character_coverage=0.98)
    odd = [*lines[:20], "Żółw <tag><tag> 🐢🐢 end"]
    assert tokenizer.sample(odd, seed=1, alpha=0.0) == tokenizer.encode(odd)
    for ids in tokenizer.sample(odd, seed=1, alpha=1.0):
        assert "<tag>" in [tokenizer.get_token(one) for one in ids]
    assert tokenizer.decode(tokenizer.sample(odd, seed=2, alpha=0.5)) == tokenizer.decode(tokenizer.encode(odd))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_another_process_draws_the_same(kind: Literal["unigram", "bpe"], tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXT, kind=kind, vocabulary_size=400)
    tokenizer.save(tmp_path / "a.model")
    code = (
        "import sys; from pathlib import Path; from nmt.data.tokenizer import Tokenizer\n"
        f"print(Tokenizer.load(Path(sys.argv[1])).sample({TEXT[:5]!r}, seed=3, alpha=0.3))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.model")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert answer.strip() == str(tokenizer.sample(TEXT[:5], seed=3, alpha=0.3))


def test_a_unigram_model_draws_from_many_segmentations() -> None:
    tokenizer = train_tokenizer(TEXT, kind="unigram", vocabulary_size=400)
    drawn = {tuple(tokenizer.sample(TEXT[:1], seed=seed, alpha=0.0)[0]) for seed in range(100)}
    assert len(drawn) > 50


@pytest.mark.parametrize("table_size", [0, 256], ids=["lattice", "table"])
def test_each_segmentation_is_as_likely_as_its_probability_to_the_power_of_alpha(monkeypatch, table_size: int) -> None:
    monkeypatch.setattr(subword_sampling, "MAX_TABLE_SIZE", table_size)
    tokenizer = train_tokenizer(TEXT, kind="unigram", vocabulary_size=150, byte_fallback=False)
    scores = {tokenizer.get_token(one): native(tokenizer).get_score(one) for one in range(4, 150)}

    def segment(rest: str) -> list[list[str]]:
        """Returns all segmentations, by brute force."""
        if not rest:
            return [[]]
        starts = (rest[:end] for end in range(1, len(rest) + 1))
        return [[start, *others] for start in starts if start in scores for others in segment(rest[len(start) :])]

    word = max(("▁" + word for text in TEXT[:50] for word in text.split()), key=lambda word: len(segment(word)))
    weights = {" ".join(tokens): math.exp(0.3 * sum(scores[token] for token in tokens)) for tokens in segment(word)}
    assert 3 < len(weights) <= 256
    num_draws = 20_000
    drawn = tokenizer.sample([word[1:]] * num_draws, seed=1, alpha=0.3)
    counts = Counter(" ".join(tokenizer.get_token(one) for one in ids) for ids in drawn)
    assert counts.keys() <= weights.keys()
    for tokens, weight in weights.items():
        expected = weight / sum(weights.values())
        deviation = math.sqrt(expected * (1 - expected) / num_draws)
        assert counts[tokens] / num_draws == pytest.approx(expected, abs=4.5 * deviation)


def mix(number: int) -> int:
    """Returns the output of SplitMix64 (Steele et al. 2014) for a state."""
    number = (number + 0x9E3779B97F4A7C15) % 2**64
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
    return number ^ number >> 31


@pytest.mark.parametrize("table_size", [0, 256], ids=["lattice", "table"])
def test_draws_stay_the_same_so_that_stored_runs_resume_exactly(monkeypatch, table_size: int) -> None:
    assert mix(1234567) == 6457827717110365317  # as published
    monkeypatch.setattr(subword_sampling, "MAX_TABLE_SIZE", table_size)
    tokenizer = train_tokenizer(TEXT, kind="unigram", vocabulary_size=150, byte_fallback=False)
    weights = {tokenizer.get_token(one): math.exp(0.3 * native(tokenizer).get_score(one)) for one in range(4, 150)}

    @cache
    def segment(word: str) -> list[tuple[float, list[str]]]:
        """Returns all segmentations with their weights, ordered by the last token, from the longest one on."""
        if not word:
            return [(1.0, [])]
        starts = [start for start in range(len(word)) if word[start:] in weights]
        return [
            (weight * weights[word[start:]], [*before, word[start:]])
            for start in starts
            for weight, before in segment(word[:start])
        ]

    def choose(shares: list[float], number: int) -> int:
        return next(n for n, share in enumerate(accumulate(shares)) if share / sum(shares) > number / 2**64)

    def draw(word: str, number: int) -> list[str]:
        if table_size:
            return segment(word)[choose([weight for weight, _ in segment(word)], number)][1]
        tokens: list[str] = []
        while word:
            starts = [start for start in range(len(word)) if word[start:] in weights]
            shares = [weights[word[start:]] * sum(weight for weight, _ in segment(word[:start])) for start in starts]
            start = starts[choose(shares, number)]
            word, tokens, number = word[:start], [word[start:], *tokens], mix(number)
        return tokens

    keys = range(2**40, 2**40 + 20)
    drawn = tokenizer.sample(TEXT[:20], seed=7, alpha=0.3, keys=keys)
    for key, text, ids in zip(keys, TEXT, drawn, strict=False):
        line = mix(mix(7) + key)
        words = [draw("▁" + word, mix(line + place)) for place, word in enumerate(text.split())]
        assert [tokenizer.get_token(one) for one in ids] == list(chain.from_iterable(words))


def test_words_of_a_line_are_drawn_independently() -> None:
    tokenizer = train_tokenizer(TEXT, kind="unigram", vocabulary_size=400)
    drawn = tokenizer.sample(["fibenila fibenila"] * 50, seed=1, alpha=0.0)  # the word has 9 segmentations
    assert sum(ids[: len(ids) // 2] == ids[len(ids) // 2 :] for ids in drawn) < 15


def test_a_line_without_spaces_is_drawn_as_a_whole() -> None:
    lines = ["".join(text.split()) for text in TEXT]
    tokenizer = train_tokenizer(lines, kind="unigram", vocabulary_size=100, byte_fallback=False)
    assert tokenizer.decode(tokenizer.sample(lines, seed=1, alpha=0.1)) == lines
    assert len({str(tokenizer.sample(lines[:1], seed=seed, alpha=0.1)) for seed in range(20)}) > 4


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_unigram_sampling_keeps_user_symbols_and_spells_unknown_characters(byte_fallback: bool) -> None:
    lines = [f"{text} <tag> naïve" for text in TEXT]
    tokenizer = train_tokenizer(
        lines,
        kind="unigram",
        vocabulary_size=400 if byte_fallback else 150,
        user_symbols=["<tag>"],
        character_coverage=0.98,
        byte_fallback=byte_fallback,
    )
    odd = [*lines[:20], "Żółw <tag><tag> 🐢🐢 end", ""]
    assert tokenizer.sample(odd, seed=1, alpha=1000.0) == tokenizer.encode(odd)
    sampled = tokenizer.sample(odd, seed=1, alpha=0.0)
    assert tokenizer.decode(sampled) == tokenizer.decode(tokenizer.encode(odd))
    for text, ids in zip(odd, sampled, strict=True):
        assert [tokenizer.get_token(one) for one in ids].count("<tag>") == text.count("<tag>")


def test_full_caches_change_no_draw(monkeypatch) -> None:
    tokenizer = train_tokenizer(TEXT, kind="unigram", vocabulary_size=400)
    expected = tokenizer.sample(TEXT[:50], seed=3, alpha=0.2)
    monkeypatch.setattr(subword_sampling, "MAX_CACHED", 300)
    monkeypatch.setattr(subword_sampling, "MAX_CACHED_LINES", 9)
    other = Tokenizer(tokenizer.model)
    assert other.sample(TEXT[:50], seed=3, alpha=0.2) == expected
    assert other.sample(TEXT[:50], seed=3, alpha=0.2) == expected


def test_sampled_tokens_of_a_line_depend_on_its_key_and_not_on_other_lines(tokenizer: Tokenizer) -> None:
    together = tokenizer.sample(TEXT[:9], seed=3, alpha=0.2, keys=range(40, 49))
    assert tokenizer.sample(TEXT[4:5], seed=3, alpha=0.2, keys=[44]) == together[4:5]
    assert tokenizer.sample(TEXT[:9], seed=3, alpha=0.2, keys=range(41, 50)) != together
    assert tokenizer.sample([], seed=3, alpha=0.2) == []


def test_sampling_requires_a_unigram_or_bpe_model() -> None:
    tokenizer = Tokenizer(foreign(model_type="char", vocab_size=20))
    with pytest.raises(
        UserError, match="Subword sampling requires a unigram or BPE model; this model is of words or char"
    ):
        tokenizer.sample(["ba"], seed=1, alpha=0.1)


def test_a_pair_of_equal_files_is_one_tokenizer(tokenizer: Tokenizer, without_bytes: Tokenizer, tmp_path: Path) -> None:
    for name, one in {"source": tokenizer, "same": tokenizer, "other": without_bytes}.items():
        one.save(tmp_path / name)
    source, same = Tokenizer.load_pair(tmp_path / "source", tmp_path / "same")
    assert source is same
    source, other = Tokenizer.load_pair(tmp_path / "source", tmp_path / "other")
    assert [source.model, other.model] == [tokenizer.model, without_bytes.model]
    assert source.model != other.model


def test_a_pair_of_equal_files_from_elsewhere_is_one_tokenizer(tmp_path: Path) -> None:
    for name in ("source", "same"):
        (tmp_path / name).write_bytes(foreign())
    source, same = Tokenizer.load_pair(tmp_path / "source", tmp_path / "same")
    assert source is same


def test_save_and_load_round_trip(tokenizer: Tokenizer, without_bytes: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "source.model")
    loaded = Tokenizer.load(tmp_path / "source.model")
    assert loaded.model == tokenizer.model == (tmp_path / "source.model").read_bytes()
    assert loaded.fingerprint == tokenizer.fingerprint != without_bytes.fingerprint
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*source\.model"):
        Tokenizer.load(tmp_path / "source.model")


@pytest.mark.parametrize(
    "content", [b"", b"the\t-3.1\nand\t-3.4\n", foreign()[:100], foreign().replace("▁".encode(), b"\xe2\x96\xff", 1)]
)
def test_a_file_that_is_not_a_model_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "source.vocab").write_bytes(content)
    with pytest.raises(UserError, match=r"source\.vocab: Expected a SentencePiece model, .* found something else"):
        Tokenizer.load(tmp_path / "source.vocab")


def test_a_model_that_sentencepiece_refuses_is_an_error() -> None:
    broken = foreign(byte_fallback=True, vocab_size=400).replace(b"<0x41>", b"<0xZZ>")
    with pytest.raises(UserError, match=r"Expected a SentencePiece model, .* SentencePiece reports: .*0xZZ"):
        Tokenizer(broken)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model_type": "bpe"},
        {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        {"bos_piece": "[CLS]", "eos_piece": "[SEP]", "pad_piece": "[PAD]", "unk_piece": "[UNK]", "pad_id": 3},
        {"byte_fallback": True, "vocab_size": 400},
        {"bos_id": -1, "eos_id": -1, "user_defined_symbols": ["<pad>", "<2de>"]},
    ],
)
def test_a_model_from_elsewhere_gives_the_same_tokens_with_our_ids(settings: dict[str, Any]) -> None:
    model = foreign(**settings)
    before, after = sentencepiece.SentencePieceProcessor(model_proto=model), native(Tokenizer(model))
    lines = [*TEXT, "Ünseen ½ 日本 <2de>"]
    assert after.encode(lines, out_type=str) == before.encode(lines, out_type=str)
    assert (after.pad_id(), after.unk_id(), after.bos_id(), after.eos_id()) == (0, 1, 2, 3)
    old = [before.id_to_piece(one) for one in range(before.get_piece_size())]
    new = [after.id_to_piece(one) for one in range(after.get_piece_size())]
    assert set(old) <= set(new) and len(new) == len(set(new))
    assert new[4:] == [token for token in old if token not in new[:4]]
    assert [after.get_score(new.index(token)) for token in old] == [before.get_score(one) for one in range(len(old))]


def test_the_unknown_token_is_found_by_its_type() -> None:
    tokenizer = Tokenizer(foreign().replace(b"<unk>", b"<oov>", 1))
    assert tokenizer.get_token(UNK_ID) == "<oov>"
    assert UNK_ID in tokenizer.encode(["ba 雪"])[0]


def test_normalizing_special_ids_twice_changes_nothing(tokenizer: Tokenizer) -> None:
    assert normalize_special_ids(tokenizer.model) == tokenizer.model
    assert normalize_special_ids(normalize_special_ids(foreign())) == normalize_special_ids(foreign())


def test_user_symbols_stay_whole() -> None:
    tokenizer = train_tokenizer(TEXT, kind="bpe", vocabulary_size=400, user_symbols=["<2de>", 'a,"b'])
    assert {"<2de>", 'a,"b'} <= set(tokenizer.tokenize('<2de>ba a,"b'))


@pytest.mark.parametrize(
    ("symbols", "words"),
    [
        (["<a>", "<a>"], "'<a>' is listed twice"),
        (["</s>"], "'</s>' is a special token, expected another name"),
        (["<0x0A>"], "'<0x0A>' is a special token"),
        (["a b"], "expected symbols without spaces, found 'a b'"),
        ([""], "expected symbols without spaces, found ''"),
    ],
)
def test_an_invalid_user_symbol_is_refused(symbols: list[str], words: str) -> None:
    with pytest.raises(UserError, match="tokenizer.user_symbols: " + words):
        train_tokenizer(TEXT, kind="unigram", vocabulary_size=400, user_symbols=symbols)


def test_an_unknown_normalization_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.normalization: there is no rule 'nmt_nkfc', .*mean 'nmt_nfkc'\?"):
        train_tokenizer(TEXT, kind="unigram", vocabulary_size=400, normalization="nmt_nkfc")


@pytest.mark.parametrize("texts", [[], ["", "  ", "\t"]])
def test_no_text_is_an_error(texts: list[str]) -> None:
    with pytest.raises(UserError, match=r"no text to train a tokenizer on: .* found none or blank lines"):
        train_tokenizer(texts, kind="unigram", vocabulary_size=400)


def test_a_vocabulary_larger_than_the_text_allows_names_the_largest(kind: Kind) -> None:
    with pytest.raises(
        UserError, match=r"tokenizer\.vocabulary_size: expected at most \d+ tokens .*found 90000"
    ) as caught:
        train_tokenizer(TEXT, kind=kind, vocabulary_size=90000)
    largest = int(str(caught.value).partition(" at most ")[2].split()[0])
    assert train_tokenizer(TEXT, kind=kind, vocabulary_size=largest).vocabulary_size == largest
    with pytest.raises(UserError, match=f"Lower it to {largest}, or train on more text"):
        train_tokenizer(TEXT, kind=kind, vocabulary_size=largest + 1)


def test_a_vocabulary_smaller_than_the_characters_names_the_smallest() -> None:
    characters = len(set("".join(TEXT)))  # including the space, as ▁
    smallest = 4 + 256 + characters
    with pytest.raises(
        UserError, match=rf"expected at least {smallest} tokens .* found 100\..* lower tokenizer\.character_coverage"
    ):
        train_tokenizer(TEXT, kind="unigram", vocabulary_size=100, character_coverage=1.0)
    tokenizer = train_tokenizer(TEXT, kind="bpe", vocabulary_size=smallest, character_coverage=1.0)
    assert tokenizer.vocabulary_size == smallest


def test_character_coverage_leaves_rare_characters_to_bytes() -> None:
    text = [*TEXT, "雪"]
    covered = train_tokenizer(text, kind="unigram", vocabulary_size=400, character_coverage=1.0)
    spelled = train_tokenizer(text, kind="unigram", vocabulary_size=400)
    assert covered.tokenize("雪")[-1] == "雪"
    assert spelled.tokenize("雪")[-3:] == ["<0xE9>", "<0x9B>", "<0xAA>"]


def test_long_lines_are_used(kind: Kind) -> None:
    tokenizer = train_tokenizer(["ba"] * 100 + ["zo " * 3000], kind=kind, vocabulary_size=4 + 256 + len("▁bazo"))
    assert "".join(tokenizer.tokenize("ba zo")) == "▁ba▁zo"


def test_a_very_long_line_without_spaces_is_used() -> None:
    tokenizer = train_tokenizer(["あいうえお" * 14000], kind="bpe", vocabulary_size=270)
    assert tokenizer.vocabulary_size == 270


def test_training_samples_the_whole_text_by_its_seed() -> None:
    text = ["ba"] * 1000 + ["zo"] * 1000
    tokenizer = train_tokenizer(text, kind="bpe", vocabulary_size=4 + 256 + len("▁bazo"), max_sentences=20)
    assert "".join(tokenizer.tokenize("ba zo")) == "▁ba▁zo"

    def model(seed: int) -> bytes:
        return train_tokenizer(TEXT, kind="unigram", vocabulary_size=300, max_sentences=50, seed=seed).model

    assert model(1) == model(1) != model(2)


def test_every_line_is_as_likely_to_be_drawn() -> None:
    drawn = np.zeros(10)
    for seed in range(3000):
        sample = reservoir_sample("abcdefghij", 3, seed)
        assert len(set(sample)) == 3
        drawn[["abcdefghij".index(text) for text in sample]] += 1
    deviation = np.sqrt(3000 * 0.3 * 0.7)
    assert np.abs(drawn - 900).max() < 4 * deviation


def test_a_short_text_is_used_whole_and_in_order() -> None:
    assert reservoir_sample(iter("abc"), 3, seed=1) == ["a", "b", "c"]


def test_an_error_while_reading_the_text_reaches_the_caller() -> None:
    def torn() -> Iterator[str]:
        yield "ba"
        raise UserError("train.en, line 2: not UTF-8")

    with pytest.raises(UserError, match=r"train\.en, line 2"):
        train_tokenizer(torn(), kind="unigram", vocabulary_size=300)


SCRIPT = """
import sys
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.errors import UserError
try:
    Tokenizer(b"no model")
except UserError:
    pass
text = sys.stdin.read().splitlines()
print(train_tokenizer(text, kind=sys.argv[1], vocabulary_size=400).fingerprint)
"""


def test_another_process_trains_the_same_model_and_prints_nothing(kind: Kind, tokenizer: Tokenizer) -> None:
    command = [sys.executable, "-c", SCRIPT, kind]
    result = subprocess.run(command, input="\n".join(TEXT), capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == (tokenizer.fingerprint + "\n", "")


def test_training_prints_nothing(kind: Kind, capfd: pytest.CaptureFixture[str]) -> None:
    train_tokenizer(TEXT, kind=kind, vocabulary_size=400)
    with pytest.raises(UserError):
        train_tokenizer(TEXT, kind=kind, vocabulary_size=90000)
    assert capfd.readouterr() == ("", "")
