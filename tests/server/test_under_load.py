"""`nmt serve` with more clients than its queue has room for; it is killed, restarted, and finally stopped.

`python -m benchmarks serving --soak 10` does the same for minutes, with a public load generator.
"""

import http.client
import json
import random
import signal
import socket
import threading
import time
from collections import Counter

import pytest

from nmt.server.run import listen
from tests.exported_model import SENTENCES
from tests.server.test_server_process import post, start
from tests.server.test_serving_documentation import program, run

LINES = SENTENCES[::9]
NUM_CLIENTS = 12
# Room for eight of twelve clients: four texts are translated and four wait, the other clients retry.
LIMITS = ("--max-batch", 4, "--max-queue", 4)


class Clients:
    """Threads that request one translation after the other and check it."""

    def __init__(self, port: int, expected: dict[str, str]):
        self.statuses: Counter[int] = Counter()
        self.wrong: list[tuple[str, str]] = []
        self.answered: list[float] = []
        self.lost: list[float] = []
        """Times at which requests without a response were sent."""
        self._port = port
        self._expected = expected
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(NUM_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for_answers(self, number: int) -> None:
        """Waits for so many more responses."""
        enough = len(self.answered) + number
        ends = time.monotonic() + 300
        while len(self.answered) < enough:
            assert time.monotonic() < ends, self.statuses
            time.sleep(0.02)

    def _ask(self, number: int) -> None:
        numbers = random.Random(number)
        while not self._ended.is_set():
            line = numbers.choice(LINES)
            sent = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
            try:
                connection.request("POST", "/translate", json.dumps({"text": line}))
                response = connection.getresponse()
                status, body, again = response.status, json.load(response), response.headers.get("Retry-After")
            except (OSError, http.client.HTTPException):
                self.lost.append(sent)
                self._ended.wait(0.1)
                continue
            finally:
                connection.close()
            self.statuses[status] += 1
            if status == 200:
                self.answered.append(time.monotonic())
                if (found := body["translations"][0]["text"]) != self._expected[line]:
                    self.wrong.append((line, found))
            elif status == 429:
                self._ended.wait(int(again) + 0.1 * numbers.random())
            else:
                self._ended.wait(0.1)


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("load") / "tiny"
    model_folder.save(folder)
    return folder


def test_no_response_is_wrong_or_lost_under_overload_after_a_kill_and_at_the_stop(model, tmp_path):
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    process, url, _ = start(model, *LIMITS, port=port)
    client = program("translate_rest.py", tmp_path)
    # One by one, so that every batch has one text.
    expected = {line: post(f"{url}/translate", {"text": line})[1]["translations"][0]["text"] for line in LINES}
    assert len(set(expected.values())) > len(LINES) / 2  # else swapped translations would not be noticed

    clients = Clients(port, expected)
    try:
        clients.wait_for_answers(50)
        assert clients.statuses.keys() == {200, 429} and not clients.lost

        process.send_signal(signal.SIGKILL)
        process.communicate()
        process, _, _ = start(model, *LIMITS, port=port)
        clients.wait_for_answers(25)
        assert clients.lost and clients.statuses.keys() == {200, 429}
        # The program in the documentation copes with the other clients.
        done = run(client, url, "tiny", lines=LINES[:3])
        assert (done.stderr, done.stdout.split("\n")[:-1]) == ("", [expected[line] for line in LINES[:3]])

        lost_before, stopped = len(clients.lost), time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, "")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    finally:
        process.kill()
        clients.close()
    assert not clients.wrong
    assert all(sent > stopped for sent in clients.lost[lost_before:])
    assert clients.statuses.keys() <= {200, 429, 503}
