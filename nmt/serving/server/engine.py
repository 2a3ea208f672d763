"""What translates behind a server: a trained model or an export, asked in the same way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from nmt.config import ExportConfig
from nmt.loading import is_export, open_translator

SEVERAL = 4  # settings of the search that are kept compiled at once


@dataclass(frozen=True)
class Options:
    """What may differ between requests; only texts with equal options are translated together."""

    num_best: int = 1
    """Translations a text."""
    beam_size: int | None = None
    """None: as the model was told."""
    length_penalty: float | None = None
    """None: as the model was told."""
    log_probs: bool = False
    """Whether log-probabilities are wanted beside scores."""


@dataclass(frozen=True)
class Candidate:
    """One translation of a text."""

    text: str
    score: float
    """Natural-log probability over the length penalty; what ranking uses."""
    log_prob: float | None = None
    """Natural-log probability; None where an export was not asked for it."""


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
        self.nbest = min(ExportConfig().nbest, translator.settings["beam_size"])
        self._settings = translator.settings
        # Each holds compiled searches: whoever asks for ever new settings shall not fill the memory.
        self._translator = lru_cache(SEVERAL)(
            lambda beam_size, length_penalty: translator.with_decoding(
                beam_size=beam_size, length_penalty=length_penalty
            )
        )

    def settle(self, options: Options) -> Options:
        """Takes out what is the model's own setting."""
        own: dict[str, Any] = {
            key: None for key in ("beam_size", "length_penalty") if getattr(options, key) == self._settings[key]
        }
        return replace(options, **own, log_probs=False)

    def answer(self, texts: Sequence[str], options: Options) -> list[Answer]:
        """See `Engine`."""
        translator = self._translator(options.beam_size, options.length_penalty)
        return [
            Answer([Candidate(h.text, h.score, h.log_prob) for h in hypotheses])
            for hypotheses in translator.stream(texts, num_best=options.num_best)
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
        self._translator = translator

    def settle(self, options: Options) -> Options:
        """Refuses what was fixed otherwise."""
        self._translator.with_decoding(beam_size=options.beam_size, length_penalty=options.length_penalty)
        self._translator.check_num_best(options.num_best)
        return Options(num_best=options.num_best, log_probs=options.log_probs)

    def answer(self, texts: Sequence[str], options: Options) -> list[Answer]:
        """See `Engine`."""
        if options.num_best == 1 and not options.log_probs:
            found = self._translator.signature("serving_default", texts)
            rows = zip(found["translation"], found["score"], found["truncated"], strict=True)
            return [Answer([Candidate(text.decode(), float(score))], bool(cut)) for text, score, cut in rows]
        found = self._translator.signature("nbest", texts)
        names = ("num_hypotheses", "truncated", "translations", "scores", "log_probs")
        answers = []
        for count, cut, *columns in zip(*(found[name] for name in names), strict=True):
            best = list(zip(*columns, strict=True))[: min(count, options.num_best)]
            answers.append(Answer([Candidate(t.decode(), float(s), float(p)) for t, s, p in best], bool(cut)))
        return answers


def open_engine(path: Path, *, beam_size: int | None = None, length_penalty: float | None = None) -> Engine:
    """Opens a run folder, a model folder or an export, and translates a word so that the first user does not wait.

    Raises:
        UserError: see `nmt.loading.open_translator`.
    """
    translator: Any = open_translator(path, beam_size=beam_size, length_penalty=length_penalty)
    engine: Engine = ModelEngine(translator)
    if is_export(path):
        from nmt.serving.exported import version_folder

        name = version_folder(path).resolve().name
        engine = ExportEngine(translator, int(name) if name.isdecimal() else 1)
    engine.answer(["a"], Options())
    return engine
