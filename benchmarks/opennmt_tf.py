"""OpenNMT-tf 2.32.0 on TensorFlow 2.13, the last it supports: an LSTM with Luong attention and input feeding."""

from benchmarks.arithmetic import Shapes
from benchmarks.environment import Environment
from benchmarks.system import System

ENVIRONMENT = Environment(
    name="opennmt-tf",
    python="3.11",
    packages=[
        "tensorflow-cpu==2.13.1",
        "tensorflow-addons[tensorflow-cpu]==0.21.0",
        "setuptools<81",
        "pyonmttok>=1.29,<2",
        "pyyaml",
        "packaging",
        "sacrebleu>=1.5,<3",
    ],
    unpinned=["OpenNMT-tf==2.32.0"],
    stubs={
        "ctranslate2": '"""Imported by OpenNMT-tf and not used here."""\n',
        "rouge": '"""Imported by OpenNMT-tf and not used here."""\n\n\nclass FilesRouge:\n    """Never made."""\n',
    },
)

SYSTEM = System(
    key="opennmt-tf",
    title="OpenNMT-tf 2.32.0",
    description="1 decoder layer with input feeding, Luong attention, output layer not tied",
    driver="run_opennmt_tf.py",
    shapes=lambda vocabulary: Shapes(vocabulary, input_feeding=True),
    packages=("OpenNMT-tf", "tensorflow-cpu", "tensorflow-addons"),
    environment=ENVIRONMENT,
)
