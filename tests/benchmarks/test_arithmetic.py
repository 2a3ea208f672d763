import pytest

from benchmarks.arithmetic import Shapes, count_mflop
from benchmarks.ours import NMT, ONE_LAYER
from benchmarks.settings import DECODER_UNITS, EMBEDDING_UNITS, ENCODER_UNITS


def count_from_weights(decoder_layers: int, *, source_length: float, target_length: float) -> float:
    """MFLOP per target token from the matrices of the model itself, each multiplied once per source or target token."""
    from nmt.config.schema import ModelConfig
    from nmt.models.seq2seq import make_seq2seq

    config = ModelConfig(
        embedding_units=EMBEDDING_UNITS,
        encoder_units=2 * ENCODER_UNITS,
        decoder_units=DECODER_UNITS,
        decoder_layers=decoder_layers,
    )
    model = make_seq2seq(config, source_vocabulary_size=8000, target_vocabulary_size=8000)
    products = 8000.0 * EMBEDDING_UNITS  # the output projection: the embedding once more
    for weight in model.trainable_variables:
        path = weight.path
        if len(weight.shape) < 2 or "embedding" in path or "start_state" in path:
            continue
        of_source = "encoder" in path or path.endswith(("key/kernel", "value/kernel"))
        size = weight.shape[0] * weight.shape[1]
        products += size * source_length / target_length if of_source else size
    # Each target token looks at each source token twice: for its energy, and for its part of the context.
    products += 2 * source_length * DECODER_UNITS
    return 6 * products / 1e6


@pytest.mark.parametrize("system", [NMT, ONE_LAYER])
def test_counted_products_are_those_of_the_matrices_that_the_model_has(system):
    shapes = system.shapes(8000)
    lengths = {"source_length": 15.7, "target_length": 16.3}
    counted = count_mflop(shapes, **lengths)
    assert sum(counted.values()) == pytest.approx(count_from_weights(shapes.decoder_layers, **lengths), rel=1e-12)


def test_one_layer_costs_what_was_said_of_the_prototype():
    counted = count_mflop(ONE_LAYER.shapes(8000), source_length=15, target_length=15)
    assert sum(counted.values()) == pytest.approx(34, abs=0.5)


def test_input_feeding_widens_the_bottom_layer_alone():
    plain, fed = (
        count_mflop(Shapes(8000, input_feeding=feeding), source_length=10, target_length=10)
        for feeding in (False, True)
    )
    # 512 more inputs of four gates of 512 units, an addition each, forward once and backward twice
    assert fed["decoder"] - plain["decoder"] == pytest.approx(6 * 512 * 4 * 512 / 1e6)
    assert {**fed, "decoder": 0} == {**plain, "decoder": 0}
