"""Time and memory of processes."""

import sys

import numpy as np
import pytest

from benchmarks.measure import run_command
from nmt.errors import UserError


def test_memory_is_the_process_own_and_not_that_of_its_parent(tmp_path):
    ours = np.ones(400 * 10**6, "uint8")  # memory of the parent
    held = "import time; block = bytearray(b'x') * (150 * 10**6); time.sleep(1.5); del block; time.sleep(1.5)"
    run = run_command([sys.executable, "-c", held], folder=tmp_path, threads=1)
    assert 150 < run.peak_mb < 200
    assert any(resident > 150 for _, resident in run.memory) and run.memory[-1][1] < 50
    assert run.seconds >= 3 and ours.all()


def test_a_failed_command_raises_with_the_end_of_its_output(tmp_path):
    with pytest.raises(UserError, match=r"exited with code 3. End of .*log.txt:\nno luck"):
        run_command([sys.executable, "-c", "print('no luck'); raise SystemExit(3)"], folder=tmp_path, threads=1)
