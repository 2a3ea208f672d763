"""Scores of demo translations: a word-by-word baseline, and the share of correct words per grammatical phenomenon."""

import re
from collections import Counter
from collections.abc import Sequence

from nmt.demo.grammar import Positions
from nmt.demo.lexicon import (
    ADJECTIVES,
    ADVERBIALS,
    CONJUNCTIONS,
    DETERMINERS,
    MODALS,
    NOUNS,
    OPINIONS,
    PRONOUNS,
    VERBS,
    Adjective,
    Adverbial,
    Conjunction,
    Determiner,
    Pronoun,
    add_s,
)
from nmt.errors import UserError


def score_phenomena(
    hypotheses: Sequence[str], references: Sequence[str], tags: Sequence[Positions]
) -> dict[str, float]:
    """Returns for each phenomenon the share, 0 to 1, of its words that are right.

    A word is right when the hypothesis, split at spaces, has it at the reference's position with the same punctuation.
    That is strict: a word too many or too few spoils all after it. A phenomenon that nowhere occurs is left out.

    Raises:
        UserError: the three differ in length.
    """
    if not len(hypotheses) == len(references) == len(tags):
        raise UserError(
            f"Hypotheses, references and tags need the same number of sentences, got {len(hypotheses)}, "
            f"{len(references)} and {len(tags)}."
        )
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for hypothesis, reference, places in zip(hypotheses, references, tags, strict=True):
        expected, found = reference.split(), hypothesis.split()
        for name, positions in places.items():
            total[name] += len(positions)
            right[name] += sum(found[at : at + 1] == [expected[at]] for at in positions)
    return {name: right[name] / count for name, count in total.items() if count}


def translate_word_by_word(sentence: str) -> str:
    """Translates with a dictionary and no grammar: every English word becomes its German dictionary form, in its place.

    >>> translate_word_by_word("Yesterday the doctor's children turned on the new lamps.")
    'Gestern der Arzt Kind einschalten der neu Lampe.'
    """
    text = " ".join(look_up_glosses(sentence))
    return text[:1].upper() + text[1:] + "."


def look_up_glosses(sentence: str) -> list[str]:
    """Returns the dictionary forms of an English sentence's words, the longest entries first; unknown words stay."""
    tokens = re.findall(r"[a-zA-Z]+", sentence.replace("'s", ""))
    tokens = [token if token == "I" else token.lower() for token in tokens]
    found = []
    while tokens:
        sizes = range(_LONGEST_ENTRY, 1, -1)
        size = next((size for size in sizes if " ".join(tokens[:size]) in _DICTIONARY), 1)
        entry = " ".join(tokens[:size])
        found.append(_DICTIONARY.get(entry, entry))
        tokens = tokens[size:]
    return found


def _build_dictionary() -> dict[str, str]:
    """Returns the German dictionary form of every English form."""
    entries = {"am": "sein", "is": "sein", "are": "sein", "was": "sein", "were": "sein", "an": "ein"}
    named: tuple[Determiner | Pronoun | Adjective | Adverbial | Conjunction, ...]
    named = (*DETERMINERS, *PRONOUNS, *ADJECTIVES, *ADVERBIALS, *CONJUNCTIONS)
    entries |= {word.english: word.german for word in named}
    entries |= {"this": "dieser", "these": "dieser", "every": "jeder", "some": "einige", "many": "viele"}
    for noun in NOUNS:
        entries |= dict.fromkeys((noun.english, noun.english_plural), noun.german)
    for modal in MODALS:
        entries |= dict.fromkeys((modal.english, modal.english_third), modal.german)
    for opinion in OPINIONS:
        entries |= dict.fromkeys((opinion.english, add_s(opinion.english)), opinion.infinitive)
    for verb in VERBS:
        forms = (verb.english, add_s(verb.english), verb.english_past)
        entries |= dict.fromkeys(forms, verb.prefix + verb.infinitive)
        for preposition in verb.prepositions:
            entries.setdefault(preposition.english, preposition.german)
    return entries


_DICTIONARY = _build_dictionary()


_LONGEST_ENTRY = max(len(entry.split()) for entry in _DICTIONARY)
