"""An export for LiteRT in Python: the same calls as `Translator`, and neither TensorFlow nor Keras is imported.

LiteRT searches one sentence at a time, on one thread; here as many of them side by side as there are cores.
"""

import importlib.util
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.model_folder import SOURCE, TARGET
from nmt.process import silenced
from nmt.translators.export_record import check_settings, read_record
from nmt.translators.hypothesis import WINDOW, Hypothesis, joined
from nmt.translators.segments import split_lines

RECORD = "export.json"
MODEL = "model.tflite"


class LiteRTTranslator:
    """Translates lines of text with an export for LiteRT.

    Beam and ranking were fixed when it was made. Long lines are translated in parts, as by `Translator`.

    Args:
        search: [1, S] int32 ids, ended by EOS, to {"ids": int32 [1, T], "score": float32 [1]}; called by one thread at
            a time.
        others: more of the same, each for another thread.
        record: what its export.json says.
    """

    def __init__(
        self,
        search: Any,
        *others: Any,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        record: dict[str, Any],
    ):
        self.record = record
        self._source, self._target = source_tokenizer, target_tokenizer
        self._idle: SimpleQueue = SimpleQueue()
        for one in (search, *others):
            self._idle.put(one)
        self._threads = ThreadPoolExecutor(1 + len(others))

    @classmethod
    def load(cls, path: Path | str) -> "LiteRTTranslator":
        """Opens the folder of an export.

        Raises:
            UserError: there is none of ours, or LiteRT is missing.
        """
        folder = Path(path)
        record = read_record(folder, RECORD)
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise UserError(
                f"{folder} is an export for LiteRT, which is not installed here: pip install -r requirements-litert.txt"
            )
        from ai_edge_litert.interpreter import Interpreter

        with silenced():
            interpreters = [Interpreter(model_path=str(folder / MODEL), num_threads=1) for _ in range(_num_threads())]
            searches = [interpreter.get_signature_runner() for interpreter in interpreters]
            for search in searches:
                search(ids=np.array([[record["limits"]["eos_id"]]], "int32"))  # the first call talks, and is slow
        source, target = Tokenizer.load_pair(folder / SOURCE, folder / TARGET)
        return cls(*searches, source_tokenizer=source, target_tokenizer=target, record=record)

    @property
    def settings(self) -> dict[str, Any]:
        """How it searches."""
        return self.record["decoding"]

    @property
    def target_language(self) -> str:
        """Language code of its translations."""
        return self.record["target_language"]

    def with_decoding(self, **changes: Any) -> "LiteRTTranslator":
        """Itself, where the changes of `DecodingConfig` that are not None change nothing.

        Raises:
            UserError: a setting differs from the one fixed when the export was made.
        """
        check_settings(self.settings, changes)
        return self

    def translate(self, lines: Iterable[str]) -> list[str]:
        """The translation of each line; blank lines come back blank."""
        return [hypotheses[0].text for hypotheses in self.stream(lines)]

    def stream(self, lines: Iterable[str], *, num_best: int = 1, window: int = WINDOW) -> Iterator[list[Hypothesis]]:
        """Yields the translation of each line, in order.

        Args:
            lines: any number; `window` of them are held at once.
            num_best: 1, as it finds no others.
            window: lines read before the first answer.

        Raises:
            UserError: more than one hypothesis a line is asked for.
        """
        if num_best > 1:
            raise UserError(
                f"An export for LiteRT gives one translation a line, and {num_best} were asked for: translate with "
                "the model itself."
            )
        lines = iter(lines)
        while chunk := list(islice(lines, window)):
            parts = split_lines(chunk, self._source, self.record["limits"]["max_pieces"])
            found = self._threads.map(self._translate_part, [part for line in parts for part in line])
            yield from (joined([[next(found)] for _ in line]) for line in parts)

    def _translate_part(self, ids: list[int]) -> Hypothesis:
        end = self.record["limits"]["eos_id"]
        search = self._idle.get()
        try:
            found = search(ids=np.array([[*ids, end]], "int32"))
        finally:
            self._idle.put(search)
        row, score = found["ids"][0].tolist(), float(found["score"][0])
        length = row.index(end) + 1 if end in row else len(row)
        penalty = ((5 + length) / 6) ** self.settings["length_penalty"]
        return Hypothesis(self._target.decode([row[:length]])[0], score, score * penalty)


def _num_threads() -> int:
    """As many as `nmt.process.choose_threads` allowed, else one for each core."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or len(os.sched_getaffinity(0)))
