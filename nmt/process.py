"""What a process may use, told to TensorFlow and JAX by environment variables before either is imported."""

import os
import re

from nmt.errors import UserError


def choose_device(device: str | None) -> None:
    """Restricts the process to a device: cpu, gpu, gpu:N, or None for whatever there is.

    Raises:
        UserError: the name is none of these.
    """
    if device is None or device == "gpu":
        return
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"
    elif match := re.fullmatch(r"gpu:(\d+)", device):
        os.environ["CUDA_VISIBLE_DEVICES"] = match[1]
    else:
        raise UserError(f"--device: expected cpu, gpu or gpu:N with a number, found '{device}'.")


def choose_threads(threads: int | None) -> None:
    """Limits the threads of the arithmetic; None leaves one for each core."""
    if threads is not None:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "PJRT_NPROC"):
            os.environ[name] = str(threads)
