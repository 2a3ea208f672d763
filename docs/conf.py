"""Settings of Sphinx, which `make docs` runs: the pages of docs/, docstrings, and what is generated from the code."""

import os
import re
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from sphinx.ext.napoleon import Config as Napoleon
from sphinx.ext.napoleon import GoogleDocstring

DOCS = Path(__file__).parent
ROOT = DOCS.parent
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path[:0] = [str(DOCS), str(ROOT)]

from commands import describe_commands  # noqa: E402
from untested import add_notes  # noqa: E402

from nmt.version import __version__  # noqa: E402

project = "nmt"
release = version = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx_copybutton"]

# Pages are Markdown that GitHub shows as well. Code without a language is commands with their output.
myst_heading_anchors = 4
highlight_language = "text"
smartquotes_action = "qe"  # quotation marks and ellipses, but no dashes: -- begins an option
copybutton_prompt_text = "$ "

# The notebook needs the model of `make demo`. Without it, the page shows the outputs stored in the file.
nb_execution_mode = "force" if (ROOT / "runs" / "demo" / "best").is_dir() else "off"
nb_execution_timeout = 300  # seconds per cell; all of them take a minute on two busy cores
nb_execution_raise_on_error = True

html_theme = "furo"
html_title = "nmt"
html_static_path = ["_static"]
html_css_files = ["nmt.css"]
html_copy_source = False
html_show_copyright = False

nitpick_ignore_regex = [("py:class", r"nmt\..*")]  # classes that the page on Python leaves out
default_role = "code"  # of `names` in docstrings
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

# Pages of the site that are files elsewhere, written there for GitHub.
ELSEWHERE = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "explanation/notes": "benchmarks/NOTES.md",
}
LINK = re.compile(r"\]\(((?!\w+:)[^)#\s]+)(#[^)\s]*)?\)")

# For intersphinx, without the network. Keras and TensorFlow publish no inventory, and those of the others are large.
EXTERNAL = {
    "https://docs.python.org/3/library/": {
        **{
            f"collections.abc.{name}": f"collections.abc.html#collections.abc.{name}"
            for name in ("Callable", "Iterable", "Iterator", "Mapping", "Sequence")
        },
        "pathlib.Path": "pathlib.html#pathlib.Path",
    },
    "https://keras.io/api/": {"keras.src.callbacks.callback.Callback": "callbacks/base_callback/"},
    "https://numpy.org/doc/stable/reference/generated/": {"numpy.ndarray": "numpy.ndarray.html"},
}


def write_inventory(names: dict[str, str], path: Path) -> str:
    """Writes an inventory of classes and their addresses, as Sphinx reads it, and returns its path."""
    header = "# Sphinx inventory version 2\n# Project: -\n# Version: -\n# The remainder is compressed using zlib.\n"
    lines = (f"{name} py:class 1 {address} -\n" for name, address in names.items())
    path.write_bytes(header.encode() + zlib.compress("".join(lines).encode()))
    return str(path)


_inventories = Path(tempfile.mkdtemp())
intersphinx_mapping = {
    f"external{n}": (address, write_inventory(names, _inventories / f"{n}.inv"))
    for n, (address, names) in enumerate(EXTERNAL.items())
}


def read_page(app: Any, page: str, source: list[str]) -> None:
    """Completes the text of a page: files from elsewhere, the commands, and links to files outside docs/."""
    path = ROOT / ELSEWHERE[page] if page in ELSEWHERE else DOCS / f"{page}.md"
    text = path.read_text(encoding="utf-8") if page in ELSEWHERE else source[0]
    if page == "reference/commands":
        text = text.replace("<!-- commands -->", describe_commands())
    if page == "reference/configuration":  # whose text is that of the schema
        text = re.sub(r"docs/([\w-]+/([\w-]+)\.md)(?! -->)", r"[\2](../\1)", text)
    here = (DOCS / page).parent
    pages = {ROOT / name: DOCS / f"{other}.md" for other, name in ELSEWHERE.items()}

    def change(link: re.Match) -> str:
        target = (path.parent / link[1]).resolve()
        target = pages.get(target, target)
        return f"]({os.path.relpath(target, here)}{link[2] or ''})"

    source[0] = LINK.sub(change, text)


def read_docstring(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Turns Google's sections into reStructuredText. A colon in the docstring of an attribute has no such meaning."""
    if what not in ("attribute", "property"):
        lines[:] = GoogleDocstring(lines, Napoleon(), app, what, name, found, options).lines()


def setup(app: Any) -> None:
    """Connects Sphinx with the functions above."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("doctree-read", add_notes)
    # Their text is not in their files.
    app.connect("env-get-outdated", lambda *arguments: [*ELSEWHERE, "reference/commands", "reference/python"])
