"""Translates with a trained model, or an ensemble of them: batches bounded by tokens, results in order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nmt.compilation import has_gpu
from nmt.config.schema import MAX_BEAM_SIZE, WIDER, DecodingConfig, ExportConfig, SearchSettings
from nmt.data.batching import split_chunks
from nmt.data.examples import list_tags
from nmt.data.placeholders import Placeholders
from nmt.data.tokenizer import EOS_ID, Tokenizer
from nmt.decoding.beam_search import Hypotheses
from nmt.decoding.forced import ForcedDecoding, Pair
from nmt.decoding.grouping import Group, make_search_grouping
from nmt.decoding.inference import choose_n_best, make_plain, needs_own_best
from nmt.decoding.phrases import pad_phrases
from nmt.decoding.prefix import pad_prefixes
from nmt.decoding.spelling import Prefix
from nmt.decoding.word_links import WordLinks, align_words
from nmt.errors import UserError
from nmt.model_folder import ModelFolder, is_ensemble, load_confidence, load_members
from nmt.models.ensemble import DecodingModel, Ensemble
from nmt.models.seq2seq import Seq2Seq, make_seq2seq
from nmt.process import choose_precision
from nmt.translators.candidates import Alternative, Candidate, make_alternative, put_first, rank_alternatives, read_row
from nmt.translators.checks import count_doubts
from nmt.translators.confidence import Confidence
from nmt.translators.demands import (
    Demand,
    TokenDemand,
    check_alternatives,
    check_demands,
    make_demands,
    read_demand,
)
from nmt.translators.hypothesis import Continuation, Hypothesis, ScoredTranslation, Translation, drop_tag
from nmt.translators.mbr import make_utility, rank_by_utility
from nmt.translators.protocol import WINDOW
from nmt.translators.searches import Searches
from nmt.translators.settings import change_settings
from nmt.translators.terms import TermRules
from nmt.translators.tokens import TokenTranslator
from nmt.weights import assign_arrays

RETRY_NGRAM = 4  # `decoding.on_warning` retry lets no sequence of this many tokens repeat

Read = TypeVar("Read")


class ModelTranslator(TokenTranslator):
    """Translates with a trained model, or with an ensemble.

    >>> ModelTranslator.load(Path("runs/demo")).translate(["The stories are old."])  # doctest: +SKIP
    ['Die Geschichten sind alt.']

    Args:
        model: in inference.
        source_tokenizer, target_tokenizer: text to ids and back.
        settings: of search and batching.
        max_tokens: longest text translated at once, in tokens; longer ones are translated in parts.
        source_language, target_language: language codes, if known.
        multi_sentence_share: share of the training lines that held more than one sentence.
        tags: symbols that stand before sources.
        signature_n_best: hypotheses that the signature `nbest` returns.
        placeholders: symbols that the model was trained with (`data.placeholders`).
    """

    max_n_best = MAX_BEAM_SIZE
    settings: DecodingConfig

    def __init__(
        self,
        model: DecodingModel,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        settings: DecodingConfig,
        *,
        max_tokens: int,
        source_language: str | None = None,
        target_language: str | None = None,
        multi_sentence_share: float = 0.0,
        tags: Sequence[str] = (),
        signature_n_best: int = ExportConfig().nbest,
        placeholders: Placeholders | None = None,
    ):
        self.model = model
        self.source_tokenizer = self._source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.settings = settings
        self.max_tokens = max_tokens
        self.source_language = source_language
        self.target_language = target_language
        self.multi_sentence_share = multi_sentence_share
        self.tags = tags
        self.signature_n_best = signature_n_best
        self.terms = TermRules(placeholders or Placeholders())
        self._searches = Searches(model, target_tokenizer)
        self._forced = ForcedDecoding(model, source_tokenizer, target_tokenizer)

    @classmethod
    def load(cls, path: Path | str, *, precision: str | None = None) -> "ModelTranslator":
        """Opens a run folder (its best model), a model folder or an ensemble.

        An ensemble has the settings of its first member, and a confidence of its own.

        Args:
            path: of the folder.
            precision: float32 or bfloat16; by default the model's own `decoding.precision`.

        Raises:
            UserError: there is no such model, or its files do not fit together.
        """
        path = Path(path)
        members = load_members(path)
        folder = members[0]
        settings = change_settings(folder.config.decoding, {"precision": precision})
        if settings.precision == "auto":
            precision = "float32" if has_gpu() else choose_precision()
            settings = change_settings(settings, {"precision": precision})
        models = [_make_model(member, settings.precision, path) for member in members]
        translator = cls(
            models[0] if len(models) == 1 else Ensemble(models),
            folder.source_tokenizer,
            folder.target_tokenizer,
            settings,
            max_tokens=folder.config.data.max_length,
            source_language=folder.config.data.source_language,
            target_language=folder.config.data.target_language,
            multi_sentence_share=folder.facts.get("multi_sentence_share", 0.0),
            tags=list_tags(folder.config.data),
            signature_n_best=folder.config.export.nbest,
            placeholders=Placeholders.from_config(folder.config.data.placeholders, folder.source_tokenizer),
        )
        # The confidence in a member says nothing about an ensemble.
        fitted = load_confidence(path) if is_ensemble(path) else folder.confidence
        translator.fitted_confidence = Confidence.from_record(fitted, path)
        return translator

    def with_settings(self, **changes: Any) -> "ModelTranslator":
        """Returns a translator of the same model with other settings of `DecodingConfig`, such as beam_size=1.

        Both share their compiled searches.

        Raises:
            UserError: a setting is unknown or invalid, or the precision differs from that of the loaded model.
        """
        settings = change_settings(self.settings, changes)
        if settings.precision != self.settings.precision:
            raise UserError(
                f"decoding.precision: the model was loaded in {self.settings.precision}; to compute in "
                f"{settings.precision}, load it again with that precision."
            )
        return self._with(settings)

    def check_n_best(self, n_best: int) -> None:
        """Raises UserError if more hypotheses are requested than there may be, or than there are candidates for MBR."""
        super().check_n_best(n_best)
        if self.settings.mbr != "none" and n_best > self.settings.mbr_candidates:
            raise UserError(
                f"decoding.mbr_candidates: {n_best} translations per line were requested, but there are only "
                f"{self.settings.mbr_candidates} candidates to choose from: set it to {n_best} or more."
            )

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

        With `decoding.on_warning` retry, texts whose translations have warnings are translated once more; see
        `count_doubts`.
        """
        found = super().translate_batch(texts, n_best=n_best, attention=attention, prefixes=prefixes, required=required)
        doubtful = [n for n, one in enumerate(found) if count_doubts(one)]
        if self.settings.on_warning == "keep" or not doubtful:
            return found
        again = self._make_second().translate_batch(
            [texts[n] for n in doubtful],
            n_best=n_best,
            attention=attention,
            prefixes=prefixes and [prefixes[n] for n in doubtful],
            required=required and [required[n] for n in doubtful],
        )
        for n, other in zip(doubtful, again, strict=True):
            found[n] = min(found[n], other, key=count_doubts)
        return found

    def _make_second(self) -> "ModelTranslator":
        """Returns the translator for texts whose translations have warnings."""
        settings = self.settings
        return self.with_settings(
            on_warning="keep",
            beam_size=min(WIDER * settings.beam_size, MAX_BEAM_SIZE),
            no_repeat_ngram=settings.no_repeat_ngram or RETRY_NGRAM,
        )

    def score(self, pairs: Iterable[tuple[str, str]]) -> Iterator[ScoredTranslation]:
        """Yields how probable given translations are; see `Translator.score`."""
        for chunk in split_chunks(pairs, WINDOW):
            yield from self._score_chunk(chunk)

    def count_target_tokens(self, texts: Sequence[str]) -> list[int]:
        """Returns the number of target tokens of each text, without EOS."""
        return [len(ids) for ids in self.target_tokenizer.encode(texts)]

    def _score_chunk(self, pairs: Sequence[tuple[str, str]]) -> list[ScoredTranslation]:
        encoded = self._encode_pairs(pairs)
        found = _read_sorted(self._forced.score, encoded)
        return [
            ScoredTranslation(*pair, self._target_tokens[[*target, EOS_ID]].tolist(), log_probs.tolist())
            for pair, (_, target), log_probs in zip(pairs, encoded, found, strict=True)
        ]

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Pair]:
        sources = self.source_tokenizer.encode([self.write_tag(source) for source, _ in pairs])
        return list(zip(sources, self.target_tokenizer.encode([target for _, target in pairs]), strict=True))

    def align(self, pairs: Iterable[tuple[str, str]]) -> Iterator[WordLinks]:
        """Yields the attention between the words of given translations; see `Translator.align`."""
        for chunk in split_chunks(pairs, WINDOW):
            yield from self._align_chunk(chunk)

    def _align_chunk(self, pairs: Sequence[tuple[str, str]]) -> Iterator[WordLinks]:
        encoded = self._encode_pairs(pairs)
        found = iter(_read_sorted(self._forced.read_attention, [pair for pair in encoded if all(pair)]))
        for (source, target), ids in zip(pairs, encoded, strict=True):
            tag, rest = self._split_tag(source, self.settings.tag)
            span = (len(source) - len(rest), len(source))
            parts = drop_tag([next(found)] if all(ids) else [], tag)
            yield align_words(source, target, [replace(one, source_span=span) for one in parts])

    def list_alternatives(
        self, texts: Sequence[str], prefixes: Sequence[str], *, n: int = 5
    ) -> list[list[Continuation]]:
        """Returns alternatives for the next word; see `Translator.list_alternatives`."""
        check_alternatives(n)
        demands = make_demands(len(texts), prefixes, None) or [Demand()] * len(texts)
        self.check_demands(demands)
        ids = [self._encode_beginning(self.write_tag(text)) for text in texts]
        numbers = [number for number, row in enumerate(ids) if row]
        given = [self._read_demand(demands[number]) for number in numbers]
        sources = [ids[number] for number in numbers]
        found = [rank_alternatives(row, n) for row in self._search_next(sources, given, n)]
        # Each of them is a prefix of its own; one that ends the translation is the translation.
        open_ones = [(source, one) for source, row in zip(sources, found, strict=True) for one in row if one.is_open]
        completed = iter(self._complete([source for source, _ in open_ones], [one.prefix for _, one in open_ones]))
        results: list[list[Continuation]] = [[] for _ in texts]
        for number, row in zip(numbers, found, strict=True):
            results[number] = [
                Continuation(one.prefix.text, one.probability, next(completed) if one.is_open else one.prefix.text)
                for one in row
            ]
        return results

    def _encode_beginning(self, text: str) -> list[int]:
        """Returns the tokens of a text, or of its first part if it is too long to be read at once."""
        [ids] = self._encode([text])
        if len(ids) > self.max_tokens:
            [ids] = self._encode([self.cut_texts([text])[0].parts[0]])
        return ids if text.strip() else []

    def _search_next(self, ids: list[list[int]], demands: Sequence[TokenDemand], n: int) -> list[list[Alternative]]:
        """Searches for the tokens after prefixes by their probability alone."""
        settings = make_plain(self.settings, n)
        found: list[list[Alternative]] = [[] for _ in ids]
        for group in _split_groups(ids, settings, 1):
            rows = self._run(ids, group, settings, settings.beam_size, demands, only_next=True)
            for number, row in zip(group.members, rows, strict=True):
                prefix = demands[number].prefix
                for tokens, length, log_prob, _, is_finished, exists in row:
                    if exists:
                        here = tokens[: length - is_finished].tolist()
                        found[number].append(make_alternative(self.target_tokenizer, prefix, here, float(log_prob)))
        return found

    def _complete(self, ids: list[list[int]], prefixes: Sequence[Prefix]) -> list[str]:
        """Returns the best translation that begins with the tokens of each prefix."""
        demands = [TokenDemand(prefix) for prefix in prefixes]
        found = [""] * len(ids)
        for group in _split_groups(ids, self.settings, 1):
            for number, [best] in zip(group.members, self._search_rows(ids, group, 1, 1, demands), strict=True):
                found[number] = best.text
        return found

    def check_demands(self, demands: Sequence[Demand]) -> None:
        """Raises UserError if demands contradict the settings or each other, or a phrase is too long."""
        check_demands(demands, self.settings, right_to_left=self.model.right_to_left)
        for demand in demands:
            self._read_demand(demand)

    def _read_demand(self, demand: Demand) -> TokenDemand:
        return read_demand(
            demand, self.target_tokenizer, self._searches.spellings, right_to_left=self.model.right_to_left
        )

    def _translate_ids(
        self, ids: list[list[int]], n_best: int, attention: bool, demands: Sequence[Demand] | None = None
    ) -> list[list[Hypothesis]]:
        if demands is None:
            return self._translate_alike(ids, n_best, attention)
        # Searches for one kind of demand at a time, so that no text depends on what is demanded of its neighbours.
        found: list[list[Hypothesis]] = [[] for _ in ids]
        by_kind: dict[tuple[bool, bool], list[int]] = {}
        for number, demand in enumerate(demands):
            by_kind.setdefault((bool(demand.prefix), bool(demand.required)), []).append(number)
        for kind, members in by_kind.items():
            read = [self._read_demand(demands[number]) for number in members] if any(kind) else None
            rows = self._translate_alike([ids[number] for number in members], n_best, attention, read)
            for number, row in zip(members, rows, strict=True):
                found[number] = row
        return found

    def _translate_alike(
        self, ids: list[list[int]], n_best: int, attention: bool, demands: Sequence[TokenDemand] | None = None
    ) -> list[list[Hypothesis]]:
        found: list[list[Hypothesis]] = [[] for _ in ids]
        for group in _split_groups(ids, self.settings, n_best):
            rows = self._search(ids, group, n_best, demands)
            weights = iter(self._read_attention(ids, group, rows) if attention else ())
            for n, ours in zip(group.members, rows, strict=True):
                found[n] = [
                    Hypothesis(
                        one.text,
                        one.score,
                        one.log_prob,
                        self._target_tokens[one.ids].tolist(),
                        one.is_finished,
                        (next(weights),) if attention else (),
                    )
                    for one in ours
                ]
        return found

    def _search(
        self, ids: list[list[int]], group: Group, n_best: int, demands: Sequence[TokenDemand] | None
    ) -> list[list[Candidate]]:
        if self.settings.mbr != "none":
            size = self.settings.mbr_candidates
            return [self._rank_by_utility(row)[:n_best] for row in self._search_rows(ids, group, size, size)]
        if not needs_own_best(self.settings, n_best):
            return self._search_rows(ids, group, n_best, n_best, demands)
        # All others are needed, since the first of them may be the best one itself, or score above it.
        pairs = zip(
            self._search_rows(ids, group, 1, 1, demands),
            self._search_rows(ids, group, n_best, MAX_BEAM_SIZE, demands),
            strict=True,
        )
        return [put_first(best, others, n_best) for [best], others in pairs]

    def _rank_by_utility(self, candidates: list[Candidate]) -> list[Candidate]:
        log_probs = None if self.settings.temperature else [one.log_prob for one in candidates]
        utility = make_utility(self.settings.mbr, self.target_language)
        ranked = rank_by_utility([one.text for one in candidates], utility, log_probs)
        return [candidates[n]._replace(score=expected) for n, expected in ranked]

    def _search_rows(
        self,
        ids: list[list[int]],
        group: Group,
        n_best: int,
        most: int,
        demands: Sequence[TokenDemand] | None = None,
    ) -> list[list[Candidate]]:
        """Searches for n hypotheses per source and returns up to `most` of those found, with different texts."""
        rows = self._run(ids, group, self.settings, choose_n_best(self.settings, n_best), demands)
        is_sampled = self.settings.temperature > 0
        prefixes = [demands[number].prefix if demands else Prefix() for number in group.members]
        return [
            read_row(self.target_tokenizer, most, is_sampled, prefix, row)
            for prefix, row in zip(prefixes, rows, strict=True)
        ]

    def _run(
        self,
        ids: list[list[int]],
        group: Group,
        settings: SearchSettings,
        n_best: int,
        demands: Sequence[TokenDemand] | None,
        only_next: bool = False,
    ) -> list[list[tuple]]:
        """Returns all hypotheses of each member of a group, the parts of `Hypotheses` and whether it exists."""
        source = group.pad(ids)
        prefixes, phrases = None, None
        if demands is not None:
            here = [demands[number] for number in group.members]
            here += [TokenDemand()] * (len(source) - len(here))
            if only_next or any(one.prefix.text for one in here):
                prefixes = pad_prefixes([one.prefix for one in here])
            if any(one.phrases for one in here):
                phrases = pad_phrases([one.phrases for one in here])
        found = self._searches.run(source, settings, n_best, prefixes, phrases, only_next)
        found = Hypotheses(*(np.asarray(x)[: len(group.members)] for x in found))
        return [list(zip(*row, strict=True)) for row in zip(*found, found.exists, strict=True)]

    def _read_attention(self, ids: list[list[int]], group: Group, rows: list[list[Candidate]]) -> list:
        pairs = zip(group.members, rows, strict=True)
        return self._forced.read_attention([(ids[n], one.ids.tolist()) for n, ours in pairs for one in ours])

    @cached_property
    def _target_tokens(self) -> np.ndarray:
        """All target tokens by id. Indexing an array is much faster than one call of SentencePiece per token."""
        tokens = [self.target_tokenizer.get_token(one) for one in range(self.target_tokenizer.vocabulary_size)]
        return np.array(tokens, object)


def _make_model(folder: ModelFolder, precision: str, origin: Path | str) -> Seq2Seq:
    """Builds the model of a folder for inference."""
    model = make_seq2seq(
        folder.config.model,
        source_vocabulary_size=folder.source_tokenizer.vocabulary_size,
        target_vocabulary_size=folder.target_tokenizer.vocabulary_size,
        precision=precision,
        trainable=False,
    )
    assign_arrays(model.trainable_variables, folder.weights, origin)
    return model


def _split_groups(ids: Sequence[Sequence[int]], settings: DecodingConfig, n_best: int) -> Iterator[Group]:
    """Yields the groups of sources, given without EOS, that are searched together for n hypotheses each."""
    return make_search_grouping(settings, n_best).split([len(row) + 1 for row in ids])


def _read_sorted(read: Callable[[list[Pair]], list[Read]], pairs: Sequence[Pair]) -> list[Read]:
    """Returns what a function finds for each pair, given them sorted by length."""
    order = sorted(range(len(pairs)), key=lambda n: (len(pairs[n][1]), len(pairs[n][0])))
    found = dict(zip(order, read([pairs[n] for n in order]), strict=True))
    return [found[n] for n in range(len(pairs))]
