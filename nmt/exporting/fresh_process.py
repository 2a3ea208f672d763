"""Translates with an artefact as a stranger would: a SavedModel with TensorFlow and tensorflow-text alone, a .tflite
file with LiteRT and SentencePiece alone.

    python -P fresh_process.py FOLDER SENTENCES.json ANSWERS.json

This file is run, never imported, and can import nothing of the toolkit: it makes sure of that first.
"""

import json
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

BATCH_SIZE = 64


class ImportBlocker(MetaPathFinder):
    """Refuses to import some packages."""

    def __init__(self, names: tuple[str, ...]):
        self._names = names

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raises ImportError for these packages and what is in them; leaves all else to others."""
        name = fullname.partition(".")[0]
        if name in self._names:
            raise ImportError(f"{name} is blocked in this process")


def block(*names: str) -> None:
    """Makes importing these packages fail, and sees it fail."""
    sys.meta_path.insert(0, ImportBlocker(names))
    for name in names:
        try:
            __import__(name)
        except ImportError:
            continue
        raise SystemExit(f"{name} could be imported in the process that must do without it")


def translate_savedmodel(folder: Path, sentences: list[str]) -> dict[str, Any]:
    """What the signatures that translate say of each sentence, and how fast the first of them was."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401, registers SentencePiece's operations

    model = tf.saved_model.load(str(folder))
    best, nbest = model.signatures["serving_default"], model.signatures["nbest"]
    batches = [tf.constant(sentences[n : n + BATCH_SIZE]) for n in range(0, len(sentences), BATCH_SIZE)]
    best(text=batches[0])  # what only a first call does is no part of the speed
    started = time.perf_counter()
    found = [best(text=batch) for batch in batches]
    seconds = time.perf_counter() - started
    with_pieces = [nbest(text=batch) for batch in batches]
    return {
        "translations": [text.decode() for batch in found for text in batch["translation"].numpy()],
        "truncated": [bool(cut) for batch in found for cut in batch["truncated"].numpy()],
        "nbest_translations": [row[0].decode() for batch in with_pieces for row in batch["translations"].numpy()],
        "target_tokens": [
            [piece.decode() for piece in row[0] if piece]
            for batch in with_pieces
            for row in batch["target_tokens"].numpy()
        ],
        "sentences_per_second": len(sentences) / seconds,
    }


def translate_litert(folder: Path, sentences: list[str]) -> dict[str, Any]:
    """What a .tflite file says of each sentence, one at a time, and how fast it was."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from sentencepiece import SentencePieceProcessor

    source, target = (SentencePieceProcessor(model_file=str(folder / f"{side}.model")) for side in ("source", "target"))
    limits = json.loads((folder / "export.json").read_text(encoding="utf-8"))["limits"]
    end = limits["eos_id"]
    search = Interpreter(model_path=str(folder / "model.tflite")).get_signature_runner()

    def translate(pieces: list[int]) -> list[int]:
        if not pieces:
            return []
        found = search(ids=np.array([[*pieces[: limits["max_tokens"]], end]], "int32"))["ids"][0].tolist()
        return found[: found.index(end) + 1] if end in found else found

    read = source.encode(sentences)
    translate(max(read, key=len))  # what only a first call does is no part of the speed
    started = time.perf_counter()
    found = [translate(pieces) for pieces in source.encode(sentences)]
    texts = [target.decode([one for one in ids if one != end]) for ids in found]
    seconds = time.perf_counter() - started
    return {
        "translations": texts,
        "truncated": [len(pieces) > limits["max_tokens"] for pieces in read],
        "nbest_translations": texts,
        "target_tokens": [[target.id_to_piece(one) for one in ids] for ids in found],
        "sentences_per_second": len(sentences) / seconds,
    }


if __name__ == "__main__":
    artefact, given, wanted = map(Path, sys.argv[1:])
    is_litert = (artefact / "model.tflite").is_file()
    block("nmt", *(["tensorflow", "keras"] if is_litert else []))
    ask = translate_litert if is_litert else translate_savedmodel
    wanted.write_text(json.dumps(ask(artefact, json.loads(given.read_text()))))
