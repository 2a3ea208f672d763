"""A backend that is not to be had is a mistake with an answer, not a traceback."""

import os
import subprocess
import sys

import pytest

BLOCKED = "import sys; sys.modules['tensorflow'] = None; from nmt.cli import main; main()"


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("torch", "KERAS_BACKEND: expected tensorflow or jax, found 'torch'."),
        (
            "tensorflow",
            "The backend tensorflow is not installed: pip install -r requirements.txt, or set KERAS_BACKEND=jax.",
        ),
    ],
)
def test_a_backend_that_is_not_to_be_had_is_said(backend, words):
    command = [sys.executable, "-c", BLOCKED, "translate", "nowhere"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (2, f"{words}\n")
