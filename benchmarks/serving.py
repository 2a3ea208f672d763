"""`nmt serve` under load: texts of many clients translated together, beside one at a time; and for many minutes.

Locust makes the load: each of its clients is an object that knows what it asked, so that each answer can be checked and
429 obeyed. wrk is lighter, but its scripts are not told which of a thread's connections an answer came from. Locust's
own use of the processor is stated.
"""

import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import ROOT, Text
from benchmarks.environment import DRIVERS, Environment
from benchmarks.measure import Run, run_driver
from benchmarks.ours import NMT
from benchmarks.served import Served
from benchmarks.settings import Settings
from benchmarks.training import trained
from nmt.data.corpus import read_lines
from nmt.model_folder import ModelFolder, find_model

LOCUST = Environment(name="locust", python="3.11", packages=["locust==2.47.0"])
CLIENTS = (1, 8, 64)
WAYS = {
    "one sentence at a time": ["--max-batch", "1", "--max-wait", "0"],
    "dynamic batching": [],
}
SUMMARY = ("requests_per_second", "p50_ms", "p95_ms", "p99_ms", "checked", "wrong", "swapped", "statuses", "cores")


class Load:
    """Lines and their translations, each computed by itself, and clients that ask for them.

    Args:
        model: a trained model.
        lines: different ones.
    """

    def __init__(self, settings: Settings, model: Path, lines: Sequence[str]):
        LOCUST.build()
        self.model = model
        self.num_lines = len(lines)
        self._settings = settings
        self._folder = settings.work / "serving"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lines, self._expected = self._folder / "lines.txt", self._folder / "expected.txt"
        with self.server(*WAYS["one sentence at a time"]) as served:
            _write(self._expected, [_translate(served.url, line) for line in lines])
        _write(self._lines, lines)

    def server(self, *options: str) -> Served:
        """`nmt serve` of the model, with its own port."""
        return Served(
            [sys.executable, "-m", "nmt", "serve", str(self.model), "--threads", str(self._settings.threads), *options],
            log=self._folder / "server.txt",
            environment={"PYTHONPATH": str(ROOT)},
        )

    def put_on(self, url: str, *, clients: int, warm: float, seconds: float) -> Run:
        """Asks a server for so many seconds, after some that do not count.

        Returns:
            The run, whose report is `Tally.report` of drivers/run_locust.py.
        """
        job = {
            "url": url,
            "lines": str(self._lines),
            "expected": str(self._expected),
            "clients": clients,
            "warm": warm,
            "seconds": seconds,
            "seed": clients,
        }
        return run_driver(
            [str(LOCUST.interpreter), str(DRIVERS / "run_locust.py")],
            job,
            folder=self._folder / "locust",
            threads=self._settings.threads,
            environment={"PYTHONPATH": ""},
        )


def make_load(settings: Settings, text: Text | None, model: Path | None) -> Load:
    """Load on a model, or on that of the training part, with the dev sentences that it was trained with."""
    if model is None:
        assert text is not None, "a model is given, or a text to train it with"
        model = trained(settings, text, NMT)
    source = ModelFolder.load(find_model(model)).config.data.dev.source
    lines = list(dict.fromkeys(filter(str.strip, read_lines(source))))
    return Load(settings, model, lines[: settings.latency_lines])


def measure(settings: Settings, text: Text | None, model: Path | None) -> dict:
    """Requests a second and latencies, for each way of translating and each number of clients."""
    load = make_load(settings, text, model)
    seconds = settings.serving_seconds
    ways: dict[str, dict] = {}
    for way, options in WAYS.items():
        with load.server(*options) as served:
            # The graphs of all lengths are made while nobody counts.
            load.put_on(served.url, clients=CLIENTS[-1], warm=0, seconds=seconds)
            ways[way] = {}
            for clients in CLIENTS:
                run = load.put_on(served.url, clients=clients, warm=2, seconds=seconds)
                ways[way][str(clients)] = found = {name: run.report[name] for name in SUMMARY}
                print(f"serving, {way}, {clients} clients: {found}", flush=True)
    return {
        "sentences": load.num_lines,
        "seconds": seconds,
        "locust": LOCUST.versions(["locust"])["locust"],
        "ways": ways,
    }


def _translate(url: str, line: str) -> str:
    request = urllib.request.Request(f"{url}/translate", json.dumps({"text": line}).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["translations"][0]["text"]


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
