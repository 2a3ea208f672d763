import math

import numpy as np
import pytest
from doctor_corpus import PAIRS

from nmt.doctor import machine
from nmt.doctor.machine import examine_machine, examine_memory
from nmt.doctor.memory_probe import MemoryUse, probe_memory
from nmt.models.seq2seq import make_seq2seq

GIGABYTE = 1 << 30


@pytest.fixture
def config(write, make_config):
    files = write("train", PAIRS)
    return make_config(files, files)


def test_an_update_is_run_and_its_memory_is_reported(config):
    memory, disk = examine_memory(config, vocabulary_sizes=(320, 320), lengths=(20, 30))
    assert memory.verdict == disk.verdict == "ok"
    assert "MB for 8 pairs of 20 and 30 tokens, the longest batch" in memory.found
    model = make_seq2seq(config.model, source_vocabulary_size=320, target_vocabulary_size=320)
    weights = 4 * sum(math.prod(v.shape) for v in model.trainable_variables)
    # Adam has the weights and two moments. Three checkpoints and one being written; two best models.
    assert disk.found.startswith(f"{weights * (3 * 4 + 2) / 1e6:.1f} MB for checkpoints")


def test_the_memory_of_the_doctor_itself_is_not_counted(config):
    ours = np.ones(3 * GIGABYTE // 2, "uint8")
    use = probe_memory(config, vocabulary_sizes=(320, 320), lengths=(20, 30), rows=(2, 8))
    assert use is not None and max(use.peaks) < ours.nbytes


@pytest.mark.parametrize(("free", "verdict", "fitting"), [(8 * GIGABYTE, "ok", 56), (2 * GIGABYTE - 1, "error", 7)])
def test_the_largest_batch_is_extrapolated_from_two(config, monkeypatch, free, verdict, fitting):
    """2 rows take 1.25 GB and 8 rows take 2 GB, an eighth of a GB per row."""
    use = MemoryUse(weights=1000, peaks=(2 * GIGABYTE - 6 * GIGABYTE // 8, 2 * GIGABYTE))
    monkeypatch.setattr(machine, "probe_memory", lambda *args, **kwargs: use)
    monkeypatch.setattr(machine, "read_available_memory", lambda: free)
    memory, _ = examine_memory(config, vocabulary_sizes=(320, 320), lengths=(20, 30))
    assert memory.verdict == verdict
    assert memory.found.endswith(f"about {fitting:,} pairs fit")


def test_an_update_that_fails_is_an_error(config, monkeypatch):
    monkeypatch.setattr(machine, "probe_memory", lambda *args, **kwargs: None)
    [memory] = examine_memory(config, vocabulary_sizes=(320, 320), lengths=(20, 30))
    assert memory.verdict == "error"


def test_the_machine_is_described():
    devices, versions = examine_machine()
    assert "processor cores" in devices.found
    assert "keras" in versions.found
