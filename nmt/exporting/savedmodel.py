"""Exports a trained model as a SavedModel that TensorFlow Serving runs unchanged: text in, text out.

DIR/N/saved_model.pb, variables/     the graph, which contains SentencePiece and beam search
DIR/N/assets.extra/export.json       how it was made, with which settings, and how it compares with the model
                   source.model, target.model     SentencePiece models, for clients
                   tf_serving_warmup_requests     requests that the server runs before it uses the version
DIR/README.md, compose.yaml, …       how to serve it; see `nmt.exporting.bundle`
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nmt.errors import OperationError, UserError
from nmt.exporting.bundle import Bundle, find_text_signatures, make_model_name
from nmt.exporting.job import ExportJob, write_record
from nmt.exporting.quantization import Quantization
from nmt.exporting.stock_server import check_operations, choose_server_version, read_meta_graph
from nmt.exporting.warmup import WARMUP, make_warmup_requests, write_warmup
from nmt.files import atomic_write, discard
from nmt.model_folder import SOURCE, TARGET
from nmt.translators.export_record import compute_digests
from nmt.translators.savedmodel import GRAPH, RECORD, check_tensorflow_text, list_versions
from nmt.translators.untrusted import check_meta_graph

PACKAGES = ("tensorflow", "tensorflow-text", "keras", "sentencepiece")


def export(
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
    """Writes a model as the next version in a folder, and returns the version's folder.

    A process without GPUs traces the graph. Another process, which cannot import this toolkit, translates a sample with
    it. The version folder gets its name only if the translations are the model's, or with quantized weights nearly as
    good. Otherwise nothing is written.

    Args:
        model: a run folder (its best weights), a model folder or an ensemble.
        into: folder of the versions 1, 2, …
        sample: a file of sentences to compare on, instead of the dev text that the model was trained with.
        quantize: how weights are stored, and the precision of the arithmetic; None keeps float32.
        decoding: settings of the section `decoding` that differ from the model's, such as {"beam_size": 1}.
        export: settings of the section `export` that differ from the model's, such as {"nbest": 1}.
        promises: a file of promises about translations, instead of the model's data.promises.
        log: receives lines about the progress.

    Raises:
        UserError: there is no such model or sample, a setting is invalid, the server is too old, or `into` is not
            writable.
        OperationError: the graph needs operations that the stock server does not have.
        BrokenPromiseError: a translation of the export breaks a promise whose severity is error.
        ParityError: the export translates a sentence of the sample differently from the model, or quantization costs
            more quality than is allowed.
    """
    check_tensorflow_text()
    job = ExportJob.load(model, sample=sample, quantize=quantize, decoding=decoding, export=export, promises=promises)
    server_version = choose_server_version(job.config.export.server_version, log)
    target = _choose_version(Path(into))
    with _remove_if_new(target.parent), atomic_write(target) as aside:
        log(f"Tracing the graph of {job.path} without GPUs.")
        job.trace(aside)
        meta_graph = read_meta_graph(aside)
        operations = check_operations(meta_graph.graph_def)
        _check_trusted(meta_graph, target)
        log(f"Translating {len(job.sources)} sentences with the graph and with the model.")
        parity = job.check(aside)
        log(str(parity))
        job.explain_placeholders(log)
        job.check_promises(aside, log)
        bundle = _make_bundle(job, target.parent, server_version, meta_graph.signature_def)
        record = job.make_record(
            PACKAGES,
            limits={**bundle.limits, "max_request": bundle.max_request},
            server_version=server_version,
            operations={"number": len(operations), "names": list(operations)},
        )
        _write_extras(aside, job, bundle)
        digests = compute_digests(aside, [GRAPH, *_list_parts(aside)])
        write_record(aside / RECORD, {**record, "digests": digests, "parity": parity.as_record()})
        bundle.write(target.parent, log)
    return target


def _make_bundle(job: ExportJob, into: Path, server_version: str, signatures: Mapping[str, Any]) -> Bundle:
    data, limits = job.config.data, job.config.export.model_dump(exclude={"sample", "server_version", "interactive"})
    return Bundle(
        name=make_model_name(into),
        server_version=server_version,
        languages=(data.source_language, data.target_language),
        limits={**limits, "max_tokens": data.max_length},
        # Names that begin with "__" are TensorFlow's own, such as __saved_model_init_op.
        signatures={name: one for name, one in signatures.items() if not name.startswith("__")},
        example=make_warmup_requests(job.sources)[1][0],  # the sentence of median length
    )


def _check_trusted(meta_graph: Any, path: Path) -> None:
    """Raises OperationError if this toolkit would refuse to open the export."""
    try:
        check_meta_graph(meta_graph, path)
    except UserError as error:
        raise OperationError(f"The export could not be opened again, so nothing was written: {error}") from error


def _list_parts(folder: Path) -> list[str]:
    """Returns the files of an export that its translations depend on, besides the graph."""
    models = [RECORD.with_name(SOURCE), RECORD.with_name(TARGET)]
    weights = sorted(path.relative_to(folder) for path in (folder / "variables").iterdir())
    return [path.as_posix() for path in (*models, *weights)]


def _write_extras(aside: Path, job: ExportJob, bundle: Bundle) -> None:
    """Writes the SentencePiece models and the warm-up requests."""
    job.folder.source_tokenizer.save((aside / RECORD).with_name(SOURCE))
    job.folder.target_tokenizer.save((aside / RECORD).with_name(TARGET))
    requests = make_warmup_requests(job.sources)
    write_warmup(aside / WARMUP, bundle.name, find_text_signatures(bundle.signatures), requests)


def _choose_version(into: Path) -> Path:
    """Returns the folder of the next version. The number of a withdrawn one, such as 2.withdrawn, is not reused."""
    taken = [int(match[0]) for child in into.glob("[0-9]*") if (match := re.match(r"[0-9]+", child.name))]
    return into / str(max(taken, default=0) + 1)


@contextlib.contextmanager
def _remove_if_new(into: Path) -> Iterator[None]:
    """Removes a folder that did not exist before if the block fails, unless it holds another export by now."""
    is_new = not into.exists()
    try:
        yield
    except BaseException:
        if is_new and not list_versions(into):
            discard(into)
        raise
