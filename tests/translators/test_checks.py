"""What may be wrong with a translation, by kind. Expected values are by hand."""

import time
from dataclasses import replace

import numpy as np
import pytest

from nmt.decoding.alignment import TokenAttention
from nmt.translators.checks import CUT_OFF, find_repetition, find_warnings
from nmt.translators.hypothesis import Hypothesis


def kinds(source: str, target: str, **facts: object) -> list[str]:
    return [one.kind for one in find_warnings(source, replace(Hypothesis(target, 0.0, 0.0), **facts))]


@pytest.mark.parametrize(
    ("text", "unit", "copies"),
    [
        ("the man the man the man.", "the man", 3),
        ("A man and a man and a man and a woman", "man and a", 3),
        ("sehr, sehr, sehr gut", "sehr", 3),
        ("in the park in the park in the park in the", "in the park", 3 + 2 / 3),
        ("a dog on the grass, a dog on the grass", "a dog on the grass", 2),
        ("Donaudampfschiffhundehundehundehunde", "hunde", 4),
        ("とても大きいとても大きいとても大きいとても大きい", "とても大きい", 4),
    ],
)
def test_repetition_is_found_with_its_copies(text, unit, copies):
    found = find_repetition(text)
    assert found is not None and (found.unit, found.copies) == (unit, pytest.approx(copies))


@pytest.mark.parametrize(
    "text", ["", "very very good", "bye bye", "ha ha ha", "the dog and the cat and the bird", "...", "Schifffahrt 2000"]
)
def test_common_text_is_not_repetition(text):
    assert find_repetition(text) is None


def test_a_translation_may_repeat_what_the_source_repeats():
    assert kinds("very, very, very good", "sehr, sehr, sehr gut") == []
    assert kinds("very, very good", "sehr, sehr, sehr gut") == ["repetition"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("It costs 1,000.50 euros.", "Es kostet 1.000,50 Euro."),
        ("10,000 people", "10 000 Menschen"),
        ("10000 people", "10.000 Menschen"),
        ("on 12/25/2020 at 10:30", "am 25.12.2020 um 10.30 Uhr"),
        ("３００円", "300 yen"),
        ("१२३", "123"),
        ("3 men", "drei Männer"),
        ("See https://a.org/x1, or mail me@b.com.", "Siehe https://a.org/x1 oder schreib an me@b.com."),
        ("2.http://a.org/12 x@@me@b.com", "http://a.org/12 me@b.com"),
        ("Press <b>OK</b>, {name}, %s!", "Drück <b>OK</b>, {name}, %s!"),
        ("5 < 6 and 100 % of us", "5 < 6 und 100 % von uns"),
    ],
)
def test_what_is_kept_is_no_warning(source, target):
    assert kinds(source, target) == []


@pytest.mark.parametrize(
    ("source", "target", "kind", "message"),
    [
        ("in 1984 and 2024", "in 1984", "lost_number", "Numbers missing in the translation: 2024."),
        ("12 of 13", "13 of 13", "lost_number", "Numbers missing in the translation: 12."),
        ("1.5", "15,5", "lost_number", "Numbers missing in the translation: 1.5."),
        ("at https://a.org/?q=10.", "at https://a.org", "lost_address", "Addresses missing in the translation: "),
        ("<b>OK</b>", "<b>OK", "lost_tag", "Tags missing in the translation: </b>."),
        ("Hi {name}, {{x}}", "Hi {{x}}", "lost_placeholder", "Placeholders missing in the translation: {name}."),
        ("%1$s of %d", "%1$s von", "lost_placeholder", "Placeholders missing in the translation: %d."),
    ],
)
def test_what_is_lost_is_named(source, target, kind, message):
    [found] = find_warnings(source, Hypothesis(target, 0.0, 0.0))
    assert found.kind == kind and found.message.startswith(message)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a" * 60_000 + " 10", "10"),
        (";".join(str(number) for number in range(10, 8_000)), ";".join(str(number) for number in range(300))),
    ],
)
def test_the_time_of_checks_does_not_grow_with_the_square_of_a_text(source, target):
    started = time.process_time()
    kinds(source, target)
    assert time.process_time() - started < 3  # more than ten if time grew with the square of the length


def test_words_without_attention_are_named_where_there_is_attention():
    weights = np.array([[0.9, 0.04, 0.0, 0.06], [0.86, 0.05, 0.0, 0.09], [0.0, 0.0, 0.9, 0.1]])  # the last row is EOS
    tokens = ["▁small", "▁dogs", "▁run"]
    attention = [TokenAttention(tokens, ["▁kleine", "▁Hunde"], weights)]
    [found] = find_warnings("small dogs run", Hypothesis("kleine Hunde", 0.0, 0.0, attention=attention))
    # "run" received nothing either, but short words are often part of a neighbour's translation.
    assert (found.kind, found.message.endswith("left out: dogs.")) == ("uncovered", True)
    tagged = [TokenAttention(["<de>", *tokens], attention[0].target, np.insert(weights, 0, 0.0, axis=1))]
    assert find_warnings("small dogs run", Hypothesis("kleine Hunde", 0.0, 0.0, attention=tagged), "<de>") == (found,)


def test_a_translation_that_was_cut_off_is_marked():
    assert find_warnings("a", Hypothesis("b", 0.0, 0.0, is_finished=False)) == (CUT_OFF,)
    assert find_warnings("a", Hypothesis("b", 0.0, 0.0, is_finished=None)) == ()
