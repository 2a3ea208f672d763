"""The arithmetic that a model must do for one target piece, counted from its shapes.

Counted are the matrix products alone, a multiplication and an addition for each element; forward once, and backward
twice as much, for each product has two gradients. Padding, softmax, gates, dropout and the optimiser are not counted:
they are what an implementation may save.
"""

from dataclasses import dataclass

from benchmarks.settings import DECODER_UNITS, EMBEDDING_UNITS, ENCODER_UNITS

FORWARD_AND_BACKWARD = 3
MULTIPLY_AND_ADD = 2
GATES = 4


@dataclass(frozen=True)
class Shapes:
    """What tells the systems apart, at the widths that they share."""

    vocabulary: int
    decoder_layers: int = 1
    """Layers above the bottom one read the layer below and the context."""
    input_feeding: bool = False
    """The bottom layer also reads the last attentional state."""
    attentional_units: int = DECODER_UNITS
    """Width of what the output projection reads."""
    projects_query: bool = False
    projects_values: bool = False


def parts(shapes: Shapes, *, source_length: float, target_length: float) -> dict[str, float]:
    """MFLOP of training for each target piece, by part of the model.

    Args:
        shapes: of the model.
        source_length, target_length: mean pieces of a sentence, EOS counted.
    """
    memory = 2 * ENCODER_UNITS
    sources = source_length / target_length  # source pieces for each target piece
    bottom = EMBEDDING_UNITS + (shapes.attentional_units if shapes.input_feeding else 0)
    upper = (shapes.decoder_layers - 1) * _lstm(DECODER_UNITS + memory, DECODER_UNITS)
    projections = 1 + shapes.projects_values  # of the memory: keys always, values where they are not the memory itself
    products = {
        "encoder": sources * 2 * _lstm(EMBEDDING_UNITS, ENCODER_UNITS),
        "decoder": _lstm(bottom, DECODER_UNITS) + upper,
        "attention": sources * projections * memory * DECODER_UNITS
        + shapes.projects_query * DECODER_UNITS**2
        + 2 * source_length * DECODER_UNITS,  # energies, and the weighted sum
        "attentional state": (DECODER_UNITS + memory) * shapes.attentional_units,
        "output projection": shapes.attentional_units * shapes.vocabulary,
    }
    return {name: count * MULTIPLY_AND_ADD * FORWARD_AND_BACKWARD / 1e6 for name, count in products.items()}


def mflop_per_piece(shapes: Shapes, *, source_length: float, target_length: float) -> float:
    """MFLOP of training for each target piece."""
    return sum(parts(shapes, source_length=source_length, target_length=target_length).values())


def _lstm(inputs: int, units: int) -> int:
    """Multiplications of one position of one LSTM."""
    return GATES * units * (inputs + units)
