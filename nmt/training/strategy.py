"""The devices that TensorFlow trains on: one device, all GPUs of a machine, or several machines."""

import gc
import json
import os
import shutil
import socket
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from nmt.config.schema import StrategyName
from nmt.errors import UserError, WorkerLostError
from nmt.process import silence_stderr
from nmt.training.workers import Workers, check_devices

SLURM_PORT = 8888
SLURM_TASKS = "SLURM_STEP_NUM_TASKS"
TF_CONFIG = '{"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": 0}}'
# Collective operations end with one of these when a worker is gone, depending on who notices it first.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


@silence_stderr()
def make_strategy(kind: StrategyName, devices: Sequence[str] | None = None) -> tf.distribute.Strategy:
    """Returns the tf.distribute strategy of a configuration.

    Args:
        kind: auto mirrors if there are several GPUs. multi_worker reads TF_CONFIG, or else Slurm's variables, waits for
            the other workers, and must come before any other use of TensorFlow.
        devices: names such as ["GPU:0", "GPU:1"]; None means all, and the first for `single`.

    Raises:
        UserError: a device does not exist, the strategy cannot use these devices, or TF_CONFIG is missing or does not
            describe a cluster.
    """
    if kind == "multi_worker":
        if devices is not None:
            check_devices(kind, devices, [])
        # Undoes the freeze of `nmt.backend`: the strategy's thread pool must be collected before Python exits, or it
        # prints errors.
        gc.unfreeze()
        resolver = _cluster_resolver()
        _check_port(resolver)
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    known = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    gpus = [name for name in known if name.startswith("GPU:")]
    chosen = gpus if devices is None else check_devices(kind, devices, known)
    if kind == "mirrored" or (kind == "auto" and len(chosen) > 1):
        gc.unfreeze()  # for the same reason
        return tf.distribute.MirroredStrategy(chosen if devices else None)
    default = gpus[0] if gpus else "CPU:0"
    if not devices or chosen[0] == default:
        return tf.distribute.get_strategy()  # kernels are fused only without a strategy
    return tf.distribute.OneDeviceStrategy(chosen[0])


def use_device(strategy: tf.distribute.Strategy) -> AbstractContextManager:
    """Places what runs outside the strategy, such as validation, on the only device of a OneDeviceStrategy."""
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return tf.device(strategy.extended.worker_devices[0])
    return nullcontext()


class DistributedWorkers(Workers):
    """The processes of a MultiWorkerMirroredStrategy, one per machine."""

    def __init__(self, strategy: tf.distribute.MultiWorkerMirroredStrategy):
        self.strategy = strategy
        resolver = strategy.cluster_resolver
        cluster = resolver.cluster_spec().as_dict()
        self.addresses = [*cluster.get("chief", []), *cluster.get("worker", [])]
        self.count = len(self.addresses)
        self.number = resolver.task_id + (len(cluster.get("chief", [])) if resolver.task_type == "worker" else 0)
        self.replicas = strategy.num_replicas_in_sync // self.count

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum over all workers, as in `Workers`."""
        values = np.asarray(values, np.float64)

        def contribute(context: Any) -> tf.Tensor:
            first = context.replica_id_in_sync_group % self.replicas == 0
            return tf.constant(values if first else np.zeros_like(values))

        try:
            mine = self.strategy.experimental_distribute_values_from_function(contribute)
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None).numpy()
        except LOST as error:
            raise self.make_lost_error(error) from error

    def make_lost_error(self, error: Exception) -> WorkerLostError:
        """Returns the error for a collective operation that failed; it names the workers that do not respond."""
        # TensorFlow does not close the thread pool of an operation that fails, and the traceback keeps it alive. Python
        # would take it apart at exit in any order, and sometimes print an error (tensorflow/tensorflow#50487).
        traceback.clear_frames(error.__traceback__)
        gone = [n for n, address in enumerate(self.addresses) if n != self.number and not _answers(address)]
        if not gone:
            return WorkerLostError(f"The workers lost each other: {str(error).splitlines()[0]}")
        names = ", ".join(f"{n} ({self.addresses[n]})" for n in gone)
        return WorkerLostError(f"Worker {names} is gone. Updates since the last checkpoint are lost.")


def make_workers(strategy: tf.distribute.Strategy) -> Workers:
    """Returns the processes that share a strategy."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return DistributedWorkers(strategy)
    return Workers()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


def _check_port(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> None:
    """Raises UserError if another program uses the port of this worker. TensorFlow would name neither."""
    address = resolver.cluster_spec().task_address(resolver.task_type, resolver.task_id)
    port = int(address.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(
            f"This worker, {address}, cannot listen on port {port}: {error.strerror}. Stop the program that uses it "
            "or choose another port."
        ) from error


def _cluster_resolver() -> tf.distribute.cluster_resolver.ClusterResolver:
    text = os.environ.get("TF_CONFIG")
    if not text and SLURM_TASKS in os.environ:
        return _slurm_resolver()
    if not text:
        raise UserError(
            "training.strategy multi_worker requires the environment variable TF_CONFIG, or Slurm's srun; found "
            "neither."
        )
    try:
        described = json.loads(text)
        task, cluster = described["task"], dict(described["cluster"])
        addresses, index = cluster[task["type"]], int(task["index"])
        wrong = [address for job in cluster.values() for address in job if not _is_address(address)]
    except json.JSONDecodeError as error:
        raise UserError(f"TF_CONFIG: expected JSON: {error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"TF_CONFIG: expected {TF_CONFIG}, found {text}") from error
    if wrong:
        raise UserError(f"TF_CONFIG: expected addresses of the form HOST:PORT, found {wrong[0]}.")
    if not 0 <= index < len(addresses):
        raise UserError(f"TF_CONFIG: expected task.index below {len(addresses)}, found {index}.")
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _is_address(text: object) -> bool:
    host, _, port = str(text).rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65_536


def _slurm_resolver() -> tf.distribute.cluster_resolver.SlurmClusterResolver:
    if shutil.which("nvidia-smi"):
        return tf.distribute.cluster_resolver.SlurmClusterResolver(port_base=SLURM_PORT)
    # The resolver counts GPUs with nvidia-smi only and requires at least one. It is told one per task, which is not
    # used, since auto_set_gpu is off.
    return tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=SLURM_PORT, gpus_per_node=int(os.environ[SLURM_TASKS]), gpus_per_task=1, auto_set_gpu=False
    )
