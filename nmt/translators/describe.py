"""Descriptions of run folders, model folders and exports, for `nmt info`."""

import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt.config.reference import as_words
from nmt.config.schema import DecodingConfig
from nmt.model_folder import ModelFolder, find_model_folder, load_confidence, load_members
from nmt.translators.confidence import Confidence
from nmt.translators.export_record import read_record, read_settings
from nmt.translators.opening import find_kind

# Parts of an export's record that are long: the operations of a graph, for servers that lack one, digests and curves.
HIDDEN = ("kind", "operations", "digests", "confidence")
WIDTH, INDENT = 120, 13  # columns of a line, and of the names


def describe(path: Path) -> str:
    """Returns a table about a folder, with all settings of its search.

    Raises:
        UserError: it is neither a run folder nor a model folder nor an ensemble nor an export.
    """
    describers = {
        "SavedModel": _describe_savedmodel,
        "LiteRT": _describe_litert,
        "ensemble": _describe_ensemble,
        "model": _describe_model,
    }
    return "\n".join(_format_row(*row) for row in describers[find_kind(path).name](path).items())


def _describe_model(path: Path) -> dict[str, str]:
    folder = ModelFolder.load(path)
    return {
        "kind": "model folder" if find_model_folder(path) == path else "run folder",
        **_describe_tokens(folder),
        **_describe_training(folder),
        "confidence": _describe_confidence(folder.confidence, path),
        "decoding": _format_settings(folder.config.decoding),
        "versions": ", ".join(f"{name} {version}" for name, version in folder.facts.get("versions", {}).items()),
    }


def _describe_ensemble(path: Path) -> dict[str, str]:
    members = load_members(path)
    described = {
        f"member {number}": "; ".join(f"{name} {text}" for name, text in _describe_training(member).items())
        for number, member in enumerate(members, start=1)
    }
    return {
        "kind": f"ensemble of {len(members)} models",
        **_describe_tokens(members[0]),
        **described,
        "weights": f"{sum(map(_count_weights, members)):,}",
        "confidence": _describe_confidence(load_confidence(path), path),
        "decoding": _format_settings(members[0].config.decoding),
    }


def _describe_tokens(folder: ModelFolder) -> dict[str, str]:
    data = folder.config.data
    return {
        "languages": f"{data.source_language} to {data.target_language}",
        "vocabulary": f"{folder.source_tokenizer.vocabulary_size:,} source and "
        f"{folder.target_tokenizer.vocabulary_size:,} target tokens",
    }


def _describe_training(folder: ModelFolder) -> dict[str, str]:
    """Returns what a model is and how it was trained."""
    model, facts = folder.config.model, folder.facts
    if "averaged" in facts:
        trained = f"mean of {len(facts['averaged'])} checkpoints or models"
    else:
        trained = f"{facts['update']:,} updates" if "update" in facts else "unknown"
    return {
        "encoder": f"{model.encoder_layers} × LSTM {model.encoder_units}",
        "decoder": f"{model.decoder_layers} × LSTM {model.decoder_units}, {model.attention} attention"
        + (", right to left" if model.right_to_left else ""),
        "weights": f"{_count_weights(folder):,}",
        "trained for": trained,
        "dev BLEU": f"{facts['dev_bleu']:.2f} (greedy)" if "dev_bleu" in facts else "unknown",
    }


def _describe_confidence(record: Mapping[str, Any] | None, path: Path) -> str:
    fitted = Confidence.from_record(record, path)
    return f"fitted on {fitted.sentences} sentences" if fitted else "not fitted"


def _count_weights(folder: ModelFolder) -> int:
    return sum(math.prod(array.shape) for array in folder.weights.values())


def _describe_savedmodel(path: Path) -> dict[str, str]:
    from nmt.translators.savedmodel import RECORD, find_version

    folder = find_version(path)
    if not (folder / RECORD).is_file():  # a SavedModel from elsewhere
        return {"kind": "SavedModel, not an export of this toolkit", "folder": str(folder)}
    return _describe_export("export (SavedModel)", folder, read_record(folder, RECORD))


def _describe_litert(path: Path) -> dict[str, str]:
    from nmt.translators.litert import RECORD

    return _describe_export("export (LiteRT)", path, read_record(path, RECORD))


def _describe_export(kind: str, folder: Path, record: Mapping[str, Any]) -> dict[str, str]:
    facts = {key: json.dumps(fact) for key, fact in record.items() if key not in HIDDEN}
    settings = _format_settings(read_settings(record))
    return {"kind": kind, "folder": str(folder), **facts, "decoding": settings}


def _format_settings(settings: DecodingConfig) -> str:
    """Returns settings as overrides of a command, such as beam_size=5."""
    return " ".join(f"{name}={as_words(value)}" for name, value in settings.model_dump().items())


def _format_row(name: str, text: str) -> str:
    if name != "decoding" and not name.startswith("member"):
        return f"{name:<{INDENT - 1}} {text}"
    lines = textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False)
    return f"{name:<{INDENT - 1}} " + f"\n{'':<{INDENT}}".join(lines)
