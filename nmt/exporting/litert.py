"""A trained model for LiteRT: for phones, and for programs without TensorFlow. SentencePiece runs outside of it.

DIR/model.tflite                  encoder, decoder and beam search: ids of one sentence in, ids of its translation out
DIR/source.model, target.model    SentencePiece, text to ids and back
DIR/export.json                   what it was made of, with which settings, and how it compared with the model
"""

import importlib.util
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nmt.data.tokenizer import EOS_ID
from nmt.errors import UserError
from nmt.exporting.parity import check_parity
from nmt.exporting.quantization import Quantization
from nmt.exporting.savedmodel import read_sample, trace
from nmt.files import atomic_write
from nmt.model_folder import SOURCE, TARGET, ModelFolder, find_model_folder
from nmt.translators.export_record import FORMAT
from nmt.translators.litert import RECORD
from nmt.translators.model import ModelTranslator
from nmt.version import __version__

PACKAGES = ("tensorflow", "ai-edge-litert", "keras", "sentencepiece")


def export_litert(
    model: Path | str,
    into: Path | str,
    *,
    sample: Path | str | None = None,
    quantize: Quantization | None = None,
    decoding: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Writes a model as the folder `into`, and returns it.

    It translates a sample in a process that can import neither the toolkit nor TensorFlow, and gets its name only when
    its texts are the model's, or with quantised weights nearly as good.

    Args:
        model: a run folder (its best weights) or a model folder.
        into: a folder that is not there yet.
        sample: a file of sentences to compare on, instead of the dev text that the model was trained with.
        quantize: LiteRT knows int8; None keeps float32.
        decoding: settings of `DecodingConfig` other than the model's own, such as {"beam_size": 1}.
        log: receives lines about the progress.

    Raises:
        UserError: there is no such model, there is no sample, a package is missing, or `into` cannot be written to.
        ParityError: the artefact translates a sentence of the sample otherwise than the model, or loses more than is
            allowed by quantising.
    """
    _check(Path(into), quantize)
    path = find_model_folder(Path(model)).resolve()
    folder = ModelFolder.load(path)
    translator = ModelTranslator.load(path, precision="float32").with_settings(**decoding or {})
    sources, references = read_sample(folder.config.data.dev, sample, folder.config.export.sample)
    record = _record(path, folder, translator.settings.model_dump())
    with atomic_write(Path(into)) as aside:
        aside.mkdir()
        folder.source_tokenizer.save(aside / SOURCE)
        folder.target_tokenizer.save(aside / TARGET)
        _write(aside, record)  # its limits are for whoever runs it
        log(f"Converting {path} for LiteRT.")
        trace(path, aside, quantize, decoding, program="nmt.exporting.litert_graph")
        log(f"Translating {len(sources)} sentences with LiteRT and with the model.")
        parity = check_parity(aside, translator, sources, references, quantize)
        log(str(parity))
        _write(aside, {**record, "parity": parity.as_record()})
    return Path(into)


def _check(into: Path, quantize: Quantization | None) -> None:
    missing = [name for name in ("tensorflow", "ai_edge_litert") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'An export for LiteRT needs {" and ".join(missing)}. Install with: pip install "nmt[litert]"')
    if quantize and quantize.kind != "int8":
        raise UserError(f"--quantize {quantize.kind}: LiteRT computes with int8 or float32 weights; expected int8.")
    if into.exists():
        raise UserError(f"{into} is there already: expected the name of a new folder for the LiteRT model.")


def _record(path: Path, folder: ModelFolder, decoding: Mapping[str, Any]) -> dict[str, Any]:
    config = folder.config
    return {
        "format": FORMAT,
        "kind": "litert",
        "source_language": config.data.source_language,
        "target_language": config.data.target_language,
        "decoding": dict(decoding),
        "limits": {"max_tokens": config.data.max_length, "eos_id": EOS_ID},
        "model": {"path": str(path), **folder.facts},
        "versions": {"nmt": __version__, **{name: version(name) for name in PACKAGES}},
    }


def _write(folder: Path, record: dict[str, Any]) -> None:
    (folder / RECORD).write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
