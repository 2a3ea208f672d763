"""Describes the machine, and measures how busy other programs keep it."""

import os
import platform
import resource
import time
from pathlib import Path

GPUS = Path("/proc/driver/nvidia/gpus")
VECTORS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}


def describe_machine() -> str:
    """Returns, for example, "Intel(R) Xeon(R) Processor, 2 cores, AMX, 25 GB of memory, Linux 6.18, Python 3.11.7"."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = facts.get("flags", "").split()
    vectors = next((words for flag, words in VECTORS.items() if flag in flags), "no AVX2")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    gpus = [
        f"{line.partition(':')[2].strip()}, "
        for path in sorted(GPUS.glob("*/information"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("Model:")
    ]
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    return (
        f"{facts.get('model name', platform.machine())}, {os.cpu_count()} cores, {vectors}, {memory:.0f} GB of memory, "
        f"{''.join(gpus)}{system}, Python {platform.python_version()}"
    )


class OtherWork:
    """Measures the processor time of other programs since its creation: that of all processes, less our own."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._before = _read_all_seconds() - _read_own_seconds()

    def measure_cores(self) -> float:
        """Returns how many cores other programs used on average. It should be near 0 during a measurement."""
        return (_read_all_seconds() - _read_own_seconds() - self._before) / (time.monotonic() - self._started)


def _read_all_seconds() -> float:
    """Reads the processor seconds of all processes since boot: user, nice, system, interrupts and stolen time."""
    first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, first[:8])
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


def _read_own_seconds() -> float:
    """Reads the processor seconds of this process and of its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
