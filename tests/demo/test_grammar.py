import pytest

from nmt.demo.grammar import (
    PHENOMENA,
    Action,
    Clause,
    NounPhrase,
    Quality,
    Sentence,
    Subordinate,
    find_combinations,
    make_genitive,
    render_english,
    render_german,
)
from nmt.demo.lexicon import (
    ADJECTIVES,
    ADVERBIALS,
    BECAUSE,
    DETERMINERS,
    MODALS,
    NOUNS,
    PRONOUNS,
    THE,
    VERBS,
    WHEN,
    Adjective,
    Case,
    Determiner,
    Noun,
    Pronoun,
    Time,
    Verb,
)


def noun(english_word: str) -> Noun:
    return next(noun for noun in NOUNS if noun.english == english_word)


def adjective(english_word: str) -> Adjective:
    return next(adjective for adjective in ADJECTIVES if adjective.english == english_word)


def verb(english_word: str, *, preposition: str | None = None) -> Verb:
    return next(
        verb
        for verb in VERBS
        if verb.english == english_word
        and (preposition is None or preposition in [other.german for other in verb.prepositions])
    )


def determiner(english_word: str, *, plural: bool = False) -> Determiner:
    return next(word for word in DETERMINERS if (word.english, word.plural) == (english_word, plural))


def pronoun(english_word: str) -> Pronoun:
    return next(pronoun for pronoun in PRONOUNS if pronoun.english == english_word)


def phrase(*words: str, plural: bool = False) -> NounPhrase:
    """Builds "the old man" from the dictionary forms of its words."""
    first, *middle, last = words
    word = determiner(first, plural=plural) if first else None
    return NounPhrase(noun(last), word, adjective(middle[0]) if middle else None, plural)


def text(sentence: Sentence) -> tuple[str, str]:
    return render_english(sentence), " ".join(word.text for word in render_german(sentence))


def marked(sentence: Sentence, phenomenon: str) -> list[str]:
    return [word.text for word in render_german(sentence) if phenomenon in word.phenomena]


def bought(thing: NounPhrase) -> Sentence:
    return Sentence(Clause(pronoun("she"), Action(verb("buy"), object=thing)))


# The expected sentences were written by hand, following the tables of the Duden grammar.
@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (phrase("the", "old", "chair"), "Sie kauft den alten Stuhl."),
        (phrase("a", "old", "chair"), "Sie kauft einen alten Stuhl."),
        (phrase("a", "old", "clock"), "Sie kauft eine alte Uhr."),
        (phrase("a", "old", "book"), "Sie kauft ein altes Buch."),
        (phrase("the", "old", "book"), "Sie kauft das alte Buch."),
        (phrase("this", "expensive", "picture"), "Sie kauft dieses teure Bild."),
        (phrase("our", "red", "ball"), "Sie kauft unseren roten Ball."),
        (phrase("", "fresh", "cheese"), "Sie kauft frischen Käse."),
        (phrase("", "cold", "milk"), "Sie kauft kalte Milch."),
        (phrase("", "fresh", "bread"), "Sie kauft frisches Brot."),
        (phrase("the", "sweet", "apple", plural=True), "Sie kauft die süßen Äpfel."),
        (phrase("", "sweet", "apple", plural=True), "Sie kauft süße Äpfel."),
        (phrase("many", "sweet", "apple", plural=True), "Sie kauft viele süße Äpfel."),
        (phrase("two", "sweet", "apple", plural=True), "Sie kauft zwei süße Äpfel."),
        (phrase("my", "sweet", "apple", plural=True), "Sie kauft meine süßen Äpfel."),
    ],
)
def test_the_accusative_follows_gender_number_and_determiner(thing, expected):
    assert text(bought(thing))[1] == expected


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        (phrase("the", "poor", "man"), "Er hilft dem armen Mann."),
        (phrase("a", "poor", "woman"), "Er hilft einer armen Frau."),
        (phrase("the", "boy"), "Er hilft dem Jungen."),
        (phrase("her", "child"), "Er hilft ihrem Kind."),
        (phrase("three", "poor", "child", plural=True), "Er hilft drei armen Kindern."),
        (phrase("many", "guest", plural=True), "Er hilft vielen Gästen."),
        (phrase("the", "nurse", plural=True), "Er hilft den Krankenschwestern."),
    ],
)
def test_the_dative_has_its_own_articles_and_an_n_in_the_plural(person, expected):
    assert text(Sentence(Clause(pronoun("he"), Action(verb("help"), object=person))))[1] == expected


def test_an_owner_follows_in_the_genitive():
    car = NounPhrase(noun("car"), None, adjective("new"), owner=phrase("my", "brother"))
    assert text(bought(car)) == ("She buys my brother's new car.", "Sie kauft das neue Auto meines Bruders.")


@pytest.mark.parametrize(
    ("person", "expected"),
    [("man", "Mannes"), ("friend", "Freundes"), ("teacher", "Lehrers"), ("student", "Studenten"), ("queen", "Königin")],
)
def test_the_genitive_of_nouns(person, expected):
    assert make_genitive(noun(person)) == expected


@pytest.mark.parametrize(
    ("action_verb", "english_preposition", "place", "expected"),
    [
        ("sleep", "in", "forest", "Ich schlafe im Wald."),
        ("run", "into", "house", "Ich laufe ins Haus."),
        ("run", "to", "school", "Ich laufe zur Schule."),
        ("run", "to", "castle", "Ich laufe zum Schloss."),
        ("dream", "of", "village", "Ich träume vom Dorf."),
        ("sleep", "behind", "house", "Ich schlafe hinter dem Haus."),
    ],
)
def test_prepositions_contract_with_articles(action_verb, english_preposition, place, expected):
    action = verb(action_verb)
    preposition = next(word for word in action.prepositions if word.english == english_preposition)
    sentence = Sentence(Clause(pronoun("I"), Action(action, None, preposition, phrase("the", place))))
    assert text(sentence)[1] == expected
    assert len(marked(sentence, "article_case")) == 1


@pytest.mark.parametrize(
    ("time", "modal", "expected"),
    [
        (Time.PRESENT, None, "Sie ruft den Arzt an."),
        (Time.PAST, None, "Sie hat den Arzt angerufen."),
        (Time.PRESENT, "must", "Sie muss den Arzt anrufen."),
        (Time.PRESENT, "will", "Sie wird den Arzt anrufen."),
    ],
)
def test_a_separable_verb_frames_the_main_clause(time, modal, expected):
    word = next((word for word in MODALS if word.english == modal), None)
    sentence = Sentence(Clause(pronoun("she"), Action(verb("call"), object=phrase("the", "doctor")), time, word))
    assert text(sentence)[1] == expected
    assert marked(sentence, "separable_verb")[-1] == expected.split()[-1]


def test_the_verb_stays_second_behind_an_adverbial():
    yesterday = next(word for word in ADVERBIALS if word.english == "yesterday")
    clause = Clause(phrase("the", "dog"), Action(verb("run away")), Time.PAST)
    sentence = Sentence(clause, opening=yesterday)
    assert text(sentence) == ("Yesterday the dog ran away.", "Gestern ist der Hund weggelaufen.")
    assert marked(sentence, "verb_second") == ["ist"]


def test_the_verb_comes_last_behind_a_conjunction_and_second_after_its_clause():
    moment = Subordinate(WHEN, Clause(phrase("the", "guest"), Action(verb("arrive"))))
    main = Clause(phrase("the", "girl"), Action(verb("open"), object=phrase("a", "window")))
    sentence = Sentence(main, opening=moment)
    assert text(sentence)[0] == "When the guest arrives, the girl opens a window."
    assert text(sentence)[1] == "Wenn der Gast ankommt, macht das Mädchen ein Fenster auf."
    assert marked(sentence, "verb_final") == ["ankommt,"]
    assert marked(sentence, "verb_second") == ["macht"]


def test_both_verbs_close_a_subordinate_clause():
    want = next(modal for modal in MODALS if modal.english == "want to")
    reason = Clause(pronoun("they"), Action(verb("pick up"), object=phrase("his", "sister")), modal=want)
    main = Clause(pronoun("they"), Action(verb("drive"), None, verb("drive").prepositions[0], phrase("the", "hotel")))
    sentence = Sentence(main, closing=Subordinate(BECAUSE, reason))
    assert text(sentence)[1] == "Sie fahren zum Hotel, weil sie seine Schwester abholen wollen."
    assert marked(sentence, "verb_final") == ["abholen", "wollen."]


def test_predicative_adjectives_take_no_ending():
    sentence = Sentence(Clause(phrase("the", "room", plural=True), Quality(adjective("dark")), Time.PAST))
    assert text(sentence) == ("The rooms were dark.", "Die Zimmer waren dunkel.")
    assert marked(sentence, "plural") == ["Zimmer"]
    assert marked(sentence, "adjective_ending") == []


def test_an_precedes_a_vowel():
    assert text(bought(phrase("a", "umbrella")))[0] == "She buys an umbrella."
    assert text(bought(phrase("a", "ugly", "hat")))[0] == "She buys an ugly hat."


def test_combinations_are_adjective_with_noun_and_subject_with_verb_and_object():
    sentence = bought(phrase("a", "ugly", "hat"))
    assert set(find_combinations(sentence)) == {("she", "buy", "hat"), ("ugly", "hat")}


def test_every_word_that_carries_a_phenomenon_names_a_known_one():
    sentence = bought(phrase("the", "old", "chair"))
    assert {name for word in render_german(sentence) for name in word.phenomena} <= set(PHENOMENA)


def test_case_belongs_to_the_verb():
    assert verb("thank").case == Case.DATIVE
    assert determiner("the") is THE
