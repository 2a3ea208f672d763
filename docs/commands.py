"""Describes every command in Markdown, from the command line itself."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from nmt.cli.main import app

VALUES = {"str": "TEXT", "int": "N", "float": "X", "path": "PATH"}


def list_commands(command: Any, name: str = "nmt") -> Iterator[tuple[str, Any]]:
    """Yields each command that does something, with its full name, in the order of `nmt --help`."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield from list_commands(inner, f"{name} {part}")


def describe_commands() -> str:
    """Returns a section for each command: what it does, how it is called, its arguments and its options."""
    return "\n".join(map(_describe, *zip(*list_commands(typer.main.get_command(app)), strict=True)))


def _describe(name: str, command: Any) -> str:
    # The width keeps the usage on one line.
    context = command.context_class(command, info_name=name, terminal_width=1000, max_content_width=1000)
    usage = command.get_usage(context).partition("Usage: ")[2].translate(dict.fromkeys(map(ord, "{}")))
    records = [one.get_help_record(context) for one in command.get_params(context) if one.name != "help"]
    rows = [f"| `{_name_value(*record)}` | {_escape(record[1])} |" for record in filter(None, records)]
    table = ["| Argument or option | Meaning |", "| --- | --- |", *rows]
    return "\n".join([f"## {name}\n", f"{_escape(command.help or '')}\n", f"    {usage}\n", *table, ""])


def _name_value(names: str, meaning: str) -> str:
    """Returns the names of an option with the kind of its value in one word, or the name of an argument alone."""
    names = names.replace("|", "/")
    if not names.startswith("-"):
        return names.partition(" ")[0]
    return re.sub(r"<(?:list\[)?([\w/]+)[^>]*>", lambda kind: VALUES.get(kind[1].lower(), kind[1]), names)


def _escape(text: str) -> str:
    """Returns text in which Markdown shows what would else be markup."""
    return " ".join(text.split()).translate({ord(one): f"\\{one}" for one in "\\|<>*_[]"})
