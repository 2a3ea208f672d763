"""Checks every request first: where it comes from, whether its key is right and whether there is room for its body."""

import asyncio
import hashlib
import hmac
import json
import logging
import stat
import time
import zlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from nmt.errors import RequestError, UserError
from nmt.server.access import Access
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
# Seconds to wait for the next part of such a body.
DISCARD_PATIENCE = 2.0
# Bytes of a body that are not counted, so that small requests have room while large ones arrive.
SMALL_BODY = 1 << 16
# Connections that requests leave free, for probes.
SPARE_CONNECTIONS = 16
GZIP = 31  # zlib's number for this format

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]


class Middleware:
    """An ASGI application that wraps another.

    Args:
        app: receives the requests that pass the checks, with their whole body.
        limits: max_body, max_bodies, max_connections and timeout.
        metrics: counts each request.
        key: required as `Authorization: Bearer KEY` or `X-API-Key: KEY`; None requires no key.
        public_paths: paths that need no key and that pages of other sites may use, besides the probes.
        access: web pages and host names that may use the server.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        metrics: Metrics,
        *,
        key: str | None = None,
        public_paths: Collection[str] = (),
        access: Access | None = None,
    ):
        self.num_in_progress = 0
        self.is_draining = False
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._key = None if key is None else _digest(key.encode())
        self._public_paths = frozenset(public_paths)
        self._access = access or Access()
        self._body_bytes = 0
        spare = min(SPARE_CONNECTIONS, limits.max_connections // 4)
        self._max_in_progress = limits.max_connections - spare
        self._respond: App = self._handle
        if self._access.origins:
            self._respond = CORSMiddleware(
                self._handle,
                allow_origins=self._access.origins,
                allow_methods=("GET", "HEAD", "POST"),
                allow_headers=("Authorization", "Content-Encoding", "Content-Type", "X-API-Key"),
                allow_private_network=True,
                expose_headers=("Retry-After",),
            )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Responds to a request, or lets the application respond."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        status = 0
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET"}  # every path that has GET has HEAD, with the same headers

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        self.num_in_progress += 1
        try:
            self._check_source(scope)
            await self._respond(scope, receive, send_and_note)
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

    def observe_refusal(self, status: int) -> None:
        """Counts a request that was refused before it came here."""
        self._metrics.observe_request("refused", status, 0.0)

    async def _handle(self, scope: Message, receive: Receive, send: Send) -> None:
        """Lets the application respond to a request that may be answered. Raises ConnectionError if its client left."""
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            self._check(scope)
            with self._count_bytes() as count:
                body = await self._read(scope, receive, count)
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

    def _check_source(self, scope: Message) -> None:
        if scope["path"] in PROBES:
            return
        headers = dict(scope["headers"])
        is_read = scope["method"] == "GET"
        is_opened = is_read and headers.get(b"sec-fetch-mode") == b"navigate"
        self._access.check(headers, is_navigation=is_opened or (is_read and scope["path"] in self._public_paths))

    def _check(self, scope: Message) -> None:
        if scope["path"] in PROBES:
            return
        if self.is_draining:
            raise RequestError(503, "The server is stopping.", {"Connection": "close"})
        if self.num_in_progress > self._max_in_progress:
            raise RequestError(
                503,
                f"The server is busy with {self._max_in_progress:,} requests. Try again later.",
                {"Connection": "close", "Retry-After": "1"},
            )
        if self._key is None or scope["path"] in self._public_paths:
            return
        if not any(hmac.compare_digest(self._key, given) for given in _hash_keys(scope)):
            raise RequestError(
                401,
                "This server requires a key. Send the header 'Authorization: Bearer KEY'.",
                {"WWW-Authenticate": "Bearer"},
            )

    @contextmanager
    def _count_bytes(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that counts bytes of a body until the request has been answered.

        It raises a RequestError with status 503 if the bodies of all requests together are too large.
        """
        size = counted = 0

        def count(more: int) -> None:
            nonlocal size, counted
            size += more
            added = max(0, size - SMALL_BODY) - counted
            if added and self._body_bytes + added > self._limits.max_bodies:
                raise RequestError(
                    503,
                    "The server has no memory for this request, because it is receiving others. Try again later.",
                    {"Connection": "close", "Retry-After": "1"},
                )
            counted += added
            self._body_bytes += added

        try:
            yield count
        finally:
            self._body_bytes -= counted

    async def _read(self, scope: Message, receive: Receive, count: Callable[[int], None]) -> bytes:
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        if encoding not in (b"", b"identity", b"gzip", b"x-gzip"):
            raise RequestError(
                415,
                f"Content-Encoding: expected gzip or none, found '{encoding[:80].decode('latin-1')}'.",
                {"Accept-Encoding": "gzip", "Connection": "close"},
            )
        declared = headers.get(b"content-length", b"")
        expected = int(declared[:20]) if declared.isdigit() else 0
        too_large = expected > self._limits.max_body
        if too_large and (b"expect" in headers or expected > MAX_DISCARDED):
            raise self._too_large()  # the client waits for permission to send its body, or sends more than is read
        body, size, more = bytearray(), 0, True
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._limits.timeout
        try:
            async with asyncio.timeout_at(ends) as timer:
                while more and size <= MAX_DISCARDED:
                    if too_large:
                        timer.reschedule(min(ends, loop.time() + DISCARD_PATIENCE))
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    too_large = too_large or size > self._limits.max_body
                    if too_large:
                        body.clear()
                    else:
                        count(len(chunk))
                        body += chunk
                    more = message.get("more_body", False)
        except TimeoutError as error:
            if too_large:
                raise self._too_large() from error
            explanation = f"The request body did not arrive within {self._limits.timeout:g} s."
            raise RequestError(408, explanation, {"Connection": "close"}) from error
        if too_large:
            raise self._too_large()
        if not encoding.endswith(b"gzip"):
            return bytes(body)
        decoded = self._decompress(body)
        count(len(decoded))
        return decoded

    def _decompress(self, body: bytearray) -> bytes:
        decoder = zlib.decompressobj(GZIP)
        try:
            decoded = decoder.decompress(body, self._limits.max_body + 1)
        except zlib.error as error:
            raise RequestError(400, f"The request body is not gzip, as its Content-Encoding says: {error}") from error
        if len(decoded) > self._limits.max_body:
            raise self._too_large()
        if not decoder.eof or decoder.unused_data:
            raise RequestError(400, "The request body is not one complete gzip member.")
        return decoded

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


def read_key(
    environment: MutableMapping[str, str], file: Path | None, log: Callable[[str], None] = lambda line: None
) -> str | None:
    """Returns the key that a server requires: the content of a file, or of NMT_API_KEY; None if there is neither.

    Args:
        environment: contains NMT_API_KEY.
        file: --api-key-file.
        log: receives a warning if other users of this machine can read the file.

    Raises:
        UserError: the file cannot be read, or it is not one line with a key.
    """
    if file is not None:
        try:
            key, place = file.read_text(encoding="utf-8").strip(), f"--api-key-file {file}"
            mode = stat.S_IMODE(file.stat().st_mode)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--api-key-file {file} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}."
            ) from error
        if (num_lines := len(key.splitlines())) > 1:
            raise UserError(f"{place}: expected one line with a key, found {num_lines} lines.")
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            log(f"Other users of this machine can read the key: {file} has mode {mode:04o}. Run: chmod 600 {file}")
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
