"""Language codes: ISO 639 and BCP 47 forms of one language, normalised, and what the code decides.

A code chooses the tokenizer of BLEU, the label that language identification should return and the rules of sentence
splitting. The tables come from `langcodes`, which holds the IANA registry of language subtags and Unicode's CLDR.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# CLDR's distance between languages, 0 to 134: nb and no are 1 apart, hr and bs 4, da and nb 12, es and pt over 80.
SAME_LANGUAGE_DISTANCE = 10
SIMILAR_NAME = 0.85  # difflib's ratio: "japanes" is Japanese, "german sign" is not German
SIMILAR_CODE = 0.75  # "zhh" is close to "zh"; two-letter codes that share one letter are not close
LONGEST_CODE = 3  # letters in ISO 639; longer words are names of languages
BLEU_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}
WRITTEN_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "km", "my"})


@dataclass(frozen=True)
class Language:
    """A language with its script and region, as far as the code names them.

    Attributes:
        language: the ISO 639-1 code, or the ISO 639-3 code of a language without one; "und" if none is known.
        script: ISO 15924, such as "Hant"; None for the usual script of the language.
        region: ISO 3166-1, such as "TW".
        warning: what is wrong with the code as it was written, and what it was taken for; None for a valid code.
    """

    language: str
    script: str | None = None
    region: str | None = None
    warning: str | None = None

    @property
    def code(self) -> str:
        """The BCP 47 tag: "de", "pt-BR", "zh-Hant-HK"."""
        return "-".join(filter(None, (self.language, self.script, self.region)))

    @property
    def is_chinese(self) -> bool:
        """Whether this is Mandarin, Cantonese or another member of the macrolanguage zho."""
        return "zh" in (self.language, _find_macrolanguage(self.language))

    @property
    def bleu_tokenizer(self) -> str:
        """The name of the sacreBLEU tokenizer; 13a for all languages that sacreBLEU has no special one for.

        13a also divides romanised text (zh-Latn, ja-Latn), which is written with spaces.
        """
        if self.script == "Latn":
            return "13a"
        return BLEU_TOKENIZERS.get("zh" if self.is_chinese else self.language, "13a")

    @property
    def is_written_without_spaces(self) -> bool:
        """Whether spaces do not separate the words, so that characters are the unit to count."""
        return self.script != "Latn" and (self.is_chinese or self.language in WRITTEN_WITHOUT_SPACES)

    @property
    def sentence_separator(self) -> str:
        """The text between two sentences: nothing in Chinese and Japanese, else a space.

        Thai, Lao, Khmer and Burmese have no spaces between words, but between sentences they do.
        """
        return "" if self.script != "Latn" and (self.is_chinese or self.language == "ja") else " "


@functools.cache
def parse_language(code: str | None) -> Language:
    """Returns the language of an ISO 639-1, 639-2, 639-3 or BCP 47 code; `-` and `_` are the same, case is ignored.

    Individual languages that stand for a macrolanguage become the latter (cmn is zh, arb is ar); the others keep their
    own code (yue, hak). An unknown code gives the nearest valid one, with a warning. None and "" are "und".

    >>> [parse_language(code).code for code in ("ger", "deu", "zho_Hans", "yue", "en_GB.UTF-8", "eng_Latn")]
    ['de', 'de', 'zh-Hans', 'yue', 'en-GB', 'en']
    >>> print(parse_language("jp").warning)
    'jp' is not a language code of ISO 639 or BCP 47; it was taken for 'ja' (Japanese).
    """
    import langcodes  # 50 ms, not wanted by commands that never look at a code

    tag = re.split(r"[.@]", (code or "").strip())[0].replace("_", "-")  # without the encoding of a locale
    if not tag:
        return Language("und")
    try:
        standard = langcodes.standardize_tag(tag, macro=True)
    except langcodes.LanguageTagError:
        standard = tag.lower()
    parts = langcodes.Language.get(standard, normalize=False) if _is_valid(standard) else None
    if parts is not None:
        return Language(parts.language or "und", parts.script, parts.territory)
    first, *others = standard.split("-")
    if _is_valid(first):
        kept = first
        for part in others:
            kept = f"{kept}-{part}" if _is_valid(f"{kept}-{part}") else kept
        known = parse_language(kept)
        return Language(
            known.language,
            known.script,
            known.region,
            f"{code!r} has a part that BCP 47 does not list; it was taken for {known.code!r}.",
        )
    found = _find_nearest(first)
    unknown = f"{code!r} is not a language code of ISO 639 or BCP 47"
    if found is None:
        return Language("und", warning=f"{unknown}; examples of codes are de, pt-BR, zho and zh-Hant.")
    return Language(found, warning=f"{unknown}; it was taken for {found!r} ({_load_names()[found][0]}).")


def find_warnings(*, source: str | None, target: str | None) -> Iterator[str]:
    """Yields one message for each of the two language codes that is not valid."""
    for side, code in (("source", source), ("target", target)):
        language = parse_language(code)
        if language.warning:
            scored = f" BLEU uses the tokenizer {language.bleu_tokenizer}." if side == "target" else ""
            yield f"The {side} language {language.warning}{scored}"


def find_labels(language: Language, labels: Iterable[str]) -> frozenset[str]:
    """Returns the labels of a language identifier that may stand for a language; empty if it does not know it.

    The label of the language itself counts alone, if there is one. Otherwise the label of its macrolanguage counts (zh
    for hak), or the labels of the macrolanguage's other members if that has none, and near relatives in CLDR (no for
    nb). For a script other than the usual one, near relatives in this script count as well: py3langid returns hr for
    much of the Serbian that is written in Latin letters.

    >>> sorted(find_labels(parse_language("nob"), ["de", "no", "da"]))
    ['no']
    """
    import langcodes

    by_language = {parse_language(label).language: label for label in labels}
    own = by_language.get(language.language)
    if own is not None and language.script is None:
        return frozenset({own})
    macrolanguage = _find_macrolanguage(language.language)
    if own is not None:
        near, tag = {own}, language.code
    elif macrolanguage in by_language:
        near, tag = {by_language[macrolanguage]}, language.language
    else:
        members = {label for other, label in by_language.items() if _find_macrolanguage(other) == macrolanguage}
        near, tag = members if macrolanguage else set(), language.language
    return frozenset(near) | {
        label for other, label in by_language.items() if langcodes.tag_distance(tag, other) <= SAME_LANGUAGE_DISTANCE
    }


def _is_valid(tag: str) -> bool:
    import langcodes

    return langcodes.tag_is_valid(tag)


def _find_macrolanguage(language: str) -> str | None:
    from langcodes.data_dicts import MACROLANGUAGES

    return MACROLANGUAGES.get(language)


def _find_nearest(word: str) -> str | None:
    """Returns the code that was probably meant: of a country (jp), an English name (chinese), or a slip (zhh)."""
    from langcodes.data_dicts import LANGUAGE_ALPHA3, LIKELY_SUBTAGS

    country = LIKELY_SUBTAGS.get(f"und-{word.upper()}")
    if country is not None:
        return parse_language(country.split("-")[0]).language
    # Reversed, because the registry lists two-letter codes first, and the last entry of a name stays.
    by_name = {name.casefold(): code for code, names in reversed(_load_names().items()) for name in names}
    close = difflib.get_close_matches(word, by_name, n=1, cutoff=SIMILAR_NAME) if len(word) > LONGEST_CODE else []
    if close:
        return by_name[close[0]]
    codes = {short: short for short in LANGUAGE_ALPHA3} | {long: short for short, long in LANGUAGE_ALPHA3.items()}
    alike = [one for one in codes if one[:1] == word[:1]]  # a slip is rarely in the first letter
    close = difflib.get_close_matches(word, alike, n=1, cutoff=SIMILAR_CODE)
    return parse_language(codes[close[0]]).language if close else None


@functools.cache
def _load_names() -> dict[str, list[str]]:
    """Returns the English names of languages by code, from the IANA registry; 150 ms, needed for unknown codes only."""
    from langcodes.registry_parser import parse_registry

    return {
        entry["Subtag"]: [re.sub(r"^Modern | \(.*\)$", "", name) for name in entry["Description"]]
        for entry in parse_registry()
        if entry["Type"] == "language"
    }
