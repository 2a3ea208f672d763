"""A backend that is not to be had is a mistake with an answer, not a traceback."""

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
def test_a_backend_that_is_not_to_be_had_is_said(backend, words):
    command = [sys.executable, "-c", BLOCKED, "translate", "nowhere"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (2, f"{words}\n")


def test_what_is_of_no_use_is_not_imported_and_can_be_later():
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
