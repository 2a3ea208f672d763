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


_required_gpu: str | None = None


def choose_device(device: str | None) -> None:
    """Restricts the process to one kind of device. Call it before TensorFlow or JAX is imported.

    Args:
        device: cpu, gpu, gpu:N, or None for every device. N counts the GPUs of CUDA_VISIBLE_DEVICES if that is set.

    Raises:
        UserError: the name is none of these, or CUDA_VISIBLE_DEVICES has fewer GPUs.
    """
    global _required_gpu
    _required_gpu = None
    if device is None:
        return
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"
        return
    match = re.fullmatch(r"gpu(?::(\d+))?", device)
    if match is None:
        raise UserError(f"--device: expected cpu, gpu or gpu:N with a number, found '{device}'.")
    _required_gpu = device
    if match[1] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = _find_gpu(int(match[1]))


def _find_gpu(number: int) -> str:
    """Returns the name for CUDA of one of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return str(number)
    names = [name for name in visible.split(",") if name.strip()]
    if not names:
        raise UserError(f"--device gpu:{number}: CUDA_VISIBLE_DEVICES is '{visible}', which hides all GPUs.")
    if number >= len(names):
        raise UserError(
            f"--device gpu:{number}: expected a number below {len(names)}, since CUDA_VISIBLE_DEVICES is '{visible}'."
        )
    return names[number]


def check_device() -> None:
    """Checks that the GPU given to `choose_device` exists. Call it once TensorFlow or JAX is imported.

    Raises:
        UserError: TensorFlow or JAX sees no such GPU, or neither is imported, as with a LiteRT model.
    """
    if _required_gpu is None:
        return
    jax, tensorflow = (sys.modules.get(name) for name in ("jax", "tensorflow"))
    if jax and os.environ.get("KERAS_BACKEND") == "jax":
        name, has_gpu = "JAX", jax.default_backend() == "gpu"
    elif tensorflow:
        name, has_gpu = "TensorFlow", bool(tensorflow.config.list_physical_devices("GPU"))
    else:
        raise UserError(f"--device {_required_gpu}: LiteRT runs on the CPU. Leave --device out.")
    if not has_gpu:
        raise UserError(
            f"--device {_required_gpu}: {name} finds no such GPU. Leave --device out to use what there is, or check "
            "the driver and the installation for GPUs (`nmt doctor` lists the devices)."
        )


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


def open_standard_descriptors() -> None:
    """Opens /dev/null in place of standard streams that are closed (`nmt … >&-`).

    Otherwise the next file that we open would get their number, and native libraries would write messages into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number


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
    """Returns the memory of a process. None if it has ended, or on gVisor and macOS, which do not report it."""
    # Not from getrusage or wait4: they count what a child process inherits from its parent at the fork as its peak.
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    sizes = dict(line.split()[:2] for line in lines if line.startswith("Vm"))
    names = ("VmRSS:", "VmHWM:")
    return ResidentMemory(*(int(sizes[name]) * 1024 for name in names)) if sizes.keys() >= {*names} else None


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
