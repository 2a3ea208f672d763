"""The machine in words, and whether it had other work than the measurement."""

import os
import platform
import resource
import time
from pathlib import Path

VECTORS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}


def describe_machine() -> str:
    """Such as: Intel(R) Xeon(R) Processor, 2 cores, AMX, 25 GB of memory, Linux 6.18, Python 3.11.7."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = facts.get("flags", "").split()
    vectors = next((words for flag, words in VECTORS.items() if flag in flags), "no AVX2")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    return (
        f"{facts.get('model name', platform.machine())}, {os.cpu_count()} cores, {vectors}, {memory:.0f} GB of memory, "
        f"{system}, Python {platform.python_version()}"
    )


class OtherWork:
    """How much of the machine went to others since this was made: what all processes used, less what ours did."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._before = _all_seconds() - _own_seconds()

    def cores(self) -> float:
        """Cores that others kept busy, on average; beside a measurement it should be near 0."""
        return (_all_seconds() - _own_seconds() - self._before) / (time.monotonic() - self._started)


def _all_seconds() -> float:
    """Processor seconds of all processes since the machine started: user, nice, system, interrupts and stolen ones."""
    first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, first[:8])
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
