"""The demonstration corpus: sentences drawn from our own grammar, split so that held-out combinations are new.

A tenth of all combinations (an adjective with its noun; a subject with its verb and object) is reserved, by a hash of
the seed and the combination. Training sentences hold no reserved combination, dev and test sentences no other, and
every word of theirs occurs in training. To translate them is to put known words together anew.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nmt.demo.grammar import (
    PHENOMENA,
    Action,
    Clause,
    Combination,
    NounPhrase,
    Quality,
    Sentence,
    Subject,
    Subordinate,
    find_agreement,
    find_clause_combination,
    find_combinations,
    get_head,
    render_english,
    render_german,
)
from nmt.demo.lexicon import (
    ADJECTIVES,
    ADVERBIALS,
    ALTHOUGH,
    BECAUSE,
    BEFORE,
    CONJUNCTIONS,
    DETERMINERS,
    HE,
    MODALS,
    MOODS,
    NOUNS,
    OPINIONS,
    POSSESSIVES,
    PRONOUNS,
    SHE,
    THE,
    THEY,
    VERBS,
    WANT,
    WHEN,
    WHILE,
    Adjective,
    Adverbial,
    Agreement,
    Conjunction,
    Determiner,
    Kind,
    Modal,
    Noun,
    Pronoun,
    Time,
    Verb,
    add_s,
)
from nmt.errors import UserError
from nmt.files import atomic_write

NUM_DEV = 500
NUM_TEST = 1_000
MIN_PAIRS = 6_000
"""Below this some words of the held-out sentences would never come in training."""

Positions = Mapping[str, Sequence[int]]
"""For each phenomenon the positions of the words of a reference, split at spaces, that depend on it."""


@dataclass(frozen=True)
class DemoPair:
    """A sentence and its translation."""

    source: str
    target: str
    places: Positions
    combinations: frozenset[Combination]


@dataclass(frozen=True)
class DemoReport:
    """What was written: sentence pairs of each part, lemmas in training, and uses there of the rarest lemma."""

    num_train: int
    num_dev: int
    num_test: int
    num_lemmas: int
    fewest_uses: int


def make_demo_corpus(folder: Path, *, seed: int = 1, num_pairs: int = 22_000) -> DemoReport:
    """Writes train, dev and test, each as .en and .de, and {dev,test}.tags.jsonl with the places of the phenomena.

    All pairs are distinct, and the same seed gives the same bytes; 500 pairs are for dev and 1,000 for test.

    Raises:
        UserError: `num_pairs` is too small for every held-out word to be learned, or the folder cannot be written to.
    """
    if num_pairs < MIN_PAIRS:
        raise UserError(f"The demo corpus needs num_pairs of at least {MIN_PAIRS}, got {num_pairs}.")
    train, dev, test = draw_parts(seed=seed, num_pairs=num_pairs)
    for name, pairs in (("train", train), ("dev", dev), ("test", test)):
        _write_lines(folder / f"{name}.en", (pair.source for pair in pairs))
        _write_lines(folder / f"{name}.de", (pair.target for pair in pairs))
    for name, pairs in (("dev", dev), ("test", test)):
        _write_lines(folder / f"{name}.tags.jsonl", (json.dumps(pair.places) for pair in pairs))
    uses = Counter(gloss for pair in train for gloss in look_up_glosses(pair.source))
    return DemoReport(len(train), len(dev), len(test), len(uses), min(uses.values()))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as aside:
        aside.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def draw_parts(*, seed: int, num_pairs: int) -> tuple[list[DemoPair], list[DemoPair], list[DemoPair]]:
    """Returns train, dev and test."""

    def is_reserved(combination: Combination) -> bool:
        digest = hashlib.blake2b(f"{seed} {' '.join(combination)}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") % 10 == 0

    rng = random.Random(seed)
    known = draw_distinct_pairs(SentenceSampler(rng, lambda combination: not is_reserved(combination)))
    train = [next(known) for _ in range(num_pairs - NUM_DEV - NUM_TEST)]
    vocabulary = {word for pair in train for word in split_words(pair)}
    new = (
        pair
        for pair in draw_distinct_pairs(SentenceSampler(rng, is_reserved))
        if vocabulary.issuperset(split_words(pair))
    )
    held_out = [next(new) for _ in range(NUM_DEV + NUM_TEST)]
    return train, held_out[:NUM_DEV], held_out[NUM_DEV:]


def split_words(pair: DemoPair) -> Iterator[tuple[str, str]]:
    """Yields each word of a pair, with its language and without punctuation."""
    for language, text in (("en", pair.source), ("de", pair.target)):
        yield from ((language, word) for word in re.findall(r"[\w']+", text))


def draw_distinct_pairs(sampler: "SentenceSampler") -> Iterator[DemoPair]:
    """Yields pairs for ever, none of them twice."""
    seen = set()
    while True:
        sentence = sampler.draw_sentence()
        source = render_english(sentence)
        if source not in seen:
            seen.add(source)
            target = render_german(sentence)
            places = {name: [at for at, word in enumerate(target) if name in word.phenomena] for name in PHENOMENA}
            text = " ".join(word.text for word in target)
            yield DemoPair(source, text, places, frozenset(find_combinations(sentence)))


_OWNED = {Kind.ANIMAL, Kind.CLOTHING, Kind.READING, Kind.DEVICE, Kind.VEHICLE, Kind.THING}
_WEIGHTS = {"the": 6.0, "a": 5.0, "this": 1.5, "these": 1.5, "every": 0.7}


@cache
def _get_nouns(kinds: frozenset[Kind]) -> list[Noun]:
    return [noun for noun in NOUNS if noun.kind in kinds]


class SentenceSampler:
    """Draws sentences that make some sense and hold only combinations that `admits` lets pass."""

    def __init__(self, rng: random.Random, admits: Callable[[Combination], bool]):
        self._rng = rng
        self._admits = admits

    def draw_sentence(self) -> Sentence:
        """Returns one sentence, of one or two clauses."""
        draw = self._rng.choices(
            (
                self._draw_plain,
                self._draw_with_adverbial,
                self._draw_with_opinion,
                self._draw_with_reason,
                self._draw_with_moment,
            ),
            weights=(35, 25, 12, 16, 12),
        )[0]
        return draw()

    def _draw_plain(self) -> Sentence:
        return Sentence(self._draw_action() if self._flip(0.8) else self._draw_quality())

    def _draw_with_adverbial(self) -> Sentence:
        clause = self._draw_action()
        time = Time.FUTURE if clause.modal else clause.time
        return Sentence(clause, opening=self._rng.choice(_ADVERBIALS_OF[time]))

    def _draw_with_opinion(self) -> Sentence:
        opinion = self._rng.choice(OPINIONS)
        holder = self._draw_admitted(lambda: Clause(self._draw_subject(frozenset({Kind.PERSON})), opinion))
        content = self._draw_action() if self._flip(0.7) else self._draw_quality()
        return Sentence(holder, closing=Subordinate(opinion.conjunction, content))

    def _draw_with_reason(self) -> Sentence:
        """Adds a clause about the same person or animal: because she is tired, before she sleeps."""
        while True:
            main = self._draw_action(modal_chance=0.0)
            pronoun = _find_pronoun(main.subject)
            if pronoun and _is_person(main.subject):
                return Sentence(main, closing=self._draw_reason(pronoun, main.time))

    def _draw_reason(self, pronoun: Pronoun, time: Time) -> Subordinate:
        moods = [mood for mood in MOODS if self._admits((pronoun.english, "be", mood.english))]
        conjunction = self._rng.choice((BECAUSE, ALTHOUGH, BEFORE, WHILE) if moods else (BEFORE, WHILE))
        if conjunction in (BEFORE, WHILE):
            return Subordinate(conjunction, self._draw_action(pronoun, time=time, modal_chance=0.0))
        if conjunction == BECAUSE and time == Time.PRESENT and self._flip(0.5):
            return Subordinate(conjunction, self._draw_action(pronoun, modal=WANT))
        return Subordinate(conjunction, Clause(pronoun, Quality(self._rng.choice(moods)), time))

    def _draw_with_moment(self) -> Sentence:
        moment = self._draw_action(verbs=_WITHOUT_OBJECT, time=Time.PRESENT, modal_chance=0.0)
        return Sentence(self._draw_action(time=Time.PRESENT), opening=Subordinate(WHEN, moment))

    def _draw_action(
        self,
        subject: Pronoun | None = None,
        *,
        verbs: Sequence[Verb] = VERBS,
        time: Time | None = None,
        modal: Modal | None = None,
        modal_chance: float = 0.3,
    ) -> Clause:
        """Draws what is not given."""
        modal = modal or (self._rng.choice(MODALS) if self._flip(modal_chance) else None)
        time = Time.PRESENT if modal else time or (Time.PAST if self._flip(0.4) else Time.PRESENT)
        # "They read", "they put on": the English past of these cannot be told from the present.
        usable = [verb for verb in verbs if time != Time.PAST or verb.english_past != verb.english]
        return self._draw_admitted(lambda: self._draw_action_of(self._rng.choice(usable), subject, time, modal))

    def _draw_action_of(self, verb: Verb, subject: Pronoun | None, time: Time, modal: Modal | None) -> Clause:
        """Draws the phrases around a verb, no noun twice among them."""
        while True:
            actor = subject or self._draw_subject(verb.subjects)
            recipient = self._draw_phrase(frozenset({Kind.PERSON}), adjective_chance=0.15) if verb.recipient else None
            thing = self._draw_phrase(verb.objects) if verb.objects else None
            heads = [get_head(phrase) for phrase in (actor, recipient, thing) if phrase]
            if len(heads) == len(set(heads)):
                preposition = self._rng.choice(verb.prepositions) if verb.prepositions else None
                return Clause(actor, Action(verb, recipient, preposition, thing), time, modal)

    def _draw_quality(self) -> Clause:
        time = Time.PAST if self._flip(0.4) else Time.PRESENT
        return self._draw_admitted(lambda: self._draw_quality_of(self._rng.choice(tuple(Kind)), time))

    def _draw_quality_of(self, kind: Kind, time: Time) -> Clause:
        carrier = self._draw_phrase(frozenset({kind}), adjective_chance=0.0)
        return Clause(carrier, Quality(self._rng.choice(_ADJECTIVES_OF[kind])), time)

    def _draw_admitted(self, draw: Callable[[], Clause]) -> Clause:
        while True:
            clause = draw()
            if self._admits(find_clause_combination(clause)):
                return clause

    def _draw_subject(self, kinds: frozenset[Kind]) -> Subject:
        if Kind.PERSON in kinds and self._flip(0.25):
            return self._rng.choice(PRONOUNS)
        return self._draw_phrase(kinds, adjective_chance=0.3)

    def _draw_phrase(self, kinds: frozenset[Kind], *, adjective_chance: float = 0.45) -> NounPhrase:
        noun = self._rng.choice(_get_nouns(kinds))
        adjective = self._draw_adjective(noun) if self._flip(adjective_chance) else None
        plural = noun.countable and self._flip(0.35)
        if noun.kind in _OWNED and self._flip(0.12):
            return NounPhrase(noun, None, adjective, plural, self._draw_owner())
        return NounPhrase(noun, self._draw_determiner(noun, plural), adjective, plural)

    def _draw_adjective(self, noun: Noun) -> Adjective | None:
        fitting = [
            adjective for adjective in _ADJECTIVES_OF[noun.kind] if self._admits((adjective.english, noun.english))
        ]
        return self._rng.choice(fitting) if fitting else None

    def _draw_determiner(self, noun: Noun, plural: bool) -> Determiner | None:
        if not noun.countable:
            return self._rng.choice((None, THE))
        if plural and self._flip(0.2):
            return None
        determiners = [determiner for determiner in DETERMINERS if determiner.plural == plural]
        weights = [_WEIGHTS.get(determiner.english, 1.0) for determiner in determiners]
        return self._rng.choices(determiners, weights)[0]

    def _draw_owner(self) -> NounPhrase:
        determiners = [THE, *(possessive for possessive in POSSESSIVES if not possessive.plural)]
        return NounPhrase(self._rng.choice(_get_nouns(frozenset({Kind.PERSON}))), self._rng.choice(determiners))

    def _flip(self, probability: float) -> bool:
        return self._rng.random() < probability


_ADJECTIVES_OF: dict[Kind, list[Adjective]] = {
    kind: [adjective for adjective in ADJECTIVES if kind in adjective.kinds] for kind in Kind
}
_ADVERBIALS_OF: dict[Time, list[Adverbial]] = {
    time: [adverbial for adverbial in ADVERBIALS if adverbial.time == time] for time in Time
}
_WITHOUT_OBJECT = tuple(verb for verb in VERBS if not verb.objects)


def _is_person(subject: Subject) -> bool:
    return isinstance(subject, Pronoun) or subject.noun.kind == Kind.PERSON


def _find_pronoun(subject: Subject) -> Pronoun | None:
    """Returns the pronoun that takes up a subject; none for "the child", who would be an "es"."""
    if isinstance(subject, Pronoun):
        return subject
    if find_agreement(subject) == Agreement.PLURAL:
        return THEY
    return {"m": HE, "f": SHE}.get(subject.noun.gender)


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


def translate_word_by_word(sentence: str) -> str:
    """Translates with a dictionary and no grammar: every English word becomes its German dictionary form, in its place.

    >>> translate_word_by_word("Yesterday the doctor's children turned on the new lamps.")
    'Gestern der Arzt Kind einschalten der neu Lampe.'
    """
    text = " ".join(look_up_glosses(sentence))
    return text[:1].upper() + text[1:] + "."


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
