import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from doctor_corpus import PAIRS

from nmt.doctor import machine
from nmt.doctor.machine import examine_disk, examine_machine, examine_memory
from nmt.doctor.memory_probe import MemoryUse, read_gpu_memory
from nmt.models.seq2seq import make_seq2seq

GIGABYTE = 1 << 30


@pytest.fixture
def config(write, make_config):
    files = write("train", PAIRS)
    return make_config(files, files)


def test_an_update_is_run_and_its_memory_is_reported(config):
    ours = np.ones(3 * GIGABYTE // 2, "uint8")
    use, [memory] = examine_memory(config, vocabulary_sizes=(320, 320), lengths=(20, 30))
    assert memory.verdict == "ok"
    assert "MB for 8 pairs of 20 and 30 tokens, the longest batch" in memory.found
    model = make_seq2seq(config.model, source_vocabulary_size=320, target_vocabulary_size=320)
    assert use.gpu_peaks is None and max(use.peaks) < ours.nbytes  # which is not counted
    assert use.weights == 4 * sum(math.prod(v.shape) for v in model.trainable_variables)


def test_a_setting_that_no_update_can_run_with_is_named(config):
    training = config.training.model_copy(update={"devices": ["GPU:77"]})
    changed = config.model_copy(update={"training": training})
    use, [finding] = examine_memory(changed, vocabulary_sizes=(320, 320), lengths=(20, 30))
    assert use is None and (finding.check, finding.verdict) == ("training", "error")
    assert "GPU:77" in finding.found and "memory" not in finding.found


def test_disk_space_is_for_checkpoints_models_and_the_cache(config, tmp_path, monkeypatch):
    cache = tmp_path / "run" / "cache"
    cache.mkdir(parents=True)
    (cache / "train.en.lines.npy").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: SimpleNamespace(free=64_000_000))
    # Adam has the weights and two moments. Three checkpoints and one being written; two best models.
    found = [
        list(examine_disk(config, weights=4_000_000, run_dir=tmp_path / "run", cache=cache, token_bytes=token_bytes))
        for token_bytes in (7_000_000, 9_000_000)
    ]
    assert [[finding.verdict for finding in one] for one in found] == [["ok"], ["error"]]
    assert found[0][0].found == (
        f"{4 * (3 * 4 + 2)}.0 MB for checkpoints and models, 7.0 MB for token ids, 64.0 MB free in {tmp_path / 'run'}; "
        f"line indexes and unpacked text take 3.0 MB in {cache} already"
    )


@pytest.mark.parametrize(
    ("limit", "verdict", "ending"),
    [
        (8 * GIGABYTE, "ok", "8,590 MB can be used: about 56 pairs fit"),
        (2 * GIGABYTE - 1, "error", "2,147 MB can be used: about 7 pairs fit"),
        (None, "note", "how much the GPU has is not known"),
    ],
)
def test_the_memory_of_the_gpu_decides_if_updates_run_there(config, monkeypatch, limit, verdict, ending):
    use = MemoryUse(1000, (GIGABYTE, GIGABYTE), (2 * GIGABYTE - 6 * GIGABYTE // 8, 2 * GIGABYTE), limit)
    monkeypatch.setattr(machine, "probe_memory", lambda *args, **kwargs: use)
    _, [host, gpu] = examine_memory(config, vocabulary_sizes=(320, 320), lengths=(20, 30))
    assert (host.check, host.verdict, "fit" in host.found) == ("memory", "ok", False)
    assert (gpu.check, gpu.verdict) == ("GPU memory", verdict)
    assert gpu.found.endswith(ending)


class JaxArray:
    """Stands in for an array on a GPU, which tests do not have."""

    def devices(self):
        return [SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 5, "bytes_limit": 7})]


def test_memory_of_a_gpu_is_read_from_both_backends(monkeypatch, tmp_path):
    assert read_gpu_memory(JaxArray()) == (5, 7)
    assert read_gpu_memory(SimpleNamespace(device="/job:localhost/replica:0/task:0/device:CPU:0")) == (0, None)
    experimental = SimpleNamespace(get_memory_info=lambda name: {"GPU:1": {"peak": 11}}[name])
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=SimpleNamespace(experimental=experimental)))
    driver = tmp_path / "nvidia-smi"
    # GPU 1 of those that the process sees is GPU 5. It has 9 MiB, of which another process has 2.
    driver.write_text(
        '#!/bin/sh\ncase "$*" in *id=5*memory.total*) echo 9;; *id=5*apps*) echo "1, 2";; *) exit 1;; esac\n'
    )
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    array = SimpleNamespace(device="/job:localhost/replica:0/task:0/device:GPU:1")
    assert read_gpu_memory(array) == (11, 7 << 20)
    driver.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpu_memory(array) == (11, None)


@pytest.mark.parametrize(("free", "verdict", "fitting"), [(8 * GIGABYTE, "ok", 56), (2 * GIGABYTE - 1, "error", 7)])
def test_the_largest_batch_is_extrapolated_from_two(config, monkeypatch, free, verdict, fitting):
    """2 rows take 1.25 GB and 8 rows take 2 GB, an eighth of a GB per row."""
    use = MemoryUse(weights=1000, peaks=(2 * GIGABYTE - 6 * GIGABYTE // 8, 2 * GIGABYTE))
    monkeypatch.setattr(machine, "probe_memory", lambda *args, **kwargs: use)
    monkeypatch.setattr(machine, "read_available_memory", lambda: free)
    _, [memory] = examine_memory(config, vocabulary_sizes=(320, 320), lengths=(20, 30))
    assert memory.verdict == verdict
    assert memory.found.endswith(f"about {fitting:,} pairs fit")


def test_an_update_that_fails_is_an_error(config, monkeypatch):
    monkeypatch.setattr(machine, "probe_memory", lambda *args, **kwargs: None)
    _, [memory] = examine_memory(config, vocabulary_sizes=(320, 320), lengths=(20, 30))
    assert memory.verdict == "error"


def test_the_machine_is_described():
    devices, versions = examine_machine()
    assert "processor cores" in devices.found
    assert "keras" in versions.found
