"""A model as translation sees it: source ids to hypotheses, or to the attention of given translations."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from nmt.backend import ops, tree
from nmt.config.schema import CHOICE_KEYS, LENGTH_ALLOWANCE, MAX_BEAM_SIZE, SearchSettings
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.decoding.beam_search import Hypotheses, beam_search, is_zero, rank_hypotheses
from nmt.decoding.grouping import choose_max_active
from nmt.decoding.phrases import Phrases
from nmt.decoding.prefix import Prefixes, require_prefixes
from nmt.decoding.repetition import limit_repetition, limits_repetition
from nmt.decoding.sampling import make_draw
from nmt.decoding.spelling import Spellings
from nmt.models.decoder import shift_right
from nmt.models.direction import reverse_targets
from nmt.models.ensemble import DecodingModel
from nmt.models.seq2seq import DecodingStart

Settings = TypeVar("Settings", bound=SearchSettings)

COVERAGE_FLOOR = 1e-9
"""Least attention that a source token counts with, so that a token without any (0 in floating point) leaves scores
finite."""

MAX_LENGTH_RATIO = 100.0
"""Largest `decoding.max_length_ratio`. It bounds the memory of a search whose ratio is a tensor, whatever the maximum
length that a client of a server requests."""

SWITCHES = (
    *("coverage_penalty", "max_length_ratio", "no_repeat_ngram", "repetition_penalty", "temperature", "top_k", "top_p"),
)
"""Settings whose defaults need no code in the search. It is compiled with them as constants while they have these."""


def choose_n_best(settings: SearchSettings, n_best: int) -> int:
    """Returns how many hypotheses to search for if n are wanted: one, or a finished one in every slot of the beam.

    Since several segmentations may spell the same text, more than n may be needed for n different texts. All are needed
    if ranking them again may put another one first. Of samples, just n are drawn.
    """
    if settings.temperature:
        return n_best
    return 1 if n_best == 1 and is_zero(settings.coverage_penalty) else max(settings.beam_size, n_best)


def needs_own_best(settings: SearchSettings, n_best: int) -> bool:
    """Returns whether the best hypothesis must be searched for by itself if n are wanted.

    The best one is the same whatever n is. A search for several, however, does not prune and may have a wider beam, so
    it can find another one. Samples are not searched for.
    """
    if settings.temperature:
        return False
    prunes = settings.pruning_threshold > 0 and settings.coverage_penalty == 0 and settings.min_length == 0
    return n_best > 1 and (prunes or n_best > settings.beam_size)


def make_plain(settings: Settings, num_alternatives: int) -> Settings:
    """Returns the settings of a search for what comes next, which ranks by probability alone.

    The beam holds twice as many as are wanted, since several segmentations may spell one.
    """
    plain = {name: SearchSettings.model_fields[name].default for name in ("min_length", *SWITCHES)}
    beam_size = min(2 * num_alternatives, MAX_BEAM_SIZE)
    plain |= {"beam_size": beam_size, "length_penalty": 0.0, "pruning_threshold": 0.0}
    return settings.model_copy(update=plain)


def split_numbers(settings: SearchSettings) -> tuple[SearchSettings, dict[str, Any]]:
    """Splits settings into those that a search is compiled for and the numbers that it takes as inputs.

    It is compiled for the beam size, on which shapes depend, and for what is turned off, which saves time.

    Returns:
        settings without the numbers, equal if one search serves both, and the numbers: int32 or float32 scalars.
    """
    values = {name: getattr(settings, name) for name in SearchSettings.model_fields}
    unread = ("split_sentences", "tag", *CHOICE_KEYS)  # the search does not read them
    values |= {name: SearchSettings.model_fields[name].default for name in unread}
    off = {name for name in SWITCHES if values[name] == SearchSettings.model_fields[name].default}
    fixed = {"beam_size", *unread, *off}
    numbers = {
        name: np.asarray(value, "int32" if isinstance(value, int) else "float32")
        for name, value in values.items()
        if name not in fixed and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return SearchSettings.model_construct(**{**values, **dict.fromkeys(numbers)}), numbers


def search(
    model: DecodingModel,
    source: Any,
    *,
    settings: SearchSettings,
    n_best: int = 1,
    banned_ids: Sequence[int],
    refill: bool = False,
    length_bound: int | None = None,
    top_k_bound: int | None = None,
    prefixes: Prefixes | None = None,
    spellings: Spellings | None = None,
    phrases: Any = None,
    only_next: bool = False,
) -> Hypotheses:
    """Translates rows of ids.

    Args:
        model: one model or an ensemble. Its weights are used as they are, without dropout.
        source: int32 [B, S], each row ended by EOS and padded with 0.
        settings: of the search; numbers may be scalar tensors, see `split_numbers`. The length limit of a row does not
            depend on its neighbours, see `limit_lengths`.
        n_best: hypotheses wanted per row, or samples; with more than one, the beam is at least as wide.
        banned_ids: ids that are never produced.
        refill: whether new rows take the place of finished ones, for which shapes must be dynamic; see `max_active` of
            `beam_search`.
        length_bound: a number that max_length does not exceed, for static shapes where max_length is a tensor.
        top_k_bound: a number that top_k does not exceed, where top_k is a tensor.
        prefixes: what translations begin with, not with a right-to-left model; None if all are free.
        spellings: of the target tokens, if there are prefixes.
        phrases: int32 [B, C * T], what translations contain, see `nmt.decoding.phrases.pad_phrases`; None if all are
            free. Not with sampling.
        only_next: see `require_prefixes`.

    Returns:
        The hypotheses of all slots, or all samples.
    """
    samples = not is_zero(settings.temperature)
    num_samples = n_best if samples else 1
    n_best = 1 if samples else choose_n_best(settings, n_best)
    settings = settings.model_copy(update={"beam_size": max(settings.beam_size, n_best)})
    start = model.start(source)
    num_tokens = ops.sum(ops.cast(start.memory_mask, "int32"), axis=1)
    max_steps = _bound_steps(ops.shape(source)[1], settings, length_bound)
    limits = limit_lengths(num_tokens, settings)
    phrases = None if phrases is None else Phrases(phrases)
    for demand in (prefixes, phrases):
        if demand is not None:  # it leaves the model its own length
            limits, max_steps = limits + demand.lengths, max_steps + demand.max_length
    step, state = model.make_step(), tree.map_structure(lambda x: ops.squeeze(x, axis=1), start.state)
    memory, is_normalized = start.memory, limits_repetition(settings)
    if is_normalized:
        num_rows = ops.shape(source)[0]
        step, state = limit_repetition(step, state, num_rows=num_rows, max_steps=max_steps, settings=settings)
    if prefixes is not None:
        assert spellings is not None, "prefixes need the spellings of tokens"
        step, state, memory = require_prefixes(
            step,
            state,
            memory,
            prefixes=prefixes,
            spellings=spellings,
            eos_id=EOS_ID,
            is_normalized=is_normalized,
            only_next=only_next,
        )
        is_normalized = True
    if phrases is not None:
        step, state, memory = phrases.require(step, state, memory, is_normalized=is_normalized)
        is_normalized = True
    draw = None
    if samples:
        draw = make_draw(
            source,
            num_samples=num_samples,
            settings=settings,
            banned_ids=banned_ids,
            eos_id=EOS_ID,
            top_k_bound=top_k_bound,
            is_normalized=is_normalized,
        )
    hypotheses = beam_search(
        step,
        state,
        memory,
        limits=limits,
        max_steps=max_steps,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        banned_ids=banned_ids,
        settings=settings,
        n_best=n_best,
        max_active=choose_max_active(settings.beam_size) if refill else None,
        is_normalized=is_normalized,
        draw=draw,
        num_samples=num_samples,
        phrases=phrases,
    )
    if samples:
        hypotheses = Hypotheses(*(ops.reshape(x, (-1, num_samples, *ops.shape(x)[2:])) for x in hypotheses))
    elif not is_zero(settings.coverage_penalty):
        coverage = _measure_coverage(model, start, hypotheses)
        hypotheses = _rank_by_coverage(hypotheses, coverage, start.memory_mask, settings.coverage_penalty)
    return hypotheses._replace(ids=reverse_targets(hypotheses.ids)) if model.right_to_left else hypotheses


def limit_lengths(num_tokens: Any, settings: SearchSettings) -> Any:
    """Returns the maximum lengths of translations: min(max_length_ratio x source tokens + 10, max_length), int32 [...].

    Args:
        num_tokens: int32 [...], source tokens with EOS.
        settings: both numbers may be scalar tensors.
    """
    if isinstance(settings.max_length_ratio, float) and settings.max_length_ratio.is_integer():
        scaled = int(settings.max_length_ratio) * num_tokens
    else:
        scaled = ops.cast(settings.max_length_ratio * ops.cast(num_tokens, "float32"), "int32")
    return ops.minimum(scaled + LENGTH_ALLOWANCE, settings.max_length)


def _bound_steps(width: Any, settings: SearchSettings, length_bound: int | None) -> Any:
    """Returns the largest length limit of sources of this width; a number if shapes are static."""
    if not isinstance(width, int):
        return limit_lengths(width, settings)
    is_known = isinstance(settings.max_length_ratio, float)
    ratio = settings.max_length_ratio if is_known else MAX_LENGTH_RATIO
    return min(length_bound or settings.max_length, int(np.float32(ratio) * np.float32(width)) + LENGTH_ALLOWANCE)


def _measure_coverage(model: DecodingModel, start: DecodingStart, hypotheses: Hypotheses) -> Any:
    """Reads hypotheses by teacher forcing and sums the attention that each source token receives: float32 [B, K, S].

    All slots of a sentence share its memory, as they do in the search. The logits of a step are not used, so that
    compilers remove them.
    """
    ids = shift_right(hypotheses.ids, BOS_ID)
    num_slots, num_steps = ids.shape[1], ops.max(hypotheses.lengths)
    first = tree.map_structure(lambda x: ops.repeat(x, num_slots, axis=1), start.state)

    def advance(position: Any, state: Any, coverage: Any) -> tuple:
        _, state, weights = model.step(ops.take(ids, position, axis=2), state, start.memory)
        weights = ops.cast(weights, "float32")
        is_read = (position < hypotheses.lengths)[:, :, None]
        # The graph for LiteRT knows the shape of the coverage, but not that of the weights.
        return position + 1, state, coverage + ops.reshape(ops.where(is_read, weights, 0), ops.shape(coverage))

    nothing = ops.zeros((*ops.shape(ids)[:2], ops.shape(start.memory_mask)[1]), "float32")
    loop_state = (ops.zeros((), "int32"), first, nothing)
    return ops.while_loop(lambda position, *_: position < num_steps, advance, loop_state)[2]


def _rank_by_coverage(hypotheses: Hypotheses, coverage: Any, memory_mask: Any, weight: float) -> Hypotheses:
    """Adds the coverage penalty to scores and ranks the hypotheses again.

    The penalty is weight * sum_i log(min(coverage_i, 1)) over the source tokens i, EOS included and padding not (Wu et
    al. 2016, equation 14).

    Args:
        hypotheses: each [B, K, ...].
        coverage: float32 [B, K, S], the attention that each source token receives from all tokens of a hypothesis.
        memory_mask: bool [B, S], True on real tokens.
        weight: of the penalty.
    """
    logs = ops.log(ops.clip(coverage, COVERAGE_FLOOR, 1.0))
    penalties = ops.sum(ops.where(memory_mask[:, None], logs, 0.0), axis=2)  # [B, K, S] -> [B, K]
    return rank_hypotheses(hypotheses._replace(scores=hypotheses.scores + weight * penalties))


def read_log_probs(model: DecodingModel, source: Any, target: Any) -> Any:
    """Reads translations by teacher forcing and returns the log-probability (nats) of each of their tokens.

    Args:
        model: as for `search`.
        source, target: see `read_attention`; here the targets end with EOS, too.

    Returns:
        At least float32 [B, T]; what stands on padding means nothing.
    """
    logits, _ = model.read(source, target)
    return ops.take_along_axis(ops.log_softmax(logits, axis=-1), target[..., None], axis=-1)[..., 0]


def read_attention(model: DecodingModel, source: Any, target: Any) -> Any:
    """Reads translations by teacher forcing and returns the attention of each of their tokens.

    Args:
        model: as for `search`.
        source: int32 [B, S], each row ended by EOS and padded with 0.
        target: int32 [B, T], a translation of each, without BOS.

    Returns:
        At least float32 [B, T, S]: rows that sum to 1, 0 on the source's padding.
    """
    return model.read(source, target)[1]
