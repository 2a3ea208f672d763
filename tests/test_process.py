"""What a process can tell of itself."""

import subprocess
import sys

import numpy as np

from nmt.process import read_memory

PEAK = "from nmt.process import read_memory; block = b'x' * 200_000_000; del block; print(*read_memory())"


def test_memory_is_the_process_own_and_not_that_of_its_parent():
    ours = np.ones(600_000_000, "uint8")
    told = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    now, peak = map(int, told.split())
    assert now < 200_000_000 < peak < 500_000_000
    found = read_memory()
    assert found is not None and found.peak >= found.now > ours.nbytes


def test_a_process_that_has_ended_has_none():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert read_memory(ended.pid) is None
