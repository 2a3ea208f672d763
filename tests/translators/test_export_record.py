"""export.json of another version, of other programs, or damaged."""

import json

import pytest

from nmt.errors import UserError
from nmt.translators.export_record import FORMAT, check_digests, compute_digests, read_record

RECORD = {"format": FORMAT, "source_language": "en", "target_language": "de", "decoding": {"beam_size": 5}}
RECORD |= {"limits": {"max_tokens": 60, "eos_id": 3}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "export.json is damaged: Expecting"),
        (b"\xff\xfe", "export.json is damaged: 'utf-8' codec"),
        (b"[" * 100_000, "export.json is damaged: maximum recursion depth"),
        (b"[1]", "export.json is damaged: expected an object, found list"),
        (b"{}", "export.json has format None; this version reads format 2. Export the model again"),
        ({"format": 3}, "export.json has format 3; this version reads format 2. Update the toolkit"),
        ({"format": 1}, "export.json has format 1; this version reads format 2. Export the model again"),
        ({"limits": {"max_tokens": 60}}, "export.json is damaged: limits.eos_id is None, expected a number above 0"),
        ({"limits": 7}, "export.json is damaged: limits.max_tokens is None, expected a number above 0"),
        ({"limits": {"max_tokens": "60"}}, "export.json is damaged: limits.max_tokens is '60'"),
        ({"target_language": None}, "export.json is damaged: the languages are 'en' and None"),
        ({"model": []}, r"export.json is damaged: model is \[\], expected an object"),
        ({"placeholders": {"kinds": [{}], "symbols_per_kind": 5}}, "export.json is damaged: placeholders is {'kinds'"),
        ({"model": {"multi_sentence_share": "all"}}, "damaged: model.multi_sentence_share is 'all'"),
        ({"decoding": {"beam_size": 0}}, "another version of the toolkit: decoding.beam_size: Input should be greater"),
        ({"decoding": {"beam": 5}}, "another version of the toolkit: decoding.beam: Extra inputs are not permitted"),
        ({"decoding": 5}, "another version of the toolkit: decoding: Input should be a valid dictionary"),
    ],
)
def test_a_record_of_another_program_is_one_message(tmp_path, content, words):
    content = content if isinstance(content, bytes) else json.dumps({**RECORD, **content}).encode()
    (tmp_path / "export.json").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_record(tmp_path, "export.json", limits=("max_tokens", "eos_id"))


def test_a_folder_in_place_of_a_record_is_reported(tmp_path):
    (tmp_path / "export.json").mkdir()
    with pytest.raises(UserError, match=r"Expected a file at .*export\.json, found a folder, device or pipe"):
        read_record(tmp_path, "export.json")


def test_files_that_were_changed_are_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    record = {"digests": compute_digests(tmp_path, ["a", "b"])}
    check_digests(tmp_path, record)
    check_digests(tmp_path, {})  # an export from before there were digests
    (tmp_path / "b").write_text("c")
    with pytest.raises(UserError, match=r"b is damaged: its checksum is not the one in export\.json"):
        check_digests(tmp_path, record)
    (tmp_path / "b").unlink()
    with pytest.raises(UserError, match=r"incomplete: there is no file .*b\. Copy it again"):
        check_digests(tmp_path, record)


@pytest.mark.parametrize("name", ["/proc/kcore", "../other", "variables/../../other"])
def test_files_outside_the_export_are_not_read(tmp_path, name):
    with pytest.raises(UserError, match=rf"is not an export of this toolkit: its export\.json names the file {name}\."):
        check_digests(tmp_path / "1", {"digests": {name: "0" * 32}})
