"""The processes that train one model together: what they add up, and how they keep in step.

A single process is a team of one, for which every question is answered already.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from nmt.errors import UserError, WorkerLostError

Result = TypeVar("Result")


class Workers:
    """One process alone.

    Of several, worker 0 is the chief, the only one that writes. Whatever decides on the course of the run is added up
    over all, so that they decide alike.
    """

    number = 0
    """Of this worker, from 0."""
    count = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.number == 0

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over all workers of arrays of one shape; returns when all have come here.

        Raises:
            WorkerLostError: a worker is gone.
        """
        return values

    def make_lost_error(self, error: Exception) -> WorkerLostError:
        """What to say when something that all do together has failed."""
        return WorkerLostError(str(error))

    def all_gather(self, *values: float) -> list[np.ndarray]:
        """For each of some values, what it is on each worker: float64 [count]."""
        said = np.zeros((len(values), self.count))
        said[:, self.number] = values
        return list(self.all_reduce_sum(said))

    def map_sharded(self, items: Sequence[str], work: Callable[[Sequence[str]], Sequence[str]]) -> list[str]:
        """Does some work on texts, each worker on its share, and returns all results in order."""
        if self.count == 1:
            return list(work(items))
        mine = [text.encode() for text in work(items[self.number :: self.count])]
        sizes = np.zeros(len(items))
        sizes[self.number :: self.count] = [len(text) for text in mine]
        ends = self.all_reduce_sum(sizes).cumsum().astype(int)
        characters = np.zeros(ends[-1] if len(ends) else 0)
        for end, text in zip(ends[self.number :: self.count], mine, strict=True):
            characters[end - len(text) : end] = np.frombuffer(text, np.uint8)
        everything = self.all_reduce_sum(characters).astype(np.uint8).tobytes()
        return [everything[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]

    def broadcast(self, text: str) -> str:
        """A text as the chief has it."""
        return self.map_sharded([text] * self.count, lambda mine: mine)[0]

    def barrier(self) -> None:
        """Returns when all workers have come here."""
        self.all_gather(0)

    def chief_first(self, work: Callable[[], Result]) -> Result:
        """Does some work, the chief first, whose files the others then find.

        Raises:
            UserError: this worker's own, or, where another could not do it, one that names the other.
        """
        done: list[Result] = []
        problem: UserError | None = None
        for turn in ("the chief", "the others"):
            if self.is_chief == (turn == "the chief"):
                try:
                    done.append(work())
                except UserError as error:
                    problem = error
            [failures] = self.all_gather(problem is not None)
            if problem:
                raise problem
            if failures.any():
                raise UserError(f"Worker {failures.argmax()} could not begin; what it says itself tells why.")
        return done[0]

    def check_equal(self, what: str, fingerprint: str) -> None:
        """Raises UserError where a worker has another one than the chief."""
        [said] = self.all_gather(int(fingerprint[:12], 16))  # 48 bits, exact in float64
        differs = said != said[0]
        if differs.any():
            raise UserError(f"Worker {differs.argmax()} has another {what} than worker 0; all need the same.")
