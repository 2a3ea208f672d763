"""The choice of the backend, and what its import leaves out."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from nmt import backend as nmt_backend
from nmt.backend import UNUSED

BLOCKED = "import sys; sys.modules['tensorflow'] = None; from nmt.cli.main import main; main()"


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("torch", "KERAS_BACKEND: expected tensorflow or jax, found 'torch'."),
        (
            "tensorflow",
            'The backend tensorflow is not installed. Install with: pip install "nmt", or set KERAS_BACKEND=jax.',
        ),
    ],
)
def test_a_missing_or_unknown_backend_is_reported(backend, words):
    command = [sys.executable, "-c", BLOCKED, "translate", "nowhere"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (2, f"{words}\n")


def test_unused_packages_are_not_imported_but_can_be_later():
    found = sorted(name for name in UNUSED if importlib.util.find_spec(name))
    script = f"""
import importlib, json, sys
import nmt.backend
before = [name for name in {found} if name in sys.modules]
print(json.dumps([before, [importlib.import_module(name).__name__ for name in {found}]]))
"""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == [[], found]


def test_the_other_backend_is_not_imported_for_its_seed(monkeypatch):
    monkeypatch.setattr(nmt_backend.keras.backend, "backend", lambda: "jax")
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    seen = []
    monkeypatch.setattr(nmt_backend.keras.utils, "set_random_seed", lambda seed: seen.append((seed, dict(sys.modules))))
    nmt_backend.set_random_seed(7)
    [(seed, modules)] = seen
    assert (seed, modules["tensorflow"]) == (7, None)
    assert "tensorflow" not in sys.modules
