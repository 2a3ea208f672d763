"""The heat maps of an inspection, for a page or pictures: values, labels, range, and an order of units."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nmt.inspection.inspect import Inspection
from nmt.inspection.trace import LayerTrace

# In the order of the equations: what is kept, what is written, what is shown.
QUANTITIES = {
    "input_gate": "Input gate (writes)",
    "candidate": "Candidate (offered)",
    "forget_gate": "Forget gate (keeps)",
    "cell": "Cell state (remembers)",
    "output_gate": "Output gate (shows)",
    "output": "Output (hidden state)",
}
CELL_PERCENTILE = 99.5  # of absolute values; the few above have the colour of the end, so that the others differ


@dataclass(frozen=True)
class HeatMap:
    """A matrix of values with labels."""

    title: str
    values: np.ndarray
    """[rows, columns]."""
    columns: Sequence[str]
    """Labels of the columns."""
    rows: Sequence[str]
    """Labels of the rows; none if they are units."""
    low: float
    """The value of the first colour."""
    high: float
    """The value of the last colour."""
    unit: str
    """What the values measure."""
    order: Sequence[int] = ()
    """Numbers of the units in the rows."""

    @property
    def is_signed(self) -> bool:
        """Whether values below 0 occur, so that 0 is in the middle of the colours."""
        return self.low < 0


def make_attention_maps(found: Inspection) -> list[HeatMap]:
    """Returns the mean over hops and heads, then every head, these with one common range."""
    attention = found.trace.attention
    maps = [("Mean of all hops and heads", found.trace.mean_attention, float(found.trace.mean_attention.max()))]
    num_hops, num_heads = attention.shape[:2]
    if num_hops * num_heads > 1:
        maps += [
            (f"Hop {hop + 1}, head {head + 1}" if num_heads > 1 else f"Hop {hop + 1}", attention[hop, head], 1.0)
            for hop in range(num_hops)
            for head in range(num_heads)
        ]
    return [
        HeatMap(title, values, found.source_tokens, found.target_tokens, 0.0, high, "attention weight")
        for title, values, high in maps
    ]


def make_saliency_map(found: Inspection) -> HeatMap:
    """Returns the norms of the gradients."""
    values = found.trace.saliency
    title = "Gradient of each target token with respect to each source token"
    return HeatMap(
        title, values, found.source_tokens, found.target_tokens, 0.0, float(values.max()), "nats per unit of length"
    )


def make_layer_maps(found: Inspection) -> Iterator[tuple[str, list[HeatMap]]]:
    """Yields the title of each layer and the maps of its quantities, units by positions."""
    for name, layer in found.trace.layers.items():
        tokens = found.source_tokens if name.startswith("encoder") else found.target_tokens
        order = rank_units(layer)
        maps = []
        for quantity, title in QUANTITIES.items():
            values = getattr(layer, quantity).T[order]  # [P, U] -> [U, P]
            low, high = (0.0, 1.0) if quantity.endswith("gate") else (-1.0, 1.0)
            if quantity == "cell":
                high = max(float(np.percentile(np.abs(values), CELL_PERCENTILE)), 1e-6)
                low = -high
            unit = "(0 closed, 1 open)" if low == 0 else "cell state" if quantity == "cell" else "activation"
            maps.append(HeatMap(title, values, tokens, (), low, high, unit, order.tolist()))
        yield _describe(name), maps


def rank_units(layer: LayerTrace) -> np.ndarray:
    """Returns the units [U] by the position at which their cell is largest, then from the most positive one down."""
    peak = np.abs(layer.cell).argmax(axis=0)
    return np.lexsort((-layer.cell[peak, np.arange(len(peak))], peak))


def _describe(name: str) -> str:
    part, layer = name.split(".")
    directions = {
        "forward": "Encoder, forward direction",
        "backward": "Encoder, backward direction (reads from the end)",
    }
    number = int(layer.rpartition("_")[2]) + 1 if "_" in layer else 0
    return directions.get(layer, f"{part.capitalize()}, layer {number}")
