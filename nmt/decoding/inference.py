"""A model as translation sees it: source ids to hypotheses, or to the attention of given translations."""

from collections.abc import Sequence
from typing import Any

from nmt.backend import ops, tree
from nmt.config.schema import SearchSettings
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.decoding.beam_search import Hypotheses, beam_search
from nmt.decoding.grouping import choose_max_active
from nmt.models.decoder import DecoderState, shift_right
from nmt.models.queries import ActiveQueries
from nmt.models.seq2seq import Seq2Seq


def choose_n_best(settings: SearchSettings, n_best: int) -> int:
    """Returns how many hypotheses to search for if n are wanted: one, or a finished one in every slot of the beam.

    Since several segmentations may spell the same text, more than n may be needed for n different texts.
    """
    return 1 if n_best == 1 else max(settings.beam_size, n_best)


def search(
    model: Seq2Seq,
    source: Any,
    *,
    settings: SearchSettings,
    n_best: int = 1,
    banned_ids: Sequence[int],
    refill: bool = False,
) -> Hypotheses:
    """Translates rows of ids.

    Args:
        model: its weights are used as they are, without dropout.
        source: int32 [B, S], each row ended by EOS and padded with 0.
        settings: of the search. The length limit of a row is min(2 x its source tokens + 10, max_length), so that it
            does not depend on its neighbours.
        n_best: hypotheses wanted per row; with more than one, the beam is at least as wide.
        banned_ids: ids that are never produced.
        refill: whether new rows take the place of finished ones, for which shapes must be dynamic; see `max_active` of
            `beam_search`.

    Returns:
        The hypotheses of all slots.
    """
    n_best = choose_n_best(settings, n_best)
    settings = settings.model_copy(update={"beam_size": max(settings.beam_size, n_best)})
    encoded = model.encoder(source)
    memory = model.decoder.project_memory(encoded)
    state = tree.map_structure(lambda x: ops.squeeze(x, axis=1), model.decoder.get_initial_state(encoded))
    num_tokens = ops.sum(ops.cast(encoded.memory_mask, "int32"), axis=1)
    max_steps = 2 * ops.shape(source)[1] + 10
    # Static shapes (JAX) are numbers, dynamic ones tensors.
    min_of = min if isinstance(max_steps, int) else ops.minimum
    score = model.projection.make_scorer()

    def step(ids: Any, state: DecoderState, memory: Any, queries: ActiveQueries) -> tuple[Any, DecoderState]:
        state = model.decoder.step_active(ids, state, memory, queries)
        return score(state.attentional), state

    return beam_search(
        step,
        state,
        memory,
        limits=ops.minimum(2 * num_tokens + 10, settings.max_length),
        max_steps=min_of(max_steps, settings.max_length),
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        banned_ids=banned_ids,
        settings=settings,
        n_best=n_best,
        max_active=choose_max_active(settings) if refill else None,
    )


def read_attention(model: Seq2Seq, source: Any, target: Any) -> Any:
    """Reads translations by teacher forcing and returns the attention of each of their tokens.

    Args:
        model: as for `search`.
        source: int32 [B, S], each row ended by EOS and padded with 0.
        target: int32 [B, T], a translation of each, without BOS.

    Returns:
        At least float32 [B, T, S]: rows that sum to 1, 0 on the source's padding.
    """
    return model(source, shift_right(target, BOS_ID)).attention_weights
