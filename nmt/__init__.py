"""Recurrent neural machine translation on Keras 3: text in, text out."""

from typing import TYPE_CHECKING, Any

from nmt.version import __version__ as __version__

if TYPE_CHECKING:
    from nmt.config.file import load_config as load_config
    from nmt.config.schema import Config as Config
    from nmt.errors import UserError as UserError
    from nmt.evaluation.compare import compare as compare
    from nmt.evaluation.evaluate import evaluate as evaluate
    from nmt.evaluation.promises import check as check
    from nmt.exporting.savedmodel import export as export
    from nmt.inspection.inspect import inspect as inspect
    from nmt.training.train import train as train
    from nmt.translators.hypothesis import Hypothesis as Hypothesis
    from nmt.translators.hypothesis import Translation as Translation
    from nmt.translators.opening import open_translator as open_translator
    from nmt.translators.protocol import Translator as Translator

_HOMES = {
    "Config": "nmt.config.schema",
    "Hypothesis": "nmt.translators.hypothesis",
    "Translation": "nmt.translators.hypothesis",
    "Translator": "nmt.translators.protocol",
    "UserError": "nmt.errors",
    "check": "nmt.evaluation.promises",
    "compare": "nmt.evaluation.compare",
    "evaluate": "nmt.evaluation.evaluate",
    "export": "nmt.exporting.savedmodel",
    "inspect": "nmt.inspection.inspect",
    "load_config": "nmt.config.file",
    "open_translator": "nmt.translators.opening",
    "train": "nmt.training.train",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Imported on first use: what needs no TensorFlow, such as `nmt --help`, then answers at once.
    if name not in _HOMES:
        raise AttributeError(f"module 'nmt' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
