"""The optimizer of a configuration."""

import keras

from nmt.config.schema import TrainingConfig


def make_optimizer(settings: TrainingConfig) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a configuration, whose learning rate each update sets."""
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(settings.learning_rate, name="sgd")
    # A name of its own: Keras counts the optimizers of a process, and checkpoints know variables by their paths.
    betas = {"beta_1": settings.beta_1, "beta_2": settings.beta_2}
    adam = {**betas, "epsilon": settings.epsilon, "name": settings.optimizer}
    if settings.optimizer == "adam":
        return keras.optimizers.Adam(settings.learning_rate, **adam)
    optimizer = keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay, **adam)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    return optimizer
