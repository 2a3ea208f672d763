"""Connections that answer at once and do not hold on to a server: uvicorn bounds only the time between two requests."""

import asyncio
import socket
from collections.abc import Callable

from uvicorn.protocols.http.h11_impl import H11Protocol


class Timer:
    """Calls something, unless it is stopped within so many seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, call: Callable[[], None]):
        self._loop = loop
        self._seconds = seconds
        self._call = call
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts counting, where it does not count already."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._call)

    def stop(self) -> None:
        """Calls nothing until it is started again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def make_protocol(timeout: float) -> type[H11Protocol]:
    """HTTP/1.1 as uvicorn speaks it, without delay, and for clients that neither send nor read too slowly.

    A connection is closed on which the head of a request has not arrived `timeout` seconds after its first byte, or
    after the connection was made; and one whose client takes longer than that to read what waits for it.
    """

    class TimeoutProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # asyncio does so only where a socket says that it is TCP, which those of create_server do not. Without
            # it the body of an answer waits until the client has acknowledged the head: 40 ms.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._head = Timer(self.loop, timeout, transport.close)
            self._unread = Timer(self.loop, timeout, transport.abort)
            # Told of each byte that waits, not of 64 KiB: a small answer that is not read holds the connection as well.
            transport.set_write_buffer_limits(high=0)
            self._head.start()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._head.start()
            else:
                self._head.stop()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread.start()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._unread.stop()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._head.stop()
            self._unread.stop()

    return TimeoutProtocol
