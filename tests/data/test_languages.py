import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nmt.data.languages import find_labels, find_warnings, parse_language


@pytest.mark.parametrize(
    ("code", "canonical"),
    [
        *[(code, "zh") for code in ("zh", "ZH", "zho", "chi", "cmn")],
        *[(code, "zh-TW") for code in ("zh-TW", "zh_TW", "zho_tw", "cmn-TW")],
        ("zho_Hans", "zh-Hans"),
        ("zh-Hant-HK", "zh-Hant-HK"),
        ("zh-cmn-Hans-CN", "zh-Hans-CN"),
        *[(code, "yue") for code in ("yue", "zh-yue", "YUE")],
        *[(code, "ja") for code in ("ja", "jpn", "jpn_Jpan")],
        *[(code, "ko") for code in ("ko", "kor")],
        *[(code, "de") for code in ("de", "deu", "ger", "deu_Latn")],
        *[(code, "en-GB") for code in ("en_GB", "eng-gb", "en_GB.UTF-8")],
        ("pt-BR", "pt-BR"),
        *[(code, "sr-Latn") for code in ("sr-Latn", "srp_Latn", "sh", "hbs")],
        *[(code, "ar") for code in ("ar", "ara", "arb", "arb_Arab")],
        *[(code, "he") for code in ("he", "heb", "iw")],
        *[(code, "nb") for code in ("nb", "nob")],
        ("hsb", "hsb"),
        ("x-toy", "x-toy"),
    ],
)
def test_every_form_of_a_code_has_one_canonical_form(code, canonical):
    language = parse_language(code)
    assert (language.code, language.warning) == (canonical, None)
    assert parse_language(canonical) == language


def test_script_and_region_are_kept_apart():
    language = parse_language("zho_Hant_HK")
    assert (language.language, language.script, language.region) == ("zh", "Hant", "HK")


@pytest.mark.parametrize("code", [None, "", " "])
def test_no_code_is_an_undetermined_language_and_no_mistake(code):
    assert (parse_language(code).code, parse_language(code).warning) == ("und", None)


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        *[("jp", "ja"), ("jp_JP", "ja"), ("cn", "zh"), ("cz", "cs"), ("gr", "el"), ("ua", "uk")],  # countries
        *[("chinese", "zh"), ("German", "de"), ("Greek", "el"), ("englsh", "en")],  # names
        *[("zhh", "zh"), ("jap", "ja")],  # slips
    ],
)
def test_an_unknown_code_is_taken_for_the_nearest_and_warned_about(code, meant):
    language = parse_language(code)
    assert language.code == meant
    assert language.warning.startswith(
        f"'{code}' is not a language code of ISO 639 or BCP 47; it was taken for '{meant}' ("
    )


@pytest.mark.parametrize("code", ["xx", "us", "qwrtzpsdfg", "中文", "-", "\x1b[31m"])
def test_a_code_without_a_near_one_is_undetermined_and_warned_about(code):
    language = parse_language(code)
    assert language.code == "und"
    assert (
        language.warning
        == f"{code!r} is not a language code of ISO 639 or BCP 47; examples of codes are de, pt-BR, zho and zh-Hant."
    )
    assert "\x1b" not in language.warning


@pytest.mark.parametrize("code", ["zho-Hanz-TW", "zho_TW_longerthan8letters"])
def test_an_unknown_part_is_left_out_and_warned_about(code):
    language = parse_language(code)
    assert language.code == "zh-TW"
    assert language.warning == f"'{code}' has a part that BCP 47 does not list; it was taken for 'zh-TW'."


@example("en-US-US")  # each region is valid by itself
@given(st.text(max_size=12) | st.text(alphabet="abeghjnoprstuz-_", max_size=8))
def test_any_text_gives_a_valid_code(text):
    assert parse_language(parse_language(text).code).warning is None


@pytest.mark.parametrize(
    ("tokenizer", "codes"),
    [
        ("zh", ["zh", "zho", "chi", "cmn", "yue", "hak", "lzh", "nan", "zh-TW", "zho_Hans", "zh-Hant-HK", "yue_Hant"]),
        ("ja-mecab", ["ja", "jpn", "ja-JP", "jpn_Jpan", "jp"]),
        ("ko-mecab", ["ko", "kor", "ko_KR", "kor_Hang"]),
        ("13a", ["de", "ger", "en_GB", "pt-BR", "sr-Latn", "th", "xx", "", "zh-Latn", "ja-Latn"]),
    ],
)
def test_the_code_chooses_the_tokenizer_of_bleu(tokenizer, codes):
    assert {code: parse_language(code).bleu_tokenizer for code in codes} == dict.fromkeys(codes, tokenizer)


def test_languages_without_spaces_are_known():
    assert all(
        parse_language(code).is_written_without_spaces for code in ("zho", "yue", "jpn", "tha", "lao", "km", "mya")
    )
    assert not any(parse_language(code).is_written_without_spaces for code in ("ko", "vi", "de", "zh-Latn", "xx"))


LABELS = ["ar", "ary", "bs", "da", "de", "es", "hr", "nn", "no", "pt", "sr", "tl", "wuu", "yue", "zh"]  # py3langid's


@pytest.mark.parametrize(
    ("code", "labels"),
    [
        ("deu", {"de"}),
        ("zh-Hant-TW", {"zh"}),
        ("cmn", {"zh"}),
        ("yue", {"yue"}),
        ("hak", {"zh"}),
        ("apc", {"ar"}),
        ("fil", {"tl"}),
        ("nob", {"no"}),
        ("nn", {"nn"}),
        ("hr", {"hr"}),
        ("sr", {"sr"}),
        ("sr-Latn", {"sr", "hr", "bs"}),
        ("fi", set()),
        ("xx", set()),
        ("x-toy", set()),
    ],
)
def test_the_labels_that_language_identification_may_return(code, labels):
    assert find_labels(parse_language(code), LABELS) == labels


def test_a_member_of_a_macrolanguage_without_label_may_be_called_by_the_others():
    assert find_labels(parse_language("hak"), ["de", "wuu", "yue"]) == {"wuu", "yue"}


def test_warnings_name_the_side_and_the_tokenizer():
    assert list(find_warnings(source="en", target="zho")) == []
    assert list(find_warnings(source="eng_Latn", target="jp")) == [
        "The target language 'jp' is not a language code of ISO 639 or BCP 47; it was taken for 'ja' (Japanese). "
        "BLEU uses the tokenizer ja-mecab."
    ]
    assert [one.split(";")[0] for one in find_warnings(source="xx", target="yy")] == [
        "The source language 'xx' is not a language code of ISO 639 or BCP 47",
        "The target language 'yy' is not a language code of ISO 639 or BCP 47",
    ]


def test_the_tables_are_loaded_on_first_use():
    script = "import sys, nmt.data.languages; sys.exit('langcodes' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
