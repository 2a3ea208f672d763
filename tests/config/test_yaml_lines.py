import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config.yaml_lines import read_yaml, write_yaml
from nmt.errors import UserError

SCALARS = st.none() | st.booleans() | st.integers(-(10**18) + 1, 10**18 - 1) | st.text(max_size=9)
SCALARS |= st.floats(allow_nan=False, allow_infinity=False)
SCALARS |= st.text("0123456789.eE+-_:xo", max_size=6)  # looks like a number, and often is none
SCALARS |= st.text("\x85\u2028\u2029\ufeff\xa0\n \t#a", max_size=6)  # what YAML folds, strips or escapes
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner), max_leaves=8
)


@settings(deadline=None)  # a busy machine is no failure
@given(VALUES)
def test_written_values_read_back_the_same_and_of_the_same_type(value):
    again, _ = read_yaml(write_yaml(value), "x")
    assert repr(again) == repr(value)


@settings(deadline=None)  # a busy machine is no failure
@given(VALUES)
def test_other_readers_take_the_same_from_what_we_write(value):
    assert yaml.safe_load(write_yaml(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5E+2", 150.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("0.00013322034416585870", 0.0001332203441658587),
        ("-7", -7),
        ("0", 0),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        ("no", "no"),
        ("off", "off"),
        ("True", True),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("'1'", "1"),
        ('"null"', "null"),
        ("|\n  12\n", "12\n"),
        ("[a, {b: 1}]", ["a", {"b": 1}]),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(text, value):
    again, _ = read_yaml(text, "x")
    assert (again, type(again)) == (value, type(value))


def test_lines_are_those_of_keys_and_entries():
    text = "a:\n\n  b: 1\nc:\n  - d: 2\n    e: 3\n  -\n    - 4\n"
    _, lines = read_yaml(text, "x")
    at = {("a",): 1, ("a", "b"): 3, ("c",): 4, ("c", 0): 5, ("c", 0, "d"): 5, ("c", 0, "e"): 6, ("c", 1): 8}
    assert lines == at | {("c", 1, 0): 8}


def test_places_begin_with_the_base():
    assert read_yaml("{b: [1]}", "x", ("a", 0))[1] == {("a", 0, "b"): 1, ("a", 0, "b", 0): 1}


def test_aliases_are_refused_before_they_multiply():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(UserError, match=r"x:2: expected a value, found the alias \*a0; write the value itself\."):
        read_yaml("\n".join(levels), "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [1,\n", "x:3:1: while parsing a flow node, expected the node content, but found '<stream end>'."),
        ("a:\n\tb: 1", "x:2:1: while scanning for the next token, found character '\\t' that cannot start any token."),
        ("a: *b", "x:1: expected a value, found the alias *b; write the value itself."),
        ("a: 1\n---\nb: 2", "x:2:1: expected a single document in the stream, but found another document."),
        ("a: 1\nb: {c: 2}\n\na: 3", "x:4: a: given twice, first on line 1."),
        ("a:\n  - {b: 1,\n    b: 2}", "x:3: a.0.b: given twice, first on line 2."),
        ("a: 1\nb: !!set {c}", "x:2: expected a value without a tag, found tag:yaml.org,2002:set."),
        ("[a]: 1", "x:1: expected the name of a key, found a list or a section."),
        ("a: &b [*b]", "x:1: expected a value, found the alias *b; write the value itself."),
        ("[" * 33 + "]" * 33, "x:1: nested too deeply: expected at most 32 levels."),
        ("a:\n" + "- " * 100_000, "x:2: nested too deeply: expected at most 32 levels."),
        ("- a\n" * 300_000, "x: expected at most 1,000,000 characters, found 1,200,000."),
        ("a: 1\nb: \0", "x:2: the character U+0000 is not allowed."),
    ],
)
def test_what_is_no_yaml_of_ours_is_told(text, expected):
    with pytest.raises(UserError) as caught:
        read_yaml(text, "x")
    assert str(caught.value) == expected
