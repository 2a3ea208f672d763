"""Describes every command in Markdown, from the command line itself."""

from collections.abc import Iterator

import click
import typer

from nmt.cli.main import app


def list_commands(command: click.Command, name: str = "nmt") -> Iterator[tuple[str, click.Command]]:
    """Yields each command that does something, with its full name, in the order of `nmt --help`."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield from list_commands(inner, f"{name} {part}")


def describe_commands() -> str:
    """Returns a section for each command: what it does, how it is called, its arguments and its options."""
    return "\n".join(map(_describe, *zip(*list_commands(typer.main.get_command(app)), strict=True)))


def _describe(name: str, command: click.Command) -> str:
    # The width keeps the usage on one line.
    context = click.Context(command, info_name=name, terminal_width=1000, max_content_width=1000)
    usage = command.get_usage(context).partition("Usage: ")[2]
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
    rows = [f"| `{names.replace('|', '/')}` | {_escape(meaning)} |" for names, meaning in records]
    table = ["| Argument or option | Meaning |", "| --- | --- |", *rows]
    return "\n".join([f"## {name}\n", f"{_escape(command.help or '')}\n", f"    {usage}\n", *table, ""])


def _escape(text: str) -> str:
    """Returns text in which Markdown shows what would else be markup."""
    return " ".join(text.split()).translate({ord(one): f"\\{one}" for one in "|<>*_[]"})
