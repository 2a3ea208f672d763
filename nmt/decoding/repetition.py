"""Limits repetition within a translation, by a step of the search that remembers the tokens of each hypothesis.

N slots that take a step, L tokens that a hypothesis may have, BOS included, V tokens in the vocabulary.
"""

from typing import Any, NamedTuple

from nmt.backend import ops
from nmt.config.schema import SearchSettings
from nmt.decoding.beam_search import IMPOSSIBLE, Step, is_one, is_zero
from nmt.models.queries import ActiveQueries


class History(NamedTuple):
    """The tokens of hypotheses so far."""

    tokens: Any
    """int32 [N, L], BOS first, and 0 after the last token."""
    repeated: Any
    """int32 [N, L], length of the longest sequence that ends both at a position and at the end of the hypothesis."""
    counts: Any
    """int32 [N], number of tokens, BOS included."""


def limits_repetition(settings: SearchSettings) -> bool:
    """Returns whether the settings may limit repetition. Settings that are tensors may."""
    return not (is_zero(settings.no_repeat_ngram) and is_one(settings.repetition_penalty))


def limit_repetition(step: Step, state: Any, *, num_rows: Any, max_steps: Any, settings: SearchSettings) -> tuple:
    """Returns a step that makes repetition less likely, and its first state.

    With `no_repeat_ngram` n, a token is impossible if it would end a sequence of n tokens that the hypothesis already
    contains (Paulus et al. 2018). With `repetition_penalty`, the log-probabilities of the tokens that the hypothesis
    already contains are multiplied by the penalty (Keskar et al. 2019, who divide logits; log-probabilities all have
    the same sign). All other tokens keep their log-probabilities.

    Args:
        step: returns logits.
        state: the first state of that step; the first axis of every array is B.
        num_rows: B.
        max_steps: most tokens of a hypothesis.
        settings: those of the search, of which both numbers may be scalar tensors.

    Returns:
        A step that returns log-probabilities (see `is_normalized` of `beam_search`), and its first state.
    """
    nothing = ops.zeros((num_rows, max_steps), "int32")
    history = History(nothing, nothing, ops.zeros((num_rows,), "int32"))

    def take_step(ids: Any, state: Any, memory: Any, queries: ActiveQueries) -> tuple[Any, Any]:
        history, state = state
        logits, state = step(ids, state, memory, queries)
        history = _append(history, ids)
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        return _penalize(log_probs, history, settings), (history, state)

    return take_step, (history, state)


def _append(history: History, ids: Any) -> History:
    """Adds a token, int32 [N], to each hypothesis."""
    places = ops.arange(ops.shape(history.tokens)[1], dtype="int32")
    counts, ids = history.counts[:, None], ids[:, None]
    tokens = ops.where(places == counts, ids, history.tokens)
    is_same = ops.logical_and(tokens == ids, places <= counts)
    # A sequence that ends here is one token longer than the one that ended here a token ago, one place to the left.
    before = ops.concatenate([ops.zeros_like(ids), history.repeated[:, :-1]], axis=1)
    return History(tokens, ops.where(is_same, before + 1, 0), history.counts + 1)


def _penalize(log_probs: Any, history: History, settings: SearchSettings) -> Any:
    size, following = log_probs.shape[-1], history.tokens[:, 1:]
    is_token = ops.arange(1, ops.shape(history.tokens)[1], dtype="int32") < history.counts[:, None]
    if not is_one(settings.repetition_penalty):
        is_known = _mark(following, is_token, size)
        log_probs = ops.where(is_known, settings.repetition_penalty * log_probs, log_probs)
    if not is_zero(settings.no_repeat_ngram):
        # All but the last token of the sequence have been repeated, if the setting is not 0.
        ends = ops.logical_and(is_token, history.repeated[:, :-1] >= settings.no_repeat_ngram - 1)
        log_probs = ops.where(_mark(following, ends, size), 2 * IMPOSSIBLE, log_probs)
    return log_probs


def _mark(ids: Any, is_marked: Any, size: int) -> Any:
    """Returns which of `size` ids are among the marked ones of each row: bool [N, V] of ids and marks [N, L]."""
    shape = ops.shape(ids)
    rows = ops.broadcast_to(ops.arange(shape[0], dtype="int32")[:, None], shape)
    indices = ops.reshape(ops.stack([rows, ids], axis=-1), (-1, 2))
    return ops.scatter(indices, ops.reshape(ops.cast(is_marked, "float32"), (-1,)), (shape[0], size)) > 0
