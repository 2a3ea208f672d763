"""Opens a translator by its path: a run folder, a model folder, an ensemble, or an export of either kind."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.data.glossary import Glossary
from nmt.errors import UserError
from nmt.model_folder import find_model_folder, is_ensemble, is_litert, is_savedmodel
from nmt.process import check_device
from nmt.translators.protocol import Translator


@dataclass(frozen=True)
class Kind:
    """A kind of translator."""

    name: str
    matches: Callable[[Path], bool]
    """Whether a folder is of this kind, decided without reading its files."""
    translator: tuple[str, str]
    """Module and name of its class, imported when one is opened: each needs other packages."""
    fixed: bool = True
    """Whether settings were fixed when it was made, as in an export."""


# A folder is of the first kind that matches; what is nothing else must be a model.
KINDS = (
    Kind("SavedModel", is_savedmodel, ("nmt.translators.savedmodel", "SavedModelTranslator")),
    Kind("LiteRT", is_litert, ("nmt.translators.litert", "LiteRTTranslator")),
    Kind("ensemble", is_ensemble, ("nmt.translators.model", "ModelTranslator"), fixed=False),
    Kind("model", lambda path: True, ("nmt.translators.model", "ModelTranslator"), fixed=False),
)


def find_kind(path: Path) -> Kind:
    """Returns the kind of translator that a folder holds, without opening it."""
    return next(kind for kind in KINDS if kind.matches(path))


def find_folder(path: Path) -> Path:
    """Returns the folder with everything that its translations depend on.

    Raises:
        UserError: there is no model.
    """
    return find_model_folder(path) if find_kind(path).name == "model" else path


def open_translator(
    path: Path | str,
    *,
    rerank: Path | str | None = None,
    rerank_weight: float | None = None,
    glossary: Glossary | Mapping[str, str] | Path | str | None = None,
    marks: bool = False,
    **changes: Any,
) -> Translator:
    """Opens a translator.

    Args:
        path: of a run folder (its best model), a model folder, an ensemble or an export.
        rerank: a second model or ensemble, whose scores rerank the hypotheses of the beam; see
            `nmt.translators.reranking`. `precision` is the only change that applies to it.
        rerank_weight: weight of the second model, 0 to 1; default: 0.5.
        glossary, marks: see `Translator.with_terms`.
        **changes: settings of the section `decoding` other than its own, such as beam_size=1; None leaves one as it is.

    Raises:
        UserError: there is no model or export at the path, a setting is unknown, invalid or fixed in the export, the
            glossary has a term that this model cannot produce, or `--device` names a GPU that does not exist.
    """
    if glossary is not None or marks:
        translator = open_translator(path, rerank=rerank, rerank_weight=rerank_weight, **changes)
        return translator.with_terms(glossary, marks=marks)
    check_weight(rerank, rerank_weight)
    if rerank is not None:
        from nmt.translators.reranking import WEIGHT, RerankingTranslator

        weight = WEIGHT if rerank_weight is None else rerank_weight
        # An export is refused, whatever its precision.
        loading: dict[str, Any] = {} if find_kind(Path(rerank)).fixed else {"precision": changes.get("precision")}
        return RerankingTranslator(open_translator(path, **changes), open_translator(rerank, **loading), weight)
    path = Path(path)
    kind = find_kind(path)
    module, name = kind.translator
    implementation = getattr(importlib.import_module(module), name)
    # A model has its precision from loading on.
    loading = {} if kind.fixed else {"precision": changes.pop("precision", None)}
    translator = implementation.load(path, **loading)
    check_device()  # which requires the imports that a translator needs
    return translator.with_settings(**changes)


def check_weight(rerank: Path | str | None, rerank_weight: float | None) -> None:
    """Raises UserError if there is a weight of a second model, but no second model."""
    if rerank_weight is not None and rerank is None:
        raise UserError("--rerank-weight has no effect without --rerank, which names the second model.")
