"""Checks every request first: whether the server is stopping, the key is right and the body is small enough."""

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
INTERNAL_ERROR = "Internal error. See the log of the server."
# Called by whatever keeps the server running. It has no key, and calls while the server stops, too.
PROBES = ("/health", "/ready")

# Bytes of a body that is too large that are still read, and dropped. A client that is sending does not read the error
# before it has sent everything, and sees a broken connection if the server stops reading.
MAX_DISCARDED = 1 << 26

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]


class Middleware:
    """An ASGI application that wraps another.

    Args:
        app: receives the requests that pass the checks, with their whole body.
        limits: max_body and timeout.
        metrics: counts each request.
        key: required as `Authorization: Bearer KEY` or `X-API-Key: KEY`; None requires no key.
        public_paths: paths that need no key, besides the probes.
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
        """Responds to a request, or lets the application respond."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.num_in_progress += 1
        try:
            self._check(scope)
            body = await self._read(scope, receive)
            leaving = asyncio.create_task(_wait_for_disconnect(receive))
            answering = asyncio.create_task(self._app(scope, _replay(body, leaving), send_and_note))
            try:
                await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not answering.done() and not status:
                    raise ConnectionError
                await answering
            finally:
                await _cancel(answering, leaving)
        except RequestError as error:
            await send_error(error, send_and_note)
        except ConnectionError:
            logger.debug("A client disconnected.")
        except Exception:
            logger.exception("A request failed.")
            if not status:
                await send_error(RequestError(500, INTERNAL_ERROR), send_and_note)
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
                "This server requires a key. Send the header 'Authorization: Bearer KEY'.",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _read(self, scope: Message, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        too_large = declared.isdigit() and int(declared[:20]) > self._limits.max_body
        if too_large and b"expect" in headers:
            raise self._too_large()  # the client waits for permission to send its body
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
            explanation = f"The request body did not arrive within {self._limits.timeout:g} s."
            raise RequestError(408, explanation, {"Connection": "close"}) from error
        if too_large:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> RequestError:
        message = f"A request can have at most {self._limits.max_body:,} bytes. Send several requests."
        return RequestError(413, message, {"Connection": "close"})


async def send_error(error: RequestError, send: Send) -> None:
    """Sends an error as the response to a request."""
    body = json.dumps({"error": error.message}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def read_key(environment: MutableMapping[str, str], file: Path | None) -> str | None:
    """Returns the key that a server requires: the content of a file, or of NMT_API_KEY; None if there is neither.

    Raises:
        UserError: the file cannot be read, or the key is empty.
    """
    if file is not None:
        try:
            key, place = file.read_text(encoding="utf-8").strip(), f"--api-key-file {file}"
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--api-key-file {file} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}."
            ) from error
    elif KEY_VARIABLE in environment:
        key, place = environment[KEY_VARIABLE].strip(), KEY_VARIABLE
    else:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        # A server must not start without protection if its owner tried to set a key.
        raise UserError(f"{place}: expected a key of printable ASCII characters without spaces.")
    return key


def _hash_keys(scope: Message) -> list[bytes]:
    """Returns digests of the keys in a request. All have one length, so comparing them reveals no length of a key."""
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
    """Returns a `receive` that returns a body that was read before, then the disconnection of the client."""
    is_read = False

    async def read() -> Message:
        nonlocal is_read
        if is_read:
            return await asyncio.shield(leaving)
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


async def _wait_for_disconnect(receive: Receive) -> Message:
    """Waits until the client disconnects."""
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


async def _cancel(*tasks: asyncio.Task) -> None:
    """Cancels the tasks that still run, and waits until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
