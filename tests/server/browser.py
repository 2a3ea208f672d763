"""A real browser, and servers that it can reach."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from nmt.server.app import Server
from nmt.server.run import listen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without a sandbox, which root does not have in a container, and without services that contact other hosts.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def served(server: Server, port: int = 0) -> Iterator[str]:
    """Serves on a port and yields the address. The translating thread keeps running afterwards."""
    listener = listen("127.0.0.1", port)
    http = uvicorn.Server(
        uvicorn.Config(server.middleware, lifespan="off", ws="none", log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=http.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        http.should_exit = True
        thread.join(10)
        listener.close()


def shading(words: Any) -> list[float]:
    """Returns the weight with which each word is shaded."""
    return words.evaluate_all("words => words.map(word => Number(word.style.getPropertyValue('--weight')))")
