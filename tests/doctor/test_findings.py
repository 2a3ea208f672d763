import json

import pytest

from nmt.doctor.findings import Finding, as_json, as_table, has_errors, report_count

FINDINGS = [Finding("text", "ok", "60 pairs"), Finding("memory", "error", "too little: [1 MB]")]


def test_only_an_error_would_fail_a_run():
    assert not has_errors([Finding("a", verdict, "") for verdict in ("ok", "note", "warning")])
    assert has_errors(FINDINGS)


def test_the_table_has_one_row_per_finding():
    header, _, first, second = as_table(FINDINGS, width=80).splitlines()
    assert header.split() == ["Check", "Verdict", "Found"]
    assert first.split(maxsplit=2) == ["text", "ok", "60 pairs"]
    assert second.split(maxsplit=2) == ["memory", "error", "too little: [1 MB]"]


def test_names_and_text_are_printed_as_they_are():
    *_, row = as_table([Finding("a[b]/:cat:.en", "ok", "[/b] :100: ok")], width=80).splitlines()
    assert row.split(maxsplit=2) == ["a[b]/:cat:.en", "ok", "[/b] :100: ok"]
    found = "first line 2: \\[x^2\\] and \\[/b] and [red] \\"
    *_, row = as_table([Finding("dev", "ok", found)], width=80).split("\n")
    assert row.split(maxsplit=2) == ["dev", "ok", found]
    assert "\u2028" in as_table([Finding("dev", "ok", "a\u2028b")], width=80)


def test_a_long_name_leaves_room_for_the_finding():
    name = "/a/very/long/path/of/a/test/set/that/nobody/would/ever/want/to/type.en in training"
    lines = as_table([Finding(name, "ok", "20 of 1,014 sources are in the training text")], width=80).splitlines()
    assert len(lines) == 2 + 3
    assert "20 of 1,014 sources are in" in lines[2]


def test_json_has_the_same_findings():
    record = json.loads(as_json(FINDINGS))
    assert record["would_fail"] is True
    assert record["findings"][1] == {"check": "memory", "verdict": "error", "found": "too little: [1 MB]"}


@pytest.mark.parametrize(
    ("number", "verdict", "found"), [(0, "ok", "none"), (1200, "warning", "1,200 lines, first a.txt:3")]
)
def test_a_count_of_zero_is_ok(number, verdict, found):
    assert report_count("odd", number, "lines", "a.txt:3") == Finding("odd", verdict, found)
