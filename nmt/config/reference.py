"""The reference of the configuration keys, generated from the schema: as text, as a page, and for error messages."""

import difflib
import functools
import json
import textwrap
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nmt.config.schema import Config
from nmt.errors import UserError, suggest_name

Schema = dict[str, Any]  # a part of the JSON schema that pydantic makes of Config

BOUNDS = {"minimum": "of {} or more", "exclusiveMinimum": "above {}"}
BOUNDS |= {"maximum": "at most {}", "exclusiveMaximum": "below {}"}
REGENERATE = "nmt config explain --markdown > docs/reference/configuration.md"
INTRODUCTION = f"""\
<!-- Generated from nmt/config/schema/: {REGENERATE} -->

# Configuration

A configuration is a YAML file with the sections below. Any key can be overridden on the command line, for example
`training.batch_size=96` or `data.train.0.source=train.de`. Values are read as YAML, so `null` means no value. In key
names, N stands for the index of a list entry, counted from 0.

An unknown key, a value of the wrong type or an impossible combination stops the command. The message names the file,
the line and the nearest valid key. `nmt config explain KEY` describes one key or section.
"""


@dataclass(frozen=True)
class Key:
    """A configuration key as users see it."""

    name: str  # dotted; N stands for any index of a list
    kind: str  # type and range in words
    default: str  # as in YAML; "required" if there is none, "" for sections
    meaning: str


def explain(key: str | None = None, *, markdown: bool = False) -> str:
    """Returns the reference of one key, of a section with all its keys, or of all keys.

    Args:
        key: dotted; None means all keys.
        markdown: return a table, or docs/reference/configuration.md if there is no key, instead of plain text.

    Raises:
        UserError: the key does not exist.
    """
    if key is None:
        return make_reference_page() if markdown else "\n".join(map(_paragraph, get_keys().values()))
    name = ".".join("N" if part.isdecimal() else part for part in key.split("."))
    if name not in get_keys():
        raise UserError(f"There is no configuration key '{key}'.{suggest_key(name)}")
    chosen = [one for one in get_keys().values() if f"{one.name}.".startswith(f"{name}.")]
    return _table(chosen) if markdown else "\n".join(map(_paragraph, chosen))


def make_reference_page() -> str:
    """Returns the text of docs/reference/configuration.md, which has one table per section."""
    top = [key for key in get_keys().values() if "." not in key.name]
    sections = [key for key in top if key.kind == "a section"]
    parts = [INTRODUCTION, "## The run\n", _table(key for key in top if key not in sections)]
    for section in sections:
        inside = (key for key in get_keys().values() if key.name.startswith(f"{section.name}."))
        parts += [f"## {section.name}\n\n{section.meaning}\n", _table(inside)]
    return "\n".join(parts)


@functools.cache
def get_keys() -> dict[str, Key]:
    """Returns all keys by their dotted names, each section before its keys."""
    return {key.name: key for key in _inside("", _schema())}


def suggest_key(unknown: str, sections: Collection[str] = ()) -> str:
    """Returns " Did you mean 'x'?" for an unknown dotted key, or "" if no key is close.

    Prefers a key of the same name in another section, then a similar key of the same section, then any similar key.

    Args:
        unknown: the key.
        sections: names of the sections whose keys are accepted; empty for all.
    """
    section, _, name = unknown.rpartition(".")
    accepted = [key for key in get_keys() if not sections or key.partition(".")[0] in sections]
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(accepted)}
    if name in elsewhere:
        return f" Did you mean '{elsewhere[name]}'?"
    siblings = [key.rpartition(".")[2] for key in accepted if key.rpartition(".")[0] == section]
    similar = difflib.get_close_matches(name, elsewhere, n=1)
    return suggest_name(name, siblings) or "".join(f" Did you mean '{elsewhere[one]}'?" for one in similar)


def as_words(value: object) -> str:
    """Returns a value as one line of YAML; text is not quoted."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@functools.cache
def _schema() -> Schema:
    return Config.model_json_schema()


def _inside(prefix: str, section: Schema) -> Iterator[Key]:
    for name, schema in section["properties"].items():
        default = "required" if name in section.get("required", ()) else as_words(schema["default"])
        yield from _keys(prefix + name, schema, default)


def _keys(name: str, schema: Schema, default: str) -> Iterator[Key]:
    """Yields one key, followed by the keys of the section or list that it holds."""
    forms = schema.get("anyOf") or schema.get("oneOf") or [schema]
    section = next(filter(None, map(_section, schema.get("oneOf", [schema]))), None)
    meaning = schema.get("description") or (section or {}).get("description") or "One entry of the list."
    if section and default != "required":
        default = ""
    yield Key(name, _kind(schema), default, " ".join(meaning.split()))
    if section:
        yield from _inside(f"{name}.", section)
    for form in forms:
        if form.get("type") == "array":
            yield from _keys(f"{name}.N", form["items"], "")


def _section(schema: Schema) -> Schema | None:
    return _schema()["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else None


def _kind(schema: Schema) -> str:
    match schema:
        case {"anyOf": [some, {"type": "null"}]}:
            return f"null or {_kind(some)}"
        case {"oneOf": forms}:
            return " or ".join(map(_kind, forms))
        case {"enum": choices}:
            return f"one of {', '.join(choices)}"
        case {"$ref": _}:
            return "a section"
        case {"type": "array", "items": items}:
            count = f"{schema['minItems']} or more entries" if "minItems" in schema else "entries"
            return f"a list of {count}, each {_kind(items)}"
        case {"type": "string"}:
            return "a path" if schema.get("format") == "path" else "text"
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "integer"}:
            return _bounded("a whole number", schema)
        case {"type": "number"}:
            return _bounded("a number", schema)
    raise NotImplementedError(f"no words for {schema}")


def _bounded(kind: str, schema: Schema) -> str:
    bounds = {name: schema[name] for name in BOUNDS if name in schema}
    if schema["type"] == "integer" and "exclusiveMinimum" in bounds:
        bounds = {"minimum": bounds.pop("exclusiveMinimum") + 1} | bounds
    if bounds.keys() == {"minimum", "maximum"}:
        return f"{kind} from {bounds['minimum']:.15g} to {bounds['maximum']:.15g}"
    # pydantic 2.9, the oldest supported, writes whole bounds as 0.0 and 1.0.
    limits = " and ".join(BOUNDS[name].format(f"{bound:.15g}") for name, bound in bounds.items())
    return f"{kind} {limits}".rstrip()


def _paragraph(key: Key) -> str:
    default = {"required": "; required", "": ""}.get(key.default, f"; default {key.default}")
    text = textwrap.fill(key.meaning, 100, initial_indent="    ", subsequent_indent="    ")
    return f"{key.name}: {key.kind}{default}\n{text}\n"


def _table(rows: Iterable[Key]) -> str:
    lines = ["| Key | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{key.name}` | {key.kind} | {key.default} | {key.meaning} |" for key in rows]
    return "\n".join(lines) + "\n"
