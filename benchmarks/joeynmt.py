"""JoeyNMT 2.3.0 (Kreutzer et al. 2019): a PyTorch toolkit for beginners, with an LSTM and input feeding."""

from benchmarks.arithmetic import Shapes
from benchmarks.environment import TORCH, Environment
from benchmarks.system import System

ENVIRONMENT = Environment(
    name="joeynmt",
    python="3.11",
    # sentencepiece above 0.2.0 rejects the arguments that JoeyNMT passes. Its imports need an old setuptools.
    packages=[
        TORCH,
        "numpy<2.4",
        "setuptools<81",
        "sentencepiece==0.2.0",
        "subword-nmt",
        "sacrebleu",
        "tensorboard",
        "matplotlib",
        "pyyaml",
        "packaging",
        "importlib_metadata",
        "tqdm",
        "six",
    ],
    unpinned=["joeynmt==2.3.0"],
)

SYSTEM = System(
    key="joeynmt",
    title="JoeyNMT 2.3.0",
    description="1 decoder layer with input feeding, Luong attention, output layer not tied",
    driver="run_joeynmt.py",
    shapes=lambda vocabulary: Shapes(vocabulary, input_feeding=True),
    packages=("joeynmt", "torch", "numpy"),
    environment=ENVIRONMENT,
)
