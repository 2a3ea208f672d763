"""Translates with an artefact as a user without this toolkit does.

    python -P fresh_process.py FOLDER SENTENCES.json ANSWERS.json

A SavedModel needs TensorFlow and tensorflow-text, a .tflite file LiteRT and SentencePiece. The program first makes sure
that it cannot import anything else of ours, so it must not import `nmt` itself.
"""

import json
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

BATCH_SIZE = 64
NUM_CLOSE = 4
"""Sentences of which all outputs of all signatures are returned."""


class ImportBlocker(MetaPathFinder):
    """Makes importing some packages fail."""

    def __init__(self, names: tuple[str, ...]):
        self._names = names

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raises ImportError for these packages and their modules; other finders handle the rest."""
        name = fullname.partition(".")[0]
        if name in self._names:
            raise ImportError(f"{name} is blocked in this process")


def block(*names: str) -> None:
    """Makes importing these packages fail, and checks that it does."""
    sys.meta_path.insert(0, ImportBlocker(names))
    for name in names:
        try:
            __import__(name)
        except ImportError:
            continue
        raise SystemExit(f"{name} could be imported in a process that must work without it")


def translate_savedmodel(folder: Path, sentences: list[str]) -> dict[str, Any]:
    """Translates sentences with `serving_default`, which is timed, and with `nbest`."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401, registers SentencePiece's operations

    model = tf.saved_model.load(str(folder))
    best, nbest = model.signatures["serving_default"], model.signatures["nbest"]
    batches = [tf.constant(sentences[n : n + BATCH_SIZE]) for n in range(0, len(sentences), BATCH_SIZE)]
    best(text=batches[0])  # not timed, because the first call is slow
    started = time.perf_counter()
    found = [best(text=batch) for batch in batches]
    seconds = time.perf_counter() - started
    with_tokens = [nbest(text=batch) for batch in batches]
    return {
        "translations": [text.decode() for batch in found for text in batch["translation"].numpy()],
        "truncated": [bool(cut) for batch in found for cut in batch["truncated"].numpy()],
        "nbest_translations": [row[0].decode() for batch in with_tokens for row in batch["translations"].numpy()],
        "target_tokens": [
            [token.decode() for token in row[0] if token]
            for batch in with_tokens
            for row in batch["target_tokens"].numpy()
        ],
        "sentences_per_second": len(sentences) / seconds,
        "outputs": _list_outputs(model.signatures, sentences[:NUM_CLOSE]),
    }


def _list_outputs(signatures: Any, sentences: list[str]) -> list[dict[str, Any]]:
    """Returns the outputs of each sentence, by signature, of all signatures but serving_default."""
    import tensorflow as tf

    rows = []
    for sentence in sentences:
        text = tf.constant([sentence])
        nbest = signatures["nbest"](text=text)
        best = nbest["translations"].numpy()[0, 0].decode()
        row = {
            "nbest": nbest,
            "token_log_probs": signatures["token_log_probs"](source=text, target=tf.constant([best])),
        }
        given = {"prefix": best[: len(best) // 2], "required": best.rpartition(" ")[2]}
        if "complete" in signatures:
            prefix, required = (tf.constant([value]) for value in given.values())
            try:
                row["complete"] = signatures["complete"](text=text, prefix=prefix, required=required)
            except tf.errors.InvalidArgumentError:  # an export of greedy search or sampling takes no phrases
                given["required"] = ""
                row["complete"] = signatures["complete"](text=text, prefix=prefix, required=tf.constant([""]))
            row["alternatives"] = signatures["alternatives"](text=text, prefix=prefix)
        rows.append(given | {name: _as_lists(found) for name, found in row.items()})
    return rows


def _as_lists(outputs: Any) -> dict[str, Any]:
    """Returns outputs of one text as JSON values."""

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(one) for one in value]
        return value.decode() if isinstance(value, bytes) else value

    return {name: decode(tensor.numpy().tolist()[0]) for name, tensor in outputs.items()}


def translate_litert(folder: Path, sentences: list[str]) -> dict[str, Any]:
    """Translates sentences with a .tflite file, one at a time, and times it."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from sentencepiece import SentencePieceProcessor

    source, target = (SentencePieceProcessor(model_file=str(folder / f"{side}.model")) for side in ("source", "target"))
    limits = json.loads((folder / "export.json").read_text(encoding="utf-8"))["limits"]
    end = limits["eos_id"]
    search = Interpreter(model_path=str(folder / "model.tflite")).get_signature_runner()

    def translate(tokens: list[int]) -> list[int]:
        if not tokens:
            return []
        found = search(ids=np.array([[*tokens[: limits["max_tokens"]], end]], "int32"))["ids"][0].tolist()
        return found[: found.index(end) + 1] if end in found else found

    source_tokens = source.encode(sentences)
    translate(max(source_tokens, key=len))  # not timed, because the first call is slow
    started = time.perf_counter()
    found = [translate(tokens) for tokens in source.encode(sentences)]
    texts = [target.decode([one for one in ids if one != end]) for ids in found]
    seconds = time.perf_counter() - started
    return {
        "translations": texts,
        "truncated": [len(tokens) > limits["max_tokens"] for tokens in source_tokens],
        "nbest_translations": texts,
        "target_tokens": [[target.id_to_piece(one) for one in ids] for ids in found],
        "sentences_per_second": len(sentences) / seconds,
    }


if __name__ == "__main__":
    artefact, given, answers = map(Path, sys.argv[1:])
    is_litert = (artefact / "model.tflite").is_file()
    block("nmt", *(["tensorflow", "keras"] if is_litert else []))
    run = translate_litert if is_litert else translate_savedmodel
    answers.write_text(json.dumps(run(artefact, json.loads(given.read_text()))))
