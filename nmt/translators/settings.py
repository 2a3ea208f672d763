"""Other settings for a translator that is open."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from nmt.config.reference import as_words, get_keys
from nmt.config.schema import CHOICE_KEYS, SearchSettings
from nmt.errors import UserError, suggest_name

# Not settings of the search, so that they can be changed in an export.
CHANGEABLE, TAG = "split_sentences", "tag"

Settings = TypeVar("Settings", bound=SearchSettings)


def change_settings(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Returns settings with other values; None leaves one unchanged.

    Raises:
        UserError: there is no such setting, its value is invalid, or it has no effect beside the others.
    """
    fields = type(settings).model_fields
    for name in changes:
        if name not in fields:
            raise UserError(f"There is no decoding setting '{name}'.{suggest_name(name, fields)}")
    before = settings.model_dump()
    changed = {name: value for name, value in changes.items() if value is not None and value != before[name]}
    try:
        return type(settings).model_validate({**before, **changed}, strict=True, context=frozenset(changed))
    except ValidationError as error:
        raise UserError("\n".join(_explain(one) for one in error.errors())) from error


def change_fixed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Returns the settings of an export with other values; None leaves one unchanged.

    Raises:
        UserError: there is no such setting, its value is invalid, or the search reads it, so that it is fixed.
    """
    changed = change_settings(settings, changes)
    for name in changes:
        before, after = getattr(settings, name), getattr(changed, name)
        if before != after and name not in (CHANGEABLE, TAG):
            # An export with one of CHOICE_KEYS is refused, too.
            again = "" if name in CHOICE_KEYS else "export the model again with that setting, or "
            raise UserError(
                f"This export was made with decoding.{name} {as_words(before)} and cannot translate with "
                f"{as_words(after)}: {again}translate with the model itself."
            )
    return changed


def _explain(error: Any) -> str:
    if error["type"] == "value_error":  # several settings that do not fit together
        return f"decoding: {error['ctx']['error']}"
    name = error["loc"][0]
    return f"decoding.{name}: expected {get_keys()[f'decoding.{name}'].kind}, found {error['input']!r}."
