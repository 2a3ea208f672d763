"""The encoder: a bidirectional LSTM, then residual forward LSTMs.

B sentences, S source tokens, E embedding units, U units of the encoder, M memory units, F units of the final state.
"""

from typing import Any, NamedTuple

from nmt.backend import keras, ops
from nmt.compilation import batch_gather, gather_rows
from nmt.data.tokenizer import PAD_ID
from nmt.models.embedding import Embedding
from nmt.models.layers import Dropout
from nmt.models.recurrent import LSTM, run_bidirectional


class EncoderOutput(NamedTuple):
    """What the decoder gets to know about the source."""

    memory: Any
    """[B, S, M], one vector per token, in the compute type. On padding it holds arbitrary values."""
    memory_mask: Any
    """bool [B, S], True on real tokens."""
    final_state: Any
    """[B, F], from which the decoder starts, see `Encoder`."""
    vectors: Any = None
    """[B, S, E], the embeddings that the encoder has read. Only a lexical model needs them."""


class Encoder(keras.layers.Layer):
    """Reads right-padded rows of source ids.

    The backward direction reads each row reversed within its own length. So both directions meet padding last, no
    recurrence needs a mask (cuDNN requires that), and more padding never changes an output.

    Args:
        embedding: of the source, E units.
        num_layers: LSTM layers, the bidirectional one included.
        units: U; each of the two directions of the first layer has half of them.
        bridge: append its token's embedding to each memory vector (source-side bridging, Kuang et al. 2018).
        locked_dropout: drop the same values of all vectors of a sentence.
        recurrent_dropout: share of the recurrent weights to drop.
        both_ends: let the final state of several layers include that of the bidirectional layer.
        dropout: share of values to drop between layers and from the memory.
        layer_norm: normalise the LSTMs.

    The memory has M = U units, or U + E with a bridge.

    The final state of a single layer joins the outputs of both directions at their ends, F = U. That of several layers
    is the output of the last one at the last token, F = U, where the backward direction has read one token only. With
    `both_ends` it also has what the final state of a single layer would have, F = 2 U.
    """

    def __init__(
        self,
        embedding: Embedding,
        *,
        num_layers: int,
        units: int,
        bridge: bool,
        dropout: float,
        layer_norm: bool,
        locked_dropout: bool = False,
        recurrent_dropout: float = 0.0,
        both_ends: bool = False,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.embedding = embedding
        self.bridge = bridge
        self.both_ends = both_ends
        self.memory_units = units + (embedding.matrix.shape[1] if bridge else 0)
        self.final_units = 2 * units if both_ends else units
        lstm: dict[str, Any] = {"layer_norm": layer_norm, "dropout": recurrent_dropout}
        self.forward = LSTM(units // 2, name="forward", **lstm)
        self.backward = LSTM(units // 2, name="backward", **lstm)
        self.upper = [LSTM(units, name=f"upper_{n}", **lstm) for n in range(1, num_layers)]
        self.dropout = Dropout(dropout, locked=locked_dropout)
        with keras.name_scope(self.name):
            for layer in (self.forward, self.backward):
                layer.build((None, None, embedding.matrix.shape[1]))
            for layer in self.upper:
                layer.build((None, None, units))
        self.built = True

    def call(self, ids: Any, training: bool = False, word_mask: Any = None) -> EncoderOutput:
        """Encodes sources.

        Args:
            ids: int [B, S], padded on the right with 0; every row holds at least one token.
            training: whether to drop values.
            word_mask: see `Embedding`.
        """
        mask = ops.not_equal(ids, PAD_ID)
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        reversal = _reverse_positions(lengths, ops.shape(ids)[1])
        # The directions and the bridge share one mask: with a mask each, a token dropped from one was still read by the
        # others, and a rate p hid a token from all of them only with p^2.
        if word_mask is None:
            word_mask = self.embedding.draw_word_mask(ids, training=training)  # [B, S, 1]
        vectors = self.embedding(ids, training=training, word_mask=word_mask)
        # On the way in, ids are reversed instead of vectors, which are E times as large.
        # Each direction drops single values of the other tokens by its own mask, locked or not.
        reversed_ids = batch_gather(ids, reversal)
        reversed_mask = None if word_mask is None else batch_gather(word_mask, reversal)
        reversed_vectors = self.embedding(reversed_ids, training=training, word_mask=reversed_mask)
        forward, backward = run_bidirectional(self.forward, self.backward, vectors, reversed_vectors, training=training)
        ends = ops.concatenate([_gather_one(forward, lengths - 1), _gather_one(backward, lengths - 1)], axis=-1)
        final = ends
        memory = ops.concatenate([forward, _gather_positions(backward, reversal)], axis=-1)  # [B, S, U]
        for layer in self.upper:
            memory = memory + layer(self.dropout(memory, training=training), training=training)
            final = _gather_one(memory, lengths - 1)
        if self.both_ends:
            final = ops.concatenate([ends, final], axis=-1)
        memory = self.dropout(memory, training=training)
        memory = ops.concatenate([memory, vectors], axis=-1) if self.bridge else memory
        return EncoderOutput(memory, mask, final, vectors)


def _reverse_positions(lengths: Any, num_positions: Any) -> Any:
    """Returns positions int32 [B, S] that reverse each row within its length [B] and keep its padding in place."""
    positions = ops.arange(num_positions, dtype="int32")[None, :]
    last = ops.cast(lengths, "int32")[:, None] - 1
    return ops.where(positions <= last, last - positions, positions)


def _gather_positions(vectors: Any, positions: Any) -> Any:
    """Gathers from vectors [B, S, M] those at positions int32 [B, T] of the same row: [B, T, M]."""
    # One flat gather: unlike `batch_gather`, it has a gradient of few operations on TensorFlow.
    shape = ops.shape(vectors)
    flat = ops.reshape(vectors, (-1, vectors.shape[-1]))  # [B, S, M] -> [B * S, M]
    first_rows = ops.arange(shape[0], dtype="int32")[:, None] * shape[1]
    return gather_rows(flat, first_rows + positions)


def _gather_one(vectors: Any, position: Any) -> Any:
    """Gathers from vectors [B, S, M] the one at a position int32 [B] of each row: [B, M]."""
    return ops.squeeze(_gather_positions(vectors, position[:, None]), axis=1)
