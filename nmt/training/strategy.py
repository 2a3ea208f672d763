"""Where the replicas of a model live: one device, all GPUs of a machine, or several machines."""

import json
import os
from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

from nmt.errors import UserError, nearest


def make_strategy(
    kind: Literal["auto", "single", "mirrored", "multi_worker"], devices: Sequence[str] | None = None
) -> tf.distribute.Strategy:
    """Returns the tf.distribute strategy of a configuration.

    Args:
        kind: auto mirrors where there are several GPUs; multi_worker reads TF_CONFIG.
        devices: such as ["GPU:0", "GPU:1"]; None takes all.

    Raises:
        UserError: a device does not exist, or TF_CONFIG is missing or no JSON.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if devices is not None:
        _check_devices(devices)
    if kind == "multi_worker":
        _check_cluster()
        return tf.distribute.MultiWorkerMirroredStrategy()
    several = len(devices or gpus) > 1
    if kind == "mirrored" or (kind == "auto" and several):
        return tf.distribute.MirroredStrategy(list(devices) if devices else None)
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes: the only one, or worker 0 of several."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return True
    return resolver.task_type == "chief" or (resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs)


def _check_devices(devices: Sequence[str]) -> None:
    known = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    for device in devices:
        if device.removeprefix("/device:") not in known:
            raise UserError(
                f"training.devices: there is no device {device}; this machine has {', '.join(known)}."
                f"{nearest(device, known)}"
            )


def _check_cluster() -> None:
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise UserError("training.strategy multi_worker needs the environment variable TF_CONFIG; it is not set.")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"TF_CONFIG is no JSON: {error}.") from error
