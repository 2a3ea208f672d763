"""What every request passes first: is the server stopping, does it know the key, is the body small enough?"""

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, MutableMapping
from pathlib import Path
from typing import Any

from nmt.errors import RequestError, UserError
from nmt.server.limits import Limits
from nmt.server.metrics import Metrics

logger = logging.getLogger(__name__)

KEY_VARIABLE = "NMT_API_KEY"
# Asked by whoever keeps the server running, who has no key, and still while it stops.
PROBES = ("/health", "/ready")

# Bytes of a body that are thrown away for being too many: a client that still sends does not see that it is refused.
MAX_DISCARDED = 1 << 26

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]


class Middleware:
    """An ASGI application around another.

    Args:
        app: sees only requests that are let in, with their whole body at hand.
        limits: max_body and timeout.
        metrics: told of each request.
        key: asked for as `Authorization: Bearer KEY` or `X-API-Key: KEY`; None asks for none.
        public_paths: paths that need none, besides the probes.
    """

    def __init__(
        self, app: App, limits: Limits, metrics: Metrics, *, key: str | None = None, public_paths: Collection[str] = ()
    ):
        self.num_in_progress = 0
        self.is_draining = False
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._key = None if key is None else _digest(key.encode())
        self._public_paths = frozenset(public_paths)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or lets the application answer it."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.num_in_progress += 1
        try:
            self._check(scope)
            body = await self._read(scope, receive)
            leaving = asyncio.create_task(_wait_for_disconnect(receive))
            answering = asyncio.create_task(self._app(scope, _replay(body, leaving), sending))
            try:
                await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not answering.done() and not status:
                    raise ConnectionError
                await answering
            finally:
                await _cancel(answering, leaving)
        except RequestError as refusal:
            await send_error(refusal, sending)
        except ConnectionError:
            logger.debug("A client went away.")
        except Exception:
            logger.exception("A request failed.")
            if not status:
                await send_error(RequestError(500, "Internal error; the server's log says more."), sending)
        finally:
            self.num_in_progress -= 1
            route = scope.get("route")
            self._metrics.observe_request(getattr(route, "path", "other"), status, time.perf_counter() - started)

    def _check(self, scope: Message) -> None:
        if scope["path"] in PROBES:
            return
        if self.is_draining:
            raise RequestError(503, "The server is stopping.", {"Connection": "close"})
        if self._key is None or scope["path"] in self._public_paths:
            return
        if not any(hmac.compare_digest(self._key, given) for given in _hash_keys(scope)):
            raise RequestError(
                401,
                "This server asks for a key: send the header 'Authorization: Bearer KEY'.",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _read(self, scope: Message, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"")
        too_large = announced.isdigit() and int(announced[:20]) > self._limits.max_body
        if too_large and b"expect" in headers:
            raise self._too_large()  # the client asks before it sends
        body, size, more = bytearray(), 0, True
        try:
            async with asyncio.timeout(self._limits.timeout):
                while more and size <= MAX_DISCARDED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    too_large = too_large or size > self._limits.max_body
                    if too_large:
                        body.clear()
                    else:
                        body += chunk
                    more = message.get("more_body", False)
        except TimeoutError as error:
            words = f"The body did not arrive within {self._limits.timeout:g} s."
            raise RequestError(408, words, {"Connection": "close"}) from error
        if too_large:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> RequestError:
        message = f"A request may have at most {self._limits.max_body:,} bytes: send several."
        return RequestError(413, message, {"Connection": "close"})


async def send_error(refusal: RequestError, send: Send) -> None:
    """Answers a request by a refusal."""
    body = json.dumps({"error": refusal.message}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refusal.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def read_key(environment: MutableMapping[str, str], file: Path | None) -> str | None:
    """The key that a server asks for: the first line of a file, or what NMT_API_KEY says; None if neither is there.

    Raises:
        UserError: the file cannot be read, or the key is empty.
    """
    if file is not None:
        try:
            key, place = file.read_text(encoding="utf-8").strip(), f"--api-key-file {file}"
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--api-key-file {file} cannot be read: {getattr(error, 'strerror', 'no UTF-8')}."
            ) from error
    elif KEY_VARIABLE in environment:
        key, place = environment[KEY_VARIABLE].strip(), KEY_VARIABLE
    else:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        # A server that its owner believes closed must not start open.
        raise UserError(f"{place}: expected a key of printable ASCII characters without spaces, found none.")
    return key


def _hash_keys(scope: Message) -> list[bytes]:
    """Digests of the keys that a request gives; equal in length, so that comparing tells nothing of the key's."""
    given = []
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            given.append(value)
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            given.append(value[7:].strip())
    return [_digest(key) for key in given]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _replay(body: bytes, leaving: asyncio.Task[Message]) -> Receive:
    """Hands out a body that has been read, then that the client leaves."""
    handed = False

    async def read() -> Message:
        nonlocal handed
        if handed:
            return await asyncio.shield(leaving)
        handed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


async def _wait_for_disconnect(receive: Receive) -> Message:
    """Waits until the client leaves."""
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


async def _cancel(*tasks: asyncio.Task) -> None:
    """Cancels what still runs, and waits until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
