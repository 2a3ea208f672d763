import subprocess
import sys
import time

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.translators.sentences import SplitText, TextSplitter, find_sentences, measure_share, needs_splitting

FRAGMENTS = [
    *(
        "Yes",
        "no",
        "word",
        "Dr.",
        "U.S.",
        "e.g.",
        "15.",
        "1)",
        "3.14",
        ".",
        "!",
        "?",
        "...",
        "…",
        ",",
        ";",
        ":",
        "—",
        "-",
    ),
    *('"', "'", "“", "”", "„", "«", "»", "(", ")", "[", "<", "•", "。", "！", "、", "「", "」", "と", "字", "。」"),
    *("।", "۔", "؟", "ครับ", "།", "é", "e\u0301", "👨\u200d👩\u200d👧", "🇩🇪", "\u200b", "https://a.b/c", "a@b.co"),
    *(" ", "  ", "\t", "\u00a0", "\u3000", "\n", "\n\n", "\r\n", "\r", "\x85", "\u2028", "\x0c"),
]
LANGUAGES = ["en", "de", "fr", "ja", "zh", "hi", "ur", "ar", "th", "ru", "xx", "zho_Hans", None]
texts = st.lists(st.sampled_from(FRAGMENTS)).map("".join) | st.text()


def count_characters(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def split(
    text: str, *, language: str | None = "en", by_sentence: bool = True, max_tokens: int = 1000, **limits
) -> SplitText:
    splitter = TextSplitter(
        language=language, by_sentence=by_sentence, count_tokens=count_characters, max_tokens=max_tokens, **limits
    )
    [found] = splitter.split([text])
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["one two three four five"], kind="bpe", vocabulary_size=280)


@settings(deadline=None)
@given(
    text=texts,
    language=st.sampled_from(LANGUAGES),
    by_sentence=st.booleans(),
    max_tokens=st.integers(1, 30),
    max_characters=st.none() | st.integers(1, 30),
)
@example('" . ' * 600, "en", True, 30, None)
@example("\ud800. A", "en", True, 30, None)
def test_an_identity_translation_is_the_text(text, language, by_sentence, max_tokens, max_characters):
    found = split(
        text, language=language, by_sentence=by_sentence, max_tokens=max_tokens, max_characters=max_characters
    )
    assert found.text == found.join(found.parts) == text
    assert len(found.gaps) == len(found.parts) + 1
    assert all(part and part == part.strip() and not any(mark in part for mark in "\n\r") for part in found.parts)
    assert all(len(part) <= min(max_tokens, max_characters or max_tokens) for part in found.parts)
    assert [text[at : at + len(part)] for at, part in zip(found.find_starts(), found.parts, strict=True)] == found.parts


@settings(deadline=None)
@given(text=texts, max_tokens=st.integers(1, 12))
@example(text="é" * 50 + "三" * 50, max_tokens=5)
def test_parts_fit_a_tokenizer_that_spells_in_bytes(text, max_tokens, tokenizer):
    splitter = TextSplitter(language="en", by_sentence=True, count_tokens=tokenizer.count_tokens, max_tokens=max_tokens)
    [found] = splitter.split([text.encode("utf-8", "replace").decode()])
    assert found.join(found.parts) == found.text
    for part in found.parts:
        length = tokenizer.count_tokens([part])[0]
        assert length >= 1
        # A character of up to 4 bytes, or one that NFKC writes as many, cannot be cut.
        assert length <= max_tokens or len(part) == 1


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["e\u0301", "👨\u200d👩\u200d👧", "🇩🇪", "x", "의", "நி", "ก็", "👍🏽"]), max_size=40).map(
        "".join
    )
)
def test_graphemes_stay_whole(text):
    text = f"a{text}"  # a text without letters has no parts
    found = split(text, max_tokens=8)
    ends = {0, *(one.end() for one in regex.finditer(r"\X", text))}
    starts = found.find_starts()
    assert {*starts, *(start + len(part) for start, part in zip(starts, found.parts, strict=True))} <= ends


@given(st.lists(texts, max_size=6), st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_texts_are_split_alike_together_and_alone(lines, max_tokens):
    splitter = TextSplitter(language="de", by_sentence=True, count_tokens=count_characters, max_tokens=max_tokens)
    assert splitter.split(lines) == [splitter.split([line])[0] for line in lines]


@pytest.mark.parametrize("text", ["", " ", "\t \u3000", "\n\n", "...", "¿?", "—", "😀", "。", "\u200b", "\u00a0"])
def test_text_without_letters_has_no_part(text):
    found = split(text)
    assert list(found.parts) == []
    assert found.join([]) == text


@pytest.mark.parametrize(
    "text", ["https://example.org/a?b=c&d=1.2", "www.example.org", "joe.doe@example.co.uk", "ftp://x/y"]
)
def test_addresses_that_stand_alone_are_kept(text):
    assert list(split(f"{text}\nSee {text}.").parts) == [f"See {text}."]


def test_tokens_of_no_letters_are_kept():
    splitter = TextSplitter(language="en", by_sentence=True, count_tokens=lambda texts: [0] * len(texts), max_tokens=9)
    assert splitter.split(["word"]) == [SplitText([], ["word"])]


def test_repeated_words_are_one_part():
    assert list(split("no no no").parts) == ["no no no"]


PARAGRAPHS = {
    "en": ["Dr. Jones met Mrs. Li at 5 p.m. on Jan. 3.", "It cost $3.50!", '"Really?" he asked.', "He left (at last)."],
    "de": [
        "Am 3. Oktober kam er.",
        "Im 15. Jahrhundert war das z. B. so.",
        "Sie feiert ihren 20. Geburtstag!",
        "Er ist 15.",
        "Ja.",
    ],
    "fr": ["M. Dupont est là.", "« Où ? » demanda-t-il.", "Ici !", "Mme Roux part."],
    "es": ["El Sr. Ruiz vive aquí.", "¿Cómo está?", "¡Bien!"],
    "cs": ["Dne 3. října přišel Dr. Novák.", "V 15. století ne."],
    "ru": ["А. С. Пушкин родился в 1799 г. в Москве.", "Он писал."],
    "hi": ["डॉ. शर्मा आए।", "वे गए।", "क्या?"],
    "ur": ["یہ اچھا ہے۔", "کیا آپ ہیں؟", "ہاں!"],
    "ar": ["هل أنت بخير؟", "نعم، أنا بخير.", "شكرا!"],
    "th": ["สวัสดีครับ", "วันนี้อากาศดี ไปตลาดกันไหมคะ", "ไปค่ะ"],
    "ko": ["안녕하세요.", "저는 학생입니다."],
    "hy": ["Նա եկավ։", "Նա գնաց։"],
    "am": ["እሱ መጣ።", "እሷ ሄደች።"],
    "km": ["គាត់មក។", "គាត់ទៅ។"],
    "xx": ["Aba cede.", "Ifo gaha?"],
}
UNSPACED = {
    "zh": ["你好。", "今天3.5度！", "你呢？", "“好。”", "3月见。"],
    "ja": ["「行く。」と言った。", "そうですか？", "（笑）はい！"],
}  # fmt: skip


@pytest.mark.parametrize("language", PARAGRAPHS)
def test_sentences_with_spaces_between(language):
    sentences = PARAGRAPHS[language]
    found = split("  " + " ".join(sentences) + "\n\n\t" + "\u3000".join(sentences), language=language)
    assert list(found.parts) == sentences * 2
    assert found.gaps[0] == "  "
    assert found.gaps[len(sentences)] == "\n\n\t"


@pytest.mark.parametrize("language", UNSPACED)
def test_sentences_without_spaces_between(language):
    assert list(split("".join(UNSPACED[language]), language=language).parts) == UNSPACED[language]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('She said: "I am here." Then she left.', ['She said: "I am here."', "Then she left."]),
        ('"I came. You saw. We left."', ['"I came.', "You saw.", 'We left."']),
        ('He said, "I am. You are. We are," and left.', ['He said, "I am.', "You are.", 'We are," and left.']),
        ('He said: "Go! Now!"', ['He said: "Go! Now!"']),
        ("(He came. She left.)", ["(He came.", "She left.)"]),
        ("• He came. She left.", ["• He came.", "She left."]),
        ("1. He came. She left.", ["1. He came.", "She left."]),
        ("Two things: 1. Dice; and 2. Monks, all here.", ["Two things: 1. Dice; and 2. Monks, all here."]),
        ("he came . she left !", ["he came .", "she left !"]),
        ("The U.S.Army won in Div. 1 at 9 a.m. 30 men.", ["The U.S.Army won in Div. 1 at 9 a.m. 30 men."]),
        ("Stop.Go!", ["Stop.", "Go!"]),
        ("It is. 😀", ["It is."]),
        ("« It is. »", ["« It is. »"]),
        ("Yes... ... and so on.", ["Yes...", "... and so on."]),
    ],
)  # fmt: skip
def test_sentence_ends_in_english(text, parts):
    assert list(split(text).parts) == parts


def test_lower_case_german_is_split():
    assert list(split("er kam. sie ging.", language="de").parts) == ["er kam.", "sie ging."]


def test_lines_without_splitting_stay_whole_as_long_as_they_fit():
    text = "One is here. Two is, too.\nThree is there."
    assert list(split(text, by_sentence=False).parts) == text.split("\n")
    found = split(text, by_sentence=False, max_tokens=20)
    assert list(found.parts) == ["One is here.", "Two is, too.", "Three is there."]
    assert found.num_cuts == 1


def test_sentences_that_fit_together_stay_together():
    text = "It is. It was. It will be. It ends."
    assert list(split(text, by_sentence=False, max_tokens=15).parts) == ["It is. It was.", "It will be.", "It ends."]


def test_what_is_too_long_is_cut_at_clauses_then_spaces_then_characters():
    assert list(split("aa bb cc, dd ee ff gg", max_tokens=16).parts) == ["aa bb cc,", "dd ee ff gg"]
    assert list(split("a, bb cc dd ee ff gg", max_tokens=16).parts) == ["a, bb cc dd ee", "ff gg"]
    assert list(split("aa bb cc dd", max_tokens=5).parts) == ["aa bb", "cc dd"]
    assert list(split("aa bbbbbbbb cc", max_tokens=5).parts) == ["aa", "bbbbb", "bbb", "cc"]


@pytest.mark.parametrize(
    ("text", "language", "limit", "parts"),
    [
        ("一二三，四五六、七八九。", "zh", 8, ["一二三，四五六、", "七八九。"]),
        ("एक दो तीन, चार पाँच छह।", "hi", 14, ["एक दो तीन,", "चार पाँच छह।"]),
        ("یہ ایک، وہ دو تین۔", "ur", 14, ["یہ ایک،", "وہ دو تین۔"]),
        ("วันนี้ดี พรุ่งนี้ดี", "th", 12, ["วันนี้ดี", "พรุ่งนี้ดี"]),
    ],
)
def test_cuts_in_other_scripts(text, language, limit, parts):
    assert list(split(text, language=language, max_tokens=limit).parts) == parts


def test_a_word_of_ten_thousand_characters_is_filled_up_to_the_limit():
    found = split("see " + "x" * 10_000 + " there", max_tokens=300)
    assert [len(part) for part in found.parts] == [3, *[300] * 33, 106]
    assert found.join(found.parts) == found.text


def test_a_limit_in_characters_holds_as_well():
    splitter = TextSplitter(
        language="en", by_sentence=True, count_tokens=lambda texts: [1] * len(texts), max_tokens=5, max_characters=4
    )
    [found] = splitter.split(["aaaa bb cc"])
    assert list(found.parts) == ["aaaa", "bb", "cc"]


@pytest.mark.parametrize(
    ("source", "translations", "joined"),
    [
        ("一。二！", ["One.", "Two!"], "One. Two!"),
        ("一。二！", ["一。", "二！"], "一。二！"),
        ("One. Two!", ["一。", "二！"], "一。二！"),
        ("One.  Two!", ["Eins.", "Zwei!"], "Eins.  Zwei!"),
        ("One.\nTwo!", ["一。", "二！"], "一。\n二！"),
        ("One.\n...\nTwo!", ["Eins.", "Zwei!"], "Eins.\n...\nZwei!"),
        ("One.Two!", ["Eins.", "Zwei!"], "Eins.Zwei!"),
        ("One. Two!", ["하나.", "둘!"], "하나. 둘!"),
        ("One. Two!", ["", "二！"], " 二！"),
    ],
)
def test_spaces_between_sentences_follow_the_script(source, translations, joined):
    found = split(source)
    assert found.join(translations) == joined
    starts = found.find_translated_starts(translations)
    assert [joined[at : at + len(one)] for at, one in zip(starts, translations, strict=True)] == translations


def test_auto_splits_unless_most_lines_hold_several_sentences():
    lines = ["One is. Two is.", "", "One alone.", "Dr. Li alone.", "It is. So is she. They go."]
    assert measure_share(lines, "en") == 0.5
    assert measure_share(["", " "], "en") == 0
    assert needs_splitting("auto", 0) and needs_splitting("auto", 0.49)
    assert not needs_splitting("auto", 0.5)
    assert needs_splitting("always", 1.0)
    assert not needs_splitting("never", 0.0)


@pytest.mark.parametrize(
    "text",
    [
        '" . ' * 25_000,
        "a" + " " * 100_000 + "b",
        "(" * 100_000,
        "a@" + "a." * 50_000,
        "x, " * 33_000,
        "a" + "," * 100_000,
    ],
)
def test_time_grows_with_the_length_of_the_text(text):
    started = time.process_time()
    assert split(text, max_tokens=500).text == text
    assert time.process_time() - started < 20  # the library alone takes 150 s for the first


def test_the_library_is_imported_when_it_is_needed():
    code = "import sys, nmt.translators.sentences; print({'sentencex', 'regex', 'langcodes'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_panic_of_the_library_splits_nothing(monkeypatch):
    class PanicException(BaseException):
        pass

    def segment(language: str, text: str) -> list[str]:
        raise PanicException

    monkeypatch.setattr("sentencex.segment", segment)
    assert find_sentences("One. Two.", "en") == ["One. Two."]
