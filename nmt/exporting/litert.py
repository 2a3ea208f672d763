"""Exports a trained model for LiteRT: for phones, and for programs without TensorFlow. SentencePiece runs outside it.

DIR/model.tflite                  encoder, decoder and beam search: ids of a sentence in, ids of its translation out
DIR/source.model, target.model    SentencePiece models, from text to ids and back
DIR/export.json                   how it was made, with which settings, and how it compares with the model
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nmt.data.tokenizer import EOS_ID
from nmt.errors import UserError
from nmt.exporting.job import ExportJob, write_record
from nmt.exporting.quantization import Quantization
from nmt.files import atomic_write
from nmt.model_folder import SOURCE, TARGET, check_is_new
from nmt.translators.export_record import compute_digests
from nmt.translators.litert import MODEL, RECORD

PACKAGES = ("tensorflow", "ai-edge-litert", "keras", "sentencepiece")


def export_litert(
    model: Path | str,
    into: Path | str,
    *,
    sample: Path | str | None = None,
    quantize: Quantization | None = None,
    decoding: Mapping[str, Any] | None = None,
    export: Mapping[str, Any] | None = None,
    promises: Path | str | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Writes a model as the folder `into`, and returns the folder.

    A process that can import neither this toolkit nor TensorFlow translates a sample with it. The folder gets its name
    only if the translations are the model's, or with quantized weights nearly as good.

    Args:
        model: a run folder (its best weights), a model folder or an ensemble.
        into: a folder that does not exist yet.
        sample: a file of sentences to compare on, instead of the dev text that the model was trained with.
        quantize: int8 weights; None keeps float32.
        decoding: settings of the section `decoding` that differ from the model's, such as {"beam_size": 1}.
        export: {"sample": N} compares N sentences; the other keys of the section are for SavedModels.
        promises: a file of promises about translations, instead of the model's data.promises.
        log: receives lines about the progress.

    Raises:
        UserError: there is no such model or sample, a setting is invalid or has no effect, a package is missing, or
            `into` is not writable.
        BrokenPromiseError: a translation of the export breaks a promise whose severity is error.
        ParityError: the export translates a sentence of the sample differently from the model, or quantization costs
            more quality than is allowed.
    """
    _check(Path(into), quantize, decoding or {}, export or {})
    # A LiteRT model returns one translation, whatever the model's own export.nbest and export.interactive.
    export = {**(export or {}), "nbest": 1, "interactive": False}
    job = ExportJob.load(model, sample=sample, quantize=quantize, decoding=decoding, export=export, promises=promises)
    if job.config.decoding.temperature:
        raise UserError(
            "decoding.temperature: an export for LiteRT cannot sample. Set it to 0, or export a SavedModel instead."
        )
    limits = {"max_tokens": job.config.data.max_length, "eos_id": EOS_ID}
    record = job.make_record(PACKAGES, kind="litert", limits=limits)
    with atomic_write(Path(into)) as aside:
        aside.mkdir()
        job.folder.source_tokenizer.save(aside / SOURCE)
        job.folder.target_tokenizer.save(aside / TARGET)
        write_record(aside / RECORD, record)  # the process that translates the sample reads the limits
        log(f"Converting {job.path} for LiteRT.")
        job.trace(aside, program="nmt.exporting.litert_graph")
        log(f"Translating {len(job.sources)} sentences with LiteRT and with the model.")
        parity = job.check(aside)
        log(str(parity))
        job.explain_placeholders(log)
        job.check_promises(aside, log)
        digests = compute_digests(aside, [MODEL, SOURCE, TARGET])
        write_record(aside / RECORD, {**record, "digests": digests, "parity": parity.as_record()})
    return Path(into)


def _check(into: Path, quantize: Quantization | None, decoding: Mapping[str, Any], export: Mapping[str, Any]) -> None:
    missing = [name for name in ("tensorflow", "ai_edge_litert") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'An export for LiteRT needs {" and ".join(missing)}. Install with: pip install "nmt[litert]"')
    if quantize and quantize.kind != "int8":
        raise UserError(
            f"LiteRT computes with int8 or float32 weights, not {quantize.kind}. Expected --quantize int8, or neither "
            "--quantize nor --precision."
        )
    unused = [f"export.{name}" for name, value in export.items() if value is not None and name != "sample"]
    if decoding.get("batch_tokens") is not None:  # it translates one sentence at a time
        unused.append("decoding.batch_tokens")
    if unused:
        raise UserError(f"{unused[0]} has no effect on an export for LiteRT. Remove it, or export a SavedModel.")
    check_is_new(into, "LiteRT model")
