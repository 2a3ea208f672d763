"""Translates with an export for LiteRT, in Python, without importing TensorFlow or Keras.

LiteRT searches one sentence at a time on one thread, so as many interpreters run side by side as there are cores.
"""

import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from nmt.data.placeholders import Placeholders
from nmt.data.tokenizer import Tokenizer
from nmt.errors import UserError
from nmt.model_folder import SOURCE, TARGET
from nmt.process import count_threads, silence_stderr
from nmt.translators.confidence import Confidence
from nmt.translators.demands import Demand
from nmt.translators.export_record import check_digests, read_record, read_settings
from nmt.translators.hypothesis import Hypothesis, Translation
from nmt.translators.settings import change_fixed
from nmt.translators.terms import TermRules
from nmt.translators.tokens import TokenTranslator
from nmt.translators.untrusted import check_litert

RECORD = "export.json"
MODEL = "model.tflite"


class LiteRTTranslator(TokenTranslator):
    """Translates with an export for LiteRT.

    Settings of the search were fixed when it was exported. Long lines are translated in parts.

    Args:
        search: takes ids int32 [1, S], ended by EOS, and returns ids int32 [1, T], score float32 [1] and log_prob
            float32 [1] by name; called by one thread at a time.
        others: more of the same, each for another thread.
        record: contents of its export.json.
    """

    max_n_best = 1

    def __init__(
        self,
        search: Any,
        *others: Any,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        record: dict[str, Any],
    ):
        self.record = record
        self.source_language = record.get("source_language")
        self.target_language = record["target_language"]
        self.settings = read_settings(record)
        self.max_tokens = record["limits"]["max_tokens"]
        self.multi_sentence_share = record.get("model", {}).get("multi_sentence_share", 0.0)
        self.tags = record.get("tags", [])
        self.fitted_confidence = Confidence.from_record(record.get("confidence"), RECORD)
        self.terms = TermRules(Placeholders.from_record(record, source_tokenizer))
        self._source_tokenizer, self._target = source_tokenizer, target_tokenizer
        self._idle: SimpleQueue = SimpleQueue()
        for one in (search, *others):
            self._idle.put(one)
        self._threads = ThreadPoolExecutor(1 + len(others))

    @classmethod
    def load(cls, path: Path | str) -> "LiteRTTranslator":
        """Opens the folder of an export.

        Raises:
            UserError: there is no export of this toolkit, it is damaged or does more than translate (see
                `nmt.translators.untrusted`), or LiteRT is missing.
        """
        folder = Path(path)
        record = read_record(folder, RECORD, limits=("max_tokens", "eos_id"))
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise UserError(f'{folder} is an export for LiteRT. Install LiteRT with: pip install "nmt[litert]"')
        source, target = Tokenizer.load_pair(folder / SOURCE, folder / TARGET)
        check_digests(folder, record)
        check_litert(folder / MODEL)
        searches = [_open(folder / MODEL, record["limits"]["eos_id"]) for _ in range(count_threads())]
        return cls(*searches, source_tokenizer=source, target_tokenizer=target, record=record)

    def with_settings(self, **changes: Any) -> "LiteRTTranslator":
        """Returns an export with another `split_sentences`; the settings of its search are fixed.

        Raises:
            UserError: a setting is different, invalid or unknown.
        """
        settings = change_fixed(self.settings, changes)
        return self if settings == self.settings else self._with(settings)

    def translate_batch(
        self,
        texts: Sequence[str],
        *,
        n_best: int = 1,
        attention: bool = False,
        prefixes: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
    ) -> list[Translation]:
        """Translates each text as if it were alone, long ones in parts; see `Translator.translate_batch`.

        Raises:
            UserError: several hypotheses, attention, prefixes or phrases are requested.
        """
        if attention:
            raise UserError("An export for LiteRT returns no attention weights: translate with the model itself.")
        return super().translate_batch(texts, n_best=n_best, prefixes=prefixes, required=required)

    def check_n_best(self, n_best: int) -> None:
        """Raises UserError if several hypotheses per text are requested."""
        if n_best > 1:
            raise UserError(
                f"An export for LiteRT returns one translation per line, and {n_best} were requested: translate with "
                "the model itself."
            )
        super().check_n_best(n_best)

    def _translate_ids(
        self, ids: list[list[int]], n_best: int, attention: bool, demands: Sequence[Demand] | None = None
    ) -> list[list[Hypothesis]]:
        return [[found] for found in self._threads.map(self._translate_row, ids)]

    def _translate_row(self, ids: list[int]) -> Hypothesis:
        eos_id = self.record["limits"]["eos_id"]
        search = self._idle.get()
        try:
            found = search(ids=np.array([[*ids, eos_id]], "int32"))
        finally:
            self._idle.put(search)
        row = found["ids"][0].tolist()
        is_finished = eos_id in row
        tokens = row[: row.index(eos_id)] if is_finished else row
        spelling = [self._target.get_token(one) for one in tokens]
        return Hypothesis(
            self._target.decode([tokens])[0],
            float(found["score"][0]),
            float(found["log_prob"][0]),
            spelling,
            is_finished,
        )


def _open(path: Path, eos_id: int) -> Any:
    """Returns the search of a .tflite file, ready for its first sentence."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        with silence_stderr():
            search = Interpreter(model_path=str(path), num_threads=1).get_signature_runner()
            search(ids=np.array([[eos_id]], "int32"))  # the first call logs to standard error and is slow
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(f"{path} is damaged, or is not an export of this toolkit: {reason}") from error
    return search
