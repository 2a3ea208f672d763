"""Builds a virtual environment for each peer, and rebuilds it when the list of packages changes."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nmt.errors import UserError

PEERS = Path(__file__).parent / ".peers"
DRIVERS = Path(__file__).parent / "drivers"
# The default package brings several gigabytes of CUDA. The CPU build has its own index.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
PIP_OPTIONS = ["--quiet", "--disable-pip-version-check"]
TORCH = "torch==2.13.0+cpu"


@dataclass(frozen=True)
class Environment:
    """The exact requirements of a peer.

    Peers that are no longer maintained forbid versions that they work with. Packages in `unpinned` are therefore
    installed without their dependencies.
    """

    name: str
    python: str
    """Version of the interpreter, such as 3.11, on the path or in pyenv."""
    packages: Sequence[str]
    unpinned: Sequence[str] = ()
    """Installed last, with --no-deps."""
    stubs: Mapping[str, str] = field(default_factory=dict)
    """Source of stand-ins, by module name, for large modules that the peer imports but does not use here."""

    @property
    def path(self) -> Path:
        """Folder of the environment."""
        return PEERS / self.name

    @property
    def interpreter(self) -> Path:
        """Path of its Python interpreter."""
        return self.path / "bin" / "python"

    def build(self) -> Path:
        """Builds the environment unless it is up to date, and returns its interpreter.

        Raises:
            UserError: if there is no such Python, or a package cannot be installed.
        """
        stamp = self.path / "built.json"
        recipe = json.dumps(self._describe(), indent=2, sort_keys=True)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == recipe:
            return self.interpreter
        print(f"Building the environment of {self.name} in {self.path}. This takes minutes.", flush=True)
        shutil.rmtree(self.path, ignore_errors=True)
        # Our own pip installs into all environments: unpacking a pip into each would take longer than everything else.
        _run([str(find_python(self.python)), "-m", "venv", "--without-pip", str(self.path)])
        self._install(self.packages)
        if self.unpinned:
            self._install(["--no-deps", *self.unpinned])
        for name, text in self.stubs.items():
            (self._find_site_packages() / f"{name}.py").write_text(text, encoding="utf-8")
        stamp.write_text(recipe, encoding="utf-8")
        return self.interpreter

    def get_versions(self, names: Sequence[str]) -> dict[str, str]:
        """Returns the installed versions of some packages, or nothing if the environment is not built."""
        if not self.interpreter.exists():
            return {}
        code = (
            "import sys, json, importlib.metadata as m; print(json.dumps([m.version(name) for name in sys.argv[1:]]))"
        )
        command = [str(self.interpreter), "-c", code, *names]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return dict(zip(names, json.loads(found), strict=True))

    def _describe(self) -> dict:
        digest = hashlib.sha256("".join(sorted(self.stubs.values())).encode()).hexdigest()
        return {
            "python": self.python,
            "packages": list(self.packages),
            "unpinned": list(self.unpinned),
            "stubs": sorted(self.stubs),
            "stubs_sha256": digest,
        }

    def _install(self, arguments: Sequence[str]) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.interpreter), "install", *PIP_OPTIONS]
        # Without a network the wheel may be available locally, and an unreachable index would take minutes to time out.
        if TORCH in arguments and not _is_successful([*pip, TORCH]):
            _run([*pip, "--extra-index-url", TORCH_INDEX, TORCH])
        _run([*pip, *arguments])

    def _find_site_packages(self) -> Path:
        return self.path / "lib" / f"python{self.python}" / "site-packages"


def find_python(version: str) -> Path:
    """Finds an interpreter of a version such as 3.11 on the path or in pyenv.

    Raises:
        UserError: if there is none.
    """
    found = shutil.which(f"python{version}")
    candidates = [
        *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
        *([Path(found)] if found else []),
    ]
    for candidate in candidates:
        if _is_successful([str(candidate), "-c", f"import sys; assert '%d.%d' % sys.version_info[:2] == '{version}'"]):
            return candidate
    raise UserError(
        f"A peer needs Python {version}, but python{version} was found neither on the path nor in ~/.pyenv."
    )


def _is_successful(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
