"""Measures what it costs to divide a batch: the same updates on one device, on two, and in two processes.

The devices are parts of one processor. The arithmetic is the same, so the difference is the cost of dividing it.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from nmt.process import count_cpus, silence_stderr

# For each name: parts of the processor, processes, and configuration overrides.
ARRANGEMENTS: dict[str, tuple[int, int, list[str]]] = {
    "1 device": (1, 1, ["training.strategy=single"]),
    "2 devices of 1 process": (2, 1, ["training.strategy=mirrored", "training.devices=[CPU:0, CPU:1]"]),
    "2 processes": (1, 2, ["training.strategy=multi_worker"]),
}


def measure(config_file: Path, overrides: Sequence[str], *, updates: int, rounds: int) -> dict[str, list[float]]:
    """Measures milliseconds per update for each arrangement and round, in turns.

    Raises:
        subprocess.CalledProcessError: if a training fails. Its message is on standard error.
    """
    found: dict[str, list[float]] = {name: [] for name in ARRANGEMENTS}
    for number in range(rounds):
        for name, figures in found.items():
            figures.append(_run(config_file, overrides, updates, *ARRANGEMENTS[name]))
            print(f"round {number + 1}, {name}: {figures[-1]:.1f} ms per update", flush=True)
    return found


def _run(
    config_file: Path, overrides: Sequence[str], updates: int, devices: int, processes: int, changes: list[str]
) -> float:
    """Runs one arrangement in new processes."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        job = {
            "config": str(config_file),
            "overrides": [*overrides, *changes, f"run_dir={folder}/run"],
            "devices": devices,
            "updates": updates,
        }
        command = [sys.executable, "-m", "benchmarks.replicas", json.dumps(job)]
        team = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
            for environment in _make_environments(processes)
        ]
        for process in team:
            stack.callback(process.kill)
        outputs = [process.communicate()[0] for process in team]
        for process in team:
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
    return float(json.loads(outputs[0].splitlines()[-1]))


def _make_environments(processes: int) -> list[dict[str, str]]:
    """Returns environment variables for each process: the addresses of all, and its share of the threads."""
    if processes == 1:
        return [{}]
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(processes)]
        workers = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    threads = max(1, count_cpus() // processes)
    tasks = [
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": n}}) for n in range(processes)
    ]
    return [{"TF_CONFIG": task, "TF_NUM_INTRAOP_THREADS": str(threads)} for task in tasks]


def main() -> None:
    """Runs a training job, and prints its milliseconds per update."""
    job = json.loads(sys.argv[1])
    if job["devices"] > 1:
        with silence_stderr():
            import tensorflow as tf  # devices must be set before nmt initializes TensorFlow

            [processor] = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * job["devices"]
        tf.config.set_logical_device_configuration(processor, parts)
    from benchmarks.profile import stream_updates, time_updates

    steps = stream_updates(Path(job["config"]), job["overrides"])
    seconds, _ = time_updates(steps, job["updates"])
    print(json.dumps(1000 * seconds / job["updates"]))
    os._exit(0)  # TensorFlow would wait for other processes, which may have exited already


if __name__ == "__main__":
    main()
