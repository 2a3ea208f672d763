"""A model as translation sees it: source ids in, hypotheses out, or what those attended to."""

from collections.abc import Sequence
from typing import Any

from nmt.backend import ops, tree
from nmt.config.schema import SearchSettings
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.decoding.beam_search import Hypotheses, SearchOptions, beam_search
from nmt.models.decoder import DecoderState
from nmt.models.queries import ActiveQueries
from nmt.models.seq2seq import Seq2Seq


def search_options(settings: SearchSettings, *, n_best: int = 1) -> SearchOptions:
    """Returns the search that finds the `n_best` best translations of a sentence with these settings."""
    beam_size = max(settings.beam_size, n_best)
    return SearchOptions(
        beam_size=beam_size,
        length_penalty=settings.length_penalty,
        min_length=settings.min_length,
        # Two hypotheses may spell one text; what then moves up must have ended as well.
        num_results=1 if n_best == 1 else beam_size,
        pruning=settings.pruning_threshold or None,
    )


def search(
    model: Seq2Seq,
    source: Any,
    *,
    options: SearchOptions,
    max_length: int,
    banned_ids: Sequence[int],
    at_once: int | None = None,
) -> Hypotheses:
    """Translates rows of ids.

    Args:
        model: its weights are used as they are, without dropout.
        source: int32 [B, S], each row ended by EOS and padded with 0.
        options: beam and ranking.
        max_length: most pieces of a translation, EOS counted; a row's own limit is min(2 x its pieces + 10, this),
            whatever its neighbours are.
        banned_ids: ids never produced.
        at_once: of `beam_search`.
    """
    encoded = model.encoder(source)
    memory = model.decoder.project_memory(encoded)
    state = tree.map_structure(lambda x: ops.squeeze(x, axis=1), model.decoder.get_initial_state(encoded))
    num_pieces = ops.sum(ops.cast(encoded.memory_mask, "int32"), axis=1)
    longest = 2 * ops.shape(source)[1] + 10

    score = model.projection.make_scorer()

    def step(ids: Any, state: DecoderState, memory: Any, queries: ActiveQueries) -> tuple[Any, DecoderState]:
        state = model.decoder.step_active(ids, state, memory, queries)
        return score(state.attentional), state

    return beam_search(
        step,
        state,
        memory,
        limits=ops.minimum(2 * num_pieces + 10, max_length),
        # On JAX a number, as the shapes of arrays must be; in a graph of TensorFlow's a tensor.
        max_steps=min(longest, max_length) if isinstance(longest, int) else ops.minimum(longest, max_length),
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        banned_ids=banned_ids,
        options=options,
        at_once=at_once,
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
    before = ops.concatenate([ops.full_like(target[:, :1], BOS_ID), target[:, :-1]], axis=1)
    return model(source, before).attention_weights
