"""The commands that README, docs and recipes show: each exists, with the options and keys that it is given."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from nmt.cli.main import app
from nmt.config.reference import get_keys

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PAGES += sorted((REPOSITORY / "configs").glob("*.yaml"))
COMMAND = re.compile(r"(?:^|[\s`(|])nmt ([a-z].*)")


def shown(page: Path) -> Iterator[list[str]]:
    """Yields the arguments of each nmt command in the code of a page."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line for line in text.splitlines() if line.startswith(("    ", "#   "))]
    lines += re.findall(r"`(nmt [^`]+)`", text)
    for line in lines:
        if found := COMMAND.search(re.sub(r"\s#.*", "", line)):
            yield shlex.split(re.split(r"\s[|>;&]|[`)]", found[1])[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_on_a_page_exist(page):
    root = typer.main.get_command(app)
    for name, *arguments in shown(page):
        command = root.commands.get(name)
        assert command is not None, f"{page.name}: nmt {name}"
        if isinstance(command, click.Group):
            command, arguments = command.commands[arguments[0]], arguments[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        for argument in arguments:
            assert not argument.startswith("-") or argument == "-" or argument.split("=")[0] in known, (
                f"{page.name}: nmt {name} {argument}"
            )
            if key := re.fullmatch(r"([a-z_]+\.[a-z_0-9.]+)=.*", argument):
                dotted = ".".join("N" if part.isdecimal() else part for part in key[1].split("."))
                assert dotted in get_keys(), f"{page.name}: {argument}"


def test_the_pages_show_commands():
    assert sum(len(list(shown(page))) for page in PAGES) > 40
