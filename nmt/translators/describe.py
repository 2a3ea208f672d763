"""Says what a run folder, a model folder or an export is."""

import json
import math
from pathlib import Path

from nmt.translators.opening import find_kind


def describe(path: Path) -> str:
    """A few lines about a folder.

    Raises:
        UserError: it is none of a run folder, a model folder and an export.
    """
    describers = {"SavedModel": _describe_export, "LiteRT": _describe_litert, "model": _describe_model}
    return describers[find_kind(path).name](path)


def _describe_model(path: Path) -> str:
    from nmt.model_folder import ModelFolder, find_model_folder

    folder = ModelFolder.load(path)
    model, facts = folder.config.model, folder.facts
    data, decoding = folder.config.data, folder.config.decoding
    num_weights = sum(math.prod(array.shape) for array in folder.weights.values())
    kind = "model folder" if find_model_folder(path) == path else "run folder"
    lines = {
        "kind": kind,
        "languages": f"{data.source_language} to {data.target_language}",
        "vocabulary": f"{folder.source_tokenizer.vocabulary_size:,} source and "
        f"{folder.target_tokenizer.vocabulary_size:,} target pieces",
        "encoder": f"{model.encoder_layers} × LSTM {model.encoder_units}",
        "decoder": f"{model.decoder_layers} × LSTM {model.decoder_units}, {model.attention} attention",
        "weights": f"{num_weights:,}",
        "trained for": f"{facts['update']:,} updates" if "update" in facts else "unknown",
        "dev BLEU": f"{facts['dev_bleu']:.2f} (greedy)" if "dev_bleu" in facts else "unknown",
        "decoding": f"beam {decoding.beam_size}, length penalty {decoding.length_penalty:g}",
        "versions": ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items()),
    }
    return "\n".join(f"{name:<12} {value}" for name, value in lines.items())


def _describe_export(path: Path) -> str:
    from nmt.translators.savedmodel import version_folder

    folder = version_folder(path)
    record = folder / "assets.extra" / "export.json"
    facts = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    facts.pop("operations", None)  # a long list, for whom a server lacks one
    return _listed("export (SavedModel)", folder, facts)


def _describe_litert(path: Path) -> str:
    from nmt.translators.export_record import read_record
    from nmt.translators.litert import RECORD

    return _listed(
        "export (LiteRT)", path, {key: fact for key, fact in read_record(path, RECORD).items() if key != "kind"}
    )


def _listed(kind: str, folder: Path, facts: dict) -> str:
    lines = {"kind": kind, "folder": str(folder), **{key: json.dumps(value) for key, value in facts.items()}}
    return "\n".join(f"{name:<12} {value}" for name, value in lines.items())
