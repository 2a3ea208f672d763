"""Measures the memory that training needs, of the host and of the GPU, by a few updates on random ids.

They run in a separate process, because a process can only report the highest memory of its whole life.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nmt.config.file import config_from_text, dump_config
from nmt.config.schema import Config
from nmt.errors import UserError
from nmt.process import read_peak_memory


@dataclass(frozen=True)
class ProbeRequest:
    """Updates to measure: on the longest batch that occurs, first with few rows, then with all."""

    config: str
    """The configuration as YAML."""
    vocabulary_sizes: tuple[int, int]
    lengths: tuple[int, int]
    """Tokens of the longest source and target, EOS included."""
    rows: tuple[int, int]
    """Number of rows of the small and of the whole batch."""


@dataclass(frozen=True)
class MemoryUse:
    """Memory in bytes."""

    weights: int
    """Size of the model's weights in float32."""
    peaks: tuple[int, int]
    """Highest memory of the process after the small and after the whole batch, including the framework."""
    gpu_peaks: tuple[int, int] | None = None
    """Highest memory of the first GPU after each batch; None if the updates run on the CPU."""
    gpu_limit: int | None = None
    """Memory of that GPU that training can use; None if it is not known."""


def probe_memory(
    config: Config, *, vocabulary_sizes: tuple[int, int], lengths: tuple[int, int], rows: tuple[int, int]
) -> MemoryUse | None:
    """Measures the memory of updates in a separate process.

    Args:
        config: the configuration.
        vocabulary_sizes: number of source and of target tokens.
        lengths: tokens of the longest source and target, EOS included.
        rows: number of rows of a small and of a whole batch.

    Returns:
        The memory, or None if the process died, as it does when it runs out of memory.

    Raises:
        UserError: a setting allows no update, such as a device that does not exist.
    """
    request = ProbeRequest(dump_config(config), vocabulary_sizes, lengths, rows)
    command = [sys.executable, "-m", "nmt.doctor.memory_probe"]
    done = subprocess.run(command, input=json.dumps(asdict(request)), capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    found = json.loads(done.stdout.splitlines()[-1])
    if "mistake" in found:
        raise UserError(found["mistake"])
    gpu_peaks = found["gpu_peaks"]
    return MemoryUse(
        found["weights"], tuple(found["peaks"]), tuple(gpu_peaks) if gpu_peaks[-1] else None, found["gpu_limit"]
    )


def read_gpu_memory(array: Any) -> tuple[int, int | None]:
    """Returns the highest memory of the GPU that holds an array, and the memory that the process can use there.

    Args:
        array: a tensor of TensorFlow or an array of JAX.

    Returns:
        Bytes; 0 and None if the array is not on a GPU, and None for the limit if it is not known.
    """
    if hasattr(array, "devices"):  # JAX, whose CPU keeps no statistics
        statistics = next(iter(array.devices())).memory_stats() or {}
        return statistics.get("peak_bytes_in_use", 0), statistics.get("bytes_limit")
    device = re.search(r"GPU:\d+", array.device)
    if not device:
        return 0, None
    peak = sys.modules["tensorflow"].config.experimental.get_memory_info(device[0])["peak"]
    return peak, _query_gpu_memory(int(device[0].removeprefix("GPU:")))


def _query_gpu_memory(number: int) -> int | None:
    """Returns the bytes of a GPU that other processes leave free, from its driver: TensorFlow does not report them.

    Args:
        number: of the GPU among those that this process sees.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    name = visible[number].strip() if visible != [""] and number < len(visible) else str(number)
    query = ["nvidia-smi", f"--id={name}", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    processes = ["nvidia-smi", f"--id={name}", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        total, apps = (
            subprocess.run(one, capture_output=True, text=True, check=True, timeout=30).stdout
            for one in (query, processes)
        )
        used = [line.split(",") for line in apps.splitlines()]
        taken = sum(int(memory) for process, memory in used if int(process) != os.getpid())
        return (int(total) - taken) << 20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def main() -> None:
    """Reads a `ProbeRequest` from standard input and prints a `MemoryUse`, both as JSON."""
    given = json.load(sys.stdin)
    config = config_from_text(given["config"], "the configuration")
    from nmt.data.batching import Batch
    from nmt.data.tokenizer import EOS_ID
    from nmt.training.backends import make_strategy, make_update

    # The other machines of multi_worker cannot be probed from here, so only the devices of this one are.
    kind = "auto" if config.training.strategy == "multi_worker" else config.training.strategy
    strategy = make_strategy(kind, config.training.devices)
    model, update = make_update(config, tuple(given["vocabulary_sizes"]), strategy)
    random, peaks, gpu_peaks = np.random.default_rng(1), [], []
    gpu_limit = None
    for rows in given["rows"]:
        rows += -rows % update.rows_multiple
        source, target = (
            random.integers(EOS_ID, size, (rows, length), dtype=np.int32)
            for size, length in zip(given["vocabulary_sizes"], given["lengths"], strict=True)
        )
        batch = Batch(0, 0, source, target, np.ones(rows, np.float32))
        if config.training.guided_alignment:
            batch = replace(batch, alignment=np.zeros((rows, target.shape[1], source.shape[1]), np.float32))
        update(batch, update=1, learning_rate=1e-3)
        peaks.append(read_peak_memory())
        gpu_peak, gpu_limit = read_gpu_memory(model.trainable_variables[0].value)
        gpu_peaks.append(gpu_peak)
    weights = sum(4 * int(np.prod(variable.shape)) for variable in model.trainable_variables)
    found = {"weights": weights, "peaks": peaks, "gpu_peaks": gpu_peaks, "gpu_limit": gpu_limit}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(json.dumps({"mistake": str(error)}), flush=True)
