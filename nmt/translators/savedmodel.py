"""Translates with an exported SavedModel, in Python, without rebuilding the model."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nmt.data.batching import split_chunks
from nmt.data.placeholders import Placeholders
from nmt.data.tokenizer import Tokenizer
from nmt.decoding.alignment import TokenAttention
from nmt.decoding.spelling import MAX_PHRASE_TOKENS
from nmt.errors import UserError
from nmt.model_folder import SOURCE
from nmt.process import silence_stderr
from nmt.translators.confidence import Confidence
from nmt.translators.demands import (
    MAX_ALTERNATIVES,
    Demand,
    check_alternatives,
    check_demands,
    make_demands,
    report_unmet,
)
from nmt.translators.export_record import check_digests, read_record, read_settings
from nmt.translators.hypothesis import Continuation, Hypothesis, Translation, TranslationWarning
from nmt.translators.protocol import Translator
from nmt.translators.settings import change_fixed
from nmt.translators.terms import TermRules
from nmt.translators.untrusted import check_savedmodel

GRAPH = "saved_model.pb"
RECORD = Path("assets.extra", "export.json")
# Texts per call when attention is wanted, by far the largest output: [texts, hypotheses, target tokens, source tokens].
ATTENTION_BATCH = 8


class SavedModelTranslator(Translator):
    """Translates with a SavedModel.

    Settings of the search were fixed when it was exported. `translate_batch` reads the beginning of a text that is too
    long, as the signatures do for their other clients, and marks the translation.

    Args:
        model: a loaded SavedModel.
        record: contents of its export.json.
        source_tokenizer: that of the model, to count tokens.
        version: number of its folder.
    """

    truncates = True

    def __init__(self, model: Any, record: dict[str, Any], *, source_tokenizer: Tokenizer, version: int = 1):
        self.record = record
        self.version = version
        self.source_language = record.get("source_language")
        self.target_language = record["target_language"]
        self.max_n_best = self.signature_n_best = record["limits"]["nbest"]
        self.settings = read_settings(record)
        self.max_tokens = record["limits"]["max_tokens"]
        self.max_characters = record["limits"]["max_characters"]
        self.multi_sentence_share = record.get("model", {}).get("multi_sentence_share", 0.0)
        self.tags = record.get("tags", [])
        self.fitted_confidence = Confidence.from_record(record.get("confidence"), RECORD)
        self.terms = TermRules(Placeholders.from_record(record, source_tokenizer))
        self._source_tokenizer = source_tokenizer
        self._model = model  # the signatures live as long as it does

    @classmethod
    def load(cls, path: Path | str) -> "SavedModelTranslator":
        """Opens a version folder, or the newest one in a folder of versions.

        Raises:
            UserError: there is no export of this toolkit, it is damaged or does more than translate (see
                `nmt.translators.untrusted`), or tensorflow-text is missing.
        """
        folder = find_version(Path(path))
        record = read_record(folder, RECORD, limits=("max_characters", "max_batch", "nbest", "max_tokens"))
        number = folder.resolve().name
        tokenizer = Tokenizer.load(folder / RECORD.parent / SOURCE)
        with silence_stderr():
            tensorflow = import_tensorflow()
        check_savedmodel(folder)
        check_digests(folder, record)
        model = _load(folder, tensorflow)
        return cls(model, record, source_tokenizer=tokenizer, version=int(number) if number.isdecimal() else 1)

    def with_settings(self, **changes: Any) -> "SavedModelTranslator":
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
        """Translates each text as if it were alone; see `Translator.translate_batch`.

        One translation without attention comes from the signature `serving_default`. All else comes from `nbest`, whose
        first translation is the same. Translations with prefixes or required phrases come from `complete`.
        """
        self.check_n_best(n_best)
        demands = make_demands(len(texts), prefixes, required)
        if demands is not None:
            self.check_demands(demands)
            if n_best > 1 or attention:
                raise UserError(
                    "An export returns one translation with a prefix or required phrases, without attention: leave out "
                    "the other, or translate with the model itself."
                )
            return self._translate_demanding(texts, demands)
        if n_best == 1 and not attention:
            return self._translate_best(texts)
        size = ATTENTION_BATCH if attention else self.record["limits"]["max_batch"]
        return [one for batch in split_chunks(texts, size) for one in self._translate_n_best(batch, n_best, attention)]

    def check_demands(self, demands: Sequence[Demand]) -> None:
        """Raises UserError if demands contradict the settings of the export, or it has no signature for them."""
        self._check_signature("complete")
        self._check_prefixes([demand.prefix for demand in demands])
        check_demands(demands, self.settings, right_to_left=False)

    def list_alternatives(
        self, texts: Sequence[str], prefixes: Sequence[str], *, n: int = 5
    ) -> list[list[Continuation]]:
        """Returns alternatives for the next word; see `Translator.list_alternatives`."""
        self._check_signature("alternatives")
        check_alternatives(n, min(self.max_n_best, MAX_ALTERNATIVES))
        make_demands(len(texts), prefixes, None)
        self._check_prefixes(prefixes)
        found = []
        size = self.record["limits"]["max_batch"]
        pairs = [(self.write_tag(text), prefix) for text, prefix in zip(texts, prefixes, strict=True)]
        for batch in split_chunks(pairs, size):
            sources, beginnings = zip(*batch, strict=True)
            outputs = self.run_signature("alternatives", sources, prefix=beginnings)
            names = ("alternatives", "probabilities", "translations")
            for count, *columns in zip(outputs["num_alternatives"], *(outputs[name] for name in names), strict=True):
                rows = zip(*(column[: min(count, n)] for column in columns), strict=True)
                found.append([Continuation(one.decode(), float(share), whole.decode()) for one, share, whole in rows])
        return found

    def _check_prefixes(self, prefixes: Sequence[str]) -> None:
        most, longest = self.record["limits"]["max_characters"], max(map(len, prefixes), default=0)
        if longest > most:  # the signatures would drop the end
            raise UserError(
                f"prefixes: expected at most {most:,} characters (export.max_characters), found {longest:,}."
            )

    def _check_signature(self, name: str) -> None:
        if name not in self._model.signatures:
            raise UserError(
                f"This export has no signature {name}: export the model again with export.interactive=true, or "
                "translate with the model itself."
            )

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of source tokens of each text, without EOS."""
        return self._source_tokenizer.count_tokens(texts).tolist()

    def check_n_best(self, n_best: int) -> None:
        """Raises UserError if more hypotheses are requested than the export returns."""
        if n_best > self.max_n_best:
            raise UserError(
                f"This export returns at most {self.max_n_best} translations per line, and {n_best} were requested: "
                "export the model again with a larger export.nbest, or translate with the model itself."
            )
        super().check_n_best(n_best)

    def run_signature(self, name: str, texts: Sequence[str], **others: Sequence[str]) -> dict[str, np.ndarray]:
        """Calls a signature; see `nmt.exporting.graph`. The end of a long text is not read.

        Args:
            name: of the signature.
            texts: any number; the results of all are held in memory.
            others: further inputs by name, as many.

        Returns:
            The signature's outputs by name.
        """
        import tensorflow as tf

        inputs = {key: tf.constant(list(values), tf.string) for key, values in {"text": texts, **others}.items()}
        outputs = self._model.signatures[name](**inputs)
        return {output: x.numpy() for output, x in outputs.items()}

    def _translate_demanding(self, texts: Sequence[str], demands: Sequence[Demand]) -> list[Translation]:
        """Translates texts with demands; those without are translated as if they were alone, too."""
        found: dict[int, Translation] = {}
        for with_demand in (False, True):
            numbers = [number for number, demand in enumerate(demands) if bool(demand) == with_demand]
            here = [texts[number] for number in numbers]
            given = {
                "prefix": [demands[number].prefix for number in numbers],
                "required": ["\t".join(demands[number].required) for number in numbers],
            }
            if numbers:
                outputs = self._complete(here, given) if with_demand else self.run_signature("serving_default", here)
                found |= zip(numbers, self._read_best(here, outputs), strict=True)
        return [report_unmet(found[number], demand) for number, demand in enumerate(demands)]

    def _complete(self, texts: Sequence[str], given: dict[str, list[str]]) -> dict[str, np.ndarray]:
        try:
            return self.run_signature("complete", texts, **given)
        except Exception as error:  # TensorFlow's own, which may be missing here
            if "phrase has more than" not in str(error):
                raise
            raise UserError(
                f"required: expected phrases of at most {MAX_PHRASE_TOKENS} tokens, found a longer one."
            ) from error

    def _translate_best(self, texts: Sequence[str]) -> list[Translation]:
        return self._read_best(texts, self.run_signature("serving_default", texts))

    def _read_best(self, texts: Sequence[str], outputs: dict[str, np.ndarray]) -> list[Translation]:
        names = ("translation", "score", "log_prob", "truncated")
        finished = outputs.get("finished", [None] * len(texts))  # the first exports of format 2 lack it
        return [
            self._make_translation(
                source,
                [
                    Hypothesis(
                        text.decode(),
                        float(score),
                        float(log_prob),
                        is_finished=None if is_finished is None else bool(is_finished),
                    )
                ],
                truncated,
            )
            for source, text, score, log_prob, truncated, is_finished in zip(
                texts, *(outputs[name] for name in names), finished, strict=True
            )
        ]

    def _translate_n_best(self, texts: Sequence[str], n_best: int, attention: bool) -> Iterator[Translation]:
        outputs = self.run_signature("nbest", texts)
        for row, source in enumerate(texts):
            count = min(outputs["num_hypotheses"][row], n_best)
            hypotheses = [_make_hypothesis(outputs, row, rank, attention) for rank in range(count)]
            yield self._make_translation(source, hypotheses, outputs["truncated"][row])

    def _make_translation(self, source: str, hypotheses: list[Hypothesis], truncated: Any) -> Translation:
        whole = self._describe(source, hypotheses)
        if not truncated:
            return whole
        return replace(whole, is_truncated=True, warnings=(self._explain_truncation(source), *whole.warnings))

    def _explain_truncation(self, line: str) -> TranslationWarning:
        limits = self.record["limits"]
        return TranslationWarning(
            "truncated",
            f"The line '{line[:40]}…' of {len(line):,} characters is longer than this export reads at once, "
            f"{limits['max_characters']:,} characters or {limits['max_tokens']:,} tokens. Its end was not translated.",
        )


def _load(folder: Path, tensorflow: Any) -> Any:
    try:
        with silence_stderr():
            model = tensorflow.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow has no exception of its own for files that are damaged
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200].rstrip('.')}"
        raise UserError(f"The export {folder} is damaged: {reason}. Copy it again.") from error
    missing = sorted({"nbest", "serving_default"} - set(getattr(model, "signatures", {})))
    if missing:
        raise UserError(f"{folder} is not an export of this toolkit: it has no signature {missing[0]}.")
    return model


def _make_hypothesis(outputs: dict[str, np.ndarray], row: int, rank: int, attention: bool) -> Hypothesis:
    *source, eos = _as_tokens(outputs["source_tokens"][row]) or [""]
    target = _as_tokens(outputs["target_tokens"][row, rank])
    is_finished = not source or target[-1:] == [eos]
    tokens = target[:-1] if source and is_finished else target
    weights: tuple[TokenAttention, ...] = ()
    if attention and source:
        rows = outputs["attention"][row, rank, : len(target), : len(source) + 1].copy()
        weights = (TokenAttention(source, tokens, rows),)
    return Hypothesis(
        outputs["translations"][row, rank].decode(),
        float(outputs["scores"][row, rank]),
        float(outputs["log_probs"][row, rank]),
        tokens,
        is_finished,
        weights,
    )


def _as_tokens(row: np.ndarray) -> list[str]:
    return [token.decode() for token in row if token]


def find_version(path: Path) -> Path:
    """Returns the version folder at a path: the path itself, or the folder in it with the highest number.

    Raises:
        UserError: there is none.
    """
    if (path / GRAPH).is_file():
        return path
    found = [folder for folder in list_versions(path) if (folder / GRAPH).is_file()]
    if not found:
        raise UserError(f"{path} is not an export: expected saved_model.pb in it, or in a folder 1, 2, … of it.")
    return found[-1]


def list_versions(path: Path) -> list[Path]:
    """Returns what a folder holds under a number, lowest first; TensorFlow Serving serves the highest."""
    numbered = [child for child in path.glob("[0-9]*") if child.name.isdecimal()]
    return sorted(numbered, key=lambda child: int(child.name))


def import_tensorflow() -> Any:
    """Returns TensorFlow with SentencePiece's operations.

    Raises:
        UserError: TensorFlow or tensorflow-text is missing.
    """
    check_tensorflow_text()
    # As in nmt.backend: TensorFlow would log to standard error which operations oneDNN does not have.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    importlib.import_module("tensorflow_text")
    return importlib.import_module("tensorflow")


def check_tensorflow_text() -> None:
    """Raises UserError if TensorFlow or tensorflow-text is missing, without importing either."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "An export needs TensorFlow, which is not installed. Install it with: pip install tensorflow, here or on "
            "another machine. Models trained on JAX can be copied there."
        )
    if importlib.util.find_spec("tensorflow_text") is None:
        raise UserError(
            "An export needs the package tensorflow-text, which is not installed. Install it with: pip install "
            "tensorflow-text (there is none for Windows)."
        )
