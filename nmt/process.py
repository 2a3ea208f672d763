"""The process: its devices, threads and memory, and what native libraries print.

Nothing here imports TensorFlow or JAX: both read the environment variables that are set here when they are imported.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from nmt.errors import UserError

FLAGS = ("flags", "Features")  # how the line starts in /proc/cpuinfo: on x86-64, on ARM
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "PJRT_NPROC")


def choose_device(device: str | None) -> None:
    """Restricts the process to one kind of device. Call it before TensorFlow or JAX is imported.

    Args:
        device: cpu, gpu, gpu:N, or None for every device.

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
    """Limits the compute threads; None leaves one per core. Call it before TensorFlow or JAX is imported."""
    if threads is not None:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


def count_threads() -> int:
    """Returns the number of compute threads: what `choose_threads` allowed, or one per core."""
    return int(os.environ.get(THREAD_VARIABLES[0]) or count_cpus())


def count_cpus() -> int:
    """Returns the number of cores that this process may use."""
    # The affinity respects taskset and the CPU sets of containers, which os.cpu_count ignores. macOS has none.
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def silence_stderr() -> Iterator[None]:
    """Discards what native libraries write to standard error inside the block. Exceptions pass through."""
    # They write to file descriptor 2 itself, so contextlib.redirect_stderr, which replaces sys.stderr, is not enough.
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def choose_precision() -> Literal["float32", "bfloat16"]:
    """Returns the type that this processor computes fastest in."""
    # Without instructions for products of bfloat16, oneDNN converts every operand and is slower than in float32.
    return "bfloat16" if read_processor_flags() & {"amx_bf16", "avx512_bf16"} else "float32"


def read_processor_flags() -> frozenset[str]:
    """Returns the features of the processor, such as amx_bf16. Empty where there is no /proc/cpuinfo, as on macOS."""
    try:
        lines = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith(FLAGS)]
    except OSError:
        return frozenset()
    return frozenset(lines[0].split(":", 1)[1].split()) if lines else frozenset()


class ResidentMemory(NamedTuple):
    """Resident memory of a process, in bytes."""

    now: int
    peak: int
    """The largest since the process started."""


def read_memory(process: int | Literal["self"] = "self") -> ResidentMemory | None:
    """Returns the memory of a process on Linux. None if the process has ended, and on other systems."""
    # Not from getrusage or wait4: they count what a child process inherits from its parent at the fork as its peak.
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    sizes = dict(line.split()[:2] for line in lines if line.startswith("Vm"))
    return ResidentMemory(*(int(sizes[name]) * 1024 for name in ("VmRSS:", "VmHWM:"))) if sizes else None


def read_peak_memory() -> int:
    """Returns the largest resident memory of this process since it started, in bytes."""
    if memory := read_memory():
        return memory.peak
    import resource  # which Windows lacks

    # In kilobytes on Linux and in bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read_available_memory() -> int:
    """Returns the bytes that a new process can use without swapping; all of the memory if the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
