"""Promises about translations: what keeps them, what breaks them, and mistakes in their file."""

import json

import pytest

from nmt.errors import UserError
from nmt.evaluation.promises import check, count_kept, has_errors, read_promises, report_promises

FILE = """\
- source: Take 5 mg.
  contains: 5 mg
  tag: numbers
- source: Acme Cloud is fast.
  contains: [Acme Cloud, fast]
  not: wolke
  severity: warning
- {source: On 3 May, matches: '3\\. ?Mai', tag: numbers}
"""


@pytest.fixture
def promises(tmp_path):
    (tmp_path / "p.yaml").write_text(FILE)
    return read_promises(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("translations", "faults"),
    [
        (["Nimm 5 mg.", "Acme Cloud is fast", "am 3. Mai"], [[], [], []]),
        (["5 MG", "Acme Cloud fast", "3.Mai"], [["does not contain '5 mg'"], [], []]),
        (["5 mg", "Acme-Wolke", "3 Mai"], [[], ["Acme Cloud", "fast", "contains 'wolke'"], ["does not match"]]),
    ],
)
def test_what_is_broken_is_named(promises, translations, faults):
    outcomes = promises.check(translations)
    for outcome, expected in zip(outcomes, faults, strict=True):
        assert len(outcome.faults) == len(expected)
        assert all(words in fault for words, fault in zip(expected, outcome.faults, strict=True))


def test_only_errors_fail(promises):
    assert not has_errors(promises.check(["5 mg", "", "3. Mai"]))
    assert has_errors(promises.check(["", "Acme Cloud fast", "3. Mai"]))


def test_the_report_names_file_line_and_counts_by_tag(promises, tmp_path):
    outcomes = promises.check(["5 mg", "Acme Cloud", "Mai"])
    assert count_kept(outcomes) == {"all": (1, 3), "numbers": (1, 2)}
    assert report_promises(outcomes).splitlines() == [
        f"{tmp_path}/p.yaml:4: warning: the translation does not contain 'fast'.",
        "    Acme Cloud is fast.",
        "    Acme Cloud",
        f"{tmp_path}/p.yaml:8: error: the translation does not match '3\\\\. ?Mai'.",
        "    On 3 May",
        "    Mai",
        "all: 1 of 3 promises kept",
        "numbers: 1 of 2 promises kept",
    ]
    record = json.loads(report_promises(outcomes, as_json=True))
    assert record["kept"]["numbers"] == {"kept": 1, "promises": 2}
    assert record["promises"][1]["not"] == ["wolke"] and record["promises"][1]["faults"] == ["does not contain 'fast'"]


def test_check_translates_each_source_as_a_whole(promises, tmp_path):
    class Upper:
        def translate(self, lines, *, split):
            assert not split
            return [line.upper() for line in lines]

    outcomes = check(Upper(), tmp_path / "p.yaml")
    assert [outcome.translation for outcome in outcomes] == [source.upper() for source in promises.sources]
    assert [bool(outcome.faults) for outcome in outcomes] == [True, True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- contains: x", r"p.yaml:1: the key 'source' is missing"),
        ("- source: x", r"p.yaml:1: expected at least one of contains, matches and not"),
        ("- {source: x, contans: y}", r"p.yaml:1: contans: unknown key. Did you mean 'contains'\?"),
        ("- {source: x, contains: y}\n- {source: x, matches: '('}", r"p.yaml:2: matches.0: '\(' is not a regular"),
        ("- {source: x, matches: 'a{9999999999}'}", r"p.yaml:1: matches.0: 'a\{9+\}' is not a regular expression: the"),
        ("- {source: x, contains: 5}", r"p.yaml:1: contains: expected a text, or a list of texts, found 5"),
        ("- {source: x, contains: y, severity: fatal}", "p.yaml:1: severity: expected error or warning, found 'fatal'"),
        ("- {source: x, contains: y, tag: all}", r"p.yaml:1: tag 'all' is the name of all promises together"),
        ("- x", r"p.yaml:1: expected keys such as 'source: TEXT'"),
        ("source: x", r"p.yaml: expected a list of promises"),
        ("[]", r"p.yaml: expected a list of promises"),
    ],
)
def test_mistakes_have_their_line(tmp_path, text, message):
    (tmp_path / "p.yaml").write_text(f"{text}\n")
    with pytest.raises(UserError, match=message):
        read_promises(tmp_path / "p.yaml")
