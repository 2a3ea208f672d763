"""Texts of many requests, translated together: a bounded queue, and one thread that works it off."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from nmt.errors import RequestError
from nmt.server.engine import Answer, Engine, Options
from nmt.server.limits import Limits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A text that waits."""

    text: str
    options: Options
    answer: "Future[Answer]"
    arrived: float


class Batcher:
    """Collects texts with equal options until there are enough, or until the oldest has waited long enough.

    Who is alone is not kept waiting: only where others were there at the last batch, others are waited for.

    Each text carries the future of its own answer, so that no answer can go to another.

    Args:
        engine: asked by the one thread of this object alone.
        limits: max_batch, max_wait and max_queue.
        observe: told the texts and the seconds of each batch.
    """

    def __init__(self, engine: Engine, limits: Limits, observe: Callable[[int, float], None] = lambda *_: None):
        self._engine = engine
        self._limits = limits
        self._observe = observe
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._seconds_each = 0.0
        self._is_crowded = True
        self._thread = threading.Thread(target=self._run, name="translating", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Texts in the queue."""
        return len(self._waiting)

    @property
    def is_working(self) -> bool:
        """Whether the thread lives; without it no text is ever translated."""
        return self._thread.is_alive()

    def submit(self, texts: Sequence[str], options: Options) -> list["Future[Answer]"]:
        """Queues all of these texts, or none, and returns the futures of their answers.

        Futures that are cancelled in time are not translated. A request with more texts than the queue holds is taken
        when nothing else waits.

        Raises:
            RequestError: 429, the queue is full; 503, the server ends.
        """
        with self._changed:
            if self._closed:
                raise RequestError(503, "The server is stopping.")
            if self._is_too_full_for(len(texts)):
                # Places of those who have left, or were told that it took too long.
                self._waiting = deque(job for job in self._waiting if not job.answer.cancelled())
            if self._is_too_full_for(len(texts)):
                seconds = self._seconds_each * len(self._waiting)
                raise RequestError(
                    429,
                    f"Too many texts wait to be translated, {len(self._waiting):,} of {self._limits.max_queue:,}. "
                    "Come again later.",
                    {"Retry-After": str(min(60, max(1, math.ceil(seconds))))},
                )
            now = time.monotonic()
            jobs = [Job(text, options, Future(), now) for text in texts]
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return [job.answer for job in jobs]

    async def translate(self, texts: Sequence[str], options: Options) -> list[Answer]:
        """Queues texts and waits for their answers, in order; whoever stops waiting takes his texts out of the queue.

        Raises:
            RequestError: see `submit`.
        """
        return await asyncio.gather(*map(asyncio.wrap_future, self.submit(texts, options)))

    def close(self, timeout: float | None = None) -> None:
        """Takes no more texts, translates those that wait, and ends the thread; waits for it so many seconds."""
        with self._changed:
            self._closed = True
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
                self._seconds_each += 0.2 * (seconds / len(batch) - self._seconds_each)
                self._observe(len(batch), seconds)
                self._is_crowded = len(batch) > 1 or bool(self._waiting)

    def _wait_for_batch(self) -> list[Job] | None:
        """Waits for the next texts to translate together; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            oldest = self._waiting[0]
            until = oldest.arrived + (self._limits.max_wait if self._is_crowded else 0.0)
            self._changed.wait_for(
                lambda: self._closed or self._count_matching(oldest.options) >= self._limits.max_batch,
                timeout=max(0.0, until - time.monotonic()),
            )
            return self._take_batch(oldest.options)

    def _count_matching(self, options: Options) -> int:
        return sum(job.options == options for job in self._waiting)

    def _take_batch(self, options: Options) -> list[Job]:
        """Takes the oldest texts with these options out of the queue, and throws cancelled ones away."""
        batch: list[Job] = []
        others: deque[Job] = deque()
        for job in self._waiting:
            if job.options != options or len(batch) == self._limits.max_batch:
                others.append(job)
            elif job.answer.set_running_or_notify_cancel():
                batch.append(job)
        self._waiting = others
        return batch

    def _translate(self, batch: list[Job]) -> None:
        try:
            answers = self._engine.answer([job.text for job in batch], batch[0].options)
            pairs = list(zip(batch, answers, strict=True))
        except Exception as error:
            if len(batch) == 1:
                logger.error("A text of %d characters could not be translated.", len(batch[0].text), exc_info=error)
                batch[0].answer.set_exception(error)
                return
            # A text that cannot be translated shall not take its neighbours down.
            for job in batch:
                self._translate([job])
            return
        for job, answer in pairs:
            job.answer.set_result(answer)
