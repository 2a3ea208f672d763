"""`nmt serve`: from a model's folder to a port, until a signal comes."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from nmt.errors import UserError
from nmt.server.app import Server, make_server
from nmt.server.http_timeouts import make_protocol
from nmt.server.limits import Limits
from nmt.server.middleware import KEY_VARIABLE, read_key
from nmt.translators.opening import find_kind, open_translator
from nmt.translators.protocol import Translator

LOOPBACK = ("127.0.0.1", "::1", "localhost")
GRACE = 5.0  # seconds beyond the time-out that the last answers may take to be sent
# Longer than the minute for which the usual proxies keep a connection: one that they still use must not be closed.
KEEP_ALIVE = 75


class StoppingServer(uvicorn.Server):
    """Stops on a signal in two steps: first it answers what it took and refuses what comes, then it closes its port.

    uvicorn closes the port at once, so that whoever comes meanwhile is not told why.

    Args:
        server: whose middleware is shut.
        patience: seconds after which it ends in any case.
        log: receives a line.
    """

    def __init__(self, config: uvicorn.Config, server: Server, patience: float, log: Callable[[str], None]):
        super().__init__(config)
        self._middleware = server.middleware
        self._patience = patience
        self._log = log
        self._ends_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops; a second signal ends at once."""
        if self._middleware.is_draining:
            self.should_exit = self.force_exit = True
            return
        self._middleware.is_draining = True
        self._ends_at = time.monotonic() + self._patience
        self._log(f"Stopping; requests to finish: {self._middleware.num_in_progress}.")

    async def on_tick(self, counter: int) -> bool:
        """Looks whether all is answered, ten times a second."""
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
    decoding: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Serves a run folder, a model folder or an export until SIGTERM or Ctrl-C.

    Args:
        host: the address to listen on.
        port: 0 takes any that is free.
        name: of the model in the paths of TensorFlow Serving's interface; the folder's if None.
        key_file: holds the key that requests must give; NMT_API_KEY may hold it instead.
        decoding: settings of the section `decoding` other than the model's own, such as {"beam_size": 1}.
        log: receives a line when it listens, and one when it stops.

    Raises:
        UserError: there is no such model, the address cannot be listened on, or the key is empty.
    """
    name = check_name(name or derive_name(model))
    key = read_key(os.environ, key_file)
    with listen(host, port) as listener:
        translator = open_model(model, decoding or {})
        server = make_server(translator, name, limits, key=key)
        config = uvicorn.Config(
            server.middleware,
            http=make_protocol(limits.timeout),
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(GRACE),
        )
        log(f"Serving {model} as {name}, version {translator.version}: {_url(host, listener)}")
        if is_open(host, key):
            log(f"Whoever reaches {host} may translate: set {KEY_VARIABLE} or --api-key-file to ask for a key.")
        StoppingServer(config, server, limits.timeout + GRACE, log).run(sockets=[listener])
        server.batcher.close(GRACE)
        log("Stopped.")


def open_model(model: Path, decoding: Mapping[str, Any]) -> Translator:
    """Opens a model or a SavedModel and translates a word with it, so that the first request does not wait for that.

    Raises:
        UserError: see `open_translator`.
    """
    if find_kind(model).name == "LiteRT":
        raise UserError(f"{model} is an export for LiteRT. Serve a SavedModel or the model itself.")
    translator = open_translator(model, **decoding)
    translator.translate_batch(["a"])
    return translator


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; made before the model is read, which takes long.

    Raises:
        UserError: the address is taken, or is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(f"Cannot listen on {host}, port {port}: {getattr(error, 'strerror', error)}.") from error


def is_open(host: str, key: str | None) -> bool:
    """Whether others than this machine's users may translate."""
    return key is None and host not in LOOPBACK


def derive_name(model: Path) -> str:
    """The name of a folder, or of the one above a version or a run's best model."""
    path = model.resolve()
    return path.parent.name if path.name.isdecimal() or path.name == "best" else path.name


def check_name(name: str) -> str:
    """Returns a name that can stand in a path.

    Raises:
        UserError: it cannot.
    """
    if not name or "/" in name or ":" in name:
        raise UserError(f"--name: expected a name without '/' and ':', found '{name}'.")
    return name


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
