"""Threads and memory of a process."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nmt import process
from nmt.process import (
    choose_threads,
    count_cpus,
    count_threads,
    read_available_memory,
    read_memory,
    read_peak_memory,
)

PEAK = "from nmt.process import read_memory; block = b'x' * 200_000_000; del block; print(*read_memory())"


def test_memory_is_that_of_the_process_and_not_of_its_parent():
    ours = np.ones(600_000_000, "uint8")
    told = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    now, peak = map(int, told.split())
    assert now < 200_000_000 < peak < 500_000_000
    found = read_memory()
    assert found is not None and found.peak >= found.now > ours.nbytes


def test_a_process_that_has_ended_has_no_memory():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert read_memory(ended.pid) is None


def test_the_peak_is_in_bytes_on_every_system(monkeypatch):
    """Linux counts ru_maxrss in kilobytes, macOS in bytes; only Linux has /proc."""
    expected = read_peak_memory()
    monkeypatch.setattr(process, "read_memory", lambda: None)
    assert read_peak_memory() == pytest.approx(expected, rel=0.05)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert read_peak_memory() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_available_memory_is_all_memory_where_the_system_does_not_say(monkeypatch):
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1 << 20 < read_available_memory() < total
    monkeypatch.setattr(process, "Path", lambda path: Path("/nowhere"))
    assert read_available_memory() == total


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    assert count_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: 11)
    assert count_cpus() == 11


def test_threads_are_those_that_were_chosen_or_one_per_core(monkeypatch):
    for name in process.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    choose_threads(None)
    assert count_threads() == count_cpus()
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "")  # so that it is removed again at the end
    choose_threads(3)
    assert count_threads() == 3
