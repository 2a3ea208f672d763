"""What a process may use, told to TensorFlow and JAX before either is imported, and what it may say."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from nmt.errors import UserError

FLAGS = ("flags", "Features")  # on Intel's and AMD's processors, and on ARM's


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


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Keeps native libraries' chatter off standard error; what is raised meanwhile is raised all the same."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def choose_precision() -> Literal["float32", "bfloat16"]:
    """The arithmetic that this processor is fastest in: bfloat16 only where it has instructions for its products."""
    return "bfloat16" if read_processor_flags() & {"amx_bf16", "avx512_bf16"} else "float32"


def read_processor_flags() -> frozenset[str]:
    """What the processor says it can do, such as amx_bf16; empty where the system does not tell."""
    try:
        lines = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith(FLAGS)]
    except OSError:
        return frozenset()
    return frozenset(lines[0].split(":", 1)[1].split()) if lines else frozenset()


class ResidentMemory(NamedTuple):
    """Resident memory of a process, in bytes."""

    now: int
    peak: int
    """The largest since it began."""


def read_memory(process: int | Literal["self"] = "self") -> ResidentMemory | None:
    """What Linux says of a process' memory; None once it has ended, and on other systems.

    Not by getrusage or wait4, whose largest memory of a child begins with that of the process that started it.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    sizes = dict(line.split()[:2] for line in lines if line.startswith("Vm"))
    return ResidentMemory(*(int(sizes[name]) * 1024 for name in ("VmRSS:", "VmHWM:"))) if sizes else None
