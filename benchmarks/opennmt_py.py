"""OpenNMT-py 3.5.1 (Klein et al. 2017): a PyTorch toolkit, with an LSTM and input feeding (Luong et al. 2015)."""

from benchmarks.arithmetic import Shapes
from benchmarks.environment import TORCH, Environment
from benchmarks.system import System

ENVIRONMENT = Environment(
    name="opennmt-py",
    python="3.11",
    packages=[
        TORCH,
        "numpy<2.4",
        "setuptools<81",
        "configargparse",
        "pyonmttok>=1.37,<2",
        "sacrebleu",
        "tensorboard",
        "pyyaml",
        "six",
        "rapidfuzz",
        "pyahocorasick",
    ],
    unpinned=["OpenNMT-py==3.5.1"],
    stubs=dict.fromkeys(("spacy", "fasttext"), '"""Imported by OpenNMT-py and not used here."""\n'),
)

SYSTEM = System(
    key="opennmt-py",
    title="OpenNMT-py 3.5.1",
    description="1 decoder layer with input feeding, Luong attention, output layer not tied",
    driver="run_opennmt_py.py",
    shapes=lambda vocabulary: Shapes(vocabulary, input_feeding=True),
    packages=("OpenNMT-py", "torch", "numpy"),
    environment=ENVIRONMENT,
)
