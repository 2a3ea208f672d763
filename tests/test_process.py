"""What a process can tell of itself."""

import subprocess
import sys

import numpy as np

from nmt.process import memory_of

PEAK = "from nmt.process import memory_of; block = b'x' * 200_000_000; del block; print(*memory_of())"


def test_memory_is_the_process_own_and_not_that_of_its_parent():
    ours = np.ones(600_000_000, "uint8")
    told = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    now, peak = map(int, told.split())
    assert now < 200_000_000 < peak < 500_000_000
    found = memory_of()
    assert found is not None and found.peak >= found.now > ours.nbytes


def test_a_process_that_has_ended_has_none():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert memory_of(ended.pid) is None
