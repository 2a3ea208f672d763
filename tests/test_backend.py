"""The choice of the backend, and what its import leaves out."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

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
