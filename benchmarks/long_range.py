"""Measures how long recurrent cells remember one symbol, and how far back the gradient of their answer reaches.

A sequence begins with one of SYMBOLS symbols. Random symbols of another alphabet follow, and after the last of them the
model has to name the first one (Hochreiter and Schmidhuber 1997, experiment 2). The models differ in their cell alone:

    LSTM                        the layer of nmt, whose forget gate begins with a bias of 1
    LSTM, open forget gates     the same layer; the biases of the gates begin at log(u) and -log(u) with u uniform
                                from 1 to the number of steps (Tallec and Ollivier 2018)
    LSTM without forget gate    cell = cell + input gate * candidate (Hochreiter and Schmidhuber 1997)
    tanh RNN                    h = tanh(x W + h R + b) (Elman 1990)

N sequences, T positions: a symbol and T - 1 steps, E embedding units.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import OtherWork
from benchmarks.results import describe_run
from benchmarks.table import NONE, format_spread, make_table
from nmt.backend import keras, ops, set_random_seed
from nmt.compilation import compute_gradient
from nmt.errors import UserError
from nmt.files import atomic_write
from nmt.models.recurrent import LSTM

SYMBOLS, NOISE = 8, 8
"""Sizes of the two alphabets."""
# sigmoid(100) is 1 in float32 and its derivative 0, so that the gate stays open and its weights keep their values.
ALWAYS_OPEN = 100.0
GRADIENT_SEQUENCES = 64
SAME = ("machine", "versions", "priority")  # in records that are joined
LEAST_NORM = 1e-30  # what is drawn of a gradient that float32 holds as 0


@dataclass(frozen=True)
class Settings:
    """The extent of the experiment."""

    steps: tuple[int, ...] = (10, 25, 50, 100, 200, 400)
    """From the symbol to the answer."""
    seeds: tuple[int, ...] = (1, 2, 3)
    units: int = 32
    embedding_units: int = 16
    batch_size: int = 64
    learning_rate: float = 0.002
    clip_norm: float = 1.0
    max_updates: int = 800
    updates_per_round: int = 100
    """Training ends after a round in which `target_accuracy` was reached."""
    target_accuracy: float = 0.995
    test_sequences: int = 2048


QUICK = Settings(steps=(5, 10), seeds=(1,), max_updates=60, updates_per_round=20, test_sequences=128)


def measure(settings: Settings, log: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Trains every cell for every number of steps and with every seed.

    Returns:
        A record per cell and number of steps, the longest first: `cell`, `steps`, `weights` (their number), by seed
        `accuracy` (percent of new sequences) and `updates`. Those of the longest also have `gradients`: of the first
        seed, the norms `before` and `after` training at each position, last one first, each [T].
    """
    return [_measure_one(cell, steps, settings, log) for steps in sorted(settings.steps)[::-1] for cell in CELLS]


def _measure_one(cell: str, steps: int, settings: Settings, log: Callable[[str], None]) -> dict[str, Any]:
    first = settings.seeds[0]
    model = make_model(cell, steps, settings, first)
    optimizer = [np.array(one) for one in model.optimizer.variables]
    record: dict[str, Any] = {"cell": cell, "steps": steps, "weights": model.count_params()}
    record |= {"accuracy": [], "updates": []}
    for seed in settings.seeds:
        started = time.monotonic()
        if seed != first:  # one model for all seeds, so that JAX compiles its update once
            model.set_weights(make_model(cell, steps, settings, seed).get_weights())
            for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
                variable.assign(value)
        random = np.random.default_rng([seed, steps])
        probe = draw_sequences(random, GRADIENT_SEQUENCES, steps)
        shows_gradient = seed == first and steps == max(settings.steps)
        before = _shorten(measure_gradient(model, *probe)) if shows_gradient else []
        record["updates"].append(_train(model, random, steps, settings))
        tokens, symbols = draw_sequences(random, settings.test_sequences, steps)
        found = np.asarray(model.predict(tokens, batch_size=settings.batch_size, verbose=0)).argmax(axis=1)
        record["accuracy"].append(round(100 * float((found == symbols).mean()), 2))
        if shows_gradient:
            record["gradients"] = {"before": before, "after": _shorten(measure_gradient(model, *probe))}
        log(
            f"{cell}, {steps} steps, seed {seed}: {record['accuracy'][-1]:.1f} % after {record['updates'][-1]:,} "
            f"updates, {time.monotonic() - started:.0f} s"
        )
    return record


def _shorten(norms: np.ndarray) -> list[float]:
    return [float(f"{norm:.4g}") for norm in norms]


def _train(model: "RecallModel", random: np.random.Generator, steps: int, settings: Settings) -> int:
    """Trains until the model answers rightly or time is up, and returns the number of updates."""
    updates = 0
    while updates < settings.max_updates:
        updates += settings.updates_per_round
        tokens, symbols = draw_sequences(random, settings.updates_per_round * settings.batch_size, steps)
        history = model.fit(tokens, symbols, batch_size=settings.batch_size, shuffle=False, verbose=0).history
        if history["accuracy"][-1] >= settings.target_accuracy:
            break
    return updates


def draw_sequences(random: np.random.Generator, count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws sequences int32 [N, T] and the symbol with which each begins, int32 [N]."""
    tokens = random.integers(SYMBOLS, SYMBOLS + NOISE, size=(count, steps + 1), dtype=np.int32)
    tokens[:, 0] = random.integers(SYMBOLS, size=count)
    return tokens, tokens[:, 0].copy()


class RecallModel(keras.Model):
    """Embedding, one recurrent layer, and a projection of its last output to logits of the symbols."""

    def __init__(self, layer: keras.layers.Layer, units: int, embedding_units: int):
        super().__init__()
        self.embedding = keras.layers.Embedding(SYMBOLS + NOISE, embedding_units)
        self.layer = layer
        self.answer = keras.layers.Dense(SYMBOLS)
        # Built here rather than by the first call, inside of which Keras would forget the values of a `BiasedLSTM`.
        self.embedding.build(None)
        self.layer.build((None, None, embedding_units))
        self.answer.build((None, units))
        self.built = True

    def call(self, tokens: Any) -> Any:
        """Reads sequences int [N, T] and returns logits [N, SYMBOLS]."""
        return self.read_vectors(self.embedding(tokens))

    def read_vectors(self, vectors: Any) -> Any:
        """Reads the vectors of sequences [N, T, E] and returns logits [N, SYMBOLS]."""
        return self.answer(self.layer(vectors)[:, -1])


def make_model(cell: str, steps: int, settings: Settings, seed: int) -> RecallModel:
    """Builds a model with new weights, and its optimizer."""
    set_random_seed(seed)
    layer = CELLS[cell].make(settings.units, steps, np.random.default_rng(seed))
    model = RecallModel(layer, settings.units, settings.embedding_units)
    model.compile(
        keras.optimizers.Adam(settings.learning_rate, clipnorm=settings.clip_norm),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    model.optimizer.build(model.trainable_variables)
    return model


def measure_gradient(model: RecallModel, tokens: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Measures how strongly the loss depends on what was read how long ago.

    Args:
        model: from `make_model`.
        tokens: int [N, T].
        symbols: int [N].

    Returns:
        float64 [T], the Euclidean norm of the gradient of a sequence's loss (nats) with respect to the vector at each
        position, last position first, the mean over sequences.
    """

    def sum_losses(vectors: Any) -> Any:
        logits = model.read_vectors(vectors)
        return ops.sum(keras.losses.sparse_categorical_crossentropy(symbols, logits, from_logits=True))

    gradient = compute_gradient(sum_losses, model.embedding(tokens), model.variables)
    values = np.asarray(ops.convert_to_numpy(gradient), "float64")
    return np.linalg.norm(values, axis=-1).mean(axis=0)[::-1]


class BiasedLSTM(LSTM):
    """The LSTM of nmt whose gates begin with other biases.

    Args:
        units: U.
        input_bias, forget_bias: of these gates, each [U] or one number.
    """

    def __init__(self, units: int, *, input_bias: Any = 0.0, forget_bias: Any, **kwargs: Any):
        super().__init__(units, **kwargs)
        self.biases = input_bias, forget_bias

    def build(self, input_shape: tuple) -> None:
        """Creates the weights for inputs [..., I]."""
        super().build(input_shape)
        bias = self.keras_lstm.cell.bias  # one part per gate: i, f, g and o
        start = np.zeros((4, self.units), "float32")
        start[0], start[1] = self.biases
        bias.assign(start.ravel())


def _make_open_lstm(units: int, steps: int, random: np.random.Generator) -> LSTM:
    bias = np.log(random.uniform(1, steps, size=units))
    return BiasedLSTM(units, input_bias=-bias, forget_bias=bias, name="lstm")


class Cell(NamedTuple):
    """A kind of recurrent layer, and how its line is drawn."""

    make: Callable[[int, int, np.random.Generator], keras.layers.Layer]
    """Makes a layer, given its units, the number of steps and a source of random numbers."""
    color: str
    style: str


# Colours of Okabe and Ito, told apart by colour-blind readers, and lines that differ without colour.
CELLS = {
    "LSTM": Cell(lambda units, steps, random: LSTM(units, name="lstm"), "#0072B2", "-"),
    "LSTM, open forget gates": Cell(_make_open_lstm, "#009E73", "--"),
    "LSTM without forget gate": Cell(
        lambda units, steps, random: BiasedLSTM(units, forget_bias=ALWAYS_OPEN, name="lstm"), "#E69F00", "-."
    ),
    "tanh RNN": Cell(
        lambda units, steps, random: keras.layers.SimpleRNN(units, return_sequences=True, name="rnn"), "#D55E00", ":"
    ),
}


def write_results(folder: Path, settings: Settings, command: str, log: Callable[[str], None] = print) -> str:
    """Measures, writes long-range.json, long-range.md and long-range.png to a folder, and returns the Markdown.

    Figures that the folder has of other seeds, with the same settings, are kept.

    Raises:
        UserError: see `find_joinable`.
    """
    path = folder / "long-range.json"
    described = {
        **describe_run(command),
        "versions": {name: version(name) for name in (keras.backend.backend(), "keras", "numpy")},
        "priority": os.nice(0),
        "settings": {**asdict(settings), "steps": list(settings.steps), "seeds": list(settings.seeds)},
    }
    older = find_joinable(path, described)  # before an hour of work
    other, started = OtherWork(), time.monotonic()
    figures = measure(settings, log)
    record = {
        **described,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "other_cores": round(other.measure_cores(), 2),
        "figures": figures,
    }
    if older is not None:
        record = join_records(older, record)
    text = render(record)
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_write(folder / "long-range.md") as aside:
        aside.write_text(text, encoding="utf-8")
    draw(record, folder / "long-range.png")
    return text


def find_joinable(path: Path, newer: dict[str, Any]) -> dict[str, Any] | None:
    """Reads the record that a new one is joined with, if a file has one: of the same settings and other seeds.

    Raises:
        UserError: it differs in one of `SAME`, which the tables state once for all figures.
    """
    if not path.is_file():
        return None
    older = json.loads(path.read_text(encoding="utf-8"))
    settings = [{**record["settings"], "seeds": None} for record in (older, newer)]
    if settings[0] != settings[1] or set(older["settings"]["seeds"]) & set(newer["settings"]["seeds"]):
        return None
    if changed := [f"{name} {older[name]}, now {newer[name]}" for name in SAME if older[name] != newer[name]]:
        raise UserError(
            f"{path} has figures of other seeds, but with {'; '.join(changed)}. Choose another folder with --into."
        )
    return older


def join_records(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of two records that differ in their seeds."""
    seeds = [*older["settings"]["seeds"], *newer["settings"]["seeds"]]
    minutes = older["minutes"] + newer["minutes"]
    core_minutes = sum(record["other_cores"] * record["minutes"] for record in (older, newer))
    figures = [
        {**before, "accuracy": before["accuracy"] + after["accuracy"], "updates": before["updates"] + after["updates"]}
        for before, after in zip(older["figures"], newer["figures"], strict=True)
    ]
    return {
        **newer,
        "command": f"{older['command']}`, `{newer['command']}",
        "commit": ", ".join(dict.fromkeys([older["commit"], newer["commit"]])),
        "minutes": round(minutes, 1),
        "other_cores": round(core_minutes / (minutes or 1), 2),
        "settings": {**newer["settings"], "seeds": seeds},
        "figures": figures,
    }


def render(record: dict[str, Any]) -> str:
    """Returns the tables of a record, in Markdown: accuracy, updates and gradients, and where they are from."""
    settings, figures = record["settings"], record["figures"]
    all_steps = sorted(settings["steps"])
    by_place = {(one["cell"], one["steps"]): one for one in figures}

    def tabulate(title: str, describe: Callable[[dict[str, Any]], str]) -> list[str]:
        rows = [[cell, *(describe(by_place[cell, steps]) for steps in all_steps)] for cell in CELLS]
        return make_table([title, *(f"{steps} steps" for steps in all_steps)], rows)

    def describe_updates(one: dict[str, Any]) -> str:
        is_learned = all(share >= 100 * settings["target_accuracy"] for share in one["accuracy"])
        return _summarize(one["updates"]) if is_learned else NONE

    longest = all_steps[-1]
    rows = [
        [f"{cell}, {when} training", *(_format_norm(by_place[cell, longest]["gradients"][when][n]) for n in all_steps)]
        for cell in CELLS
        for when in ("before", "after")
    ]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        *tabulate("Accuracy, %", lambda one: _summarize(one["accuracy"], 1)),
        "",
        *tabulate("Updates until learned", describe_updates),
        "",
        *make_table([f"Gradient norm, model for {longest} steps", *(f"{n} steps back" for n in all_steps)], rows),
        "",
        f"*{record['date']}, `{record['command']}`, {record['minutes']:g} minutes at priority {record['priority']}. "
        f"{record['machine']}. Other programs used {max(0.0, record['other_cores']):.1f} cores. "
        f"Seeds: {', '.join(map(str, settings['seeds']))}. Cells show the median, minimum and maximum of several "
        f"seeds. The gradients are those of seed {settings['seeds'][0]}. {versions}.*",
    ]
    return "\n".join(lines) + "\n"


def _summarize(values: Sequence[float], digits: int = 0) -> str:
    """Formats the median, and the minimum and maximum unless they are the same."""
    text = format_spread(values, digits)
    middle, _, extremes = text.partition(" (")
    return middle if extremes == f"{middle}–{middle})" else text


def _format_norm(value: float) -> str:
    return "0" if value < LEAST_NORM else f"{value:.1e}"


def draw(record: dict[str, Any], path: Path) -> None:
    """Draws accuracy by cell and steps, and the gradient's norm by position before and after training, as PNG."""
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    settings, figures = record["settings"], record["figures"]
    all_steps = sorted(settings["steps"])
    by_place = {(one["cell"], one["steps"]): one for one in figures}
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    accuracy, *gradients = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    values = np.array([[np.median(by_place[cell, steps]["accuracy"]) for steps in all_steps] for cell in CELLS])
    image = accuracy.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        accuracy.text(column, row, f"{value:.0f}", ha="center", va="center", color="black" if value > 50 else "white")
    accuracy.set_title(f"Recall of a symbol (chance is {100 / SYMBOLS:.1f} %)", fontsize=11)
    accuracy.set_xticks(range(len(all_steps)), [str(steps) for steps in all_steps])
    accuracy.set_xlabel("steps between symbol and answer")
    accuracy.set_yticks(range(len(CELLS)), list(CELLS))
    figure.colorbar(image, ax=accuracy, label="accuracy on new sequences, %")
    longest = all_steps[-1]
    for panel, when in zip(gradients, ("before", "after"), strict=True):
        for name, cell in CELLS.items():
            norms = np.maximum(by_place[name, longest]["gradients"][when], LEAST_NORM)
            panel.plot(norms, color=cell.color, linestyle=cell.style, label=name)
        panel.set_yscale("log")
        panel.set_ylim(LEAST_NORM, 1000)
        panel.set_title(f"Gradient {when} training for {longest} steps", fontsize=11)
        panel.set_xlabel("steps before the answer")
        panel.set_ylabel("norm of the gradient, nats per unit of length")
        panel.grid(alpha=0.3)
    gradients[0].legend(fontsize=9)
    with atomic_write(path) as aside:
        figure.savefig(aside, format="png", dpi=110)


def choose_settings(*, quick: bool, seeds: Sequence[int] | None) -> Settings:
    """Returns the settings of the whole experiment, or of a test of a minute."""
    settings = QUICK if quick else Settings()
    return Settings(**{**asdict(settings), "seeds": tuple(seeds or settings.seeds)})
