"""A virtual environment of its own for each peer, built once and built anew when its list of packages changes."""

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
# Several gigabytes of CUDA come with the plain package; the CPU build lies in an index of its own.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
PIP_OPTIONS = ["--quiet", "--disable-pip-version-check"]
TORCH = "torch==2.13.0+cpu"


@dataclass(frozen=True)
class Environment:
    """What a peer needs, exactly.

    Packages are installed without their dependencies' pins where `unpinned` names them: peers that are no longer
    maintained forbid versions that serve them well.
    """

    name: str
    python: str
    """Version of the interpreter, such as 3.11; it is looked for on the path and among pyenv's."""
    packages: Sequence[str]
    unpinned: Sequence[str] = ()
    """Installed last, with --no-deps."""
    stubs: Mapping[str, str] = field(default_factory=dict)
    """Modules that the peer only imports, by name, with what they hold: so that hundreds of megabytes stay away."""

    @property
    def path(self) -> Path:
        """The folder of the environment."""
        return PEERS / self.name

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return self.path / "bin" / "python"

    def build(self) -> Path:
        """Builds the environment unless it stands already, and returns its interpreter.

        Raises:
            UserError: there is no such Python, or a package is not to be had.
        """
        stamp = self.path / "built.json"
        recipe = json.dumps(self._recipe(), indent=2, sort_keys=True)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == recipe:
            return self.interpreter
        print(f"Building the environment of {self.name} in {self.path}: this takes minutes.", flush=True)
        shutil.rmtree(self.path, ignore_errors=True)
        # One pip serves all environments, ours: to unpack one into each takes longer than to make the rest of it.
        _run([str(find_python(self.python)), "-m", "venv", "--without-pip", str(self.path)])
        self._install(self.packages)
        if self.unpinned:
            self._install(["--no-deps", *self.unpinned])
        for name, text in self.stubs.items():
            (self._site_packages() / f"{name}.py").write_text(text, encoding="utf-8")
        stamp.write_text(recipe, encoding="utf-8")
        return self.interpreter

    def versions(self, names: Sequence[str]) -> dict[str, str]:
        """The installed versions of some packages; none where the environment does not stand."""
        if not self.interpreter.exists():
            return {}
        code = (
            "import sys, json, importlib.metadata as m; print(json.dumps([m.version(name) for name in sys.argv[1:]]))"
        )
        command = [str(self.interpreter), "-c", code, *names]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return dict(zip(names, json.loads(found), strict=True))

    def _recipe(self) -> dict:
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
        # A machine without the network may hold the file itself; an index out of reach would take minutes to ask.
        if TORCH in arguments and not _succeeds([*pip, TORCH]):
            _run([*pip, "--extra-index-url", TORCH_INDEX, TORCH])
        _run([*pip, *arguments])

    def _site_packages(self) -> Path:
        return self.path / "lib" / f"python{self.python}" / "site-packages"


def find_python(version: str) -> Path:
    """Finds an interpreter of a version such as 3.11: on the path, or among those of pyenv.

    Raises:
        UserError: there is none.
    """
    found = shutil.which(f"python{version}")
    candidates = [
        *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
        *([Path(found)] if found else []),
    ]
    for candidate in candidates:
        if _succeeds([str(candidate), "-c", f"import sys; assert '%d.%d' % sys.version_info[:2] == '{version}'"]):
            return candidate
    raise UserError(f"A peer needs Python {version}: expected python{version} on the path or in ~/.pyenv, found none.")


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
