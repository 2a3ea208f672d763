"""Cuts the texts of requests into parts that the translator reads at once, before they enter the queue."""

import asyncio
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TypeVar
from weakref import WeakValueDictionary

from fastapi import Request

from nmt.errors import RequestError
from nmt.server.fair_queue import Options
from nmt.server.limits import Limits
from nmt.translators.demands import Demand
from nmt.translators.protocol import Translator
from nmt.translators.sentences import SplitText

# Characters that are cut at a time; between two of these a client that has left is noticed.
CHUNK = 10_000
# Characters that are cut at once, because a thread would take longer to start.
SMALL = 300

Result = TypeVar("Result")


class TextCutter:
    """Cuts texts in threads, those of one client one after the other.

    Args:
        translator: translates the parts.
        limits: max_work.
    """

    def __init__(self, translator: Translator, limits: Limits):
        self._translator = translator
        self._limits = limits
        # Without them, the requests of one client could take all threads.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def cut(
        self,
        texts: Sequence[str],
        options: Options,
        *,
        client: str,
        splitter: Translator | None = None,
        demands: Sequence[Demand] | None = None,
    ) -> tuple[list[SplitText], list[int]]:
        """Returns the texts in parts, and the number of tokens of each part.

        Args:
            texts: of a request.
            options: of the request.
            client: that sent it.
            splitter: splits texts into sentences or lines; None cuts only those that are too long.
            demands: on the translation of each text, for the splitter.

        Raises:
            RequestError: 400, translating them is more work than is accepted.
        """

        def cut_chunk(chunk: Sequence[str], wanted: Sequence[Demand] | None) -> tuple[list[SplitText], list[int]]:
            if splitter is None:
                return self._cut_long(chunk)
            found = splitter.split_texts(chunk, wanted)
            return found, self._count_tokens([part for text in found for part in text.parts])

        whole: list[SplitText] = []
        tokens: list[int] = []
        for chunk in _divide(texts):
            wanted = demands and demands[len(whole) : len(whole) + len(chunk)]
            if sum(map(len, chunk)) <= SMALL:
                found, lengths = cut_chunk(chunk, wanted)
            else:
                found, lengths = await self.run_in_thread(client, partial(cut_chunk, chunk, wanted))
            whole += found
            tokens += lengths
            self.check_work(sum(map(options.estimate_work, tokens)))
        return whole, tokens

    async def run_in_thread(self, client: str, work: Callable[[], Result]) -> Result:
        """Returns the result of a function that is called in a thread, after earlier ones of the same client."""
        lock = self._locks.setdefault(client, asyncio.Lock())
        await lock.acquire()
        running = asyncio.get_running_loop().run_in_executor(None, work)
        # A thread cannot be cancelled. The next request of this client waits for it, even if this one does not.
        running.add_done_callback(lambda _: lock.release())
        return await asyncio.shield(running)

    def _cut_long(self, texts: Sequence[str]) -> tuple[list[SplitText], list[int]]:
        """Cuts the texts that `translate_batch` would translate in parts; an export reads the beginning of these."""
        found: list[SplitText] = []
        tokens: list[int] = []
        for text, length in zip(texts, self._translator.count_tokens(texts), strict=True):
            if length > self._translator.max_tokens and not self._translator.truncates:
                [cut] = self._translator.cut_texts([text])
                found.append(cut)
                tokens += self._count_tokens(cut.parts)
            else:
                found.append(SplitText([text], ["", ""]))
                tokens.append(min(length, self._translator.max_tokens))
        return found, tokens

    def _count_tokens(self, parts: Sequence[str]) -> list[int]:
        # An export reads no more than `max_tokens`.
        if not parts:
            return []
        return [min(length, self._translator.max_tokens) for length in self._translator.count_tokens(parts)]

    def check_work(self, work: int) -> None:
        """Raises a RequestError with status 400 if a request is more work than is accepted."""
        if work > self._limits.max_work:
            raise RequestError(
                400,
                "Translating this request is too much work: at most "
                f"{self._limits.max_work:,} tokens of texts and translations times beam size are accepted at once, "
                f"found {work:,} or more. Send less text per request, or a smaller beam_size, n_best or max_length.",
            )


def find_client(request: Request) -> str:
    """Returns the address that a request comes from; all addresses of one IPv6 network count as one client."""
    return _group_address(request.client.host) if request.client else ""


@lru_cache(1024)
def _group_address(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # the name of a socket
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    # Providers give each customer a network of 64 bits.
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def _divide(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yields consecutive texts that have up to `CHUNK` characters together."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and size + len(text) > CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk
