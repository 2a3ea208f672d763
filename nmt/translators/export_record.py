"""What an export's export.json says of it, whichever kind it is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt.errors import UserError, nearest

FORMAT = 1


def read_record(folder: Path, name: Path | str) -> dict[str, Any]:
    """Reads the record that lies under a name in the folder of an export.

    Raises:
        UserError: there is none, or it is of another format.
    """
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no export of this toolkit: it has no {name}.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / name} is damaged: {error}") from error
    if record.get("format") != FORMAT:
        raise UserError(
            f"{folder / name} has format {record.get('format')}; this version reads format {FORMAT}. "
            "Update the toolkit."
        )
    return record


def check_settings(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Raises UserError where a change that is not None differs from what an export was made with."""
    for key, value in changes.items():
        if key not in settings:
            raise UserError(f"There is no decoding setting '{key}'.{nearest(key, settings)}")
        if value is not None and value != settings[key]:
            raise UserError(
                f"This export was made with decoding.{key} {settings[key]} and cannot translate with {value}: "
                "export the model anew with that setting, or translate with the model itself."
            )
