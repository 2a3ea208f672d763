"""Clients that disconnect or are slow, on real connections."""

import json
import re
import socket
import time
from collections.abc import Callable
from statistics import median

import pytest

from tests.server.server_fakes import FakeTranslator, make_fake, on_a_port


def wait_until(fact: Callable[[], bool], seconds: float = 5) -> None:
    ends = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < ends, "timed out"
        time.sleep(0.005)


def connect(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(sent)
    return connection


def request(text: object, **options: object) -> bytes:
    body = json.dumps({"text": text, **options}).encode()
    return b"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_nothing_is_translated_for_a_client_that_disconnected():
    translator = FakeTranslator()
    server = make_fake(translator, max_batch=1, max_queue=3)
    translator.may_go.clear()
    with on_a_port(server) as port:
        connections = [connect(port, request(text)) for text in ("first", "left", "stays")]
        wait_until(lambda: server.batcher.num_waiting == 2)
        connections[1].close()
        wait_until(lambda: server.middleware.num_in_progress == 2)
        translator.may_go.set()
        for connection in (connections[0], connections[2]):
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.close()
    assert translator.batches == [["first"], ["stays"]]


def test_disconnected_clients_keep_no_place_in_the_queue():
    translator = FakeTranslator()
    server = make_fake(translator, max_batch=1, max_queue=2)
    translator.may_go.clear()
    with on_a_port(server) as port:
        first = connect(port, request("first"))
        wait_until(lambda: translator.batches == [["first"]])
        for _ in range(3):
            gone = [connect(port, request("gone")) for _ in range(2)]
            wait_until(lambda: server.middleware.num_in_progress == 3)
            for connection in gone:
                connection.close()
            wait_until(lambda: server.middleware.num_in_progress == 1)
        translator.may_go.set()
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        first.close()
    assert translator.batches == [["first"]]


def test_responses_on_a_reused_connection_are_not_delayed():
    """A delayed acknowledgement takes 40 ms, longer than the translation of a short sentence."""
    seconds = []
    with on_a_port(make_fake(max_wait=0)) as port, connect(port) as connection:
        for _ in range(20):
            started = time.monotonic()
            connection.sendall(request("a"))
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(1000)
            seconds.append(time.monotonic() - started)
    assert median(seconds) < 0.03


@pytest.mark.parametrize("pace", [None, 0.05])
def test_headers_that_do_not_arrive_time_out(pace):
    """Neither if nothing is sent, nor if a byte is sent now and then, nor after a complete request."""
    with on_a_port(make_fake(), patience=0.3) as port:
        connection = connect(port, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" if pace else b"")
        if pace:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.settimeout(pace or 5)
        started = time.monotonic()
        closed = False
        while not closed:
            assert time.monotonic() - started < 3
            try:
                if pace:
                    connection.send(b"G")
                closed = connection.recv(1000) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                closed = True
        assert time.monotonic() - started > 0.2
        connection.close()


def test_a_response_that_is_not_read_is_dropped():
    server = make_fake()
    with on_a_port(server, patience=0.3) as port, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(request(["a" * 9000] * 40, n_best=64))  # about 23 million characters
        wait_until(lambda: server.middleware.num_in_progress == 1)
        wait_until(lambda: server.middleware.num_in_progress == 0)
        answer = b""
        while chunk := connection.recv(1 << 20):  # what the kernel had buffered before the connection was closed
            answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        promised = int(re.search(rb"content-length: (\d+)", head)[1])
        assert promised > 20_000_000 and len(body) < promised
