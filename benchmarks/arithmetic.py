"""Counts the arithmetic that a model needs to train on one target token, from its shapes.

Only matrix products are counted, with one multiplication and one addition per element. The backward pass counts twice,
because each product has two gradients. Padding, softmax, gates, dropout and the optimizer are not counted, because an
implementation may save them.
"""

from dataclasses import dataclass

from benchmarks.settings import DECODER_UNITS, EMBEDDING_UNITS, ENCODER_UNITS

FORWARD_AND_BACKWARD = 3
MULTIPLY_AND_ADD = 2
GATES = 4


@dataclass(frozen=True)
class Shapes:
    """Sizes in which the systems differ. All share the widths in `settings`."""

    vocabulary: int
    decoder_layers: int = 1
    """The layers above the bottom one read the layer below and the context."""
    input_feeding: bool = False
    """Whether the bottom layer also reads the previous attentional state."""
    attentional_units: int = DECODER_UNITS
    """Width of the input of the output projection."""
    projects_query: bool = False
    projects_values: bool = False


def count_mflop(shapes: Shapes, *, source_length: float, target_length: float) -> dict[str, float]:
    """Counts MFLOP of training per target token, by part of the model.

    Args:
        source_length, target_length: mean tokens per sentence, with EOS.
    """
    memory = 2 * ENCODER_UNITS
    sources = source_length / target_length  # source tokens per target token
    bottom = EMBEDDING_UNITS + (shapes.attentional_units if shapes.input_feeding else 0)
    upper = (shapes.decoder_layers - 1) * _count_lstm(DECODER_UNITS + memory, DECODER_UNITS)
    projections = 1 + shapes.projects_values  # keys always, values unless they are the memory itself
    products = {
        "encoder": sources * 2 * _count_lstm(EMBEDDING_UNITS, ENCODER_UNITS),
        "decoder": _count_lstm(bottom, DECODER_UNITS) + upper,
        "attention": sources * projections * memory * DECODER_UNITS
        + shapes.projects_query * DECODER_UNITS**2
        + 2 * source_length * DECODER_UNITS,  # energies, and the weighted sum
        "attentional state": (DECODER_UNITS + memory) * shapes.attentional_units,
        "output projection": shapes.attentional_units * shapes.vocabulary,
    }
    return {name: count * MULTIPLY_AND_ADD * FORWARD_AND_BACKWARD / 1e6 for name, count in products.items()}


def _count_lstm(inputs: int, units: int) -> int:
    """Counts the multiplications of one position of one LSTM."""
    return GATES * units * (inputs + units)
