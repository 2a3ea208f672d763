"""Devices, workers and update of the backend in use. The other backend is not imported."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from nmt.backend import keras, set_random_seed
from nmt.config.schema import Config, StrategyName
from nmt.models.seq2seq import make_seq2seq
from nmt.training.objective import Objective
from nmt.training.schedules import make_optimizer
from nmt.training.update import Update
from nmt.training.workers import Workers


def make_strategy(kind: StrategyName, devices: Sequence[str] | None = None) -> Any:
    """Returns the devices that share a batch: a tf.distribute strategy, or a JAX mesh.

    Raises:
        UserError: a device does not exist, or the backend does not support this strategy.
    """
    if keras.backend.backend() == "jax":
        from nmt.training.update_jax import make_mesh

        return make_mesh(kind, devices)
    from nmt.training import strategy

    return strategy.make_strategy(kind, devices)


def use_device(strategy: Any) -> AbstractContextManager:
    """Lets what runs outside the strategy, such as validation, use the device that was chosen for training."""
    if keras.backend.backend() == "jax":
        from nmt.training import update_jax

        return update_jax.use_device(strategy)
    from nmt.training import strategy as tensorflow_strategy

    return tensorflow_strategy.use_device(strategy)


def make_workers(strategy: Any) -> Workers:
    """Returns the processes that share a strategy; on JAX there is only one."""
    if keras.backend.backend() == "jax":
        return Workers()
    from nmt.training import strategy as tensorflow_strategy

    return tensorflow_strategy.make_workers(strategy)


def make_update(
    config: Config, vocabulary_sizes: tuple[int, int], strategy: Any, banned_ids: Sequence[int] = ()
) -> tuple[Any, Update]:
    """Builds a model and its compiled update.

    Args:
        config: the configuration.
        vocabulary_sizes: number of source and of target tokens.
        strategy: the devices, as from `make_strategy`.
        banned_ids: target tokens that are never produced.
    """
    settings = config.training
    options = {
        "objective": Objective.from_config(settings, banned_ids),
        "seed": config.seed,
        "accumulation_steps": settings.accumulation_steps,
        "clip_norm": settings.clip_norm,
        "ema_decay": settings.ema_decay,
        "freeze": settings.freeze,
    }
    set_random_seed(config.seed)
    if keras.backend.backend() == "jax":
        from nmt.training.update_jax import JaxUpdate

        model = _make_model(config, *vocabulary_sizes)
        return model, JaxUpdate(model, model.optimizer, strategy, **options)
    from nmt.training.update_tensorflow import TensorFlowUpdate, WorkersUpdate

    with strategy.scope():
        model = _make_model(config, *vocabulary_sizes)
    kind = WorkersUpdate if make_workers(strategy).count > 1 else TensorFlowUpdate
    return model, kind(model, model.optimizer, strategy, **options)


def _make_model(config: Config, source_vocabulary_size: int, target_vocabulary_size: int) -> Any:
    model = make_seq2seq(
        config.model,
        source_vocabulary_size=source_vocabulary_size,
        target_vocabulary_size=target_vocabulary_size,
        precision=config.training.precision,
    )
    model.optimizer = make_optimizer(config.training)
    return model
