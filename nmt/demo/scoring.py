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
    """Returns the share of correct words for each phenomenon, from 0 to 1.

    A word is correct if the hypothesis, split at spaces, has it at the position of the reference, with the same
    punctuation. This is strict: one additional or missing word makes all words after it wrong. Phenomena that never
    occur are omitted.

    Args:
        hypotheses: translations of the sentences.
        references: their correct translations.
        tags: positions in each reference, as `make_demo_corpus` writes them to {dev,test}.tags.jsonl.

    Raises:
        UserError: the arguments differ in length.
    """
    if not len(hypotheses) == len(references) == len(tags):
        raise UserError(
            f"Hypotheses, references and tags must have the same number of sentences, found {len(hypotheses)}, "
            f"{len(references)} and {len(tags)}."
        )
    correct: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for hypothesis, reference, positions in zip(hypotheses, references, tags, strict=True):
        expected, found = reference.split(), hypothesis.split()
        for name, places in positions.items():
            total[name] += len(places)
            correct[name] += sum(found[at : at + 1] == [expected[at]] for at in places)
    return {name: correct[name] / count for name, count in total.items() if count}


def translate_word_by_word(sentence: str) -> str:
    """Translates with a dictionary and without grammar: each English word becomes its German dictionary form.

    >>> translate_word_by_word("Yesterday the doctor's children turned on the new lamps.")
    'Gestern der Arzt Kind einschalten der neu Lampe.'
    """
    text = " ".join(look_up_glosses(sentence))
    return text[:1].upper() + text[1:] + "."


def look_up_glosses(sentence: str) -> list[str]:
    """Returns the German dictionary forms of English words. The longest entry wins, and unknown words stay."""
    words = re.findall(r"[a-zA-Z]+", sentence.replace("'s", ""))
    words = [word if word == "I" else word.lower() for word in words]
    glosses = []
    while words:
        sizes = range(_LONGEST_ENTRY, 1, -1)
        size = next((size for size in sizes if " ".join(words[:size]) in _DICTIONARY), 1)
        entry = " ".join(words[:size])
        glosses.append(_DICTIONARY.get(entry, entry))
        words = words[size:]
    return glosses


def _build_dictionary() -> dict[str, str]:
    """Returns the German dictionary form of every English form."""
    entries = {"am": "sein", "is": "sein", "are": "sein", "was": "sein", "were": "sein", "an": "ein"}
    named: tuple[Determiner | Pronoun | Adjective | Adverbial | Conjunction, ...]
    named = (*DETERMINERS, *PRONOUNS, *ADJECTIVES, *ADVERBIALS, *CONJUNCTIONS)
    entries |= {word.english: word.german for word in named}
    # The lexicon has the stems of these.
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
