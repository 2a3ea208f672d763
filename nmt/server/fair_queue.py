"""The queue of texts that wait to be translated, in an order that is fair to clients."""

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from nmt.config.schema import SearchSettings
from nmt.translators.protocol import Translator


@dataclass(frozen=True)
class Options:
    """What may differ between requests; only texts with equal options are translated together."""

    settings: SearchSettings
    n_best: int = 1
    attention: bool = False

    def estimate_work(self, tokens: int) -> int:
        """Returns the work of a text: its tokens and those that a translation may have, times the hypotheses.

        Args:
            tokens: of the source and, if there are any, of what is demanded of the translation, without EOS.
        """
        return self._count_tokens(tokens) * self.settings.count_searched(self.n_best)

    def _count_tokens(self, tokens: int) -> int:
        return tokens + 1 + self.settings.limit_length(tokens + 1)

    def run(self, translator: Translator, texts: Sequence[Any]) -> Sequence[Any]:
        """Translates a batch of texts."""
        return translator.translate_batch(texts, n_best=self.n_best, attention=self.attention)


@dataclass(frozen=True)
class ScoringOptions(Options):
    """What may differ between requests for the scores of given translations. Their texts are pairs."""

    def estimate_work(self, tokens: int) -> int:
        """Returns the work of a pair, given the tokens of its longer side. There is no beam."""
        return tokens + 1

    def run(self, translator: Translator, texts: Sequence[Any]) -> Sequence[Any]:
        """Scores a batch of pairs."""
        return list(translator.score(texts))


@dataclass(frozen=True)
class DemandingOptions(Options):
    """Options of texts with demands. Each is a tuple: the text, its prefix, and the required phrases."""

    def run(self, translator: Translator, texts: Sequence[Any]) -> Sequence[Any]:
        """Translates a batch of texts."""
        return translator.translate_batch(
            [text for text, *_ in texts],
            n_best=self.n_best,
            attention=self.attention,
            prefixes=[prefix for _, prefix, *_ in texts],
            required=[phrases for _, _, *phrases in texts],
        )


@dataclass(frozen=True)
class CompletingOptions(Options):
    """Options of texts for which alternatives are listed. Each is a pair: the text and the prefix."""

    num_alternatives: int = 1

    def estimate_work(self, tokens: int) -> int:
        """Returns the work of a text: a search for the next word, and one for each alternative."""
        return self._count_tokens(tokens) * self.num_alternatives * (2 + self.settings.count_searched(1))

    def run(self, translator: Translator, texts: Sequence[Any]) -> Sequence[Any]:
        """Lists the alternatives of a batch of texts."""
        return translator.list_alternatives(*map(list, zip(*texts, strict=True)), n=self.num_alternatives)


@dataclass(frozen=True)
class Job:
    """A text that waits to be translated, or several that belong together."""

    text: str | tuple[str, ...]
    options: Options
    work: int
    """See `Options.estimate_work`."""
    result: "Future[Any]"
    """Receives what `Options.run` returns for it."""
    arrived: float
    """Time of the batcher's clock."""
    number: int
    """Counts the jobs in the order of their arrival."""


@dataclass
class _Client:
    start: float
    """Virtual time at which its next job starts: the work that it has received since it came, and the time then."""
    count: int = 0
    waiting: dict[int, deque[Job]] = field(default_factory=dict)
    """Its jobs by the identity of their options."""

    def find_oldest(self) -> Job:
        return min((jobs[0] for jobs in self.waiting.values()), key=lambda job: job.number)


class FairQueue:
    """Serves next the client that has received the least work, so that no client waits for all of another's texts.

    This is start-time fair queueing (Goyal, Vin and Cheng, 1996). The options of jobs are compared by identity.
    """

    def __init__(self) -> None:
        self.work = 0
        """Total work of the jobs that wait."""
        self._clients: dict[str, _Client] = {}
        self._now = 0.0  # virtual time: the start of the job that was taken last
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def count(self, client: str) -> int:
        """Returns the number of a client's jobs."""
        return self._clients[client].count if client in self._clients else 0

    def count_matching(self, options: Options) -> int:
        """Returns the number of jobs with these options."""
        return sum(len(client.waiting.get(id(options), ())) for client in self._clients.values())

    def add(self, client: str, jobs: Iterable[Job]) -> None:
        """Adds jobs of a client."""
        for job in jobs:
            ours = self._clients.setdefault(client, _Client(self._now))
            ours.waiting.setdefault(id(job.options), deque()).append(job)
            ours.count += 1
            self._length += 1
            self.work += job.work

    def find_next(self) -> Job | None:
        """Returns the job whose turn it is, after dropping cancelled ones before it; None if the queue is empty."""
        while self._clients:
            name, client = min(self._clients.items(), key=lambda item: (item[1].start, item[1].find_oldest().number))
            job = client.find_oldest()
            if not job.result.cancelled():
                return job
            self._remove_first(name, id(job.options))
        return None

    def remove_batch(self, lead: Job, *, max_jobs: int, max_work: float) -> list[Job]:
        """Removes a job and others with its options, of all clients in turn, and drops cancelled ones.

        Args:
            lead: what `find_next` returned.
            max_jobs: most jobs to return.
            max_work: most work to return, unless one job is more.
        """
        key = id(lead.options)
        turns = [
            (client.start, client.waiting[key][0].number, name)
            for name, client in self._clients.items()
            if key in client.waiting
        ]
        heapq.heapify(turns)
        jobs: list[Job] = []
        work = 0
        while turns and len(jobs) < max_jobs:
            _, _, name = heapq.heappop(turns)
            client = self._clients[name]
            job = client.waiting[key][0]
            if jobs and work + job.work > max_work:
                break
            self._remove_first(name, key)
            if job.result.set_running_or_notify_cancel():
                jobs.append(job)
                work += job.work
                self._now = max(self._now, client.start)
                client.start += job.work
            if key in client.waiting:
                heapq.heappush(turns, (client.start, client.waiting[key][0].number, name))
        return jobs

    def drop_cancelled(self) -> None:
        """Removes the jobs of clients that disconnected or timed out, which keep no place."""
        for name, client in list(self._clients.items()):
            for key, jobs in list(client.waiting.items()):
                kept: Sequence[Job] = [job for job in jobs if not job.result.cancelled()]
                if len(kept) < len(jobs):
                    client.count -= len(jobs) - len(kept)
                    self._length -= len(jobs) - len(kept)
                    self.work -= sum(job.work for job in jobs) - sum(job.work for job in kept)
                    client.waiting[key] = deque(kept)
                if not kept:
                    del client.waiting[key]
            if not client.waiting:
                del self._clients[name]

    def _remove_first(self, name: str, key: int) -> None:
        client = self._clients[name]
        job = client.waiting[key].popleft()
        client.count -= 1
        self._length -= 1
        self.work -= job.work
        if not client.waiting[key]:
            del client.waiting[key]
        if not client.waiting:
            del self._clients[name]
