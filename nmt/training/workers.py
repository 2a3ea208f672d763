"""The processes that train one model together, and the collective operations that keep them in step.

For a single process every operation is trivial.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from nmt.config.schema import StrategyName
from nmt.errors import UserError, WorkerLostError, suggest_name

Result = TypeVar("Result")


class Workers:
    """A single process, and the base of several.

    Worker 0 is the chief, the only one that writes files. Decisions about the course of a run are made from values that
    are reduced over all workers, so that all decide alike.
    """

    number = 0
    """The number of this worker, from 0."""
    count = 1
    """Number of workers."""

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.number == 0

    def all_reduce_sum(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum of an array over all workers, once all have called this.

        Raises:
            WorkerLostError: a worker is gone.
        """
        return values

    def make_lost_error(self, error: Exception) -> WorkerLostError:
        """Returns the error for a collective operation that failed."""
        return WorkerLostError(str(error))

    def all_gather(self, *values: float) -> list[np.ndarray]:
        """Returns for each value its values on all workers: float64 [count]."""
        gathered = np.zeros((len(values), self.count))
        gathered[:, self.number] = values
        return list(self.all_reduce_sum(gathered))

    def map_sharded(self, items: Sequence[str], work: Callable[[Sequence[str]], Sequence[str]]) -> list[str]:
        """Applies a function to texts, each worker to its share, and returns all results in order on all workers."""
        if self.count == 1:
            return list(work(items))
        mine = [text.encode() for text in work(items[self.number :: self.count])]
        sizes = np.zeros(len(items))
        # Collective operations take arrays of one shape. So the lengths come first, then the bytes of all texts, at
        # places that do not overlap.
        sizes[self.number :: self.count] = [len(text) for text in mine]
        ends = self.all_reduce_sum(sizes).cumsum().astype(int)
        content = np.zeros(ends[-1] if len(ends) else 0)
        for end, text in zip(ends[self.number :: self.count], mine, strict=True):
            content[end - len(text) : end] = np.frombuffer(text, np.uint8)
        joined = self.all_reduce_sum(content).astype(np.uint8).tobytes()
        return [joined[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]

    def barrier(self) -> None:
        """Returns once all workers have called this."""
        self.all_gather(0)

    def chief_first(self, work: Callable[[], Result]) -> Result:
        """Calls a function on the chief, then on the others, which find the files that the chief wrote.

        Raises:
            UserError: the function raised it here, or on another worker, which is named.
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
                raise UserError(f"Worker {failures.argmax()} could not start; its own output tells why.")
        return done[0]

    def check_equal(self, name: str, fingerprint: str) -> None:
        """Checks that all workers have the same thing.

        Args:
            name: what it is, for the message.
            fingerprint: its digest in hexadecimal.

        Raises:
            UserError: a worker has another one than the chief.
        """
        [gathered] = self.all_gather(int(fingerprint[:12], 16))  # 48 bits, exact in float64
        differs = gathered != gathered[0]
        if differs.any():
            raise UserError(f"The {name} must be the same on all workers, but worker {differs.argmax()} has another.")


def check_devices(kind: StrategyName, devices: Sequence[str], known: Sequence[str]) -> list[str]:
    """Returns the names of `training.devices` as the backend knows them.

    Args:
        kind: the strategy.
        devices: names such as "GPU:0" or "/device:GPU:0".
        known: names of all devices.

    Raises:
        UserError: a device does not exist or is named twice, or the strategy does not choose among devices.
    """
    if kind == "multi_worker":
        raise UserError(
            "training.devices has no effect with training.strategy multi_worker: each worker uses all devices that it "
            "sees. Remove it, and set CUDA_VISIBLE_DEVICES on a worker to choose among its GPUs."
        )
    names = [device.removeprefix("/device:") for device in devices]
    for name in names:
        if name not in known:
            raise UserError(
                f"training.devices: expected devices of {', '.join(known)}, found {name}.{suggest_name(name, known)}"
            )
    if not names or len(set(names)) < len(names):
        raise UserError(f"training.devices: expected one or more different devices, found {list(devices)}.")
    if kind == "single" and len(names) > 1:
        raise UserError(f"training.strategy single trains on one device, but training.devices has {len(names)}.")
    return names
