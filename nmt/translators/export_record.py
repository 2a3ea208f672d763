"""export.json, the record of how an export was made, which all kinds of exports have."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nmt.config.schema import DecodingConfig
from nmt.config.schema.section import STORED
from nmt.data.placeholders import is_record
from nmt.errors import UserError
from nmt.files import compute_file_digest, read_limited

FORMAT = 2
MAX_BYTES = 1 << 26  # a record holds the sentences of the sample that differ


def read_record(folder: Path, name: Path | str, *, limits: Sequence[str] = ()) -> dict[str, Any]:
    """Reads the record of an export.

    Args:
        folder: of the export.
        name: of the record's file in it.
        limits: the limits of a request that it must state.

    Raises:
        UserError: there is no such file, it or a file of the export is damaged, or its format is unknown.
    """
    path = folder / name
    if not path.exists():
        raise UserError(f"{folder} is not an export of this toolkit: it has no {name}.")
    content = read_limited(path, MAX_BYTES)
    try:
        record = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} is damaged: expected an object, found {type(record).__name__}.")
    if (found := record.get("format")) != FORMAT:
        is_newer = isinstance(found, int) and found > FORMAT
        raise UserError(
            f"{path} has format {found}; this version reads format {FORMAT}. "
            f"{'Update the toolkit.' if is_newer else 'Export the model again.'}"
        )
    _check_facts(path, record, limits)
    return record


def read_settings(record: Mapping[str, Any]) -> DecodingConfig:
    """Returns the settings that an export was made with."""
    return DecodingConfig.model_validate(record["decoding"], context=STORED)


def compute_digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Returns the digests of files of an export by their names, as export.json stores them."""
    return {name: compute_file_digest(folder / name) for name in names}


def check_digests(folder: Path, record: Mapping[str, Any]) -> None:
    """Compares the files of an export with the digests in its record; the first exports of format 2 have none.

    Raises:
        UserError: a file is missing or was changed.
    """
    digests = record.get("digests", {})
    for name, digest in (digests if isinstance(digests, dict) else {}).items():
        path = folder / name
        if Path(name).is_absolute() or ".." in path.parts[len(folder.parts) :]:
            raise UserError(f"{folder} is not an export of this toolkit: its export.json names the file {name}.")
        if not path.is_file():
            raise UserError(f"The export {folder} is incomplete: there is no file {path}. Copy it again.")
        if compute_file_digest(path) != digest:
            raise UserError(f"{path} is damaged: its checksum is not the one in export.json. Copy the export again.")


def _check_facts(path: Path, record: Mapping[str, Any], limits: Sequence[str]) -> None:
    """Raises UserError if what the translators read from a record is missing or of another type."""
    numbers = record.get("limits", {})
    for name in limits:
        number = numbers.get(name) if isinstance(numbers, dict) else None
        if not isinstance(number, int) or number < 1:
            raise UserError(f"{path} is damaged: limits.{name} is {number!r}, expected a number above 0.")
    source, target = record.get("source_language"), record.get("target_language")
    if not isinstance(source, str | None) or not isinstance(target, str):
        raise UserError(f"{path} is damaged: the languages are {source!r} and {target!r}, expected language codes.")
    if not isinstance(model := record.get("model", {}), dict):
        raise UserError(f"{path} is damaged: model is {model!r}, expected an object.")
    if not isinstance(share := model.get("multi_sentence_share", 0.0), int | float):
        raise UserError(f"{path} is damaged: model.multi_sentence_share is {share!r}, expected a number.")
    tags = record.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise UserError(f"{path} is damaged: tags is {tags!r}, expected a list of symbols.")
    if (given := record.get("placeholders")) is not None and not is_record(given):
        raise UserError(f"{path} is damaged: placeholders is {given!r}, expected their kinds and symbols_per_kind.")
    try:
        read_settings(record)
    except (KeyError, ValidationError) as error:
        first = "there are no settings" if isinstance(error, KeyError) else _explain_setting(error)
        raise UserError(f"{path} is damaged, or was written by another version of the toolkit: {first}.") from error


def _explain_setting(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, ('decoding', *first['loc'])))}: {first['msg']}"
