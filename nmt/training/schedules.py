"""The optimizer, and its learning rate as a function of the progress of a run alone."""

import math
from collections.abc import Callable

from nmt.backend import keras
from nmt.config.schema import ScheduleName, TrainingConfig
from nmt.training.budget import compute_share
from nmt.training.checkpoint import Progress


def compute_learning_rate(
    update: int,
    *,
    peak: float,
    kind: ScheduleName,
    warmup: int = 0,
    length: int | None = None,
    final: float = 0.0,
    share: float | None = None,
) -> float:
    """Returns the learning rate of one update.

    Args:
        update: counted from 1.
        peak: learning rate at the end of the warm-up.
        kind: constant, as is plateau between two decays; linear or cosine (Loshchilov and Hutter 2017) down to the
            final rate; or inverse_sqrt, which is peak times sqrt(warmup / update) (Vaswani et al. 2017, section 5.3).
        warmup: number of updates of linear growth from 0.
        length: number of updates of a linear or cosine schedule, warm-up included. The first update after it has the
            final rate, so that a final rate of 0 costs no update.
        final: final rate of a linear or cosine schedule, as a fraction of the peak.
        share: how much of a linear or cosine schedule is done, from 0 to 1, if that does not depend on the update. The
            rate falls during the warm-up already.

    >>> [round(compute_learning_rate(n, peak=1.0, kind="linear", warmup=2, length=6), 2) for n in (1, 2, 4, 6, 9)]
    [0.5, 1.0, 0.6, 0.2, 0.0]
    """
    if share is not None:
        return min(1.0, update / max(warmup, 1)) * _decay(peak, kind, final, share)
    if update <= warmup:
        return peak * update / warmup
    if kind in ("constant", "plateau"):
        return peak
    if kind == "inverse_sqrt":
        return peak * math.sqrt(warmup / update)
    if length is None:
        raise ValueError(f"A {kind} schedule requires a length.")
    return _decay(peak, kind, final, min(1.0, (update - warmup) / (length + 1 - warmup)))


def _decay(peak: float, kind: ScheduleName, final: float, done: float) -> float:
    falling = 1 - done if kind == "linear" else (1 + math.cos(math.pi * done)) / 2
    return peak * (final + (1 - final) * falling)


def make_schedule(settings: TrainingConfig) -> Callable[[Progress], float]:
    """Returns the learning rate of the next update of a run as a function of its progress."""

    def schedule(progress: Progress) -> float:
        budget = settings.budget_minutes
        rate = compute_learning_rate(
            progress.update + 1,
            peak=settings.learning_rate,
            kind=settings.schedule,
            warmup=settings.warmup_updates,
            length=settings.schedule_updates,
            final=settings.final_rate,
            share=None if budget is None else compute_share(progress, budget),
        )
        return rate * 0.5**progress.rollbacks * settings.plateau_factor**progress.decays

    return schedule


def find_idle_updates(settings: TrainingConfig, max_updates: int | None) -> str | None:
    """Returns a warning if the learning rate is 0 in the last updates of a run, which then learn nothing."""
    length = settings.schedule_updates
    if settings.schedule not in ("linear", "cosine") or length is None or settings.final_rate:
        return None
    if max_updates is None or max_updates <= length:
        return None
    return (
        f"the learning rate is 0 after update {length:,} (training.schedule_updates), but training lasts until update "
        f"{max_updates:,}. Set training.schedule_updates={max_updates}, or training.final_rate above 0."
    )


def explain_idle_updates(settings: TrainingConfig, update: int) -> str:
    """Returns a warning that the learning rate is 0 from an update on, in a run that may last much longer."""
    length = settings.schedule_updates
    return (
        f"the learning rate is 0 from update {update:,} on (training.schedule_updates is {length}), so that nothing is "
        f"learned any more. End the run with training.max_updates={length}; a longer one needs a longer schedule or "
        "training.final_rate above 0."
    )


def make_optimizer(settings: TrainingConfig) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a configuration. Each update sets its learning rate."""
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(settings.learning_rate, name="sgd")
    # Explicit names: Keras would number the optimizers of a process, and checkpoints store variables by their paths.
    betas = {"beta_1": settings.beta_1, "beta_2": settings.beta_2}
    adam = {**betas, "epsilon": settings.epsilon, "name": settings.optimizer}
    if settings.optimizer == "adam":
        return keras.optimizers.Adam(settings.learning_rate, **adam)
    optimizer = keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay, **adam)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    return optimizer
