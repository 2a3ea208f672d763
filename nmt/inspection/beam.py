"""The beam of one sentence as a tree.

The search that translates (`nmt.decoding.beam_search`) is compiled and keeps what won. This one does the same in plain
lists, one step at a time, and keeps what lost as well.

K slots of the beam, V tokens in the target vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nmt.backend import keras, ops, tree
from nmt.compilation import gather_rows
from nmt.config.schema import SearchSettings
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.decoding.beam_search import LOOKAHEAD
from nmt.decoding.inference import limit_lengths
from nmt.decoding.repetition import limit_repetition, limits_repetition
from nmt.errors import UserError
from nmt.models.queries import select_all
from nmt.models.seq2seq import Seq2Seq

Fate = Literal["extended", "finished", "pruned", "crowded out", "not pursued"]


@dataclass
class BeamNode:
    """A hypothesis that has been in a slot of the beam."""

    parent: int
    """Index of the hypothesis without its last token; -1 for the root, which is BOS alone."""
    token_id: int
    """The last token."""
    length: int
    """Number of tokens, EOS included and BOS not."""
    log_prob: float
    """Log-probability (nats)."""
    score: float
    """Log-probability divided by the length penalty, by which finished hypotheses are compared."""
    fate: Fate = "not pursued"
    """extended; finished, by EOS; pruned, as too far behind; crowded out, since all its continuations are less likely
    than those of others; not pursued, since the search was over."""


@dataclass(frozen=True)
class BeamTree:
    """All hypotheses of a search, each after its parent."""

    nodes: Sequence[BeamNode]
    best: int
    """Index of the translation."""

    def get_path(self, node: int) -> list[int]:
        """Returns the indices of a hypothesis and all its beginnings, the root first."""
        path = [node]
        while self.nodes[path[0]].parent >= 0:
            path.insert(0, self.nodes[path[0]].parent)
        return path

    def get_token_ids(self, node: int) -> list[int]:
        """Returns the tokens of a hypothesis in the order of their prediction, EOS included and BOS not."""
        return [self.nodes[one].token_id for one in self.get_path(node)[1:]]


def trace_beam(
    model: Seq2Seq, source_ids: Sequence[int], *, settings: SearchSettings, banned_ids: Sequence[int]
) -> BeamTree:
    """Searches for the translation of one sentence as `nmt.decoding.inference.search` does and keeps every hypothesis.

    Args:
        model: in inference.
        source_ids: with EOS.
        settings: of the search.
        banned_ids: ids that are never produced.

    Raises:
        UserError: the settings sample or rank by coverage.
    """
    check_settings(settings)
    source = np.asarray(source_ids, "int32")[None]
    start, limit = model.start(source), int(limit_lengths(source.shape[1], settings))
    step, state = model.make_step(), tree.map_structure(lambda x: ops.squeeze(x, axis=1), start.state)
    is_normalized = limits_repetition(settings)
    if is_normalized:
        step, state = limit_repetition(step, state, num_rows=1, max_steps=limit, settings=settings)
    size = settings.beam_size
    state = tree.map_structure(lambda x: ops.repeat(x, size, axis=0), state)
    beam, queries = _Beam(settings, limit, banned_ids), select_all(1, size)
    while any(beam.is_open):
        logits, state = step(ops.convert_to_tensor(beam.get_tokens(), "int32"), state, start.memory, queries)
        log_probs = ops.cast(logits, "float32") if is_normalized else ops.log_softmax(ops.cast(logits, "float32"))
        parents = ops.convert_to_tensor(beam.step(np.asarray(keras.ops.convert_to_numpy(log_probs))), "int32")
        state = tree.map_structure(lambda x, parents=parents: gather_rows(x, parents), state)
    return BeamTree(beam.nodes, beam.choose_best())


def check_settings(settings: SearchSettings) -> None:
    """Raises UserError if the settings do not search for the hypothesis with the best score."""
    if settings.temperature:
        raise UserError(
            f"decoding.temperature: samples have no beam to show; set it to 0, found {settings.temperature}."
        )
    if settings.coverage_penalty:
        raise UserError(
            "decoding.coverage_penalty: the tree shows scores of a search without it; set it to 0, found "
            f"{settings.coverage_penalty}."
        )
    if settings.mbr != "none":
        raise UserError(f"decoding.mbr: the tree shows a search by probability; set it to none, found {settings.mbr}.")


class _Beam:
    """The state of a search.

    Args:
        settings: of the search.
        limit: maximum length, EOS included.
        banned_ids: ids that are never produced.
    """

    def __init__(self, settings: SearchSettings, limit: int, banned_ids: Sequence[int]):
        self.settings = settings
        self.limit = limit
        self.banned_ids = list(banned_ids)
        self.nodes = [BeamNode(-1, BOS_ID, 0, 0.0, 0.0)]
        # The hypothesis in each slot; None where a slot waits for one.
        self.slots: list[int | None] = [0, *[None] * (settings.beam_size - 1)]
        self.is_open = [slot is not None for slot in self.slots]
        self.position = 0
        self.empty: int | None = None

    def get_tokens(self) -> list[int]:
        """Returns the last token of each slot, int [K]."""
        return [BOS_ID if slot is None else self.nodes[slot].token_id for slot in self.slots]

    def step(self, log_probs: np.ndarray) -> list[int]:
        """Takes a step, given the log-probabilities [K, V] of the next token.

        Returns:
            The slot that each slot extends.
        """
        free = [k for k, slot in enumerate(self.slots) if slot is None or self.nodes[slot].fate != "finished"]
        parents, before = list(range(len(self.slots))), list(self.slots)
        candidates = iter(self._find_candidates(log_probs))
        for k in free:
            self.slots[k] = None
            if (candidate := next(candidates, None)) is not None:
                parents[k], token_id, log_prob = candidate
                parent = before[parents[k]]
                assert parent is not None
                self.slots[k] = self._add(parent, token_id, log_prob)
        for k, slot in enumerate(before):
            if slot is not None and self.is_open[k] and self.nodes[slot].fate == "not pursued":
                self.nodes[slot].fate = "crowded out"
        self.position += 1
        self._prune()
        self._open()
        return parents

    def choose_best(self) -> int:
        """Returns the index of the translation; see `nmt.decoding.beam_search.rank_hypotheses`."""
        found = [slot for slot in self.slots if slot is not None]
        if self.empty is not None:
            found.append(self.empty)
        texts = [node for node in found if self.nodes[node].fate == "finished" and node != self.empty]
        if self.empty is not None and any(self.nodes[node].score < self.nodes[self.empty].score for node in texts):
            texts.append(self.empty)
        return max(texts or found, key=lambda node: self.nodes[node].score)

    def _find_candidates(self, log_probs: np.ndarray) -> list[tuple[int, int, float]]:
        """Returns the best continuations of all open slots, best first: slot, token and log-probability."""
        totals = np.full(log_probs.shape, -np.inf)
        for k, slot in enumerate(self.slots):
            if self.is_open[k] and slot is not None:
                totals[k] = self.nodes[slot].log_prob + log_probs[k]
        totals[:, self.banned_ids] = -np.inf
        # The empty hypothesis takes no slot, except in a beam of one, and exists if EOS is among the best first tokens.
        has_slot_for_empty = len(self.slots) == 1
        if self.position == 0 and not has_slot_for_empty and self.settings.min_length == 0:
            width = len(self.slots) + len({*self.banned_ids, EOS_ID})
            if np.sum(log_probs[0] > log_probs[0, EOS_ID]) < width:
                self.empty = self._add(0, EOS_ID, float(totals[0, EOS_ID]))
        if self.position < max(self.settings.min_length, 0 if has_slot_for_empty else 1):
            totals[:, EOS_ID] = -np.inf
        best = np.argsort(-totals, axis=None, kind="stable")[: len(self.slots)]
        places = zip(*(index.tolist() for index in np.unravel_index(best, totals.shape)), strict=True)
        return [(k, token_id, float(totals[k, token_id])) for k, token_id in places if np.isfinite(totals[k, token_id])]

    def _add(self, parent: int, token_id: int, log_prob: float) -> int:
        length = self.nodes[parent].length + 1
        self.nodes[parent].fate = "extended"
        fate: Fate = "finished" if token_id == EOS_ID else "not pursued"
        self.nodes.append(BeamNode(parent, token_id, length, log_prob, self._score(log_prob, length), fate))
        return len(self.nodes) - 1

    def _score(self, log_prob: float, length: int) -> float:
        return log_prob / self.settings.get_length_penalty(length)

    def _prune(self) -> None:
        settings = self.settings
        unfinished = self._get_unfinished()
        if not settings.pruning_threshold or settings.min_length or not unfinished:
            return
        threshold = max(self.nodes[slot].log_prob for slot in unfinished) - settings.pruning_threshold
        best_ended = self._get_best_ended()
        for k, slot in enumerate(self.slots):
            if slot in unfinished:
                node = self.nodes[slot]
                hope = self._score(node.log_prob, node.length + LOOKAHEAD)
                if node.log_prob < threshold or hope <= best_ended:
                    node.fate, self.slots[k] = "pruned", None

    def _open(self) -> None:
        unfinished = self._get_unfinished()
        hope = max((self._score(self.nodes[slot].log_prob, self.limit) for slot in unfinished), default=-np.inf)
        is_running = hope > self._get_best_ended() and self.position < self.limit
        self.is_open = [is_running and slot in unfinished for slot in self.slots]

    def _get_unfinished(self) -> list[int]:
        return [slot for slot in self.slots if slot is not None and self.nodes[slot].fate != "finished"]

    def _get_best_ended(self) -> float:
        ended = [slot for slot in self.slots if slot is not None and self.nodes[slot].fate == "finished"]
        if self.empty is not None:
            ended.append(self.empty)
        return max((self.nodes[slot].score for slot in ended), default=-np.inf)
