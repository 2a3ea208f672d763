"""`nmt info`: what a folder holds, and every setting of its search."""

import json
import re
from pathlib import Path

import pytest

from nmt.config.schema import DecodingConfig
from nmt.errors import UserError
from nmt.translators.describe import describe

FORMAT_1 = Path(__file__).parents[1] / "format_1"


def settings_in(text: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", text))


def as_yaml(settings: dict) -> dict[str, str]:
    return {name: "null" if value is None else str(value) for name, value in settings.items()}


def test_a_model_folder_is_described_with_all_its_settings():
    text = describe(FORMAT_1 / "model")
    assert re.search(r"^kind +model folder$", text, re.MULTILINE)
    assert re.search(r"^weights +9,144$", text, re.MULTILINE)
    assert re.search(r"^confidence +not fitted$", text, re.MULTILINE)
    assert settings_in(text) == as_yaml(DecodingConfig(max_length=40).model_dump())
    assert max(map(len, text.splitlines())) <= 120


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "served" / "2"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    return folder


def test_an_export_is_described_by_its_record(export: Path):
    settings = DecodingConfig(beam_size=3, coverage_penalty=0.25).model_dump()
    record = {"format": 2, "target_language": "de", "decoding": settings, "operations": {"names": ["Add"]}}
    (export / "assets.extra" / "export.json").write_text(json.dumps(record))
    text = describe(export.parent)
    assert f"folder       {export}" in text and 'target_language "de"' in text and "Add" not in text
    assert settings_in(text) == as_yaml(settings)


def test_a_saved_model_from_elsewhere_is_named_as_such(export: Path):
    assert "SavedModel, not an export of this toolkit" in describe(export)


def test_a_folder_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(UserError):
        describe(tmp_path)
