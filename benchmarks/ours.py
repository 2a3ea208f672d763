"""This toolkit: its default model at the widths of all, in both precisions, exported in a third, and with one decoder
layer as the peers."""

from collections.abc import Callable

from benchmarks.arithmetic import Shapes
from benchmarks.settings import EMBEDDING_UNITS
from benchmarks.system import System

PACKAGES = ("tensorflow", "keras", "sentencepiece", "numpy")


def _shapes(decoder_layers: int) -> Callable[[int], Shapes]:
    return lambda vocabulary: Shapes(
        vocabulary,
        decoder_layers=decoder_layers,
        attentional_units=EMBEDDING_UNITS,
        projects_query=True,
        projects_values=True,
    )


NMT = System(
    key="nmt",
    title="nmt, float32",
    description="2 decoder layers, no input feeding, multi-head attention, all embeddings tied",
    driver="run_nmt.py",
    shapes=_shapes(2),
    packages=PACKAGES,
    overrides=("decoding.precision=float32",),
)
BFLOAT16 = System(
    key="nmt-bfloat16",
    title="nmt, bfloat16",
    description="the same, arithmetic in bfloat16",
    driver="run_nmt.py",
    shapes=_shapes(2),
    packages=PACKAGES,
    overrides=("training.precision=bfloat16", "decoding.precision=bfloat16"),
)
ONE_LAYER = System(
    key="nmt-one-layer",
    title="nmt, 1 decoder layer, bfloat16",
    description="as many layers as the peers, though no context reaches its recurrence",
    driver="run_nmt.py",
    shapes=_shapes(1),
    packages=PACKAGES,
    overrides=("model.decoder_layers=1", "training.precision=bfloat16", "decoding.precision=bfloat16"),
)
LITERT = System(
    key="nmt-litert",
    title="nmt, LiteRT int8",
    description="the first as an export for LiteRT with weights in int8",
    driver="run_nmt.py",
    shapes=_shapes(2),
    packages=("ai-edge-litert", "sentencepiece", "numpy"),
    export=("--format", "litert", "--quantize", "int8", "--max-bleu-loss", "100"),
)
