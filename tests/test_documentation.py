"""What README, docs and recipes show: commands that exist, programs that run, and a map of all folders."""

import fnmatch
import functools
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from markdown_it import MarkdownIt

import nmt
from nmt import errors
from nmt.cli.main import app
from nmt.config.file import load_config, read_overrides
from nmt.config.reference import get_keys
from nmt.errors import UserError

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
TEXTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *NOTEBOOKS]
PAGES = TEXTS + sorted((REPOSITORY / "configs").glob("*.yaml"))
COMMAND = re.compile(r"(?:^|[\s`(|])nmt ([a-z].*)")
FENCED = re.compile(r"^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Programs that other tests run: against a server, and with a LiteRT export.
ELSEWHERE = {"docs/how-to/clients.md"}
# The first word of a line of commands, and the lines that tests run: here, and in tests/server/test_app.py.
PROGRAM_NAMES = (
    "nmt make python pip curl docker kubectl ray srun tensorboard "
    "bash cat cd cut echo export for git head paste printf sed sort tar wget zcat zstd"
)
SHELL = re.compile(rf"^ *(?:\$ )?((?:[A-Z_]+=\S* )?(?:{PROGRAM_NAMES.replace(' ', '|')}) .*)", re.MULTILINE)
RUN = re.compile(r"curl -s localhost:8501|cd data/sv-fi|paste all\.sv|head -n 1000|for part in")
# The keys that bound a run exclude each other, and demo, which stands for a reader's own file, already has one.
EXCLUSIVE = {"training.budget_minutes", "training.max_minutes", "training.schedule"}


def read_text(page: Path) -> str:
    """Returns the text of a page; the code of a notebook is fenced."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(f"```python\n{source}\n```" if kind == "code" else source for kind, source in cells)


PROGRAMS = [
    page for page in TEXTS if "```python" in read_text(page) and str(page.relative_to(REPOSITORY)) not in ELSEWHERE
]
RECIPES = {path.stem for path in PAGES if path.suffix == ".yaml"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def list_code(page: Path) -> list[str]:
    """Returns the lines of the code of a page that are not Python."""
    text = read_text(page).replace("\\\n", " ")
    blocks = [code for language, code in FENCED.findall(text) if language != "python"]
    lines = [line for block in blocks for line in block.splitlines()]
    return lines + [line for line in FENCED.sub("", text).splitlines() if line.startswith(("    ", "#   "))]


def list_programs(page: Path) -> list[str]:
    """Returns the Python programs of a page."""
    return [code for language, code in FENCED.findall(read_text(page)) if language == "python"]


def list_commands(lines: list[str]) -> Iterator[list[str]]:
    """Yields the arguments of each nmt command in lines."""
    for line in lines:
        if found := COMMAND.search(re.sub(r"\s#.*", "", line)):
            yield shlex.split(re.split(r"\s[|>&<]|[;`)]", found[1])[0])


def find_command(page: Path, arguments: list[str]) -> tuple[Any, list[str]]:
    """Returns the command that arguments begin with, and the other arguments."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and arguments:  # Typer may have a click of its own
        assert arguments[0] in command.commands, f"{page.name}: nmt {' '.join(arguments)}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


@every_page
def test_the_commands_of_a_page_are_complete(page):
    """As the command line itself parses them, with keys that exist and values that they take."""
    for arguments in list_commands(list_code(page)):
        command, rest = find_command(page, arguments)
        shown = f"{page.name}: nmt {shlex.join(arguments)}"
        try:
            given = command.make_context(arguments[0], list(rest)).params
            overrides = [override.replace("$seed", "1") for override in given.get("overrides") or []]
            if arguments[0] in ("train", "tune", "doctor", "demo"):
                recipe = str(given.get("config"))
                if recipe in RECIPES:
                    load_config(recipe, overrides)
                else:
                    load_config("demo", [one for one in overrides if one.partition("=")[0] not in EXCLUSIVE])
            else:
                read_overrides(overrides, "decoding", "export")
        except UserError as error:
            pytest.fail(f"{shown}: {error}")
        except Exception as error:  # of click, or of the one that Typer has
            assert type(error).__name__ == "Exit", f"{shown}: {error}"


@every_page
def test_the_commands_in_the_sentences_of_a_page_exist(page):
    for arguments in list_commands(re.findall(r"`(nmt [^`]+)`", read_text(page).replace("\n", " "))):
        command, rest = find_command(page, arguments)
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        for argument in rest:
            shown = f"{page.name}: nmt {shlex.join(arguments)}"
            assert not argument.startswith("-") or argument == "-" or argument.split("=")[0] in known, shown
            if key := re.fullmatch(r"([a-z_]+\.[a-z_0-9.]+)=.*", argument):
                assert ".".join("N" if part.isdecimal() else part for part in key[1].split(".")) in get_keys(), shown


def test_the_pages_show_commands():
    assert sum(len(list(list_commands(list_code(page)))) for page in PAGES) > 100


def test_the_other_programs_that_pages_run_exist():
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        for line in list_code(page):
            if found := re.match(r"(?:    |\$ )+make ([a-z]+)", line):
                assert found[1] in targets, f"{page.name}: {line}"
            if found := re.search(r"python -m (benchmarks[.\w]*)", line):
                path = REPOSITORY / found[1].replace(".", "/")
                assert path.is_dir() or path.with_suffix(".py").is_file(), f"{page.name}: {line}"
            if found := re.search(r"python ((?:scripts|tests)/\S+\.py)", line):
                assert (REPOSITORY / found[1]).is_file(), f"{page.name}: {line}"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_each_block_of_a_page_runs_or_says_why_not(page, monkeypatch):
    """A note is made by docs/untested.py while the site is built. GitHub shows the README without the site."""
    monkeypatch.syspath_prepend(DOCS)
    from untested import make_note

    text = read_text(page)
    for block in MarkdownIt().parse(text):
        if block.type not in ("fence", "code_block"):
            continue
        note = make_note(block.content, block.info)
        if page.name == "README.md" and note:
            assert f"<sub>{note}</sub>" in text.splitlines()[block.map[1] : block.map[1] + 2], block.content
        runs = page in PROGRAMS or str(page.relative_to(REPOSITORY)) in ELSEWHERE
        commands = SHELL.findall("" if block.info in ("python", "yaml") else block.content)
        assert note or not commands or all(RUN.match(command) for command in commands), block.content
        assert block.info != "python" or runs, block.content


@pytest.fixture(scope="module")
def translator(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("documentation")
    model_folder.save(folder / "model")
    return nmt.open_translator(folder / "model", precision="float32", pruning_threshold=0, max_length=8)


@pytest.fixture(scope="module")
def inspect(translator):
    original = nmt.inspect
    return functools.cache(lambda: original(translator, "a dog.", "ein Hund."))


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_the_programs_of_a_page_run(page, translator, inspect, tmp_path, monkeypatch):
    """With a small model as runs/demo. It is opened and inspected once, since each further search is compiled."""
    folder = tmp_path / page.parent.relative_to(REPOSITORY) if page in NOTEBOOKS else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    Path("page.html").write_text("<p>the <b>dog</b></p>", encoding="utf-8")
    Path("data/demo").mkdir(parents=True)
    for side in ("en", "de"):
        Path(f"data/demo/test.{side}").write_text("a dog\n", encoding="utf-8")

    def open_translator(path: Path | str, **changes: Any) -> Any:
        assert Path(path).resolve() == (tmp_path / "runs" / "demo").resolve()
        translator.with_settings(**{key: value for key, value in changes.items() if key != "precision"})
        return translator

    fakes = {
        "open_translator": open_translator,
        "inspect": lambda *_: inspect(),
        # A training and an export take minutes, and have tests of their own.
        "train": lambda config: Path("runs/demo"),
        "export": lambda model, into: into / "1",
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(nmt, name, fake, raising=False)
    names: dict[str, Any] = {"__name__": "page"}
    for program in list_programs(page):
        exec(compile(program, page.name, "exec"), names)


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_the_outputs_of_a_notebook_are_those_of_one_execution(page):
    """From the first cell to the last. A cell that an editor has changed, or run again alone, breaks the order."""
    cells = [cell for cell in json.loads(page.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert {"stream", "display_data"} <= set(outputs) and "error" not in outputs


def test_the_commands_that_hold_out_text_hold_it_out(tmp_path):
    """Those of the tutorial: each line is in one of the three parts, next to its translation."""
    page = (REPOSITORY / "docs" / "tutorials" / "own-language-pair.md").read_text(encoding="utf-8")
    commands = re.search(r"(?:    .*\n)+", page[page.index("    cd data/sv-fi") :])[0]
    folder = tmp_path / "data" / "sv-fi"
    folder.mkdir(parents=True)
    numbers = [number % 2500 for number in range(3000)]  # 500 pairs occur twice
    for side in ("sv", "fi"):
        (folder / f"all.{side}").write_text("".join(f"{side} {number}\n" for number in numbers), encoding="utf-8")
    subprocess.run(["bash", "-ec", commands], cwd=tmp_path, check=True)
    parts = {
        (part, side): (folder / f"{part}.{side}").read_text(encoding="utf-8").splitlines()
        for part in ("train", "dev", "test")
        for side in ("sv", "fi")
    }
    for part in ("train", "dev", "test"):
        assert [line[3:] for line in parts[part, "sv"]] == [line[3:] for line in parts[part, "fi"]]
    assert [len(parts[part, "sv"]) for part in ("train", "dev", "test")] == [500, 1000, 1000]
    assert len({line for part in ("train", "dev", "test") for line in parts[part, "sv"]}) == 2500


def test_the_map_of_folders_is_complete():
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", TEXTS[1].read_text(encoding="utf-8"), re.MULTILINE))
    packages = {f"nmt/{path.name}/" for path in (REPOSITORY / "nmt").iterdir() if (path / "__init__.py").is_file()}
    assert packages <= rows.keys()
    for row, contents in rows.items():
        if not row.startswith("nmt/"):
            assert (REPOSITORY / row).exists(), row
            continue
        modules = {path.stem for path in (REPOSITORY / row.removesuffix("*.py")).glob("[!_]*.py")}
        names = re.findall(r"(?<!not called )`([a-z0-9_*]+)`", contents)
        for name in names:
            assert fnmatch.filter(modules, name), f"{row} has no {name}"
        unnamed = [module for module in modules if not any(fnmatch.fnmatch(module, name) for name in names)]
        assert not unnamed, f"CONTRIBUTING.md does not name these modules of {row}: {unnamed}"


def test_the_page_on_errors_lists_every_class_with_its_exit_code():
    page = (REPOSITORY / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+Error`.*?) \| ([\d, ]+|HTTP status) \|", page, re.MULTILINE)
    listed = {name: codes for names, codes in rows for name in re.findall(r"`(\w+)`", names)}
    classes = {name: one for name, one in vars(errors).items() if isinstance(one, type) and name.endswith("Error")}
    assert listed.keys() >= classes.keys() - {"NmtError"}
    for name, one in classes.items():
        if listed.get(name, "").isdecimal():
            assert str(one.exit_code) == listed[name], name


def test_the_messages_on_the_page_on_errors_are_in_the_code():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "nmt").rglob("*.py"))
    code = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", code))
    page = (REPOSITORY / "docs" / "reference" / "errors.md").read_text(encoding="utf-8").partition("## Messages")[2]
    cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    assert len(cells) > 10
    for message in re.findall(r"`([^`]+)`", " ".join(cells)):
        for part in message.split("…"):
            assert part.strip(" .") in code, message


def test_the_page_on_python_documents_what_is_public():
    page = (REPOSITORY / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"auto(?:function|class|exception):: nmt\.(\w+)\b(?!\.)", page)) | {
        "UserError"
    }  # in nmt.errors
    assert documented == set(nmt.__all__)


def test_the_site_describes_every_command_and_option(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    from commands import describe_commands, list_commands

    page = describe_commands()
    assert "......" not in page and "[[" not in page  # Typer itself puts brackets and dots around names
    for name, command in list_commands(typer.main.get_command(app)):
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert command.help.split()[0] in section
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            shown = [parameter.name.upper(), str(parameter.metavar), *parameter.opts]
            assert parameter.name in ("help", "overrides") or any(one in section for one in shown), (
                name,
                parameter.name,
            )
