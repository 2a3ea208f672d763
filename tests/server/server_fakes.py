"""A translator without a model, and ways to ask a server without a network."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import uvicorn

from nmt.config.schema import SearchSettings
from nmt.decoding.alignment import TokenAttention
from nmt.server.app import Server, make_server
from nmt.server.http_timeouts import make_protocol
from nmt.server.limits import Limits
from nmt.server.run import listen
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.protocol import Translator, change_settings


class FakeTranslator(Translator):
    """Translates "x" by "X", and as second best by "X2"; fails on "bomb"; waits while `held`.

    Each word attends to that in its place, by three quarters of what does not go to the end, and to the next one.
    """

    source_language, target_language = "en", "de"
    max_n_best = 64

    def __init__(self, settings: SearchSettings | None = None, original: "FakeTranslator | None" = None):
        self.settings = settings or SearchSettings()
        self.batches: list[list[str]] = original.batches if original else []
        self.used: list[SearchSettings] = original.used if original else []
        self.may_go = threading.Event()
        self.may_go.set()

    def with_settings(self, **changes: Any) -> "FakeTranslator":
        other = FakeTranslator(change_settings(self.settings, changes), self)
        other.may_go = self.may_go
        return other

    def translate_batch(self, texts: Sequence[str], *, n_best: int = 1, attention: bool = False) -> list[Translation]:
        self.batches.append(list(texts))
        self.used.append(self.settings)
        assert self.may_go.wait(10)
        return [Translation(text, self._hypotheses(text, n_best, attention)) for text in texts]

    def _hypotheses(self, line: str, n_best: int, attention: bool) -> list[Hypothesis]:
        if line == "bomb":
            raise RuntimeError("a defect of the model")
        names = [line.upper() + ("" if rank == 0 else str(rank + 1)) for rank in range(n_best)]
        log_prob = -0.5 * self.settings.beam_size
        weights = [(attend_by_place(line, name),) if attention else () for name in names]
        return [
            Hypothesis(name, -0.1 * (rank + 1), log_prob, attention=weights[rank]) for rank, name in enumerate(names)
        ]


def attend_by_place(line: str, translation: str) -> TokenAttention:
    source, target = (["▁" + word for word in text.split()] for text in (line, translation))
    weights = np.zeros((len(target), len(source) + 1))
    for place, row in enumerate(weights):
        row[[place, min(place + 1, len(source) - 1), -1]] += 0.6, 0.2, 0.2
    return TokenAttention(source, target, weights)


def make_fake(translator: FakeTranslator | None = None, *, key: str | None = None, **limits: Any) -> Server:
    return make_server(translator or FakeTranslator(), "demo", Limits(**limits), key=key)


@contextlib.contextmanager
def on_a_port(server: Server, *, patience: float = 30) -> Iterator[int]:
    """The port where a server listens, for what only a real connection shows."""
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            server.middleware,
            http=make_protocol(patience),
            lifespan="off",
            ws="none",
            log_level="warning",
            log_config=None,
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
    return httpx.AsyncClient(transport=httpx.ASGITransport(server.middleware), base_url="http://server")


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
