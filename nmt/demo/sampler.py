"""Draws sentences of the demo's grammar that make some sense."""

import random
from collections.abc import Callable, Sequence
from functools import cache

from nmt.demo.grammar import (
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
    get_head,
)
from nmt.demo.lexicon import (
    ADJECTIVES,
    ADVERBIALS,
    ALTHOUGH,
    BECAUSE,
    BEFORE,
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
    Determiner,
    Kind,
    Modal,
    Noun,
    Pronoun,
    Time,
    Verb,
)

ADJECTIVES_OF: dict[Kind, list[Adjective]] = {
    kind: [adjective for adjective in ADJECTIVES if kind in adjective.kinds] for kind in Kind
}
ADVERBIALS_OF: dict[Time, list[Adverbial]] = {
    time: [adverbial for adverbial in ADVERBIALS if adverbial.time == time] for time in Time
}
VERBS_WITHOUT_OBJECT = tuple(verb for verb in VERBS if not verb.objects)
OWNED_KINDS = {Kind.ANIMAL, Kind.CLOTHING, Kind.READING, Kind.DEVICE, Kind.VEHICLE, Kind.THING}
DETERMINER_WEIGHTS = {"the": 6.0, "a": 5.0, "this": 1.5, "these": 1.5, "every": 0.7}


class SentenceSampler:
    """Draws sentences that consist of admitted combinations of words.

    Args:
        rng: source of all random choices; the same state gives the same sentences.
        admits: returns whether a combination may occur.
    """

    def __init__(self, rng: random.Random, admits: Callable[[Combination], bool]):
        self._rng = rng
        self._admits = admits

    def draw_sentence(self) -> Sentence:
        """Draws a sentence of one or two clauses."""
        kinds = {
            self._draw_plain: 35,
            self._draw_with_adverbial: 25,
            self._draw_with_opinion: 12,
            self._draw_with_reason: 16,
            self._draw_with_moment: 12,
        }
        draw = self._rng.choices(tuple(kinds), weights=tuple(kinds.values()))[0]
        return draw()

    def _draw_plain(self) -> Sentence:
        return Sentence(self._draw_action() if self._flip(0.8) else self._draw_quality())

    def _draw_with_adverbial(self) -> Sentence:
        """Draws a sentence such as: yesterday my sister bought a car."""
        clause = self._draw_action()
        time = Time.FUTURE if clause.modal else clause.time
        return Sentence(clause, opening=self._rng.choice(ADVERBIALS_OF[time]))

    def _draw_with_opinion(self) -> Sentence:
        """Draws a sentence such as: the doctor believes that the car is new."""
        opinion = self._rng.choice(OPINIONS)
        holder = self._draw_admitted(lambda: Clause(self._draw_subject(frozenset({Kind.PERSON})), opinion))
        content = self._draw_action() if self._flip(0.7) else self._draw_quality()
        return Sentence(holder, closing=Subordinate(opinion.conjunction, content))

    def _draw_with_reason(self) -> Sentence:
        """Draws a sentence such as: the woman sleeps because she is tired. Both clauses are about the same person."""
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
        """Draws a sentence such as: when the guest arrives, the girl opens a window."""
        moment = self._draw_action(verbs=VERBS_WITHOUT_OBJECT, time=Time.PRESENT, modal_chance=0.0)
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
        """Draws a clause with a verb, and each part of it that is not given."""
        modal = modal or (self._rng.choice(MODALS) if self._flip(modal_chance) else None)
        time = Time.PRESENT if modal else time or (Time.PAST if self._flip(0.4) else Time.PRESENT)
        # The past of some verbs looks like the present ("they read", "they put on") and would have two translations.
        usable = [verb for verb in verbs if time != Time.PAST or verb.english_past != verb.english]
        return self._draw_admitted(lambda: self._draw_action_of(self._rng.choice(usable), subject, time, modal))

    def _draw_action_of(self, verb: Verb, subject: Pronoun | None, time: Time, modal: Modal | None) -> Clause:
        """Draws the phrases around a verb; no two of them have the same noun."""
        while True:
            actor = subject or self._draw_subject(verb.subjects)
            recipient = self._draw_phrase(frozenset({Kind.PERSON}), adjective_chance=0.15) if verb.recipient else None
            thing = self._draw_phrase(verb.objects) if verb.objects else None
            heads = [get_head(phrase) for phrase in (actor, recipient, thing) if phrase]
            if len(heads) == len(set(heads)):
                preposition = self._rng.choice(verb.prepositions) if verb.prepositions else None
                return Clause(actor, Action(verb, recipient, preposition, thing), time, modal)

    def _draw_quality(self) -> Clause:
        """Draws a clause such as: the rooms were dark."""
        time = Time.PAST if self._flip(0.4) else Time.PRESENT
        return self._draw_admitted(lambda: self._draw_quality_of(self._rng.choice(tuple(Kind)), time))

    def _draw_quality_of(self, kind: Kind, time: Time) -> Clause:
        carrier = self._draw_phrase(frozenset({kind}), adjective_chance=0.0)
        return Clause(carrier, Quality(self._rng.choice(ADJECTIVES_OF[kind])), time)

    def _draw_admitted(self, draw: Callable[[], Clause]) -> Clause:
        """Draws clauses until one is admitted."""
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
        if noun.kind in OWNED_KINDS and self._flip(0.12):
            return NounPhrase(noun, None, adjective, plural, self._draw_owner())
        return NounPhrase(noun, self._draw_determiner(noun, plural), adjective, plural)

    def _draw_adjective(self, noun: Noun) -> Adjective | None:
        fitting = [
            adjective for adjective in ADJECTIVES_OF[noun.kind] if self._admits((adjective.english, noun.english))
        ]
        return self._rng.choice(fitting) if fitting else None

    def _draw_determiner(self, noun: Noun, plural: bool) -> Determiner | None:
        if not noun.countable:
            return self._rng.choice((None, THE))
        if plural and self._flip(0.2):
            return None
        determiners = [determiner for determiner in DETERMINERS if determiner.plural == plural]
        weights = [DETERMINER_WEIGHTS.get(determiner.english, 1.0) for determiner in determiners]
        return self._rng.choices(determiners, weights)[0]

    def _draw_owner(self) -> NounPhrase:
        determiners = [THE, *(possessive for possessive in POSSESSIVES if not possessive.plural)]
        return NounPhrase(self._rng.choice(_get_nouns(frozenset({Kind.PERSON}))), self._rng.choice(determiners))

    def _flip(self, probability: float) -> bool:
        return self._rng.random() < probability


def _is_person(subject: Subject) -> bool:
    return isinstance(subject, Pronoun) or subject.noun.kind == Kind.PERSON


def _find_pronoun(subject: Subject) -> Pronoun | None:
    """Returns the pronoun that refers to a subject; None for neuter nouns, as English would need their sex."""
    if isinstance(subject, Pronoun):
        return subject
    if find_agreement(subject) == Agreement.PLURAL:
        return THEY
    return {"m": HE, "f": SHE}.get(subject.noun.gender)


@cache
def _get_nouns(kinds: frozenset[Kind]) -> list[Noun]:
    return [noun for noun in NOUNS if noun.kind in kinds]
