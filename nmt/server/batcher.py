"""Batches the texts of many requests: a bounded queue, and one thread that translates."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nmt.config.schema import SearchSettings
from nmt.errors import RequestError
from nmt.server.limits import Limits
from nmt.translators.hypothesis import Translation
from nmt.translators.protocol import Translator

logger = logging.getLogger(__name__)

# Settings whose searches stay compiled. Bounded, because requests with ever new settings must not fill the memory.
MAX_SETTINGS = 4


@dataclass(frozen=True)
class Options:
    """What may differ between requests; only texts with equal options are translated together."""

    settings: SearchSettings
    n_best: int = 1
    attention: bool = False


@dataclass(frozen=True)
class Job:
    """A text that waits to be translated."""

    text: str
    options: Options
    result: "Future[Translation]"
    arrived: float
    """Time of `time.monotonic`."""


class Batcher:
    """Collects texts with equal options until a batch is full or the oldest text has waited long enough.

    A text that is alone does not wait: the thread waits for others only if there were others at the last batch.

    Each text carries the future of its own result, so that no result can reach another request.

    Args:
        translator: called by the thread of this object only.
        limits: max_batch, max_wait and max_queue.
        observe: called with the number of texts and the seconds of each batch.
    """

    def __init__(self, translator: Translator, limits: Limits, observe: Callable[[int, float], None] = lambda *_: None):
        self._translator = translator
        self._limits = limits
        self._observe = observe
        self._find_translator = lru_cache(MAX_SETTINGS)(self._make_translator)
        # Making a translator takes several tenths of a millisecond, which each request would cost.
        self._change_settings = lru_cache(64)(lambda changes: translator.with_settings(**dict(changes)).settings)
        # Returns one object for equal options, so that those of all waiting texts are compared by identity: comparing
        # the values of two settings takes 3 to 6 µs.
        self._share = lru_cache(64)(lambda options: options)
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._seconds_per_text = 0.0
        self._is_crowded = True
        self._thread = threading.Thread(target=self._run, name="translating", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Number of texts in the queue."""
        return len(self._waiting)

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
            n_best: at most so many hypotheses per text.
            attention: whether to return attention weights.

        Raises:
            UserError: the translator cannot do that.
        """
        self._translator.check_n_best(n_best)
        settings = self._change_settings(tuple(sorted((changes or {}).items())))
        return Options(settings, n_best, attention)

    def submit(self, texts: Sequence[str], options: Options) -> list["Future[Translation]"]:
        """Queues all of these texts, or none of them, and returns the futures of their translations.

        A text is not translated if its future is cancelled before its batch starts. A request with more texts than the
        queue holds is accepted if the queue is empty.

        Raises:
            RequestError: 429, the queue is full; 503, the server is stopping.
        """
        options = self._share(options)
        with self._changed:
            if self._is_closed:
                raise RequestError(503, "The server is stopping.")
            if self._is_too_full_for(len(texts)):
                # Clients that disconnected or timed out do not keep their places.
                self._waiting = deque(job for job in self._waiting if not job.result.cancelled())
            if self._is_too_full_for(len(texts)):
                taken = f"{len(self._waiting):,} of {self._limits.max_queue:,} places are taken"
                seconds = self._seconds_per_text * len(self._waiting)
                raise RequestError(
                    429,
                    f"The queue has no room for this request: {taken}. Try again later.",
                    {"Retry-After": str(min(60, max(1, math.ceil(seconds))))},
                )
            now = time.monotonic()
            jobs = [Job(text, options, Future(), now) for text in texts]
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return [job.result for job in jobs]

    async def translate(self, texts: Sequence[str], options: Options) -> list[Translation]:
        """Queues texts and returns their translations, in order; a caller that is cancelled takes its texts back.

        Raises:
            RequestError: see `submit`.
        """
        return await asyncio.gather(*map(asyncio.wrap_future, self.submit(texts, options)))

    def close(self, timeout: float | None = None) -> None:
        """Refuses new texts, translates those in the queue, and waits `timeout` seconds for the thread to end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _is_too_full_for(self, num_texts: int) -> bool:
        return bool(self._waiting) and len(self._waiting) + num_texts > self._limits.max_queue

    def _run(self) -> None:
        while (batch := self._wait_for_batch()) is not None:
            if batch:
                started = time.monotonic()
                self._translate(batch)
                seconds = time.monotonic() - started
                # A moving average over about five batches.
                self._seconds_per_text += 0.2 * (seconds / len(batch) - self._seconds_per_text)
                self._observe(len(batch), seconds)
                self._is_crowded = len(batch) > 1 or bool(self._waiting)

    def _wait_for_batch(self) -> list[Job] | None:
        """Waits for the next texts to translate together; returns None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return None
            oldest = self._waiting[0]
            until = oldest.arrived + (self._limits.max_wait if self._is_crowded else 0.0)
            self._changed.wait_for(
                lambda: self._is_closed or self._count_matching(oldest.options) >= self._limits.max_batch,
                timeout=max(0.0, until - time.monotonic()),
            )
            return self._take_batch(oldest.options)

    def _count_matching(self, options: Options) -> int:
        return sum(job.options is options for job in self._waiting)

    def _take_batch(self, options: Options) -> list[Job]:
        """Removes the oldest texts with these options from the queue, and drops cancelled ones."""
        batch: list[Job] = []
        others: deque[Job] = deque()
        for job in self._waiting:
            if job.options is not options or len(batch) == self._limits.max_batch:
                others.append(job)
            elif job.result.set_running_or_notify_cancel():
                batch.append(job)
        self._waiting = others
        return batch

    def _translate(self, batch: list[Job]) -> None:
        options = batch[0].options
        try:
            translator = self._find_translator(options.settings)
            translations = translator.translate_batch(
                [job.text for job in batch], n_best=options.n_best, attention=options.attention
            )
            pairs = list(zip(batch, translations, strict=True))
        except Exception as error:
            if len(batch) == 1:
                logger.error("Translating a text of %d characters failed.", len(batch[0].text), exc_info=error)
                batch[0].result.set_exception(error)
                return
            # One text that fails must not fail the others of its batch.
            for job in batch:
                self._translate([job])
            return
        for job, translation in pairs:
            job.result.set_result(translation)

    def _make_translator(self, settings: SearchSettings) -> Translator:
        own = self._translator.settings
        return self._translator if settings == own else self._translator.with_settings(**settings.model_dump())
