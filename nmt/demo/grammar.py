"""The demo's grammar: renders an abstract sentence in English and in German, and marks grammatical phenomena.

Each German word carries the names of the phenomena that it depends on, so that each phenomenon can be scored:

    article_case      articles and other determiners, by gender, number and case, including "im" and "zur"
    adjective_ending  attributive adjectives
    verb_agreement    finite verbs, by person and number
    verb_second       finite verbs of main clauses that do not start with their subject
    verb_final        verbs at the end of a subordinate clause
    separable_verb    both parts of a separable verb, joined or apart
    plural            plural nouns
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nmt.demo.lexicon import (
    BE,
    WAS,
    Adjective,
    Adverbial,
    Agreement,
    Case,
    Conjunction,
    Determiner,
    Finite,
    Modal,
    Noun,
    Opinion,
    Preposition,
    Pronoun,
    Time,
    Verb,
    add_s,
)

PHENOMENA = (
    "article_case",
    "adjective_ending",
    "verb_agreement",
    "verb_second",
    "verb_final",
    "separable_verb",
    "plural",
)

Combination = tuple[str, ...]
"""An adjective and its noun, or subject, verb and object of a clause ("" for none), as English lemmas."""

Positions = Mapping[str, Sequence[int]]
"""By phenomenon, the positions of the words that depend on it in a reference split at spaces."""


@dataclass(frozen=True)
class NounPhrase:
    """A noun with a determiner or an owner ("the doctor's car"), and an adjective."""

    noun: Noun
    determiner: Determiner | None
    adjective: Adjective | None = None
    plural: bool = False
    owner: "NounPhrase | None" = None


Subject = NounPhrase | Pronoun


@dataclass(frozen=True)
class Action:
    """A verb with its objects."""

    verb: Verb
    recipient: NounPhrase | None = None
    preposition: Preposition | None = None
    object: NounPhrase | None = None


@dataclass(frozen=True)
class Quality:
    """Being tired, rich or red."""

    adjective: Adjective


@dataclass(frozen=True)
class Clause:
    """A subject and its predicate. A modal is used with an action only, and always in the present."""

    subject: Subject
    predicate: Action | Quality | Opinion
    time: Time = Time.PRESENT
    modal: Modal | None = None


@dataclass(frozen=True)
class Subordinate:
    """A conjunction and its clause, whose German verb comes last."""

    conjunction: Conjunction
    clause: Clause


@dataclass(frozen=True)
class Sentence:
    """A main clause with an optional opening, which moves the German subject behind the verb, or a closing."""

    main: Clause
    opening: Adverbial | Subordinate | None = None
    closing: Subordinate | None = None


@dataclass(frozen=True)
class Word:
    """A German word and the names of the phenomena that it depends on."""

    text: str
    phenomena: tuple[str, ...] = ()


def render_german(sentence: Sentence) -> list[Word]:
    """Returns the words of the German sentence, with capital letter, commas and full stop."""
    words = _render_main_clause(sentence.main, inverted=sentence.opening is not None)
    if isinstance(sentence.opening, Adverbial):
        words = [Word(text) for text in sentence.opening.german.split()] + words
    if isinstance(sentence.opening, Subordinate):
        words = _append_mark(_render_subordinate_clause(sentence.opening), ",") + words
    if sentence.closing:
        words = _append_mark(words, ",") + _render_subordinate_clause(sentence.closing)
    first, *others = _append_mark(words, ".")
    return [replace(first, text=_capitalize(first.text)), *others]


def _render_main_clause(clause: Clause, *, inverted: bool) -> list[Word]:
    subject = _render_german_phrase(clause.subject)
    finite_forms, rest = _split_verb(clause)
    phenomena = ["verb_agreement"]
    phenomena += ["verb_second"] if inverted else []
    phenomena += ["separable_verb"] if _has_split_prefix(clause) else []
    finite = Word(finite_forms.get_form(find_agreement(clause.subject)), tuple(phenomena))
    head = [finite, *subject] if inverted else [*subject, finite]
    tail = [Word(rest, ("separable_verb",) if _is_separable(clause) else ())] if rest else []
    return head + _render_middle(clause.predicate) + tail


def _render_subordinate_clause(subordinate: Subordinate) -> list[Word]:
    clause = subordinate.clause
    finite_forms, rest = _split_verb(clause)
    finite = Word(finite_forms.get_form(find_agreement(clause.subject)), ("verb_agreement", "verb_final"))
    separable = ("separable_verb",) if _is_separable(clause) else ()
    if _has_split_prefix(clause):
        verbs = [Word(rest + finite.text, finite.phenomena + separable)]
    else:
        verbs = ([Word(rest, ("verb_final", *separable))] if rest else []) + [finite]
    subject = _render_german_phrase(clause.subject)
    return [Word(subordinate.conjunction.german), *subject, *_render_middle(clause.predicate), *verbs]


def _split_verb(clause: Clause) -> tuple[Finite, str]:
    """Returns the finite verb, and what comes last in a main clause: an infinitive, a participle, a prefix or ""."""
    predicate = clause.predicate
    if isinstance(predicate, Quality):
        return (WAS if clause.time == Time.PAST else BE), ""
    if isinstance(predicate, Opinion):
        return predicate.finite, ""
    if clause.modal:
        return clause.modal.finite, predicate.verb.prefix + predicate.verb.infinitive
    if clause.time == Time.PAST:
        return predicate.verb.auxiliary, predicate.verb.participle
    return predicate.verb.finite, predicate.verb.prefix


def _is_separable(clause: Clause) -> bool:
    return isinstance(clause.predicate, Action) and clause.predicate.verb.prefix != ""


def _has_split_prefix(clause: Clause) -> bool:
    """Returns whether the finite verb is separated from its prefix."""
    return _is_separable(clause) and clause.modal is None and clause.time != Time.PAST


def _render_middle(predicate: Action | Quality | Opinion) -> list[Word]:
    """Returns the words between the two parts of the verb in a main clause."""
    if isinstance(predicate, Quality):
        return [Word(predicate.adjective.german)]
    if isinstance(predicate, Opinion):
        return []
    recipient = _render_german_phrase(predicate.recipient, Case.DATIVE) if predicate.recipient else []
    return recipient + _render_german_object(predicate)


def _render_german_object(action: Action) -> list[Word]:
    if action.object is None:
        return []
    if action.preposition is None:
        return _render_german_phrase(action.object, action.verb.case)
    first, *others = _render_german_phrase(action.object, action.preposition.case)
    contraction = _CONTRACTIONS.get((action.preposition.german, first.text))
    if contraction:
        return [replace(first, text=contraction), *others]
    return [Word(action.preposition.german), first, *others]


# Endings by case, for masculine, feminine, neuter and plural. "-" means no ending.
_DEFINITE = {"nominative": "der die das die", "accusative": "den die das die", "dative": "dem der dem den"}


_DEFINITE |= {"genitive": "des der des der"}


_DER = {"nominative": "er e es e", "accusative": "en e es e", "dative": "em er em en", "genitive": "es er es er"}


_EIN = {"nominative": "- e - e", "accusative": "en e - e", "dative": "em er em en", "genitive": "es er es er"}


_WEAK = {"nominative": "e e e en", "accusative": "en e e en", "dative": "en en en en", "genitive": "en en en en"}


_MIXED = {"nominative": "er e es en", "accusative": "en e es en", "dative": "en en en en", "genitive": "en en en en"}


_STRONG = {"nominative": "er e es e", "accusative": "en e es e", "dative": "em er em en", "genitive": "en er en er"}


_CONTRACTIONS = {("in", "dem"): "im", ("in", "das"): "ins", ("zu", "dem"): "zum", ("zu", "der"): "zur"}


_CONTRACTIONS |= {("von", "dem"): "vom"}


def _render_german_phrase(phrase: Subject, case: Case = Case.NOMINATIVE) -> list[Word]:
    if isinstance(phrase, Pronoun):
        return [Word(phrase.german)]
    words = _render_determiner(phrase, case)
    if phrase.adjective:
        ending = _get_ending(_choose_endings(phrase), phrase, case)
        words.append(Word(phrase.adjective.stem + ending, ("adjective_ending",)))
    words.append(_render_noun(phrase, case))
    return words + (_render_german_phrase(phrase.owner, Case.GENITIVE) if phrase.owner else [])


def _render_determiner(phrase: NounPhrase, case: Case) -> list[Word]:
    """Returns the article, if any. Possessions have a definite article in German: "das Auto des Arztes"."""
    if phrase.owner:
        return [Word(_get_ending(_DEFINITE, phrase, case), ("article_case",))]
    if phrase.determiner is None:
        return []
    match phrase.determiner.pattern:
        case "definite":
            text = _get_ending(_DEFINITE, phrase, case)
        case "none":
            text = phrase.determiner.german
        case "ein":
            text = phrase.determiner.german + _get_ending(_EIN, phrase, case)
        case _:
            text = phrase.determiner.german + _get_ending(_DER, phrase, case)
    return [Word(text, ("article_case",))]


def _render_noun(phrase: NounPhrase, case: Case) -> Word:
    noun = phrase.noun
    if phrase.plural:
        # The dative plural ends in n: den Kindern.
        dative_n = case == Case.DATIVE and not noun.german_plural.endswith(("n", "s"))
        return Word(noun.german_plural + ("n" if dative_n else ""), ("plural",))
    if case == Case.GENITIVE:
        return Word(make_genitive(noun))
    return Word(noun.german_plural if noun.weak and case != Case.NOMINATIVE else noun.german)


def make_genitive(noun: Noun) -> str:
    """Returns the genitive singular: (des) Mannes, Lehrers, Jungen, (der) Frau."""
    if noun.gender == "f":
        return noun.german
    if noun.weak:
        return noun.german_plural
    num_syllables = len(re.findall("[aeiouyäöü]+", noun.german.lower()))
    return noun.german + ("es" if num_syllables == 1 else "s")


def _choose_endings(phrase: NounPhrase) -> dict[str, str]:
    if phrase.owner:
        return _WEAK
    pattern = phrase.determiner.pattern if phrase.determiner else "none"
    return {"definite": _WEAK, "der": _WEAK, "ein": _MIXED, "viel": _STRONG, "none": _STRONG}[pattern]


def _get_ending(table: dict[str, str], phrase: NounPhrase, case: Case) -> str:
    column = "mfnp".index("p" if phrase.plural else phrase.noun.gender)
    return table[case].split()[column].removeprefix("-")


def find_agreement(subject: Subject) -> Agreement:
    """Returns person and number of the finite verb."""
    if isinstance(subject, Pronoun):
        return subject.agreement
    return Agreement.PLURAL if subject.plural else Agreement.THIRD


def _append_mark(words: list[Word], mark: str) -> list[Word]:
    return [*words[:-1], replace(words[-1], text=words[-1].text + mark)]


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def render_english(sentence: Sentence) -> str:
    """Returns the English sentence, with capital letter, commas and full stop."""
    text = _render_english_clause(sentence.main)
    if isinstance(sentence.opening, Adverbial):
        text = f"{sentence.opening.english} {text}"
    if isinstance(sentence.opening, Subordinate):
        text = f"{sentence.opening.conjunction.english} {_render_english_clause(sentence.opening.clause)}, {text}"
    if sentence.closing:
        text = f"{text} {sentence.closing.conjunction.english} {_render_english_clause(sentence.closing.clause)}"
    return _capitalize(text) + "."


def _render_english_clause(clause: Clause) -> str:
    return " ".join([_render_english_phrase(clause.subject), *_render_english_predicate(clause)])


def _render_english_predicate(clause: Clause) -> list[str]:
    predicate = clause.predicate
    if isinstance(predicate, Quality):
        return [_choose_be(clause), predicate.adjective.english]
    if isinstance(predicate, Opinion):
        return [_render_english_verb(clause, predicate)]
    words = [_render_english_verb(clause, predicate.verb)]
    words += [_render_english_phrase(predicate.recipient)] if predicate.recipient else []
    words += [predicate.preposition.english] if predicate.preposition else []
    return words + ([_render_english_phrase(predicate.object)] if predicate.object else [])


def _render_english_verb(clause: Clause, verb: Verb | Opinion) -> str:
    third = find_agreement(clause.subject) == Agreement.THIRD
    if clause.modal:
        return f"{clause.modal.english_third if third else clause.modal.english} {verb.english}"
    if isinstance(verb, Verb) and clause.time == Time.PAST:
        return verb.english_past
    return add_s(verb.english) if third else verb.english


def _choose_be(clause: Clause) -> str:
    if clause.time == Time.PAST:
        return "were" if find_agreement(clause.subject) == Agreement.PLURAL else "was"
    return {Agreement.FIRST: "am", Agreement.THIRD: "is", Agreement.PLURAL: "are"}[find_agreement(clause.subject)]


def _render_english_phrase(phrase: Subject) -> str:
    if isinstance(phrase, Pronoun):
        return phrase.english
    noun = phrase.noun.english_plural if phrase.plural else phrase.noun.english
    rest = f"{phrase.adjective.english} {noun}" if phrase.adjective else noun
    if phrase.owner:
        return f"{_render_english_phrase(phrase.owner)}'s {rest}"
    if phrase.determiner is None:
        return rest
    article = "an" if phrase.determiner.english == "a" and rest[0] in "aeiou" else phrase.determiner.english
    return f"{article} {rest}"


def find_combinations(sentence: Sentence) -> Iterator[Combination]:
    """Yields the combinations of words in a sentence, which decide whether it is reserved for dev and test."""
    clauses = [part.clause for part in (sentence.opening, sentence.closing) if isinstance(part, Subordinate)]
    for clause in (sentence.main, *clauses):
        yield find_clause_combination(clause)
        for phrase in _find_noun_phrases(clause):
            if phrase.adjective:
                yield phrase.adjective.english, phrase.noun.english


def find_clause_combination(clause: Clause) -> Combination:
    """Returns subject, verb and object of a clause; for qualities, subject, "be" and adjective."""
    match clause.predicate:
        case Action(verb=verb, object=phrase):
            return get_head(clause.subject), verb.english, get_head(phrase)
        case Quality(adjective=adjective):
            return get_head(clause.subject), "be", adjective.english
        case opinion:
            return get_head(clause.subject), opinion.english, ""


def _find_noun_phrases(clause: Clause) -> Iterator[NounPhrase]:
    objects = (clause.predicate.recipient, clause.predicate.object) if isinstance(clause.predicate, Action) else ()
    for phrase in (clause.subject, *objects):
        if isinstance(phrase, NounPhrase):
            yield phrase


def get_head(phrase: Subject | None) -> str:
    """Returns the English lemma of the noun or pronoun of a phrase, or ""."""
    if phrase is None:
        return ""
    return phrase.english if isinstance(phrase, Pronoun) else phrase.noun.english
