"""The machine in words, and whether it had other work."""

import os
import platform
from pathlib import Path

KNOWN_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}


def describe_machine() -> str:
    """Such as: Intel Xeon Processor, 2 cores, AMX, 23 GB of memory, Linux 6.1, Python 3.11.7."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = facts.get("flags", "").split()
    vectors = next((words for flag, words in KNOWN_FLAGS.items() if flag in flags), "no AVX2")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    return (
        f"{facts.get('model name', platform.machine())}, {os.cpu_count()} cores, {vectors}, {memory:.0f} GB of memory, "
        f"{system}, Python {platform.python_version()}"
    )


def load() -> float:
    """Processes that wanted to run during the last minute, on average: beside a measurement there should be none."""
    return os.getloadavg()[0]
