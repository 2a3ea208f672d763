"""HTTP connections that respond at once and time out: uvicorn limits only the time between two requests."""

import asyncio
import socket
from collections.abc import Callable

from uvicorn.protocols.http.h11_impl import H11Protocol


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


def make_protocol(timeout: float) -> type[H11Protocol]:
    """Returns uvicorn's HTTP/1.1 protocol, without delayed packets and with time limits for slow clients.

    A connection is closed if the headers of a request have not arrived `timeout` seconds after its first byte, or after
    the connection was made. It is also closed if the client takes longer than that to read a response.
    """

    class TimeoutProtocol(H11Protocol):
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

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._headers_timer.start()
            else:
                self._headers_timer.stop()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading_timer.start()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._reading_timer.stop()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._headers_timer.stop()
            self._reading_timer.stop()

    return TimeoutProtocol
