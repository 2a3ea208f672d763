import pytest

from nmt.demo.lexicon import ADJECTIVES, MODALS, NOUNS, VERBS, Agreement, Finite, add_s


def test_there_are_three_hundred_words_of_content():
    assert len(NOUNS) + len(ADJECTIVES) + len({verb.english for verb in VERBS}) >= 300


def test_no_noun_or_adjective_is_entered_twice():
    for words in ([noun.english for noun in NOUNS], [adjective.english for adjective in ADJECTIVES]):
        assert len(words) == len(set(words))


def test_a_verb_that_is_entered_twice_has_one_german_form():
    assert len({(verb.english, verb.prefix, verb.infinitive) for verb in VERBS}) == len(
        {verb.english for verb in VERBS}
    )


def test_singular_and_plural_differ_in_english():
    countable = [noun for noun in NOUNS if noun.countable]
    assert {noun.english for noun in countable}.isdisjoint(noun.english_plural for noun in countable)
    assert all(noun.german_plural for noun in countable)


@pytest.mark.parametrize(
    ("ending", "gender"),
    [("erin", "f"), ("ung", "f"), ("erei", "f"), ("thek", "f"), ("tchen", "n"), ("dchen", "n")],
)
def test_gender_follows_from_these_endings(ending, gender):
    assert {noun.gender for noun in NOUNS if noun.german.endswith(ending)} == {gender}


def test_weak_nouns_are_masculine_and_end_in_n_everywhere_else():
    weak = [noun for noun in NOUNS if noun.weak]
    assert weak and all(noun.gender == "m" and noun.german_plural.endswith("n") for noun in weak)


def test_participles_keep_the_separable_prefix_in_front():
    separable = [verb for verb in VERBS if verb.prefix]
    assert len(separable) > 20
    assert all(verb.participle.startswith(verb.prefix) for verb in separable)
    assert all(verb.participle.endswith(("t", "en")) for verb in VERBS)


@pytest.mark.parametrize(
    ("english", "first", "third"),
    [
        ("smile", "lächle", "lächelt"),
        ("feed", "füttere", "füttert"),
        ("work", "arbeite", "arbeitet"),
        ("eat", "esse", "isst"),
    ],
)
def test_finite_forms(english, first, third):
    finite = next(verb.finite for verb in VERBS if verb.english == english)
    assert (finite.first, finite.third) == (first, third)


def test_a_finite_verb_agrees():
    forms = Finite("bin", "ist", "sind")
    assert [forms.get_form(agreement) for agreement in Agreement] == ["bin", "ist", "sind"]


def test_modals_have_one_singular_in_german_but_for_the_future():
    assert [modal.german for modal in MODALS if modal.finite.first != modal.finite.third] == ["werden"]


def test_the_s_goes_to_the_first_word():
    assert add_s("watch television") == "watches television"
