"""What is installed: the requirements files, the extras, the files inside the package."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
NMT_EXTRA = re.compile(r"nmt\[([a-z, ]+)\]")


def requirements(name: str) -> set[str]:
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def test_requirements_equal_the_dependencies():
    assert requirements("requirements.txt") == set(PROJECT["project"]["dependencies"])


def test_requirements_for_jax_are_the_others_without_tensorflow():
    others = {line for line in requirements("requirements.txt") if not line.startswith(("tensorflow", "keras"))}
    assert requirements("requirements-jax.txt") == others | set(EXTRAS["jax"])


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_the_pinned_versions_are_in_range(extra):
    pinned = dict(line.split("==") for line in requirements("constraints.txt"))
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): found.split(";")[0].strip() for name, found in pinned.items()}
    needed = map(Requirement, EXTRAS[extra] if extra else PROJECT["project"]["dependencies"])
    for requirement in needed:
        if requirement.name != "nmt":
            assert Version(pinned[requirement.name.lower()]) in requirement.specifier, requirement


def test_every_extra_that_is_spoken_of_exists():
    texts = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("nmt/**/*.py")]
    spoken_of = {
        extra.strip()
        for path in texts
        for found in NMT_EXTRA.findall(path.read_text(encoding="utf-8"))
        for extra in found.split(",")
    }
    assert {"serve", "ray", "litert"} <= spoken_of <= EXTRAS.keys()


def test_every_file_that_is_no_code_is_package_data():
    globs = PROJECT["tool"]["setuptools"]["package-data"]["nmt"]
    shipped = {path for glob in globs for path in (REPOSITORY / "nmt").glob(glob)}
    tracked = {
        path
        for path in (REPOSITORY / "nmt").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    } | set((REPOSITORY / "nmt" / "recipes").iterdir())
    assert shipped == tracked


def test_recipes_are_the_configurations():
    names = {path.name for path in (REPOSITORY / "configs").iterdir()}
    assert {path.name for path in (REPOSITORY / "nmt" / "recipes").iterdir()} == names != set()
