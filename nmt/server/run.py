"""`nmt serve`: opens a model and serves it on a port until a signal stops it."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from nmt.errors import UserError
from nmt.server.access import Access, is_loopback
from nmt.server.app import Server, make_server
from nmt.server.connections import BACKLOG, ListeningServer, fit_connections, make_config
from nmt.server.limits import Limits
from nmt.server.middleware import KEY_VARIABLE, read_key
from nmt.translators.opening import find_kind, open_translator
from nmt.translators.protocol import Translator

GRACE = 5.0  # seconds beyond the time-out for sending the last responses


class StoppingServer(ListeningServer):
    """Stops on a signal in two steps: it finishes the requests in progress and refuses new ones, then closes its port.

    uvicorn alone closes the port at once, so that new clients get no answer that explains why.

    Args:
        config: of uvicorn.
        server: the server that stops.
        max_seconds: maximum time for the requests in progress.
        log: receives a line when the server begins to stop.
    """

    def __init__(self, config: uvicorn.Config, server: Server, max_seconds: float, log: Callable[[str], None]):
        super().__init__(config)
        self._middleware = server.middleware
        self._max_seconds = max_seconds
        self._log = log
        self._ends_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to stop; a second signal ends the server at once."""
        if self._middleware.is_draining:
            self.should_exit = self.force_exit = True
            return
        self._middleware.is_draining = True
        self._ends_at = time.monotonic() + self._max_seconds
        self._log(f"Stopping. Requests in progress: {self._middleware.num_in_progress}.")

    async def on_tick(self, counter: int) -> bool:
        """Ends the server when no request is in progress; uvicorn calls this ten times per second."""
        if self._middleware.is_draining and (self._middleware.num_in_progress == 0 or time.monotonic() > self._ends_at):
            self.should_exit = True
        return await super().on_tick(counter)


def serve(
    model: Path,
    *,
    host: str,
    port: int,
    name: str | None,
    limits: Limits,
    key_file: Path | None = None,
    access: Access | None = None,
    decoding: Mapping[str, Any] | None = None,
    rerank: Path | None = None,
    rerank_weight: float | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Serves a run folder, a model folder or an export until SIGTERM or Ctrl-C.

    Args:
        model: the folder.
        host: address to listen on.
        port: 0 takes any free port.
        name: of the model in the paths of TensorFlow Serving's API; None takes the folder's.
        limits: of requests and of the queue.
        key_file: contains the key that requests must send; NMT_API_KEY can contain it instead.
        access: web pages and host names that may use the server.
        decoding: settings of the section `decoding` other than the model's own, such as {"beam_size": 1}.
        rerank, rerank_weight: a second model; see `open_translator`.
        log: receives a line when the server is ready, and one when it stops.

    Raises:
        UserError: there is no such model, a setting is invalid, the address is not available, or the key is invalid.
    """
    name = check_name(name or derive_name(model))
    key = read_key(os.environ, key_file, log)
    max_connections = fit_connections(limits.max_connections)
    if max_connections < limits.max_connections:
        log(f"The server keeps at most {max_connections:,} connections open: ulimit -n allows no more.")
        limits = replace(limits, max_connections=max_connections)
    with listen(host, port) as listener:
        translator = open_model(model, {**(decoding or {}), "rerank": rerank, "rerank_weight": rerank_weight})
        server = make_server(translator, name, limits, key=key, access=access)
        config = make_config(server, timeout=limits.timeout, max_connections=max_connections)
        config.timeout_graceful_shutdown = int(GRACE)
        log(f"Serving {model} as {name}, version {translator.version}: {_url(host, listener)}")
        if is_open(host, key):
            log(f"Anyone who can reach {host} can translate. Set {KEY_VARIABLE} or --api-key-file to require a key.")
        StoppingServer(config, server, limits.timeout + GRACE, log).run(sockets=[listener])
        server.batcher.close(GRACE)
        log("Stopped.")


def open_model(model: Path, options: Mapping[str, Any]) -> Translator:
    """Opens a model or a SavedModel and translates a word, so that the first request is not slowed by compilation.

    Args:
        model: the folder.
        options: other arguments of `open_translator`.

    Raises:
        UserError: see `open_translator`.
    """
    if find_kind(model).name == "LiteRT":
        raise UserError(f"{model} is an export for LiteRT. Serve a SavedModel or the model itself.")
    translator = open_translator(model, **options)
    translator.translate_batch(["a"])
    return translator


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens. It is opened before the model is loaded, so that requests wait meanwhile.

    Raises:
        UserError: the address is in use, or does not belong to this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise UserError(f"Cannot listen on {host}, port {port}: {getattr(error, 'strerror', error)}.") from error


def is_open(host: str, key: str | None) -> bool:
    """Returns whether users of other machines can translate without a key."""
    return key is None and not is_loopback(host)


def derive_name(model: Path) -> str:
    """Returns the name of a model's folder, or of the one that contains it for a version or a run's best model."""
    path = model.resolve()
    return path.parent.name if path.name.isdecimal() or path.name == "best" else path.name


def check_name(name: str) -> str:
    """Returns the name.

    Raises:
        UserError: the name cannot be part of a URL's path.
    """
    if not name or "/" in name or ":" in name:
        raise UserError(f"--name: expected a name without '/' and ':', found '{name}'.")
    return name


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
