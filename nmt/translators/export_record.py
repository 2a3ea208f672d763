"""export.json, the record of how an export was made, which all kinds of exports have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt.config.schema import DecodingConfig
from nmt.errors import UserError

FORMAT = 2


def read_record(folder: Path, name: Path | str) -> dict[str, Any]:
    """Reads the record of an export.

    Args:
        folder: of the export.
        name: of the record's file in it.

    Raises:
        UserError: there is no such file, it is damaged, or its format is unknown.
    """
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not an export of this toolkit: it has no {name}.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / name} is damaged: {error}") from error
    if (found := record.get("format")) != FORMAT:
        is_newer = isinstance(found, int) and found > FORMAT
        raise UserError(
            f"{folder / name} has format {found}; this version reads format {FORMAT}. "
            f"{'Update the toolkit.' if is_newer else 'Export the model again.'}"
        )
    return record


def read_settings(record: Mapping[str, Any]) -> DecodingConfig:
    """Returns the settings that an export was made with."""
    return DecodingConfig.model_validate(record["decoding"])
