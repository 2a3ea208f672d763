import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config.file import config_from_text, dump_config
from nmt.config.schema import Config, DataConfig, PlaceholderConfig
from nmt.data.glossary import Glossary
from nmt.data.placeholders import ESCAPE, CopyFinder, PairMasker, Placeholders, check_symbols, escape_marks, is_record
from nmt.data.preparation import prepare_training_data
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import UserError

KINDS = ("url", "email", "number", "tag", "term")
CAR = Glossary({"car": "Auto", "auto": "Auto", "fire engine": "Feuerwehrauto", "fire": "Feuer", "消防車": "Feuerwehr"})


def find(text, *kinds, **options):
    return [one.source for one in CopyFinder(kinds, **options).find(text)]


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("url", "See https://x.org/a?b=1 (or www.y.de).", ["https://x.org/a?b=1", "www.y.de"]),
        ("url", "「https://x.jp/a」を見る, HTTP://X.ORG!", ["https://x.jp/a", "HTTP://X.ORG"]),
        ("url", "no address: http: //x, www. and awww.x", []),
        ("email", "Write to a.b+c@x-y.co.uk.", ["a.b+c@x-y.co.uk"]),
        ("email", "@name and a@b", []),
        ("number", "In 2019, 12 of 7.", ["2019", "12", "7"]),
        ("number", "2019年に3人", ["2019", "3"]),
        ("number", "1,000.5 at 10:30 is 3rd, x2, 5-6, 1/2", []),
        ("tag", 'a <b class="x">c</b><br/> 1 < 2 > 0 <3>', ['<b class="x">', "</b>", "<br/>"]),
    ],
)
def test_each_kind_of_text_is_found(kind, text, found):
    assert find(text, kind) == found


def test_terms_are_whole_words_and_the_longest_one_wins():
    assert find("fire engine, fire, cars car Car", terms=CAR.entries) == ["fire engine", "fire", "car"]
    assert find("消防車が走る", terms=CAR.entries) == ["消防車"]
    assert find("C++ and C", terms={"C++": "C++", "C": "Z"}) == ["C++", "C"]


def test_of_parts_that_overlap_the_first_one_counts():
    assert find("http://x.de/12?a@b.de 5", *KINDS) == ["http://x.de/12?a@b.de", "5"]
    assert find('<a href="http://x.de/1">', *KINDS) == ['<a href="http://x.de/1">']


def mask(text, terms=None):
    """Returns a text with symbols, and what they stand for."""
    placeholders = Placeholders(KINDS, 2)
    found = list(CopyFinder(KINDS, terms=terms, kept=placeholders.symbols).find(text))
    symbols = placeholders.assign((one.key for one in found), [text])
    for one in reversed(found):
        text = text[: one.start] + symbols.get(one.key, one.source) + text[one.end :]
    return text, {symbol: target for (_, target), symbol in symbols.items()}


def test_equal_text_has_one_symbol_and_symbols_end():
    text, copies = mask("7 8 7 9 car auto", CAR.entries)
    assert text == "<number1> <number2> <number1> 9 <term1> <term1>"
    assert copies == {"<number1>": "7", "<number2>": "8", "<term1>": "Auto"}


def test_a_symbol_in_the_text_stands_for_itself():
    assert mask("<number1> is 5, <tag1>") == ("<number1> is <number2>, <tag1>", {"<number2>": "5"})


PIECES = [
    "12",
    "5",
    "1.5",
    "http://x.de",
    "a@b.de",
    "<b>",
    "</b>",
    "<number1>",
    "<tag2>",
    "word",
    "{{",
    "}}",
    "\\",
    " ",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), max_size=12).map("".join)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.randoms())
def test_what_symbols_stand_for_gives_back_the_text_in_any_order(text, random):
    masked, copies = mask(text)
    order = list(copies)
    random.shuffle(order)
    for symbol in order:
        masked = masked.replace(symbol, copies[symbol])
    assert masked == text


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_escaped_text_has_no_marks(text):
    finder = CopyFinder(has_marks=True)
    escaped = escape_marks(text)
    found = list(finder.find(escaped))
    assert {one.kind for one in found} <= {ESCAPE}
    for one in reversed(found):
        escaped = escaped[: one.start] + one.source + escaped[one.end :]
    assert escaped == text
    if text:
        [marked] = finder.find(f"{{{{{escape_marks(text)}}}}}")
        assert (marked.kind, marked.source, marked.target) == ("mark", text, text)


def test_many_backslashes_take_no_time():
    assert next(CopyFinder(has_marks=True).find("{{" + "\\" * 10_000)).kind == "open"


def test_only_what_both_sides_have_is_replaced():
    masker = PairMasker(Placeholders(KINDS, 5), CAR)
    pair = "The car of 1999 has 4 fires: http://x.de car", "Das Auto von 1999 hat vier: http://x.de"
    assert masker.replace(*pair) == (
        "The <term1> of <number1> has 4 fires: <url1> <term1>",
        "Das <term1> von <number1> hat vier: <url1>",
    )
    # Numbered in the order of the source, whatever that of the target.
    assert masker.replace("1 and 2", "2 und 1") == ("<number1> and <number2>", "<number2> und <number1>")
    assert masker.replace("<number1> 3", "3 <tag1>") == ("<number1> <number2>", "<number2> <tag1>")


def test_glossary_mistakes_are_all_reported_with_their_lines(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_text("car\tAuto\n\nno tab\ncar\tWagen\na\tb\tc\n\tb\n")
    with pytest.raises(UserError) as caught:
        Glossary.read(path)
    assert str(caught.value).splitlines() == [
        f"{path}:3: expected a term, a tab and its translation, found 'no tab'",
        f"{path}:4: 'car' is to become 'Wagen', but 'Auto' in {path}:1",
        f"{path}:5: expected a term, a tab and its translation, found 'a\\tb\\tc'",
        f"{path}:6: expected a term, a tab and its translation, found '\\tb'",
    ]
    path.write_text("car \t Auto\r\ncar\tAuto\n")
    assert Glossary.read(path).entries == {"car": "Auto"}
    with pytest.raises(UserError, match=r"terms\.tsv: expected a term.* found no terms"):
        path.write_text("\n")
        Glossary.read(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": 0.2}, "share has no effect without kinds"),
        ({"share": 0.2, "symbols_per_kind": 3}, "share and symbols_per_kind have no effect without kinds"),
        ({"kinds": ["url", "url"]}, "kinds must name each kind once"),
        ({"kinds": ["term"]}, "glossary and the kind term go together"),
        ({"kinds": ["url"], "glossary": "x"}, "glossary and the kind term go together"),
    ],
)
def test_keys_without_effect_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        PlaceholderConfig(**given)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """200 pairs of a number from 100 to 299, a word and another number on each side."""
    folder = tmp_path_factory.mktemp("numbers")
    random = np.random.default_rng(1)
    words = random.choice(["ba", "dofu", "kilo", "mu"], 200)
    (folder / "a.en").write_text("".join(f"{n + 100} {word} {n}.\n" for n, word in enumerate(words)))
    (folder / "a.xx").write_text("".join(f"{word} {n + 100}.\n" for n, word in enumerate(words)))
    return {"source": folder / "a.en", "target": folder / "a.xx"}


def make_config(files, run_dir, placeholders, **data):
    section = {"source_language": "en", "target_language": "de", "train": [files], "dev": files}
    tokenizer = {"vocabulary_size": 290, "sampling_alpha": data.pop("alpha", None)}
    return Config(
        run_dir=run_dir,
        data=DataConfig(**section, placeholders=placeholders, **data),
        tokenizer=tokenizer,
        training={"max_updates": 1},
    )


def read_texts(data, epoch, examples=None):
    ids = data.tokenized.read_ids(data.kept if examples is None else examples, epoch=epoch, batch=0)
    sides = zip(ids, (data.source_tokenizer, data.target_tokenizer), strict=True)
    return list(zip(*(tokenizer.decode(rows) for rows, tokenizer in sides), strict=True))


@pytest.mark.parametrize("options", [{}, {"join_pairs": 0.3, "alpha": 0.2, "augment": {"title_case": 0.5}}])
def test_a_share_of_the_pairs_has_symbols_others_in_each_epoch(files, tmp_path, options):
    config = make_config(files, tmp_path, {"kinds": ["number"], "share": 0.5}, **options)
    data = prepare_training_data(config, tmp_path, lambda line: None)
    assert data.source_tokenizer.user_symbols == [f"<number{n}>" for n in range(1, 6)]
    epochs = [read_texts(data, epoch) for epoch in (0, 1)]
    masked = [np.array(["<number1>" in source for source, _ in epoch]) for epoch in epochs]
    for flags, pairs in zip(masked, epochs, strict=True):
        # Three standard deviations.
        assert flags.mean() == pytest.approx(0.5, abs=3 * 0.5 / len(flags) ** 0.5)
        assert all(("<number1>" in target) == flag for flag, (_, target) in zip(flags, pairs, strict=True))
    assert (masked[0] != masked[1]).any()
    # A function of the seed, the epoch and the pair alone.
    chosen = data.kept[[7, 3, 50]]
    assert read_texts(data, 1, chosen) == [epochs[1][n] for n in (7, 3, 50)]


def test_stored_keys_are_read_again_and_shares_fit_together(files, tmp_path):
    config = make_config(files, tmp_path, {"kinds": ["url", "tag"], "share": 0.25, "symbols_per_kind": 2})
    assert config_from_text(dump_config(config), "x") == config
    with pytest.raises(ValueError, match=r"augment and placeholders.share together must be at most 1; found 1\.2"):
        make_config(files, tmp_path, {"kinds": ["url"], "share": 0.7}, augment={"typos": 0.5})
    with pytest.raises(ValueError, match="the tag <url1> of a corpus must not be a symbol of placeholders"):
        make_config({**files, "tag": "<url1>"}, tmp_path, {"kinds": ["url"]})


def test_terms_are_replaced_in_training_and_another_glossary_is_other_data(files, tmp_path):
    prints = []
    for number, term in enumerate(("dofu", "kilo")):
        glossary = tmp_path / "terms.tsv"
        glossary.write_text(f"{term}\t{term}\n")
        config = make_config(files, tmp_path, {"kinds": ["term"], "share": 1, "glossary": glossary})
        data = prepare_training_data(config, tmp_path / str(number), lambda line: None)
        pairs = [pair for pair in read_texts(data, 0) if "<term1>" in pair[0]]
        assert pairs and all("<term1>" in target for _, target in pairs)
        assert not any(term in text for pair in read_texts(data, 0) for text in pair)
        prints.append(data.fingerprints["glossary"])
    assert prints[0] != prints[1]
    plain = prepare_training_data(make_config(files, tmp_path, {}), tmp_path / "plain", lambda line: None)
    assert "glossary" not in plain.fingerprints


def test_exports_store_the_symbols(tmp_path):
    tokenizer = train_tokenizer(["a b"] * 5, kind="unigram", vocabulary_size=266, user_symbols=["<2de>", "<url1>"])
    record = {"placeholders": Placeholders(["url"], 1).as_record()}
    assert is_record(record["placeholders"]) and not is_record({"kinds": ["x"], "symbols_per_kind": 1})
    found = Placeholders.from_record(record, tokenizer)
    assert (found.symbols, found.kept) == (["<url1>"], ["<2de>", "<url1>"])
    assert Placeholders.from_record({}, tokenizer) == Placeholders()


def test_a_tokenizer_without_the_symbols_is_refused():
    tokenizer = train_tokenizer(["a b"] * 5, kind="unigram", vocabulary_size=263)
    with pytest.raises(UserError, match=r"data\.placeholders: the source tokenizer does not have the symbol <url1>"):
        check_symbols(PlaceholderConfig(kinds=["url"]), [tokenizer, tokenizer])
