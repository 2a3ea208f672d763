"""Reads YAML into plain values with their line numbers, and writes YAML that reads back to the same values.

Plain words follow YAML 1.2, not the YAML 1.1 of PyYAML: `no` is the code of Norwegian, not false, and 1e-3 is a number.
"""

import math
import re
from typing import Any

import yaml

from nmt.errors import UserError

# Far more than any configuration needs. PyYAML takes a minute for some megabytes, and seconds for a thousand levels.
MAX_CHARACTERS, MAX_DEPTH = 1_000_000, 32

Place = tuple[str | int, ...]  # keys and list indexes, from the top of the file down to one value

WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# 010 is 8 in YAML 1.1 and 10 in YAML 1.2. It stays text, as do numbers beyond 64 bits, and so is rejected by every
# field that expects a number.
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or YAML 1.2 would read as a number."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Unquoted, PyYAML writes U+0085 and similar characters as they are, and then reads them as a space.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{NUMBER.pattern})\\Z"), list("-+.0123456789"))


def write_yaml(values: object) -> str:
    """Returns YAML with the keys in the order of `values`, for `read_yaml` and any other reader."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(text: str, name: str, base: Place = ()) -> tuple[Any, dict[Place, int]]:
    """Reads YAML.

    Args:
        text: the YAML.
        name: the name of its file, for messages.
        base: the place where the value will stand; it begins each place that is returned.

    Returns:
        The value, and the line of each key and list entry by place, counted from 1.

    Raises:
        UserError: the text is not YAML, has a key twice, uses tags or aliases, or is far too large or too deep.
    """
    lines: dict[Place, int] = {}
    try:
        _check_structure(text, name)
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        return None if node is None else _value(node, base, lines, name), lines
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(filter(None, (error.context, error.problem)))
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise UserError(f"{where}: {problem}.") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{name}:{line}: the character U+{error.character:04X} is not allowed.") from error


def _check_structure(text: str, name: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{name}: expected at most {MAX_CHARACTERS:,} characters, found {len(text):,}.")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"{name}:{line}: nested too deeply: expected at most {MAX_DEPTH} levels.")
        # Nine levels of aliases to lists of aliases are a few hundred bytes, and more values than any memory holds.
        if isinstance(event, yaml.AliasEvent):
            raise UserError(
                f"{name}:{line}: expected a value, found the alias *{event.anchor}; write the value itself."
            )


def _value(node: yaml.Node, place: Place, lines: dict[Place, int], name: str) -> Any:
    if node.tag.rpartition(":")[2] not in ("str", "seq", "map"):
        raise UserError(f"{name}:{_line(node)}: expected a value without a tag, found {node.tag}.")
    if isinstance(node, yaml.MappingNode):
        return _section(node, place, lines, name)
    if isinstance(node, yaml.SequenceNode):
        lines.update({(*place, index): _line(entry) for index, entry in enumerate(node.value)})
        return [_value(entry, (*place, index), lines, name) for index, entry in enumerate(node.value)]
    return _scalar(node)


def _section(node: yaml.MappingNode, place: Place, lines: dict[Place, int], name: str) -> dict[str, Any]:
    section: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{name}:{_line(key)}: expected the name of a key, found a list or a section.")
        here = (*place, key.value)
        if key.value in section:
            dotted = ".".join(map(str, here))
            raise UserError(f"{name}:{_line(key)}: {dotted}: given twice, first on line {lines[here]}.")
        lines[here] = _line(key)
        section[key.value] = _value(value, here, lines, name)
    return section


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    text: str = node.value
    if getattr(node, "style", None):  # quoted, or a block of lines
        return text
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
