"""Small trainings that a test on TensorFlow and a script on JAX both run, from the same weights."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

V = 13
SIZES = {"embedding_units": 16, "encoder_units": 16, "decoder_units": 16, "attention_heads": 2}
NO_DROPOUT = {"embedding_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}
# Epsilon is large for Adam: it would blow differences of rounding up where a gradient is nearly zero.
ADAMW = {"optimizer": "adamw", "weight_decay": 0.5, "epsilon": 1e-2}


@dataclass(frozen=True)
class Case:
    model: dict[str, Any]
    optimizer: dict[str, Any]
    update: dict[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0
    objective: dict[str, Any] = field(default_factory=dict)
    num_updates: int = 4
    learning_rate: float = 2**-5


DESCENT = Case(
    {"encoder_layers": 2, "start_state": "both_ends", "attention_hops": 2, "lexical_model": True, **NO_DROPOUT},
    {"optimizer": "sgd"},
    label_smoothing=0.1,
    num_updates=1,
    learning_rate=1.0,  # what is taken away from the weights is the gradient
)
OTHER = Case(
    {
        "decoder_layers": 2,
        "input_feeding": True,
        "layer_norm": True,
        "attention": "additive",
        "attention_heads": 8,
        "tied_embeddings": "none",
        **NO_DROPOUT,
    },
    ADAMW,
    {"accumulation_steps": 2, "clip_norm": 0.05, "ema_decay": 0.3},
    objective={"guided_alignment": 0.5},
)
DROPOUT = Case(
    {
        "decoder_layers": 1,
        "word_dropout": 0.2,
        "locked_dropout": True,
        "recurrent_dropout": 0.2,
        "attention_dropout": 0.2,
    },
    ADAMW,
    {"clip_norm": 0.05, "ema_decay": 0.3},
    objective={"consistency": 2.0, "consistency_kind": "simcut", "guided_alignment": 0.5},
)


def make_model(case: Case, weights: dict[str, np.ndarray] | None = None) -> Any:
    """The model of a case with its optimizer, with weights or, in none are given, with random ones, biases too."""
    import keras

    from nmt.config.schema import ModelConfig, TrainingConfig
    from nmt.models.seq2seq import make_seq2seq
    from nmt.training.schedules import make_optimizer
    from nmt.weights import assign_arrays, get_arrays

    keras.utils.set_random_seed(1)
    model = make_seq2seq(ModelConfig(**SIZES | case.model), source_vocabulary_size=V, target_vocabulary_size=V)
    model.optimizer = make_optimizer(TrainingConfig(max_updates=1, **case.optimizer))
    random = np.random.default_rng(1)
    drawn = {path: a + random.normal(size=a.shape) / 4 for path, a in get_arrays(model.trainable_variables).items()}
    assign_arrays(model.trainable_variables, weights or drawn, "The test")
    return model


def settings_of(case: Case) -> dict[str, Any]:
    """The settings of the update of a case."""
    from nmt.training.objective import Objective

    objective = Objective(label_smoothing=case.label_smoothing, pair_losses=True, **case.objective)
    return {"seed": 1, "objective": objective, **case.update}


def differentiate_consistency(kind: str) -> np.ndarray:
    """Differentiates R-Drop or SimCut, on fixed states that were read twice, matrix and bias: one row [N].

    Loss, likelihood and divergence have random factors. So their values are derivatives, too, the last three.
    """
    from nmt.backend import keras, ops
    from nmt.compilation import compute_gradient
    from nmt.models.embedding import OutputProjection
    from nmt.training.objective import compute_consistency

    layer = OutputProjection(V, 5, tied=None)
    targets = np.array([[4, 6, 3], [4, 3, 0]] * 2)
    weights = (targets != 0).astype(np.float32)
    if kind == "simcut":
        weights[2:] = 0
    shapes = [(4, 3, 5), (V, 5), (V,), (3,)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])

    def sum_terms(numbers: Any) -> Any:
        parts = ops.split(numbers, ends[:-1].tolist())
        states, matrix, bias, factors = (ops.reshape(*pair) for pair in zip(parts, shapes, strict=True))
        with keras.StatelessScope(state_mapping=[(layer.own, matrix), (layer.bias, bias)]):
            terms = compute_consistency(layer, states, targets, weights, label_smoothing=0.1, kind=kind)
        return ops.sum(ops.stack(terms[:3]) * factors)

    numbers = np.random.default_rng(1).normal(size=ends[-1]).astype(np.float32)
    return ops.convert_to_numpy(compute_gradient(sum_terms, ops.convert_to_tensor(numbers), []))


def batch_of(number: int, *, is_aligned: bool = False) -> Any:
    """10 pairs and 2 rows that only fill up; piece 5 again and again. Every other target piece may be aligned."""
    from nmt.data.batching import Batch, pad

    random = np.random.default_rng(number)
    longest = [9, 2, 4, 7, 1] * 2 + [0, 0]
    sides = [[list(random.choice([4, 5, 5, 5, 6, 7, 8, 9], size=n)) for n in longest] for _ in range(2)]
    source, target = map(pad, sides)
    alignment = None
    if is_aligned:
        alignment = (random.random((*target.shape, source.shape[1])) < 0.3) * (source > 3)[:, None, :] * 1.0
        alignment[:, ::2] = 0
        alignment = (alignment / np.maximum(alignment.sum(axis=2, keepdims=True), 1)).astype(np.float32)
    return Batch(0, number, source, target, np.array([1.0] * 10 + [0.0] * 2, dtype=np.float32), alignment)


def learned(update: Any, case: Case) -> dict[str, np.ndarray]:
    """What the updates of a case say, of all pairs and of each, and what they make of weights and averages."""
    from nmt.weights import get_arrays

    update.restart_averages()
    numbers = range(1, case.num_updates + 1)
    is_aligned = "guided_alignment" in case.objective
    outcomes = [
        update(batch_of(number, is_aligned=is_aligned), update=number, learning_rate=case.learning_rate)
        for number in numbers
    ]
    names = ("loss", "nll", "gradient_norm", *(("alignment",) if is_aligned else ()))
    figures = [
        (*(outcome.metrics[name] for name in names), outcome.num_tokens, outcome.is_applied) for outcome in outcomes
    ]
    weights = {f"weight {path}": array for path, array in get_arrays(update.model.trainable_variables).items()}
    averages = {f"average {path}": array for path, array in update.get_averages().items()}
    pairs = np.array([outcome.pair_losses for outcome in outcomes], dtype=np.float64)
    return {"outcomes": np.array(figures, dtype=np.float64), "pairs": pairs, **weights, **averages}
