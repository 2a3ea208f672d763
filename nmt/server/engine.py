"""What translates behind a server: a trained model or an export, asked in the same way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nmt.config.schema import ExportConfig
from nmt.decoding.alignment import TokenAttention
from nmt.errors import UserError
from nmt.translators.opening import find_kind, open_translator

SEVERAL = 4  # settings of the search that are kept compiled at once
FEW = 8  # texts that an export is asked about together where it tells attention, the largest part of its answer by far


@dataclass(frozen=True)
class Options:
    """What may differ between requests; only texts with equal options are translated together."""

    n_best: int = 1
    """Translations a text."""
    beam_size: int | None = None
    """None: as the model was told."""
    length_penalty: float | None = None
    """None: as the model was told."""
    log_probs: bool = False
    """Whether log-probabilities are wanted beside scores."""
    attention: bool = False
    """Whether it is wanted what the translations attended to."""


@dataclass(frozen=True)
class Candidate:
    """One translation of a text."""

    text: str
    score: float
    """Natural-log probability over the length penalty; what ranking uses."""
    log_prob: float | None = None
    """Natural-log probability; None where an export was not asked for it."""
    attended: Sequence[TokenAttention] = ()
    """What its pieces attended to, by part of the text; empty where that was not asked for."""


@dataclass(frozen=True)
class Answer:
    """The translations of a text, best first, at least one."""

    candidates: Sequence[Candidate]
    truncated: bool = False
    """Whether the end of the text was cut off, for an export reads only so much."""


class Engine(Protocol):
    """Translates texts. It is asked by one thread."""

    version: int
    """The number that TensorFlow Serving's clients know it by."""
    nbest: int
    """Columns of the signature `nbest`."""
    languages: tuple[str | None, str | None]
    """Codes of source and target, where they are known."""

    def settle(self, options: Options) -> Options:
        """The options in their shortest form, so that equal ones meet.

        Raises:
            UserError: they cannot be had.
        """

    def answer(self, texts: Sequence[str], options: Options) -> list[Answer]:
        """Translates texts, each as if it were alone, with options that were settled."""


class ModelEngine:
    """A trained model; what it cannot read at once it divides by itself.

    Args:
        translator: a `Translator`, or what streams as it does.
    """

    def __init__(self, translator: Any):
        self.version = 1
        self.nbest = min(ExportConfig().nbest, translator.settings.beam_size)
        self.languages = (translator.source_language, translator.target_language)
        self._settings = translator.settings
        # Each holds compiled searches: whoever asks for ever new settings shall not fill the memory.
        self._translator = lru_cache(SEVERAL)(
            lambda beam_size, length_penalty: translator.with_settings(
                beam_size=beam_size, length_penalty=length_penalty
            )
        )

    def settle(self, options: Options) -> Options:
        """Takes out what is the model's own setting."""
        own: dict[str, Any] = {
            key: None
            for key in ("beam_size", "length_penalty")
            if getattr(options, key) == getattr(self._settings, key)
        }
        return replace(options, **own, log_probs=False)

    def answer(self, texts: Sequence[str], options: Options) -> list[Answer]:
        """See `Engine`."""
        translator = self._translator(options.beam_size, options.length_penalty)
        return [
            Answer([Candidate(h.text, h.score, h.log_prob, h.attention) for h in translation.hypotheses])
            for translation in translator.stream(texts, n_best=options.n_best, attention=options.attention)
        ]


class ExportEngine:
    """An export; beam and ranking were fixed when it was made, and long texts are cut.

    Args:
        translator: an `ExportedTranslator`.
        version: the number of its folder.
    """

    def __init__(self, translator: Any, version: int):
        self.version = version
        self.nbest = translator.record["limits"]["nbest"]
        self.languages = (translator.record.get("source_language"), translator.record.get("target_language"))
        self._translator = translator

    def settle(self, options: Options) -> Options:
        """Refuses what was fixed otherwise."""
        self._translator.with_settings(beam_size=options.beam_size, length_penalty=options.length_penalty)
        self._translator.check_n_best(options.n_best)
        return replace(options, beam_size=None, length_penalty=None)

    def answer(self, texts: Sequence[str], options: Options) -> list[Answer]:
        """See `Engine`."""
        if options.attention:
            chunks = [texts[start : start + FEW] for start in range(0, len(texts), FEW)]
            return [answer for chunk in chunks for answer in self._nbest(chunk, options)]
        if options.n_best > 1 or options.log_probs:
            return self._nbest(texts, options)
        found = self._translator.run_signature("serving_default", texts)
        rows = zip(found["translation"], found["score"], found["truncated"], strict=True)
        return [Answer([Candidate(text.decode(), float(score))], bool(cut)) for text, score, cut in rows]

    def _nbest(self, texts: Sequence[str], options: Options) -> list[Answer]:
        found = self._translator.run_signature("nbest", texts)
        answers = []
        for n, count in enumerate(found["num_hypotheses"]):
            candidates = [
                Candidate(
                    found["translations"][n, rank].decode(),
                    float(found["scores"][n, rank]),
                    float(found["log_probs"][n, rank]),
                    attended_in(found, n, rank) if options.attention else (),
                )
                for rank in range(min(count, options.n_best))
            ]
            answers.append(Answer(candidates, bool(found["truncated"][n])))
        return answers


def attended_in(found: dict[str, Any], row: int, rank: int) -> tuple[TokenAttention, ...]:
    """What a translation attended to, in the outputs of an export's `nbest`; nothing where the text is blank."""
    *source, end = _pieces(found["source_pieces"][row]) or [""]
    target = _pieces(found["target_pieces"][row, rank])
    if not source:
        return ()
    weights = found["attention"][row, rank, : len(target), : len(source) + 1].copy()
    # What the length limit cut off has no EOS.
    return (TokenAttention(source, target[:-1] if target[-1:] == [end] else target, weights),)


def _pieces(row: np.ndarray) -> list[str]:
    return [piece.decode() for piece in row if piece]


def open_engine(path: Path, **decoding: Any) -> Engine:
    """Opens a run folder, a model folder or an export, and translates a word so that the first user does not wait.

    Args:
        path: of the folder.
        **decoding: as for `nmt.translators.opening.open_translator`.

    Raises:
        UserError: see `nmt.translators.opening.open_translator`.
    """
    if find_kind(path).name == "LiteRT":
        raise UserError(f"{path} is an export for LiteRT: serve the model that it was made of, or a SavedModel.")
    translator: Any = open_translator(path, **decoding)
    engine: Engine
    if find_kind(path).name == "SavedModel":
        from nmt.translators.savedmodel import version_folder

        name = version_folder(path).resolve().name
        engine = ExportEngine(translator, int(name) if name.isdecimal() else 1)
    else:
        engine = ModelEngine(translator)
    engine.answer(["a"], Options())
    return engine
