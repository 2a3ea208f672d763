"""The course of the learning rate over a run, as a function of the update's number alone."""

import math
from typing import Literal

Kind = Literal["constant", "linear", "cosine", "inverse_sqrt"]


def learning_rate(
    update: int, *, peak: float, kind: Kind, warmup: int = 0, length: int | None = None, final: float = 0.0
) -> float:
    """The rate of one update.

    Args:
        update: counted from 1.
        peak: the rate at the end of the warm-up.
        kind: constant; linear or cosine (Loshchilov and Hutter 2017) down to the final rate at update `length`; or
            inverse_sqrt, peak times sqrt(warmup / update) (Vaswani et al. 2017, section 5.3).
        warmup: updates of linear growth from 0.
        length: updates of a linear or cosine schedule, warm-up counted; afterwards the rate stays at its end.
        final: the end of a linear or cosine schedule, as a share of the peak.

    >>> [round(learning_rate(n, peak=1.0, kind="linear", warmup=2, length=6), 2) for n in (1, 2, 4, 6, 9)]
    [0.5, 1.0, 0.5, 0.0, 0.0]
    """
    if update <= warmup:
        return peak * update / warmup
    if kind == "constant":
        return peak
    if kind == "inverse_sqrt":
        return peak * math.sqrt(warmup / update)
    if length is None:
        raise ValueError(f"A {kind} schedule needs its length.")
    done = min(1.0, (update - warmup) / (length - warmup))
    falling = 1 - done if kind == "linear" else (1 + math.cos(math.pi * done)) / 2
    return peak * (final + (1 - final) * falling)
