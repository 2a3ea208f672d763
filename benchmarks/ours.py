"""nmt itself: its default model in float32, bfloat16 and as an int8 export, and a model with one decoder layer.

All have the widths that all systems share.
"""

from collections.abc import Callable

from benchmarks.arithmetic import Shapes
from benchmarks.settings import EMBEDDING_UNITS
from benchmarks.system import System

PACKAGES = ("tensorflow", "keras", "sentencepiece", "numpy")


def _make_shapes(decoder_layers: int) -> Callable[[int], Shapes]:
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
    shapes=_make_shapes(2),
    packages=PACKAGES,
    overrides=("decoding.precision=float32",),
)
BFLOAT16 = System(
    key="nmt-bfloat16",
    title="nmt, bfloat16",
    description="the same model in bfloat16",
    driver="run_nmt.py",
    shapes=_make_shapes(2),
    packages=PACKAGES,
    overrides=("training.precision=bfloat16", "decoding.precision=bfloat16"),
)
ONE_LAYER = System(
    key="nmt-one-layer",
    title="nmt, 1 decoder layer, bfloat16",
    description="the depth of the peers, but the context does not reach the recurrence",
    driver="run_nmt.py",
    shapes=_make_shapes(1),
    packages=PACKAGES,
    overrides=("model.decoder_layers=1", "training.precision=bfloat16", "decoding.precision=bfloat16"),
)
LITERT = System(
    key="nmt-litert",
    title="nmt, LiteRT int8",
    description="the float32 model as a LiteRT export with int8 weights",
    driver="run_nmt.py",
    shapes=_make_shapes(2),
    packages=("ai-edge-litert", "sentencepiece", "numpy"),
    export=("--format", "litert", "--quantize", "int8", "--max-bleu-loss", "100"),
)
