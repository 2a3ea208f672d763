"""Clients that disconnect or are slow, on real connections."""

import json
import logging
import os
import re
import resource
import socket
import time
from collections.abc import Callable
from statistics import median

import pytest

from nmt.server import connections
from nmt.server.connections import RESERVED_FILES, fit_connections
from tests.server.server_fakes import FakeTranslator, make_fake, on_a_port


def wait_until(fact: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < ends, "timed out"
        time.sleep(0.005)


def connect(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
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
    """A client sends nothing, or a byte now and then after a complete request."""
    with on_a_port(make_fake(), patience=0.3) as port:
        connection = connect(port, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" if pace else b"")
        if pace:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.settimeout(pace or 5)
        started = time.monotonic()
        closed = False
        while not closed:
            assert time.monotonic() - started < 60
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


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(1 << 16):
        answer += chunk
    return answer


def test_the_longest_idle_connection_makes_room_for_a_new_one():
    """300 idle connections that sent nothing, half a request or a whole one do not keep out a new client."""
    probe = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    translator = FakeTranslator()
    server = make_fake(translator, max_connections=20)
    translator.may_go.clear()
    with on_a_port(server, max_connections=20) as port:
        working = connect(port, request("stays"))
        wait_until(lambda: server.middleware.num_in_progress == 1)
        idle = [connect(port, sent) for _ in range(100) for sent in (b"", b"GET /health HT", probe)]
        for _ in range(5):
            with connect(port, probe) as connection:
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        translator.may_go.set()
        assert working.recv(1000).startswith(b"HTTP/1.1 200")  # requests in progress are not dropped
        assert sum(is_closed(connection) for connection in idle) >= 280
        for connection in (working, *idle):
            connection.close()


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        while connection.recv(1000):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


def test_a_connection_is_refused_if_all_have_a_request():
    translator = FakeTranslator()
    server = make_fake(translator)
    translator.may_go.clear()
    with on_a_port(server, max_connections=2) as port:
        busy = [connect(port, request("a")) for _ in range(2)]
        wait_until(lambda: server.middleware.num_in_progress == 2)
        with connect(port) as refused:
            head, _, body = read_all(refused).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert json.loads(body) == {"error": "The server has 2 connections, all with a request."}
        translator.may_go.set()
        for connection in busy:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.close()


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"NONSENSE\r\n\r\n", 400, "Invalid HTTP request: "),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host: header"),
        (b"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "bad Content-Length"),
        (b"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n", 400, "bad Content-Len"),
        (
            b"POST /translate HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 18 + b"\r\n\r\n{",
            413,
            "at most 1,048,576",
        ),
        (b"POST /translate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding"),
        (b"POST /translate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n", 400, "chunk header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000, 431, "Receive buffer too long"),
    ],
)
def test_malformed_requests_get_json_and_are_counted_but_not_logged(web, caplog, sent, status, words):
    with connect(web) as connection:
        connection.sendall(sent)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 (\d+) ", head)[1] == str(status).encode()
    assert words in json.loads(body)["error"]
    with connect(web, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as connection:
        page = read_all(connection).decode()
    assert re.search(rf'nmt_requests_total{{path="\S+",status="{status}"}} [1-9]', page)
    assert not caplog.records


@pytest.fixture(scope="module")
def web():
    with on_a_port(make_fake()) as port:
        yield port


def test_accepting_without_free_files_logs_nothing_and_continues(caplog):
    """asyncio would log a line for each connection that it may accept, 2,048 per second."""
    with on_a_port(make_fake()) as port, caplog.at_level(logging.ERROR):
        first = connect(port, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = socket.socket()
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
        try:
            waiting.connect(("127.0.0.1", port))
            time.sleep(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert not caplog.records
        waiting.settimeout(5)
        waiting.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert waiting.recv(1000).startswith(b"HTTP/1.1 200")
        waiting.close()
        first.close()


@pytest.mark.parametrize(
    ("limits", "connections_kept", "raised"),
    [((256, 256), 256 - RESERVED_FILES, 256), ((256, 4096), 1000, 1000 + RESERVED_FILES), ((9999, 9999), 1000, 9999)],
)
def test_the_limit_of_open_files_is_raised_and_respected(monkeypatch, limits, connections_kept, raised):
    found = [limits]
    monkeypatch.setattr(connections.resource, "getrlimit", lambda which: found[-1])
    monkeypatch.setattr(connections.resource, "setrlimit", lambda which, wanted: found.append(wanted))
    assert fit_connections(1000) == connections_kept
    assert found[-1] == (raised, limits[1])


def test_a_limit_of_open_files_that_cannot_be_raised_is_respected(monkeypatch):
    def refuse(which, wanted):
        raise ValueError("current limit exceeds maximum limit")  # macOS, above kern.maxfilesperproc

    monkeypatch.setattr(connections.resource, "getrlimit", lambda which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(connections.resource, "setrlimit", refuse)
    assert fit_connections(100_000) == 256 - RESERVED_FILES
