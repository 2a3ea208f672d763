"""Translates with a SavedModel as a stranger would, with TensorFlow and tensorflow-text alone.

    python -P fresh_process.py FOLDER SENTENCES.json ANSWERS.json

This file is run, never imported, and can import nothing of the toolkit: it makes sure of that first.
"""

import json
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

TOGETHER = 64


class WithoutNmt(MetaPathFinder):
    """Refuses to import the toolkit."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raises ImportError for nmt and what is in it; leaves all else to others."""
        if fullname.partition(".")[0] == "nmt":
            raise ImportError("nmt is blocked in this process")


def block_nmt() -> None:
    """Makes `import nmt` fail, and sees it fail."""
    sys.meta_path.insert(0, WithoutNmt())
    try:
        import nmt  # noqa: F401
    except ImportError:
        return
    raise SystemExit("nmt could be imported in the process that must do without it")


def answers(folder: str, sentences: list[str]) -> dict[str, Any]:
    """What the signatures that translate say of each sentence, and how fast the first of them was."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401, registers SentencePiece's operations

    model = tf.saved_model.load(folder)
    best, nbest = model.signatures["serving_default"], model.signatures["nbest"]
    batches = [tf.constant(sentences[n : n + TOGETHER]) for n in range(0, len(sentences), TOGETHER)]
    best(text=batches[0])  # what only a first call does is no part of the speed
    started = time.perf_counter()
    found = [best(text=batch) for batch in batches]
    seconds = time.perf_counter() - started
    with_pieces = [nbest(text=batch) for batch in batches]
    return {
        "translations": [text.decode() for batch in found for text in batch["translation"].numpy()],
        "truncated": [bool(cut) for batch in found for cut in batch["truncated"].numpy()],
        "nbest_translations": [row[0].decode() for batch in with_pieces for row in batch["translations"].numpy()],
        "target_pieces": [
            [piece.decode() for piece in row[0] if piece]
            for batch in with_pieces
            for row in batch["target_pieces"].numpy()
        ],
        "sentences_per_second": len(sentences) / seconds,
    }


if __name__ == "__main__":
    block_nmt()
    given, wanted = Path(sys.argv[2]), Path(sys.argv[3])
    wanted.write_text(json.dumps(answers(sys.argv[1], json.loads(given.read_text()))))
