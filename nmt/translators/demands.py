"""Demands on the translation of a text: the prefix that it begins with, and the phrases that it contains."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nmt.config.schema import MAX_BEAM_SIZE, SearchSettings
from nmt.data.tokenizer import UNK_ID, Tokenizer
from nmt.decoding.spelling import MAX_PHRASE_TOKENS, Prefix, Spellings, read_prefix
from nmt.errors import UserError
from nmt.translators.hypothesis import Hypothesis, Translation, TranslationWarning, shift_attention
from nmt.translators.sentences import IS_UNSPACED, SplitText

MAX_PHRASES = 16
"""Largest number of phrases per text."""
MAX_ALTERNATIVES = MAX_BEAM_SIZE // 2
"""Twice as many hypotheses are searched for, since several segmentations may spell one alternative."""


@dataclass(frozen=True)
class Demand:
    """The prefix and the phrases of one text."""

    prefix: str = ""
    """What it begins with."""
    required: tuple[str, ...] = ()
    """Words and phrases that it contains."""

    def __bool__(self) -> bool:
        return bool(self.prefix or self.required)


@dataclass(frozen=True)
class TokenDemand:
    """The same in tokens."""

    prefix: Prefix = field(default_factory=Prefix)
    phrases: tuple[Sequence[int], ...] = ()


def make_demands(
    count: int, prefixes: Sequence[str] | None, required: Sequence[Sequence[str]] | None
) -> list[Demand] | None:
    """Returns a demand per text, or None if there are none at all.

    Raises:
        UserError: their number is another one than `count`, or one of them cannot be met.
    """
    for name, given in (("prefixes", prefixes), ("required", required)):
        if isinstance(given, str) or (name == "required" and any(isinstance(one, str) for one in given or ())):
            raise UserError(f"{name}: expected a list with an entry per text, found one text: put it in brackets.")
        if given is not None and len(given) != count:
            raise UserError(f"{name}: expected an entry for each of the {count} texts, found {len(given)}.")
    if prefixes is None and required is None:
        return None
    demands = [
        Demand(prefix, tuple(dict.fromkeys(phrase.replace("\t", " ").strip() for phrase in phrases if phrase.strip())))
        for prefix, phrases in zip(prefixes or [""] * count, required or [()] * count, strict=True)
    ]
    for demand in demands:
        for name, text in (("prefixes", demand.prefix), *(("required", phrase) for phrase in demand.required)):
            if text.splitlines() not in ([], [text]) or "\0" in text:
                raise UserError(f"{name}: expected text without line breaks, found {text[:80]!r}.")
        if len(demand.required) > MAX_PHRASES:
            raise UserError(f"required: expected at most {MAX_PHRASES} phrases per text, found {len(demand.required)}.")
    return demands if any(demands) else None


def check_demands(demands: Sequence[Demand], settings: SearchSettings, *, right_to_left: bool) -> None:
    """Raises UserError if demands contradict the settings of the search, or the model cannot meet them.

    Without any prefix or phrase, the demands are those of alternatives for the first word.
    """
    if right_to_left and (any(demand.prefix for demand in demands) or not any(demands)):
        raise UserError(
            "prefixes: this model writes from right to left (model.right_to_left), so that it cannot continue a prefix "
            "or list alternatives. Use a model that writes from left to right."
        )
    if settings.mbr != "none":
        raise UserError(
            f"decoding.mbr {settings.mbr} ranks translations by their likeness to each other, which a prefix or "
            "required phrases would give to all of them: set it to none."
        )
    if any(demand.required for demand in demands):
        if settings.temperature:
            raise UserError(
                "required: tokens that are drawn cannot be chosen to contain a phrase: set decoding.temperature to 0."
            )
        if settings.beam_size == 1:
            raise UserError(
                "required: greedy search would put the phrases at the beginning: set decoding.beam_size to 2 or more, "
                "best to more than the tokens of all phrases."
            )


def check_alternatives(n: int, most: int = MAX_ALTERNATIVES) -> None:
    """Raises UserError unless so many alternatives can be listed."""
    if not 1 <= n <= most:
        raise UserError(f"n: expected 1 to {most} alternatives per text, found {n}.")


def split_demand(demand: Demand, parts: Sequence[str]) -> list[Demand]:
    """Returns the demands on the parts of a text: the prefix is that of the first, the longest has the phrases."""
    demands = [Demand()] * len(parts)
    if parts:
        longest = max(range(len(parts)), key=lambda n: len(parts[n]))
        demands[longest] = replace(demand, prefix="")
        demands[0] = replace(demands[0], prefix=demand.prefix)
    return demands


def read_demand(demand: Demand, tokenizer: Tokenizer, spellings: Spellings, *, right_to_left: bool) -> TokenDemand:
    """Returns a demand in tokens.

    Raises:
        UserError: a phrase has too many tokens.
    """
    phrases = [encode_phrase(phrase, tokenizer) for phrase in demand.required]
    for phrase, ids in zip(demand.required, phrases, strict=True):
        if len(ids) > MAX_PHRASE_TOKENS:
            raise UserError(
                f"required: expected phrases of at most {MAX_PHRASE_TOKENS} tokens, found {len(ids)} in "
                f"'{phrase[:80]}'."
            )
    order = -1 if right_to_left else 1
    return TokenDemand(
        read_prefix(demand.prefix, tokenizer, spellings) if demand.prefix else Prefix(),
        # What the tokenizer cannot spell would be written as ⁇. It is reported as lacking instead.
        tuple(ids[::order] for ids in phrases if ids and UNK_ID not in ids),
    )


def encode_phrase(phrase: str, tokenizer: Tokenizer) -> list[int]:
    """Returns the tokens of a phrase inside a text.

    Where words are written without spaces, a phrase does not begin with one.
    """
    [ids] = tokenizer.encode([phrase])
    is_space = bool(ids) and tokenizer.get_token(ids[0]) == "▁"
    return ids[1:] if is_space and IS_UNSPACED.match(phrase) else ids


def report_unmet(translation: Translation, demand: Demand) -> Translation:
    """Returns a translation with a warning if its best hypothesis lacks a phrase."""
    missing = [phrase for phrase in demand.required if not has_phrase(translation.text, phrase)]
    if not missing:
        return translation
    warning = TranslationWarning("unmet", f"The translation lacks what it must contain: {', '.join(missing)}.")
    return replace(translation, warnings=(*translation.warnings, warning))


def has_phrase(text: str, phrase: str) -> bool:
    """Returns whether a translation contains a phrase, in any form of its characters and with any spaces in it."""
    here, there = (" ".join(unicodedata.normalize("NFKC", one).split()) for one in (phrase, text))
    return here in there


def start_with_prefix(translation: Translation, text: SplitText, demand: Demand) -> Translation:
    """Returns a translation that begins with the prefix: without what its source begins with that is not translated.

    Args:
        translation: of the text.
        text: in parts, the first of which was translated with the prefix.
        demand: on the translation.
    """
    if not demand:
        return translation
    start, prefix = len(text.gaps[0]), demand.prefix

    def move(one: Hypothesis) -> Hypothesis:
        moved = shift_attention(one.attention, (0, len(translation.source)), (-start, len(one.text)))
        places = [replace(part, start=part.start - start, end=part.end - start) for part in one.part_confidences]
        return replace(one, text=one.text[start:], attention=tuple(moved), part_confidences=tuple(places))

    if not text.parts:  # nothing was translated, because the text has no letters
        alone = [replace(one, text=prefix or one.text) for one in translation.hypotheses]
        return report_unmet(replace(translation, hypotheses=alone), demand)
    if not prefix:
        return translation
    if start:
        translation = replace(translation, hypotheses=[move(one) for one in translation.hypotheses])
    if translation.text.startswith(prefix):
        return translation
    message = f"The translation does not begin with '{prefix}', because what is copied took the place of words in it."
    return replace(translation, warnings=(*translation.warnings, TranslationWarning("unmet", message)))
