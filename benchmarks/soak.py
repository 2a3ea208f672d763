"""Overloads `nmt serve` for minutes, then kills and restarts it, and then stops it, all under load."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.corpus import Text
from benchmarks.ratios import pick_evenly
from benchmarks.served import MemoryWatch, Served
from benchmarks.serving import CLIENTS, SUMMARY, Load, make_load
from benchmarks.settings import Settings

NUM_CLIENTS = CLIENTS[-1]
# A batch takes 32 texts, so 64 clients sometimes find a queue of 24 full.
QUEUE = ["--max-queue", "24"]
AFTER = 30.0  # seconds of load during a kill, and during a stop
EVENT = 8.0  # seconds from the start of the load to the kill or stop


def measure(settings: Settings, text: Text | None, model: Path | None, minutes: float) -> dict:
    """Puts a server with a short queue under load, then kills it and stops it."""
    load = make_load(settings, text, model)
    with load.make_server(*QUEUE) as served:
        with MemoryWatch(served, every=choose_interval(minutes)) as memory:
            report = load.put_on(served.url, clients=NUM_CLIENTS, warm=0, seconds=60 * minutes).report
        found = {
            "minutes": minutes,
            "clients": NUM_CLIENTS,
            "queue": int(QUEUE[1]),
            **{name: report[name] for name in SUMMARY},
            "lost": len(report["lost"]),
            "memory": [{"seconds": round(at), "mb": round(mb)} for at, mb in pick_evenly(memory.samples, 11)],
            "growth_mb": round(_compute_growth(memory.samples), 1),
        }
        print(f"soak: {found}", flush=True)
        killed = _measure_around(load, served, _kill)
        stopped = _measure_around(load, served, _stop)
    return {**found, "killed": killed, "stopped": stopped}


def choose_interval(minutes: float) -> float:
    """Returns the seconds between samples of memory: 5, or less so that every tenth of a short run has two samples."""
    return min(5.0, 60 * minutes / 10 / 2)


def _measure_around(load: Load, served: Served, event: Callable[[Served], dict]) -> dict:
    """Records what clients see when their server is killed or stopped."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load.put_on, served.url, clients=NUM_CLIENTS, warm=0, seconds=AFTER)
        time.sleep(EVENT)
        happened = event(served)
        report = running.result().report
    began, ended = happened.pop("began"), happened.pop("ended")
    found = {
        **happened,
        **{name: report[name] for name in ("checked", "wrong", "swapped", "statuses")},
        "away_seconds": round(ended - began, 1),
        "answered_before": sum(at < began for at in report["answered"]),
        "answered_after": sum(at > ended for at in report["answered"]),
        "lost_before": sum(at < began for at in report["lost"]),
    }
    print(f"soak: {found}", flush=True)
    return found


def _kill(served: Served) -> dict:
    began = time.monotonic()
    code, _ = served.stop(signal.SIGKILL)
    served.start()
    return {"began": began, "ended": time.monotonic(), "exit_code": code}


def _stop(served: Served) -> dict:
    began = time.monotonic()
    code, printed = served.stop(signal.SIGTERM)
    return {"began": began, "ended": time.monotonic(), "exit_code": code, "printed": printed}


def _compute_growth(samples: list[tuple[float, float]]) -> float:
    """Computes the growth in megabytes from the median of the second minute to that of the last.

    Runs shorter than ten minutes are divided into tenths instead of minutes.
    """
    ends = samples[-1][0]
    span = min(60.0, ends / 10)

    def take_median(begins: float) -> float:
        return median(mb for at, mb in samples if begins <= at <= begins + span)

    return take_median(ends - span) - take_median(span)
