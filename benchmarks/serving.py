"""Measures `nmt serve` under load, with dynamic batching and with one sentence at a time.

Locust generates the load. Each of its clients knows its own request, so it can check the answer and obey a 429. wrk
uses less processor time, but its scripts cannot tell which connection an answer came from. The results include the
processor time of Locust.
"""

import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus import ROOT, Text, write_lines
from benchmarks.environment import DRIVERS, Environment
from benchmarks.measure import Run, run_driver
from benchmarks.ours import NMT
from benchmarks.served import Served
from benchmarks.settings import Settings
from benchmarks.training import get_model
from nmt.data.corpus import read_lines
from nmt.model_folder import ModelFolder, find_model_folder

LOCUST = Environment(name="locust", python="3.11", packages=["locust==2.47.0"])
CLIENTS = (1, 8, 64)
WAYS = {
    "one sentence at a time": ["--max-batch", "1", "--max-wait", "0"],
    "dynamic batching": [],
}
SUMMARY = ("requests_per_second", "p50_ms", "p95_ms", "p99_ms", "checked", "wrong", "swapped", "statuses", "cores")


class Load:
    """Sentences with their expected translations, and the load that requests them.

    The expected translations are made by the server, one sentence at a time.

    Args:
        model: folder of a trained model.
        lines: distinct sentences.
    """

    def __init__(self, settings: Settings, model: Path, lines: Sequence[str]):
        LOCUST.build()
        self.model = model
        self.num_lines = len(lines)
        self._settings = settings
        self._folder = settings.work / "serving"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lines, self._expected = self._folder / "lines.txt", self._folder / "expected.txt"
        with self.make_server(*WAYS["one sentence at a time"]) as served:
            write_lines(self._expected, [_translate(served.url, line) for line in lines])
        write_lines(self._lines, lines)

    def make_server(self, *options: str) -> Served:
        """Returns a server of the model, not yet started."""
        return Served(
            [sys.executable, "-m", "nmt", "serve", str(self.model), "--threads", str(self._settings.threads), *options],
            log=self._folder / "server.txt",
            environment={"PYTHONPATH": str(ROOT)},
        )

    def put_on(self, url: str, *, clients: int, warm: float, seconds: float) -> Run:
        """Puts a server under load for `seconds`, after `warm` seconds that do not count.

        Returns:
            The run. Its report is that of `Tally.report` in drivers/run_locust.py.
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
    """Prepares load for a model, or for that of the training part, with the dev sentences of its configuration."""
    if model is None:
        assert text is not None, "either a model or a text to train one is required"
        model = get_model(settings, text, NMT)
    source = ModelFolder.load(find_model_folder(model)).config.dev_sets[0].source
    lines = list(dict.fromkeys(filter(str.strip, read_lines(source))))
    return Load(settings, model, lines[: settings.latency_lines])


def measure(settings: Settings, text: Text | None, model: Path | None) -> dict:
    """Measures requests per second and latency, for each batching mode and number of clients."""
    load = make_load(settings, text, model)
    seconds = settings.serving_seconds
    ways: dict[str, dict] = {}
    for way, options in WAYS.items():
        with load.make_server(*options) as served:
            # The first requests of each length are slow, so they are not measured.
            load.put_on(served.url, clients=CLIENTS[-1], warm=0, seconds=seconds)
            ways[way] = {}
            for clients in CLIENTS:
                run = load.put_on(served.url, clients=clients, warm=2, seconds=seconds)
                ways[way][str(clients)] = found = {name: run.report[name] for name in SUMMARY}
                print(f"serving, {way}, {clients} clients: {found}", flush=True)
    return {
        "sentences": load.num_lines,
        "seconds": seconds,
        "locust": LOCUST.get_versions(["locust"])["locust"],
        "ways": ways,
    }


def _translate(url: str, line: str) -> str:
    request = urllib.request.Request(f"{url}/translate", json.dumps({"text": line}).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["translations"][0]["text"]
