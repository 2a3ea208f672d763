"""A trained model as a SavedModel that TensorFlow Serving runs as it is: text in, text out.

DIR/N/saved_model.pb, variables/     the graph, with SentencePiece and beam search inside
DIR/N/assets.extra/export.json       what it was made of, with which settings, and how it compared with the model
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nmt
from nmt.config import CorpusFiles
from nmt.data.corpus import read_lines
from nmt.data.preparation import read_pair
from nmt.decoding.translator import Translator
from nmt.errors import UserError
from nmt.files import written_aside
from nmt.model_folder import ModelFolder, find_model
from nmt.serving.exported import FORMAT, RECORD, check_tensorflow_text, versions
from nmt.serving.parity import Parity, check_parity, run_python
from nmt.serving.quantization import Quantization

PACKAGES = ("tensorflow", "tensorflow-text", "keras", "sentencepiece")


class ExportError(RuntimeError):
    """The process that writes the graph failed."""

    exit_code = 1


def export(
    model: Path | str,
    into: Path | str,
    *,
    sample: Path | str | None = None,
    quantize: Quantization | None = None,
    announce: Callable[[str], None] = print,
) -> Path:
    """Writes a model as `into`/1, or under the number after the highest there, and returns that folder.

    The graph is traced in a process without GPUs, then translates a sample in another that cannot import the toolkit.
    Only when its texts are the model's, or with quantised weights nearly as good, does the folder get its name;
    otherwise nothing is left of it.

    Args:
        model: a run folder (its best weights) or a model folder.
        into: where versions are written, one folder each.
        sample: a file of sentences to compare on, instead of the dev text that the model was trained with.
        quantize: how small the matrices of weights are stored; None keeps float32.
        announce: receives lines about the progress.

    Raises:
        UserError: there is no such model, there is no sample, or `into` cannot be written to.
        ParityError: the artefact translates a sentence of the sample otherwise than the model, or loses more than is
            allowed by quantising.
    """
    check_tensorflow_text()
    path = find_model(Path(model)).resolve()
    folder, translator = ModelFolder.load(path), Translator.load(path, precision="float32")
    sources, references = read_sample(folder.config.data.dev, sample, folder.config.export.sample)
    target = _next_version(Path(into))
    with _removed_if_empty(target.parent), written_aside(target) as aside:
        announce(f"Tracing the graph of {path} without GPUs.")
        trace(path, aside, quantize.kind if quantize else None)
        announce(f"Translating {len(sources)} sentences with the graph and with the model.")
        parity = check_parity(aside, translator, sources, references, quantize)
        announce(str(parity))
        _write_record(aside, path, folder, parity)
    return target


def trace(model: Path, folder: Path, quantize: str | None = None, *, program: str = "nmt.serving.graph") -> None:
    """Writes the graph of a model folder, in a process where Keras finds no GPU and hence no cuDNN."""
    options = ["--quantize", quantize] if quantize else []
    toolkit = str(Path(nmt.__file__).parent.parent)
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
    sources, references = read_pair(dev.source, dev.target)
    return sources[:size], references[:size]


def _write_record(aside: Path, path: Path, folder: ModelFolder, parity: Parity) -> None:
    config = folder.config
    record: dict[str, Any] = {
        "format": FORMAT,
        "source_language": config.data.source_language,
        "target_language": config.data.target_language,
        "decoding": {**config.decoding.model_dump(), "precision": "float32"},
        "limits": {**config.export.model_dump(exclude={"sample"}), "max_pieces": config.data.max_length},
        "model": {"path": str(path), **folder.facts},
        "versions": {"nmt": nmt.__version__, **{name: version(name) for name in PACKAGES}},
        "parity": parity.as_record(),
    }
    (aside / RECORD).parent.mkdir()
    (aside / RECORD).write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _next_version(into: Path) -> Path:
    taken = versions(into)
    return into / str(int(taken[-1].name) + 1 if taken else 1)


@contextlib.contextmanager
def _removed_if_empty(into: Path) -> Iterator[None]:
    """Takes a folder that was made for nothing away again."""
    new = not into.exists()
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                into.rmdir()
        raise
