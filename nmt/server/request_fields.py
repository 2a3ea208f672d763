"""Reads the JSON bodies of nmt's own paths: their fields as pydantic models, with one message for a mistake."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from nmt.errors import RequestError, suggest_name
from nmt.server.limits import Limits, check_texts, count_characters
from nmt.server.tfserving_bodies import abbreviate, read_json
from nmt.translators.demands import Demand, make_demands

Fields = TypeVar("Fields", bound=BaseModel)

EXPECTED = {"text": "a text or a list of texts", "pairs": "a list of objects with source and target"}


def as_whole_number(value: Any) -> Any:
    """Turns 4.0 into 4: JSON has one type of number, and some clients write every number with a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _list_texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"expected {EXPECTED['text']}")
    return texts


Texts = Annotated[list[str], BeforeValidator(_list_texts)]
"""One text or several."""


def read_fields(model: type[Fields], body: bytes) -> Fields:
    """Reads the fields of a request.

    Raises:
        RequestError: 400; the message names the wrong key and what was expected of it.
    """
    document = read_json(body)
    for key in document:
        if key not in model.model_fields:
            raise RequestError(400, f"{key[:80]}: unknown key.{suggest_name(key[:80], model.model_fields)}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        [first, *_] = error.errors()
        place = ".".join(map(str, first["loc"]))
        match first["type"]:
            case "missing":
                reason = f"missing; expected {EXPECTED[place]}" if place in EXPECTED else "missing"
            case "value_error":
                reason = str(first["ctx"]["error"])
            case _:
                reason = f"{first['msg'].lower()}; found {abbreviate(first['input'])[:80]}"
        raise RequestError(400, f"{place}: {reason}.") from error


def read_demands(
    prefix: str | list[str] | None, required: list[str] | list[list[str]] | None, limits: Limits, *, count: int
) -> list[Demand] | None:
    """Returns the prefix and the phrases of each translation; None if there are none.

    Raises:
        UserError: their number is another one, or one of them cannot be met.
        RequestError: 400, one of them is too long.
    """
    prefixes = [prefix] if isinstance(prefix, str) else prefix
    is_flat = required is not None and all(isinstance(one, str) for one in required)
    lists: Any = [required] if is_flat and count == 1 else required
    demands = make_demands(count, prefixes, lists)
    check_texts([demand.prefix for demand in demands or ()], limits, "prefix")
    check_texts(["".join(demand.required) for demand in demands or ()], limits, "list of required phrases")
    return demands


def count_demanded(demand: Demand) -> int:
    """Returns the characters that are demanded of a translation, of which the search reads at most as many tokens."""
    return sum(map(count_characters, (demand.prefix, *demand.required)))
