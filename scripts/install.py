"""Installs nmt with the packages that constraints.txt pins, whose files must have the hashes that it lists.

    python scripts/install.py                    # to train, translate, evaluate and export
    python scripts/install.py serve ray          # with extras
    python scripts/install.py --without-tensorflow
    python scripts/install.py --editable dev     # to work on nmt

pip alone cannot do this: it has no hash for a folder, and with hashes it accepts neither ranges of versions nor extras.
So the packages are installed first, and nmt after them.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUPS = re.compile(r"  # (.+)$")


def select_packages(groups: set[str], constraints: str) -> list[str]:
    """Returns the lines of constraints.txt that belong to one of the groups."""
    lines = constraints.splitlines()
    return [line for line in lines if (found := GROUPS.search(line)) and groups & set(found[1].split())]


def main() -> None:
    """Installs the packages and then nmt into the Python that runs this."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    parser = argparse.ArgumentParser(description="Install nmt with pinned packages, whose hashes are checked.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=", ".join(extras))
    parser.add_argument("--editable", action="store_true", help="changes of the code take effect without installing")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--without-tensorflow", action="store_true", help="for JAX alone; without extras")
    given = parser.parse_args()
    if unknown := sorted(set(given.extras) - set(extras)):
        parser.error(f"there is no extra {', '.join(unknown)}; expected some of {', '.join(extras)}")
    if given.without_tensorflow and given.extras:
        parser.error("--without-tensorflow cannot be combined with extras")
    groups = {"jax-only"} if given.without_tensorflow else {"base", *given.extras}
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *(["--quiet"] if given.quiet else [])]
    with tempfile.TemporaryDirectory() as folder:
        packages = Path(folder) / "packages.txt"
        constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        packages.write_text("\n".join(select_packages(groups, constraints)), encoding="utf-8")
        subprocess.run([*pip, "--require-hashes", "--requirement", str(packages)], check=True)
    # setuptools, which builds nmt, is among the packages; pip would fetch another one, unchecked.
    editable = ["--editable"] if given.editable else []
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", *editable, str(ROOT)], check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
