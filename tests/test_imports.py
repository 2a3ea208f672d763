"""Imports run one way: a module imports only what stands below it, lazily or not."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "nmt"

# From top to bottom. Packages on one line do not import each other.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["report"],
    ["demo", "doctor", "synthesis", "inspection"],
    ["cluster"],
    ["server", "exporting", "training"],
    ["evaluation"],
    ["translators"],
    ["decoding"],
    ["models"],
    ["model_folder"],
    ["data"],
    ["compilation"],
    ["backend", "weights", "config"],
    ["streams"],
    ["files", "progress"],
    ["process", "signals"],
    ["errors", "version"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> Iterator[str]:
    """Yields the dotted names of the modules of nmt that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "nmt")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nmt":
            for alias in node.names:
                below = PACKAGE.parent.joinpath(*node.module.split("."), alias.name)
                is_module = below.with_suffix(".py").is_file() or below.is_dir()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def home(dotted: str) -> str:
    """Returns the package or top-level module of nmt that a dotted name belongs to."""
    return dotted.split(".")[1]


def test_every_package_has_a_layer():
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()} <= RANK.keys()


def test_modules_import_only_what_stands_below_them():
    upwards = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        for name in imported(path)
        if name == "nmt"
        or (
            home(name) != (own := path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
            and RANK[home(name)] <= RANK[own]
        )
    ]
    assert upwards == []


def test_no_module_imports_itself_by_way_of_others():
    graph = {
        ".".join(["nmt", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): set(
            imported(path)
        )
        for path in modules()
    }
    finished: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a cycle: {' -> '.join([*way, module])}"
        if module not in finished:
            for below in graph.get(module, ()):
                visit(below, (*way, module))
            finished.add(module)

    for module in graph:
        visit(module, ())
