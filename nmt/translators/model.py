"""Text to text: lines in, translations out, in order, with memory bounded by pieces."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nmt.compilation import compiled, compiles_each_shape, gpu_visible
from nmt.config.schema import DecodingConfig
from nmt.data.tokenizer import EOS_ID, Tokenizer
from nmt.decoding.alignment import Attended
from nmt.decoding.beam_search import IMPOSSIBLE, SearchOptions
from nmt.decoding.forced import ForcedDecoding
from nmt.decoding.grouping import Group, make_search_grouping, side_by_side
from nmt.decoding.inference import search, search_options
from nmt.errors import UserError
from nmt.model_folder import ModelFolder
from nmt.models.seq2seq import Seq2Seq, make_seq2seq
from nmt.process import fast_precision
from nmt.translators.hypothesis import WINDOW, Hypothesis, joined
from nmt.translators.segments import split_lines
from nmt.weights import assign_arrays


class Translator:
    """Translates lines of text with one model.

    >>> Translator.load(Path("runs/demo")).translate(["The stories are old."])  # doctest: +SKIP
    ['Die Geschichten sind alt.']

    Args:
        model: in inference.
        source_tokenizer, target_tokenizer: text to ids and back.
        decoding: beam, ranking and limits.
        max_source: longest line translated at once, in pieces; longer ones are translated in parts, put together with
            spaces.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        decoding: DecodingConfig,
        *,
        max_source: int,
        source_language: str | None = None,
        target_language: str | None = None,
    ):
        self.model = model
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.decoding = decoding
        self.max_source = max_source
        self.source_language = source_language
        self.target_language = target_language
        self._grouping = make_search_grouping(decoding.batch_tokens, decoding.beam_size)
        self._searches: dict[SearchOptions, Callable] = {}
        self._forced = ForcedDecoding(model, source_tokenizer, target_tokenizer)

    @classmethod
    def load(cls, path: Path | str, *, precision: str | None = None) -> "Translator":
        """Opens a run folder (its best model) or a model folder.

        Args:
            path: of the folder.
            precision: float32 or bfloat16; by default what the model's `decoding.precision` says.

        Raises:
            UserError: there is no such model, or it does not fit together.
        """
        folder = ModelFolder.load(Path(path))
        decoding = folder.config.decoding
        precision = precision or decoding.precision
        if precision == "auto":
            precision = "float32" if gpu_visible() else fast_precision()
        model = make_seq2seq(
            folder.config.model,
            source_vocabulary=folder.source_tokenizer.vocabulary_size,
            target_vocabulary=folder.target_tokenizer.vocabulary_size,
            precision=precision,
            learns=False,
        )
        assign_arrays(model.trainable_variables, folder.weights, path)
        return cls(
            model,
            folder.source_tokenizer,
            folder.target_tokenizer,
            decoding.model_copy(update={"precision": precision}),
            max_source=folder.config.data.max_length,
            source_language=folder.config.data.source_language,
            target_language=folder.config.data.target_language,
        )

    def with_decoding(self, **changes: Any) -> "Translator":
        """The same model with other settings of `DecodingConfig`, such as beam_size=1.

        Raises:
            UserError: another precision, which a model has from its loading on.
        """
        precision = changes.get("precision") or self.decoding.precision
        if precision != self.decoding.precision:
            raise UserError(
                f"precision: the model was loaded in {self.decoding.precision}; load it once more, with "
                f"precision='{precision}'."
            )
        settings = {**self.decoding.model_dump(), **{k: v for k, v in changes.items() if v is not None}}
        decoding = DecodingConfig.model_validate(settings)
        return Translator(
            self.model,
            self.source_tokenizer,
            self.target_tokenizer,
            decoding,
            max_source=self.max_source,
            source_language=self.source_language,
            target_language=self.target_language,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """How it searches."""
        return self.decoding.model_dump()

    def translate(self, lines: Iterable[str]) -> list[str]:
        """The best translation of each line; blank lines come back blank."""
        return [hypotheses[0].text for hypotheses in self.stream(lines)]

    def stream(
        self, lines: Iterable[str], *, num_best: int = 1, window: int = WINDOW, attention: bool = False
    ) -> Iterator[list[Hypothesis]]:
        """Yields the best translations of each line, in order, never two of one line with the same text.

        Args:
            lines: any number; `window` of them are held at once.
            num_best: at most so many hypotheses a line, best first.
            window: lines read before the first answer; 1 answers line by line.
            attention: whether to tell what they attended to, for which they are read once more.

        Raises:
            UserError: lines is one text instead of several.
        """
        if isinstance(lines, str):
            raise UserError("Expected a list of lines to translate, found one text: put it into brackets.")
        lines = iter(lines)
        while chunk := list(islice(lines, window)):
            yield from self._translate_chunk(chunk, num_best, attention)

    def _translate_chunk(self, lines: list[str], num_best: int, attention: bool) -> list[list[Hypothesis]]:
        parts = split_lines(lines, self.source_tokenizer, self.max_source)
        found = iter(self._translate_parts([part for line in parts for part in line], num_best, attention))
        return [joined([next(found) for _ in line], num_best) for line in parts]

    def _translate_parts(self, ids: list[list[int]], num_best: int, attention: bool) -> list[list[Hypothesis]]:
        found: list[list[Hypothesis]] = [[] for _ in ids]
        for group in self._grouping.groups([len(row) + 1 for row in ids]):
            translations = self._search(ids, group, num_best)
            attended = iter(self._attended(ids, group, translations) if attention else ())
            for n, ours in zip(group.members, translations, strict=True):
                found[n] = [replace(h, attended=(next(attended),)) if attention else h for h in ours]
        return found

    def _search(self, ids: list[list[int]], group: Group, num_best: int) -> list[dict[Hypothesis, list[int]]]:
        found = self._compiled(search_options(self.decoding, num_best=num_best))(group.padded(ids))
        columns = [
            np.asarray(x)[: len(group.members)] for x in (found.ids, found.lengths, found.log_probs, found.scores)
        ]
        translations = []
        for pieces, lengths, log_probs, scores in zip(*columns, strict=True):
            rows = [p[:n] for p, n in zip(pieces, lengths, strict=True)]
            translations.append(_distinct(self.target_tokenizer, rows, scores, log_probs, num_best))
        return translations

    def _attended(
        self, ids: list[list[int]], group: Group, translations: list[dict[Hypothesis, list[int]]]
    ) -> list[Attended]:
        pairs = zip(group.members, translations, strict=True)
        return self._forced.attended([(ids[n], target) for n, ours in pairs for target in ours.values()])

    def _compiled(self, options: SearchOptions) -> Callable:
        if options not in self._searches:

            def run(source: Any) -> Any:
                return search(
                    self.model,
                    source,
                    options=options,
                    max_length=self.decoding.max_length,
                    banned_ids=self.target_tokenizer.never_produced,
                    at_once=None if compiles_each_shape() else side_by_side(options.beam_size),
                )

            self._searches[options] = compiled(run, self.model.variables, num_inputs=1)
        return self._searches[options]


def _distinct(
    tokenizer: Tokenizer, rows: Iterable[np.ndarray], scores: Any, log_probs: Any, num_best: int
) -> dict[Hypothesis, list[int]]:
    """The first hypotheses with different texts, since several segmentations may spell one, and their ids."""
    by_text: dict[str, tuple[Hypothesis, list[int]]] = {}
    for row, score, log_prob in zip(rows, scores, log_probs, strict=True):
        # Fewer hypotheses exist than slots where the vocabulary or the length limit is tiny.
        if len(by_text) < num_best and log_prob > IMPOSSIBLE / 2:
            [text] = tokenizer.decode(row[None])
            pieces = [int(one) for one in row if one != EOS_ID]
            by_text.setdefault(text, (Hypothesis(text, float(score), float(log_prob)), pieces))
    return dict(by_text.values())
