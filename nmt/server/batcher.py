"""Batches the texts of many requests: a bounded queue, and one thread that translates and scores."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from itertools import count
from typing import Any

from nmt.config.schema import SearchSettings
from nmt.errors import RequestError, UserError
from nmt.server.fair_queue import FairQueue, Job, Options, ScoringOptions
from nmt.server.limits import QUEUE_SHARE, Limits
from nmt.translators.hypothesis import ScoredTranslation
from nmt.translators.protocol import Translator

logger = logging.getLogger(__name__)

# Settings whose searches stay compiled. Bounded, because requests with ever new settings must not fill the memory.
MAX_SETTINGS = 4
# A batch cannot be interrupted, and all clients wait for it. So it holds at most the work that the translator does in
# half a second, or MIN_BATCH_WORK if that is more: batches of a few short texts say little about the speed.
MAX_BATCH_SECONDS = 0.5
MIN_BATCH_WORK = 7000
# Seconds per unit of work until it is known: about half the speed of a small model on two cores.
SECONDS_PER_WORK = 3e-5


class Batcher:
    """Collects texts with equal options until a batch is full or the oldest text has waited long enough.

    A text that is alone does not wait: the thread waits for others only if there were others at the last batch.

    Clients take turns (see `FairQueue`), and a batch is short, so that a client with little text is not kept waiting by
    one with much. Texts whose futures are cancelled, as those of clients that have left, are dropped before each batch.

    Each text carries the future of its own result, so that no result can reach another request.

    Args:
        translator: called by the thread of this object only.
        limits: max_batch, max_wait and max_queue.
        observe: called with the number of texts and the seconds of each batch.
        clock: returns seconds; for tests.
    """

    def __init__(
        self,
        translator: Translator,
        limits: Limits,
        observe: Callable[[int, float], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._translator = translator
        self._limits = limits
        self._observe = observe
        self._clock = clock
        self._find_translator = lru_cache(MAX_SETTINGS)(self._make_translator)
        # Making a translator takes several tenths of a millisecond, which each request would cost.
        self._change_settings = lru_cache(64)(lambda changes: translator.with_settings(**dict(changes)))
        # Returns one object for equal options, so that those of all waiting texts are compared by identity: comparing
        # the values of two settings takes 3 to 6 µs.
        self._share = lru_cache(64)(lambda options: options)
        self._queue = FairQueue()
        self._numbers = count()
        self._changed = threading.Condition()
        self._is_closed = False
        self._seconds_per_work = SECONDS_PER_WORK
        self._is_crowded = True
        self._thread = threading.Thread(target=self._run, name="translating", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Number of texts in the queue."""
        return len(self._queue)

    @property
    def is_working(self) -> bool:
        """Whether the thread is alive; without it no text is ever translated."""
        return self._thread.is_alive()

    def make_options(
        self, changes: Mapping[str, Any] | None = None, *, n_best: int = 1, attention: bool = False
    ) -> Options:
        """Returns the options of a request.

        Args:
            changes: settings other than the translator's own; None leaves one unchanged.
            n_best: largest number of hypotheses per text.
            attention: whether to return attention weights.

        Raises:
            UserError: the translator cannot do that, or longer translations are requested than it has by itself.
        """
        own, given = self._translator.settings.max_length, (changes or {}).get("max_length") or 0
        if given > own:  # a search cannot be interrupted, and takes as many steps as its longest translation has tokens
            raise UserError(
                f"max_length: expected at most {own:,}, the server's own limit (decoding.max_length), found {given:,}."
            )
        changed = self._change_settings(tuple(sorted((changes or {}).items())))
        changed.check_n_best(n_best)
        return Options(changed.settings, n_best, attention)

    def submit(
        self,
        texts: Sequence[Any],
        options: Options | Sequence[Options],
        *,
        tokens: Sequence[int] | None = None,
        client: str = "",
    ) -> list["Future[Any]"]:
        """Queues all of these texts or pairs, or none of them, and returns the futures of their results.

        A text is not translated if its future is cancelled before its batch starts. A request with more texts than the
        queue holds is accepted if the queue is empty.

        Args:
            texts: none of them longer than the translator reads at once.
            options: of the request, or of each text.
            tokens: number of source tokens of each text, or of tokens of the longer side of each pair; by default the
                translator counts those of texts.
            client: the sender. Clients take turns, and each has `limits.max_queue` places.

        Raises:
            RequestError: 429, the queue is full; 503, the server is stopping.
        """
        given = [options] * len(texts) if isinstance(options, Options) else options
        shared = {id(one): self._share(one) for one in given}
        tokens = self._translator.count_tokens(texts) if tokens is None else tokens
        with self._changed:
            if self._is_closed:
                raise RequestError(503, "The server is stopping.")
            if self._find_taken(client, len(texts)) is not None:
                self._queue.drop_cancelled()
            if (taken := self._find_taken(client, len(texts))) is not None:
                seconds = self._seconds_per_work * self._queue.work
                raise RequestError(
                    429,
                    f"The queue has no room for this request: {taken} places are taken. Try again later.",
                    {"Retry-After": str(min(60, max(1, math.ceil(seconds))))},
                )
            now = self._clock()
            jobs = [
                Job(text, shared[id(one)], one.estimate_work(length), Future(), now, next(self._numbers))
                for text, one, length in zip(texts, given, tokens, strict=True)
            ]
            self._queue.add(client, jobs)
            self._changed.notify_all()
        return [job.result for job in jobs]

    async def translate(
        self,
        texts: Sequence[Any],
        options: Options | Sequence[Options],
        *,
        tokens: Sequence[int] | None = None,
        client: str = "",
    ) -> list[Any]:
        """Queues texts and returns their results, in order; a caller that is cancelled takes its texts back.

        See `submit`.
        """
        futures = self.submit(texts, options, tokens=tokens, client=client)
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    async def score(
        self, pairs: Sequence[tuple[str, str]], options: ScoringOptions, *, tokens: Sequence[int], client: str = ""
    ) -> list[ScoredTranslation]:
        """Queues sources with their translations and returns the scores, in order, as `translate` does."""
        futures = self.submit(pairs, options, tokens=tokens, client=client)
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    def close(self, timeout: float | None = None) -> None:
        """Refuses new texts, translates those in the queue, and waits `timeout` seconds for the thread to end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _find_taken(self, client: str, num_texts: int) -> str | None:
        """Returns how many places are taken if there is no room for further texts of a client, else None."""
        limit = self._limits.max_queue
        # The places of all clients together are bounded because their texts are in the memory.
        places = ((self._queue.count(client), limit), (len(self._queue), QUEUE_SHARE * limit))
        for taken, most in places:
            if taken and taken + num_texts > most:
                return f"{taken:,} of {most:,}"
        return None

    def _run(self) -> None:
        while (batch := self._wait_for_batch()) is not None:
            if batch:
                started = self._clock()
                self._translate(batch)
                seconds = self._clock() - started
                work = sum(job.work for job in batch)
                if work >= MIN_BATCH_WORK / 2:
                    # A moving average over about five batches.
                    self._seconds_per_work += 0.2 * (seconds / work - self._seconds_per_work)
                self._observe(len(batch), seconds)
                self._is_crowded = len(batch) > 1 or len(self._queue) > 0

    def _wait_for_batch(self) -> list[Job] | None:
        """Waits for the next texts to translate together; returns None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) or self._is_closed)
            lead = self._queue.find_next()
            if lead is None:
                return None if self._is_closed else []
            options = lead.options
            until = lead.arrived + (self._limits.max_wait if self._is_crowded else 0.0)
            self._changed.wait_for(
                lambda: self._is_closed or self._queue.count_matching(options) >= self._limits.max_batch,
                timeout=max(0.0, until - self._clock()),
            )
            # Another client's text may have come meanwhile, and have its turn first.
            lead = self._queue.find_next()
            if lead is None:
                return []
            max_work = max(MIN_BATCH_WORK, MAX_BATCH_SECONDS / max(self._seconds_per_work, 1e-9))
            return self._queue.remove_batch(lead, max_jobs=self._limits.max_batch, max_work=max_work)

    def _translate(self, batch: list[Job]) -> None:
        options = batch[0].options
        try:
            translator = self._find_translator(options.settings)
            results = list(zip(batch, options.run(translator, [job.text for job in batch]), strict=True))
        except Exception as error:
            if len(batch) == 1:
                if not isinstance(error, UserError):  # the client gets its message
                    text = batch[0].text
                    length = len(text) if isinstance(text, str) else sum(map(len, text))
                    logger.error("Translating a text of %d characters failed.", length, exc_info=error)
                batch[0].result.set_exception(error)
                return
            # One text that fails must not fail the others of its batch.
            for job in batch:
                self._translate([job])
            return
        for job, result in results:
            job.result.set_result(result)

    def _make_translator(self, settings: SearchSettings) -> Translator:
        own = self._translator.settings
        return self._translator if settings == own else self._translator.with_settings(**settings.model_dump())
