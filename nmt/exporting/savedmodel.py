"""A trained model as a SavedModel that TensorFlow Serving runs as it is: text in, text out.

DIR/N/saved_model.pb, variables/     the graph, with SentencePiece and beam search inside
DIR/N/assets.extra/export.json       what it was made of, with which settings, and how it compared with the model
                   source.model, target.model     SentencePiece, for clients
                   tf_serving_warmup_requests     requests that the server begins with
DIR/README.md, compose.yaml, …       how it is served; see `nmt.exporting.bundle`
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nmt.config.file import replace_values
from nmt.config.schema import Config, CorpusFiles
from nmt.data.corpus import read_lines, read_parallel
from nmt.errors import ExportError, UserError
from nmt.exporting.bundle import Bundle, find_text_signatures, make_model_name
from nmt.exporting.parity import Parity, check_parity, run_python
from nmt.exporting.quantization import Quantization
from nmt.exporting.stock_server import check_operations, choose_server_version, read_meta_graph
from nmt.exporting.warmup import WARMUP, make_warmup_requests, write_warmup
from nmt.files import atomic_write
from nmt.model_folder import SOURCE, TARGET, ModelFolder, find_model_folder
from nmt.translators.export_record import FORMAT
from nmt.translators.model import ModelTranslator
from nmt.translators.savedmodel import RECORD, check_tensorflow_text
from nmt.version import __version__

PACKAGES = ("tensorflow", "tensorflow-text", "keras", "sentencepiece")


def export(
    model: Path | str,
    into: Path | str,
    *,
    sample: Path | str | None = None,
    server_version: str | None = None,
    quantize: Quantization | None = None,
    decoding: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Writes a model as `into`/1, or under the number after the highest there, and returns that folder.

    The graph is traced in a process without GPUs, then translates a sample in another that cannot import the toolkit.
    Only when its texts are the model's, or with quantised weights nearly as good, does the folder get its name;
    otherwise nothing is left of it.

    Args:
        model: a run folder (its best weights) or a model folder.
        into: where versions are written, one folder each.
        sample: a file of sentences to compare on, instead of the dev text that the model was trained with.
        server_version: of the TensorFlow Serving that will run it, instead of export.server_version.
        quantize: how small the matrices of weights are stored, and the precision of arithmetic; None keeps float32.
        decoding: settings of `DecodingConfig` other than the model's own, such as {"beam_size": 1}.
        log: receives lines about the progress.

    Raises:
        UserError: there is no such model, there is no sample, the server is too old, or `into` cannot be written to.
        OperationError: the graph needs operations that the stock server does not have.
        ParityError: the artefact translates a sentence of the sample otherwise than the model, or loses more than is
            allowed by quantising.
    """
    check_tensorflow_text()
    path = find_model_folder(Path(model)).resolve()
    folder = ModelFolder.load(path)
    translator = ModelTranslator.load(path, precision="float32").with_settings(**decoding or {})
    sources, references = read_sample(folder.config.data.dev, sample, folder.config.export.sample)
    tag = choose_server_version(_choose_server_version(folder.config, server_version), log)
    target = _choose_version(Path(into))
    with _remove_if_empty(target.parent), atomic_write(target) as aside:
        log(f"Tracing the graph of {path} without GPUs.")
        trace(path, aside, quantize, decoding)
        meta_graph = read_meta_graph(aside)
        operations = check_operations(meta_graph.graph_def)
        log(f"Translating {len(sources)} sentences with the graph and with the model.")
        parity = check_parity(aside, translator, sources, references, quantize)
        log(str(parity))
        bundle = _make_bundle(target.parent, folder, tag, meta_graph.signature_def, sources)
        _write_record(aside, path, folder, translator.settings.model_dump(), parity, bundle, operations)
        _write_extras(aside, folder, bundle, sources)
    bundle.write(target.parent, log)
    return target


def trace(
    model: Path,
    folder: Path,
    quantize: Quantization | None = None,
    decoding: Mapping[str, Any] | None = None,
    *,
    program: str = "nmt.exporting.graph",
) -> None:
    """Writes the graph of a model folder, in a process where Keras finds no GPU and hence no cuDNN."""
    options = ["--decoding", json.dumps(dict(decoding or {}))]
    if quantize is not None:
        options += (
            ["--precision", quantize.precision] if quantize.precision != "float32" else ["--quantize", quantize.kind]
        )
    toolkit = str(Path(__file__).parents[2])
    search_path = os.pathsep.join(filter(None, [toolkit, os.environ.get("PYTHONPATH")]))
    hidden = {"CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow", "PYTHONPATH": search_path}
    run_python(["-m", program, str(model), str(folder), *options], ExportError, {**os.environ, **hidden})


def read_sample(dev: CorpusFiles, sample: Path | str | None, size: int) -> tuple[list[str], Sequence[str] | None]:
    """The first `size` sentences to compare on, and their references where they are known."""
    if sample is not None:
        sources = read_lines(Path(sample))
        if not sources:
            raise UserError(f"{sample} is empty: expected sentences to compare the export with the model on.")
        return sources[:size], None
    if not dev.source.is_file() or not dev.target.is_file():
        missing = dev.target if dev.source.is_file() else dev.source
        raise UserError(
            f"The export is compared with the model on the dev text, but there is no file {missing} any more. Give a "
            "file of sentences, one a line, by --sample FILE."
        )
    sources, references = read_parallel(dev.source, dev.target)
    return sources[:size], references[:size]


def _choose_server_version(config: Config, server_version: str | None) -> str | None:
    if server_version is None:
        return config.export.server_version
    return replace_values(config, {"export.server_version": server_version}, "--server-version").export.server_version


def _make_bundle(into: Path, folder: ModelFolder, tag: str, signatures: Any, sources: Sequence[str]) -> Bundle:
    """What stands beside the version, with the sample's median sentence for an example."""
    config = folder.config
    return Bundle(
        name=make_model_name(into),
        server_version=tag,
        languages=(config.data.source_language, config.data.target_language),
        limits={**config.export.model_dump(exclude={"sample", "server_version"}), "max_tokens": config.data.max_length},
        signatures={name: one for name, one in signatures.items() if not name.startswith("__")},
        example=make_warmup_requests(sources)[1][0],
    )


def _write_extras(aside: Path, folder: ModelFolder, bundle: Bundle, sources: Sequence[str]) -> None:
    """Writes what a server or a client may want beside the graph."""
    folder.source_tokenizer.save((aside / RECORD).with_name(SOURCE))
    folder.target_tokenizer.save((aside / RECORD).with_name(TARGET))
    write_warmup(aside / WARMUP, bundle.name, find_text_signatures(bundle.signatures), make_warmup_requests(sources))


def _write_record(
    aside: Path,
    path: Path,
    folder: ModelFolder,
    decoding: Mapping[str, Any],
    parity: Parity,
    bundle: Bundle,
    operations: Sequence[str],
) -> None:
    config = folder.config
    record: dict[str, Any] = {
        "format": FORMAT,
        "source_language": config.data.source_language,
        "target_language": config.data.target_language,
        "decoding": {**decoding, "precision": parity.precision},
        "limits": {**bundle.limits, "max_request": bundle.max_request},
        "server_version": bundle.server_version,
        "operations": {"number": len(operations), "names": list(operations)},
        "model": {"path": str(path), **folder.facts},
        "versions": {"nmt": __version__, **{name: version(name) for name in PACKAGES}},
        "parity": parity.as_record(),
    }
    (aside / RECORD).parent.mkdir()
    (aside / RECORD).write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _choose_version(into: Path) -> Path:
    """The number after the highest; one that was taken out of use, as 2.withdrawn, is not given again."""
    taken = [int(match[0]) for child in into.glob("[0-9]*") if (match := re.match(r"[0-9]+", child.name))]
    return into / str(max(taken, default=0) + 1)


@contextlib.contextmanager
def _remove_if_empty(into: Path) -> Iterator[None]:
    """Takes a folder that was made for nothing away again."""
    new = not into.exists()
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                into.rmdir()
        raise
