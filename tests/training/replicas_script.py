"""Trains tiny models on one and on two replicas and prints what the updates said, as JSON.

A program of its own, since a processor is cut into logical devices before TensorFlow starts.
"""

import json

import numpy as np
import tensorflow as tf

NUM_UPDATES = 20
V = 13
MODEL = {"embedding_units": 16, "encoder_units": 16, "decoder_units": 16, "decoder_layers": 1, "attention_heads": 2}
NO_DROPOUT = {"embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}
SETTINGS = {
    "sgd": {"optimizer": "sgd", "clip_norm": None},
    "adamw": {"optimizer": "adamw", "clip_norm": 0.05, "weight_decay": 0.1},
}
# By optimizer and precision: replicas and micro-batches. Every one costs seconds, most of them for tracing.
COURSES = {
    ("sgd", "float64"): [(1, 1), (2, 3)],
    ("adamw", "float64"): [(1, 1), (2, 3)],
}


def rows_of(number):
    """10 pairs and 2 rows that only fill up; piece 5 again and again; replica 0 gets the long sentences."""
    random = np.random.default_rng(number)
    weights = np.array([1.0] * 10 + [0.0] * 2, dtype=np.float32)
    longest = [9, 2] * 5 + [0, 0]
    sides = [[list(random.choice([4, 5, 5, 5, 6, 7, 8, 9], size=n)) for n in longest] for _ in range(2)]
    return *sides, weights


def strategy_of(num_replicas):
    if not isinstance(num_replicas, int):
        return num_replicas
    if num_replicas == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(num_replicas)])


def make_update(num_replicas, accumulation_steps, *, precision, settings, dropout):
    import keras

    from nmt.config.schema import ModelConfig, TrainingConfig
    from nmt.models.seq2seq import make_seq2seq
    from nmt.training.objective import Objective
    from nmt.training.schedules import make_optimizer
    from nmt.training.update_tensorflow import TensorFlowUpdate

    keras.utils.set_random_seed(1)
    strategy, config = strategy_of(num_replicas), TrainingConfig(max_updates=1, **settings)
    with strategy.scope():
        model_config = ModelConfig(**MODEL, **dropout)
        model = make_seq2seq(model_config, source_vocabulary_size=V, target_vocabulary_size=V, precision=precision)
        optimizer = make_optimizer(config)
    objective = Objective(label_smoothing=0.1, pair_losses=True)
    return TensorFlowUpdate(
        model,
        optimizer,
        strategy,
        objective=objective,
        seed=1,
        accumulation_steps=accumulation_steps,
        clip_norm=config.clip_norm,
    )


def learned(update):
    """Loss, gradient norm and number of tokens of every update, and the loss of each row."""
    from nmt.data.batching import Batch, pad

    outcomes = []
    for number in range(1, NUM_UPDATES + 1):
        source, target, weights = rows_of(number)
        batch = Batch(0, number, pad(source), pad(target), weights)
        outcome = update(batch, update=number, learning_rate=2**-5)
        pairs = np.asarray(outcome.pair_losses).tolist()
        outcomes.append((outcome.loss, outcome.metrics["gradient_norm"], outcome.num_tokens, *pairs))
    return outcomes


def loss_of_equal_rows(num_replicas):
    """The loss, with dropout, of a batch of one and the same row for each replica, at rate 0."""
    from nmt.data.batching import Batch, pad

    settings = SETTINGS["sgd"]
    update = make_update(num_replicas, 1, precision="float32", settings=settings, dropout={})
    batch = Batch(0, 0, pad([[5, 6, 7]] * num_replicas), pad([[7, 6, 5]] * num_replicas), np.ones(num_replicas, "f"))
    return update(batch, update=1, learning_rate=0.0).loss


def devices_of_the_second_device_alone():
    """Returns the devices of the weights and of computation outside the strategy, and whether an update learns."""
    from nmt.data.batching import Batch, pad
    from nmt.training.strategy import make_strategy, use_device

    strategy = make_strategy("single", ["CPU:1"])
    with use_device(strategy):
        update = make_update(strategy, 1, precision="float32", settings=SETTINGS["sgd"], dropout=NO_DROPOUT)
        before = [weight.numpy() for weight in update.model.trainable_variables]
        outcome = update(Batch(0, 0, pad([[5, 6, 7]]), pad([[7, 6]]), np.ones(1, "f")), update=1, learning_rate=0.5)
        weights = update.model.trainable_variables
        changed = any((weight.numpy() != old).any() for weight, old in zip(weights, before, strict=True))
        places = {weight.value.device for weight in weights} | {(tf.ones(2) * 2).device}
    return {
        "places": sorted(place.rpartition("/device:")[2] for place in places),
        "learns": changed and outcome.is_applied,
    }


def main():
    # Before the package is imported, whose first act is to start TensorFlow.
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    courses = {
        f"{optimizer} {precision} {replicas}x{micro}": learned(
            make_update(replicas, micro, precision=precision, settings=SETTINGS[optimizer], dropout=NO_DROPOUT)
        )
        for (optimizer, precision), places in COURSES.items()
        for replicas, micro in places
    }
    equal_rows = [loss_of_equal_rows(num_replicas) for num_replicas in (1, 2)]
    print(json.dumps({"courses": courses, "equal_rows": equal_rows, "single": devices_of_the_second_device_alone()}))


if __name__ == "__main__":
    main()
