"""A translator without a model, and ways to ask a server without a network."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import uvicorn

from nmt.decoding.alignment import TokenAttention
from nmt.server.app import Server, make_server
from nmt.server.engine import ModelEngine
from nmt.server.http_timeouts import patient
from nmt.server.limits import Limits
from nmt.server.run import listening
from nmt.translators.hypothesis import Hypothesis


class FakeTranslator:
    """Translates "x" by "X", and as second best by "X2"; fails on "bomb"; waits while `held`.

    Each word attends to that in its place, by three quarters of what does not go to the end, and to the next one.
    """

    source_language, target_language = "en", "de"

    def __init__(self, beam_size: int = 5, length_penalty: float = 1.0, batches: list | None = None):
        self.settings = {"beam_size": beam_size, "length_penalty": length_penalty}
        self.batches: list[list[str]] = [] if batches is None else batches
        self.may_go = threading.Event()
        self.may_go.set()

    def with_decoding(self, **changes: Any) -> "FakeTranslator":
        other = FakeTranslator(
            **{**self.settings, **{k: v for k, v in changes.items() if v is not None}}, batches=self.batches
        )
        other.may_go = self.may_go
        return other

    def stream(self, lines: Sequence[str], *, num_best: int = 1, attention: bool = False) -> Iterator[list[Hypothesis]]:
        self.batches.append(list(lines))
        assert self.may_go.wait(10)
        for line in lines:
            if line == "bomb":
                raise RuntimeError("a defect of the model")
            names = [line.upper() + ("" if rank == 0 else str(rank + 1)) for rank in range(num_best)]
            beam = self.settings["beam_size"]
            attended = [(attended_by_place(line, name),) if attention else () for name in names]
            yield [Hypothesis(name, -0.1 * (rank + 1), -0.5 * beam, attended[rank]) for rank, name in enumerate(names)]


def attended_by_place(line: str, translation: str) -> TokenAttention:
    source, target = (["▁" + word for word in text.split()] for text in (line, translation))
    weights = np.zeros((len(target), len(source) + 1))
    for place, row in enumerate(weights):
        row[[place, min(place + 1, len(source) - 1), -1]] += 0.6, 0.2, 0.2
    return TokenAttention(source, target, weights)


def make_fake(translator: FakeTranslator | None = None, *, key: str | None = None, **limits: Any) -> Server:
    return make_server(ModelEngine(translator or FakeTranslator()), "demo", Limits(**limits), key=key)


@contextlib.contextmanager
def on_a_port(server: Server, *, patience: float = 30) -> Iterator[int]:
    """The port where a server listens, for what only a real connection shows."""
    with listening("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            server.gate, http=patient(patience), lifespan="off", ws="none", log_level="warning", log_config=None
        )
        http = uvicorn.Server(config)
        thread = threading.Thread(target=http.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            http.should_exit = http.force_exit = True
            thread.join(10)
            server.batcher.close(5)


def client_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(server.gate), base_url="http://server")


def ask(server: Server, method: str, path: str, **arguments: Any) -> httpx.Response:
    """One request and its answer."""

    async def send() -> httpx.Response:
        async with client_of(server) as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(send())


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and message of a refusal, which holds nothing else."""
    body = answer.json()
    assert body.keys() == {"error"}
    return answer.status_code, body["error"]
