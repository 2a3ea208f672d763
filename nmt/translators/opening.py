"""Opens whatever translates: a run folder, a model folder, or an export of either kind."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from nmt.translators.litert import LiteRTTranslator
    from nmt.translators.model import Translator
    from nmt.translators.savedmodel import ExportedTranslator


def is_export(path: Path) -> bool:
    """Whether a folder is an export: a version folder, or a folder of them."""
    return any(path.glob("saved_model.pb")) or any(path.glob("[0-9]*/saved_model.pb"))


def is_litert(path: Path) -> bool:
    """Whether a folder is an export for LiteRT."""
    return (path / "model.tflite").is_file()


def open_translator(path: Path, **decoding: Any) -> Union["Translator", "ExportedTranslator", "LiteRTTranslator"]:
    """Opens a model for translation.

    Args:
        path: of a run folder, a model folder or an export.
        **decoding: settings of `DecodingConfig` other than its own, such as beam_size=1; None leaves one as it is.

    Raises:
        UserError: there is no model, or an export is asked for settings other than those it was made with.
    """
    if is_export(path):
        from nmt.translators.savedmodel import ExportedTranslator

        return ExportedTranslator.load(path).with_decoding(**decoding)
    if is_litert(path):
        from nmt.translators.litert import LiteRTTranslator

        return LiteRTTranslator.load(path).with_decoding(**decoding)
    from nmt.translators.model import Translator

    return Translator.load(path).with_decoding(**decoding)
