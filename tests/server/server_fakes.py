"""A translator without a model, and requests to a server without a network."""

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx
import numpy as np

from nmt.config.schema import SearchSettings
from nmt.decoding.alignment import TokenAttention
from nmt.server.access import Access
from nmt.server.app import Server, make_server
from nmt.server.connections import ListeningServer, make_config
from nmt.server.limits import Limits
from nmt.server.run import listen
from nmt.translators.demands import Demand, check_demands
from nmt.translators.hypothesis import Continuation, Hypothesis, ScoredTranslation, Translation
from nmt.translators.protocol import Translator, describe
from nmt.translators.settings import change_settings


class FakeTranslator(Translator):
    """Translates "x" to "X", second best to "X2"; fails on "bomb"; cuts "endless" off; has
    confidence in "doubt" only; ignores prefixes and required phrases; waits while `may_go` is not set.

    The n-th word of a given translation has the log-probability -n, one more for each source word.

    Each word attends to the source word at its position with weight 0.6, to the next one and to EOS with 0.2 each.
    """

    source_language, target_language = "en", "de"
    max_n_best = 64
    signature_n_best = 5
    max_tokens = 100

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

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def translate_batch(
        self, texts: Sequence[str], *, n_best: int = 1, attention: bool = False, **demands: Any
    ) -> list[Translation]:
        self.batches.append(list(texts))
        self.used.append(self.settings)
        assert self.may_go.wait(10)
        return [describe(text, self._hypotheses(text, n_best, attention)) for text in texts]

    def check_demands(self, demands: Sequence[Demand]) -> None:
        check_demands(demands, self.settings, right_to_left=False)

    def list_alternatives(self, texts: Sequence[str], prefixes: Sequence[str], *, n: int = 5) -> list:
        pairs = zip(texts, prefixes, strict=True)
        return [
            [Continuation(f"{prefix}{k}", 0.5**k, f"{prefix}{k} {text}") for k in range(1, n + 1)]
            for text, prefix in pairs
        ]

    def count_target_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.count_tokens(texts)

    def score(self, pairs: Iterable[tuple[str, str]]) -> Iterator[ScoredTranslation]:
        given = list(pairs)
        self.batches.append([f"{source} = {target}" for source, target in given])
        self.used.append(self.settings)
        for source, target in given:
            if "bomb" in target:
                raise RuntimeError("a defect of the model")
            tokens = [*target.split(), "</s>"]
            yield ScoredTranslation(
                source, target, tokens, [-n - len(source.split()) for n in range(1, len(tokens) + 1)]
            )

    def _hypotheses(self, line: str, n_best: int, attention: bool) -> list[Hypothesis]:
        if line == "bomb":
            raise RuntimeError("a defect of the model")
        names = [line.upper() + ("" if rank == 0 else str(rank + 1)) for rank in range(n_best)]
        log_prob = -0.5 * self.settings.beam_size
        weights = [(attend_by_place(line, name),) if attention else () for name in names]
        return [
            Hypothesis(
                name,
                -0.1 * (rank + 1),
                log_prob,
                is_finished=line != "endless",
                attention=weights[rank],
                confidence=0.25 if line.startswith("doubt") else None,
            )
            for rank, name in enumerate(names)
        ]


def attend_by_place(line: str, translation: str) -> TokenAttention:
    source, target = (["▁" + word for word in text.split()] for text in (line, translation))
    weights = np.zeros((len(target), len(source) + 1))
    for place, row in enumerate(weights):
        row[[place, min(place + 1, len(source) - 1), -1]] += 0.6, 0.2, 0.2
    return TokenAttention(source, target, weights)


def make_fake(
    translator: FakeTranslator | None = None, *, key: str | None = None, access: Access | None = None, **limits: Any
) -> Server:
    return make_server(translator or FakeTranslator(), "demo", Limits(**limits), key=key, access=access)


@contextlib.contextmanager
def on_a_port(server: Server, *, patience: float = 30, max_connections: int = 100) -> Iterator[int]:
    """Serves on a port, for tests that need a real connection, and yields the port."""
    with listen("127.0.0.1", 0) as listener:
        http = ListeningServer(make_config(server, timeout=patience, max_connections=max_connections))
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
    """Sends a request and returns the response."""

    async def send() -> httpx.Response:
        async with client_of(server) as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(send())


def read_error(answer: httpx.Response) -> tuple[int, str]:
    """Returns status and message of an error response, which contains nothing else."""
    body = answer.json()
    assert body.keys() == {"error"}
    return answer.status_code, body["error"]
