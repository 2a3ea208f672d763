"""What is installed: the requirements files, the extras, the files inside the package."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
SPEC = importlib.util.spec_from_file_location("install", REPOSITORY / "scripts" / "install.py")
INSTALL = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(INSTALL)
NMT_EXTRA = re.compile(r"nmt\[([a-z, ]+)\]")


def requirements(name: str) -> set[str]:
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def test_requirements_equal_the_dependencies():
    assert requirements("requirements.txt") == set(PROJECT["project"]["dependencies"])


def test_requirements_for_jax_are_the_others_without_tensorflow():
    others = {line for line in requirements("requirements.txt") if not line.startswith(("tensorflow", "keras"))}
    assert requirements("requirements-jax.txt") == others | set(EXTRAS["jax"])


PINNED = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ]+)(?: ; [^#]*?)?(?: --hash=sha256:[0-9a-f]{64})+  # .+")


def select(*groups: str) -> dict[str, str]:
    """Returns the versions, by name, of what scripts/install.py installs."""
    lines = INSTALL.select_packages(set(groups), (REPOSITORY / "constraints.txt").read_text(encoding="utf-8"))
    return {found["name"]: found["version"] for found in map(PINNED.fullmatch, lines) if found}


def test_every_pinned_package_has_hashes():
    assert [line for line in requirements("constraints.txt") if not PINNED.fullmatch(line)] == []


@pytest.mark.parametrize(
    ("groups", "needed"),
    [
        pytest.param(["base"], PROJECT["project"]["dependencies"], id="base"),
        pytest.param(["jax-only"], requirements("requirements-jax.txt"), id="jax-only"),
        *(pytest.param(["base", extra], needed, id=extra) for extra, needed in EXTRAS.items()),
    ],
)
def test_the_pinned_versions_are_in_range(groups, needed):
    pinned = select(*groups)
    assert "setuptools" in pinned  # which builds nmt
    for requirement in map(Requirement, needed):
        if requirement.name != "nmt":
            assert Version(pinned[canonicalize_name(requirement.name)]) in requirement.specifier, requirement


def test_an_installation_without_tensorflow_pins_none():
    assert {"jax", "keras"} <= select("jax-only").keys()
    assert not {name for name in select("jax-only") if name.startswith("tensorflow")}


def test_documents_install_what_is_pinned():
    texts = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), REPOSITORY / "Makefile"]
    lines = [line.strip(" |`") for path in texts for line in path.read_text(encoding="utf-8").splitlines()]
    # Packages for CUDA depend on the driver. The README says that the other command checks no hashes.
    by_pip = {found[0] for line in lines if (found := re.search(r"pip install [^#`]*[^#` ]", line))}
    assert by_pip == {'pip install "jax[cuda13]>=0.10,<0.12"', "pip install ."}
    extras = {found[1] for line in lines if (found := re.search(r"scripts/install\.py ([a-z]+)", line))}
    assert {"serve", "ray", "litert", "jax", "doctor", "inspect", "grpc"} == extras


def test_every_extra_that_is_spoken_of_exists():
    texts = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("nmt/**/*.py")]
    spoken_of = {
        extra.strip()
        for path in texts
        for found in NMT_EXTRA.findall(path.read_text(encoding="utf-8"))
        for extra in found.split(",")
    }
    assert {"ray", "litert", "jax"} <= spoken_of <= EXTRAS.keys()


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
