"""Puts a server under load with Locust, and checks every answer: python run_locust.py JOB.json.

Each client sends one text as soon as it has the answer to the previous one. The translation of each text alone was
computed beforehand, and any other answer is wrong.
"""

import json
import math
import random
import resource
import time
from collections import Counter

import gevent
from locust import FastHttpUser, constant, task
from locust.env import Environment
from reporting import read_job, read_lines, write_report

AGAIN = 0.2  # seconds until a client retries after an error


class Tally:
    """Collects the answers of all clients."""

    def __init__(self, expected: dict[str, str]) -> None:
        self.expected = expected
        self.translations = set(expected.values())
        self.seconds: list[tuple[float, float]] = []
        self.statuses: Counter[str] = Counter()
        self.wrong: list[tuple[str, str]] = []
        self.num_swapped = 0
        self.lost: list[float] = []

    def record_answer(self, line: str, translation: str, started: float) -> None:
        """Records an answer, and checks it."""
        ended = time.monotonic()
        self.seconds.append((ended, ended - started))
        if translation != self.expected[line]:
            self.wrong.append((line, translation))
            self.num_swapped += translation in self.translations

    def report(self, begins: float, ends: float) -> dict:
        """Summarizes all answers. Speed and latency cover only those between two moments."""
        seconds = sorted(seconds for at, seconds in self.seconds if begins <= at <= ends)

        def compute_percentile(share: float) -> float | None:
            return round(1000 * seconds[math.ceil(share * len(seconds)) - 1], 1) if seconds else None

        return {
            "requests_per_second": round(len(seconds) / (ends - begins), 1),
            "p50_ms": compute_percentile(0.50),
            "p95_ms": compute_percentile(0.95),
            "p99_ms": compute_percentile(0.99),
            "statuses": dict(self.statuses),
            "checked": len(self.seconds),
            "wrong": len(self.wrong),
            "swapped": self.num_swapped,
            "examples": self.wrong[:5],
            "lost": self.lost,
            "answered": [at for at, _ in self.seconds],
        }


def make_client_class(job: dict, tally: Tally) -> type[FastHttpUser]:
    """Returns a client class that obeys 429, and that retries while the server is down."""
    lines = list(tally.expected)
    numbers = random.Random(job["seed"])

    class Client(FastHttpUser):
        host = job["url"]
        wait_time = constant(0)
        network_timeout = connection_timeout = 60.0

        @task
        def translate(self) -> None:
            line = numbers.choice(lines)
            started = time.monotonic()
            with self.client.post("/translate", json={"text": line}, catch_response=True) as answer:
                answer.success()  # Locust's own statistics are not used
                status, body, headers = answer.status_code, answer.content, answer.headers
            tally.statuses[str(status)] += 1
            if status == 200:
                tally.record_answer(line, json.loads(body)["translations"][0]["text"], started)
            elif status == 429:
                gevent.sleep(int(headers["Retry-After"]))
            elif status == 0:
                tally.lost.append(started)
                gevent.sleep(AGAIN)
            else:
                gevent.sleep(AGAIN)

    return Client


def main() -> None:
    """Runs the clients for the duration of the job."""
    job = read_job()
    tally = Tally(dict(zip(read_lines(job["lines"]), read_lines(job["expected"]), strict=True)))
    runner = Environment(user_classes=[make_client_class(job, tally)]).create_local_runner()
    runner.start(job["clients"], spawn_rate=job["clients"])
    gevent.sleep(job["warm"])
    before, begins = _read_processor_seconds(), time.monotonic()
    gevent.sleep(job["seconds"])
    ends, used = time.monotonic(), _read_processor_seconds() - before
    report = tally.report(begins, ends)
    runner.quit()
    write_report(job, cores=round(used / (ends - begins), 2), **report)


def _read_processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
