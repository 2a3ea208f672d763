"""JoeyNMT 2.3.0: a PyTorch toolkit for learners (Kreutzer et al. 2019), with an LSTM whose decoder feeds its input."""

from benchmarks.arithmetic import Shapes
from benchmarks.environment import TORCH, Environment
from benchmarks.system import System

ENVIRONMENT = Environment(
    name="joeynmt",
    python="3.11",
    # sentencepiece above 0.2.0 refuses the arguments that JoeyNMT gives it; setuptools serves its old imports.
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
