"""Devices, threads and memory of a process."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from nmt import process
from nmt.errors import UserError
from nmt.process import (
    check_device,
    choose_device,
    choose_threads,
    count_cpus,
    count_threads,
    read_available_memory,
    read_memory,
    read_peak_memory,
)
from nmt.translators import opening

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
    # As gVisor, which has no VmHWM.
    monkeypatch.setattr(Path, "read_text", lambda *_: "Name:\tnmt\nVmSize:\t9 kB\nVmRSS:\t5 kB\n")
    assert read_memory() is None
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


@pytest.fixture
def no_gpu(monkeypatch):
    """Lets a test choose devices, with nothing left behind."""
    monkeypatch.setattr(process, "_required_gpu", None)
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    return monkeypatch


def pretend(monkeypatch, **libraries):
    for name in ("tensorflow", "jax"):
        monkeypatch.setitem(sys.modules, name, libraries.get(name))


def tensorflow_with(gpus):
    return SimpleNamespace(config=SimpleNamespace(list_physical_devices={"GPU": gpus}.get))


def jax_on(platform):
    return SimpleNamespace(default_backend=lambda: platform)


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        (None, None, None),
        ("cpu", "2,3", ""),
        ("gpu", None, None),
        ("gpu", "2,3", "2,3"),
        ("gpu:1", None, "1"),
        ("gpu:1", "2,3", "3"),  # as a scheduler has it
    ],
)
def test_a_device_is_chosen_by_number_among_the_visible_ones(no_gpu, device, visible, expected):
    if visible is not None:
        no_gpu.setenv("CUDA_VISIBLE_DEVICES", visible)
    choose_device(device)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected


def test_a_number_beyond_the_visible_gpus_is_refused(no_gpu):
    no_gpu.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with pytest.raises(
        UserError, match=r"^--device gpu:2: expected a number below 2, since CUDA_VISIBLE_DEVICES is '2"
    ):
        choose_device("gpu:2")


def test_a_number_is_refused_if_all_gpus_are_hidden(no_gpu):
    no_gpu.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=r"^--device gpu:0: CUDA_VISIBLE_DEVICES is '', which hides all GPUs\.$"):
        choose_device("gpu:0")


@pytest.mark.parametrize(
    ("backend", "libraries", "words"),
    [
        ("tensorflow", {"tensorflow": tensorflow_with([])}, "--device gpu:9: TensorFlow finds no such GPU."),
        ("jax", {"jax": jax_on("cpu")}, "--device gpu:9: JAX finds no such GPU."),
        ("jax", {"tensorflow": tensorflow_with([])}, "--device gpu:9: TensorFlow finds no such GPU."),  # a SavedModel
        ("tensorflow", {}, "--device gpu:9: LiteRT runs on the CPU. Leave --device out."),
    ],
)
def test_a_gpu_that_does_not_exist_is_refused(no_gpu, backend, libraries, words):
    no_gpu.setenv("KERAS_BACKEND", backend)
    choose_device("gpu:9")
    pretend(no_gpu, **libraries)
    with pytest.raises(UserError, match=f"^{words}"):
        check_device()


@pytest.mark.parametrize(
    ("device", "libraries"),
    [
        ("gpu", {"tensorflow": tensorflow_with(["GPU:0"])}),
        ("cpu", {"tensorflow": tensorflow_with([])}),
        (None, {"tensorflow": tensorflow_with([])}),
        ("cpu", {}),
    ],
)
def test_devices_that_exist_are_accepted(no_gpu, device, libraries):
    choose_device(device)
    pretend(no_gpu, **libraries)
    check_device()


@pytest.mark.parametrize("name", ["model.tflite", "saved_model.pb", "weights.h5"])
def test_every_kind_of_translator_checks_the_device(no_gpu, tmp_path, name):
    (tmp_path / name).touch()
    classes = dict.fromkeys(("ModelTranslator", "SavedModelTranslator", "LiteRTTranslator"), Mock())
    no_gpu.setattr(opening, "importlib", SimpleNamespace(import_module=lambda _: SimpleNamespace(**classes)))
    choose_device("gpu")
    pretend(no_gpu, tensorflow=tensorflow_with([]))
    with pytest.raises(UserError, match=r"^--device gpu: TensorFlow finds no such GPU"):
        opening.open_translator(tmp_path)
