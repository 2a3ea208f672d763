"""The devices that share a batch on JAX: those of one process."""

from collections.abc import Sequence

import jax
import numpy as np

from nmt.config.schema import StrategyName
from nmt.errors import UserError, suggest_name

ROWS = "rows"


def make_mesh(kind: StrategyName, devices: Sequence[str] | None = None) -> jax.sharding.Mesh:
    """Returns JAX's devices as one axis, over which the rows of a batch are shared.

    Args:
        kind: auto and mirrored share over all devices, single uses the first.
        devices: such as ["GPU:0", "GPU:1"]; None takes all.

    Raises:
        UserError: a device does not exist, or several machines are asked for.
    """
    if kind == "multi_worker":
        raise UserError("training.strategy multi_worker needs the TensorFlow backend; on JAX one process trains.")
    known = {f"{device.platform.upper()}:{device.id}": device for device in jax.devices()}
    for device in devices or []:
        if device.removeprefix("/device:") not in known:
            raise UserError(
                f"training.devices: there is no device {device}; JAX has {', '.join(known)}."
                f"{suggest_name(device, known)}"
            )
    chosen = [known[device.removeprefix("/device:")] for device in devices or known]
    return jax.sharding.Mesh(np.array(chosen[:1] if kind == "single" else chosen), (ROWS,))
