"""HTTP connections: their number, their time-outs, and the responses to malformed requests.

uvicorn limits only the time between two requests.
"""

import asyncio
import contextlib
import json
import resource
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nmt.server.app import Server

# Seconds that an idle connection stays open: longer than the minute of most reverse proxies, because a proxy must not
# send a request on a connection that the server is closing.
KEEP_ALIVE = 75
# Connections that the system accepts and that wait for the server, as while it loads the model.
BACKLOG = 2048
# New connections that the server accepts before it serves the open ones again. Some five times as many are on their way
# when it closes one to make room, and need open files as well.
ACCEPTED_AT_ONCE = 8
# Open files of the rest of the process, and of connections that are being accepted or closed.
RESERVED_FILES = 96
ACCEPT_FAILED = "socket.accept() out of system resource"


class ListeningServer(uvicorn.Server):
    """uvicorn's server, which accepts few connections at a time and fills no log when it cannot accept any."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept connections."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has set it to the number that it accepts at a time
        asyncio.get_running_loop().set_exception_handler(_handle_loop_error)


class Timer:
    """Calls a function after some seconds, unless it is stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, call: Callable[[], None]):
        self._loop = loop
        self._seconds = seconds
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts the countdown, unless it is running already."""
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds, self._call)

    def stop(self) -> None:
        """Stops the countdown; the next start begins a new one."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def make_config(server: Server, *, timeout: float, max_connections: int) -> uvicorn.Config:
    """Returns uvicorn's configuration.

    Args:
        server: answers the requests.
        timeout: see `make_protocol`.
        max_connections: see `make_protocol`.
    """
    observe = server.middleware.observe_refusal
    return uvicorn.Config(
        server.middleware,
        http=make_protocol(timeout, max_connections=max_connections, observe_refusal=observe),
        lifespan="off",
        ws="none",
        # Malformed requests are counted. A line for each of them would fill the log.
        log_level="error",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE,
        backlog=ACCEPTED_AT_ONCE,
    )


def fit_connections(wanted: int) -> int:
    """Returns how many of the connections wanted the limit of open files allows, after raising it as far as possible.

    Beyond the limit, no connection could be accepted, not even that of a health check.
    """
    needed = wanted + RESERVED_FILES
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < needed:
        raised = needed if most == resource.RLIM_INFINITY else min(needed, most)
        with contextlib.suppress(ValueError, OSError):  # macOS states no limit and still refuses large numbers
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - RESERVED_FILES))


def make_protocol(
    timeout: float,
    *,
    max_connections: int = sys.maxsize,
    observe_refusal: Callable[[int], None] = lambda status: None,
) -> type[H11Protocol]:
    """Returns uvicorn's HTTP/1.1 protocol, without delayed packets and with limits.

    A connection is closed if the headers of a request have not arrived `timeout` seconds after its first byte, or after
    the connection was made. It is also closed if the client takes longer than that to read a response.

    If there are more than `max_connections`, the one that has been without a request for longest is closed. If all have
    one, the new connection is answered with status 503.

    Args:
        timeout: in seconds.
        max_connections: connections open at a time.
        observe_refusal: called with the status of each response that the application does not give.
    """
    alive: set[H11Protocol] = set()
    idle: dict[H11Protocol, None] = {}  # connections without a request, longest idle first

    class LimitedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # asyncio sets TCP_NODELAY only on sockets whose protocol number is that of TCP. Sockets accepted from
            # socket.create_server have the number 0. Without the option, the body of a response waits until the client
            # acknowledges the headers: 40 ms.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._headers_timer = Timer(self.loop, timeout, transport.close)
            self._reading_timer = Timer(self.loop, timeout, transport.abort)
            # Report every unsent byte, not only more than 64 KiB: even a small response that the client does not read
            # keeps the connection open.
            transport.set_write_buffer_limits(high=0)
            self._headers_timer.start()
            alive.add(self)
            if len(alive) > max_connections:
                self._make_room()
            self._note_activity()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._has_request():
                self._headers_timer.stop()
            else:
                self._headers_timer.start()
            self._note_activity()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._note_activity()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading_timer.start()
            self._note_activity()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._reading_timer.stop()
            self._note_activity()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)
            self._headers_timer.stop()
            self._reading_timer.stop()

        def send_400_response(self, msg: str) -> None:
            error = sys.exception()
            status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
            self._refuse(status, f"Invalid HTTP request: {error or msg}")

        def _make_room(self) -> None:
            if idle:
                oldest = next(iter(idle))
                oldest._forget()  # type: ignore[attr-defined]
                oldest.transport.close()
            else:
                self._refuse(503, f"The server has {max_connections:,} connections, all with a request.")

        def _refuse(self, status: int, message: str) -> None:
            observe_refusal(status)
            self._forget()
            # A response that has begun cannot be replaced by another one.
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = json.dumps({"error": message}).encode()
                headers = [
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(body))),
                    ("Connection", "close"),
                ]
                response = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
                for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event))
            self.transport.close()

        def _has_request(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _note_activity(self) -> None:
            idle.pop(self, None)
            is_waiting = not self._has_request() and not self.flow.write_paused and not self.transport.is_closing()
            if is_waiting and self in alive:
                idle[self] = None

        def _forget(self) -> None:
            alive.discard(self)
            idle.pop(self, None)

    return LimitedProtocol


def _handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio tries again after a second. Until then it would log a line for every connection that it may accept.
    if context.get("message") != ACCEPT_FAILED:
        loop.default_exception_handler(context)
