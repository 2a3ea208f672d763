"""The encoder: a bidirectional LSTM, then residual forward ones.

B sentences, S source pieces, E embedding units, M memory units.
"""

from typing import Any, NamedTuple

from nmt.backend import keras, ops
from nmt.compilation import batch_gather, gather_rows
from nmt.models.layers import Dropout
from nmt.models.recurrent import LSTM, run_bidirectional

PAD = 0


class EncoderOutput(NamedTuple):
    """What was read of the source."""

    memory: Any
    """[B, S, M], one vector a piece, in the compute type."""
    memory_mask: Any
    """bool [B, S], True on real pieces."""
    final_state: Any
    """[B, M], what each direction of the last layer knew at its end."""


class Encoder(keras.layers.Layer):
    """Reads right-padded source ids.

    The backward direction runs over each row reversed within its own length, so that both directions meet padding last
    and no recurrence needs a mask: more padding never changes an output. With `bridge` the memory of a piece ends with
    its embedding (source-side bridging, Kuang et al. 2018).
    """

    def __init__(
        self,
        embedding: keras.layers.Layer,
        *,
        num_layers: int,
        units: int,
        bridge: bool,
        dropout: float,
        layer_norm: bool,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.embedding = embedding
        self.bridge = bridge
        self.memory_units = units + (embedding.matrix.shape[1] if bridge else 0)
        self.forward = LSTM(units // 2, layer_norm=layer_norm, name="forward")
        self.backward = LSTM(units // 2, layer_norm=layer_norm, name="backward")
        self.upper = [LSTM(units, layer_norm=layer_norm, name=f"upper_{n}") for n in range(1, num_layers)]
        self.dropout = Dropout(dropout)
        with keras.name_scope(self.name):
            for layer in (self.forward, self.backward):
                layer.build((None, None, embedding.matrix.shape[1]))
            for layer in self.upper:
                layer.build((None, None, units))
        self.built = True

    def call(self, ids: Any, training: bool = False) -> EncoderOutput:
        """Encodes ids [B, S], padded on the right with 0; every row holds one piece or more."""
        mask = ops.not_equal(ids, PAD)
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        reversal = _reversal(lengths, ops.shape(ids)[1])
        # Reversing ids is far cheaper than reversing vectors; on the way back one flat lookup serves.
        vectors = self.embedding(ids, training=training)
        reversed_vectors = self.embedding(batch_gather(ids, reversal), training=training)
        forward, backward = run_bidirectional(self.forward, self.backward, vectors, reversed_vectors)
        final = ops.concatenate([_at(forward, lengths - 1), _at(backward, lengths - 1)], axis=-1)
        memory = ops.concatenate([forward, _gather(backward, reversal)], axis=-1)
        for layer in self.upper:
            memory = memory + layer(self.dropout(memory, training=training))
            final = _at(memory, lengths - 1)
        memory = self.dropout(memory, training=training)
        return EncoderOutput(ops.concatenate([memory, vectors], axis=-1) if self.bridge else memory, mask, final)


def _reversal(lengths: Any, num_positions: Any) -> Any:
    """Positions [B, S] that turn each row around within its length [B] and leave its padding where it is."""
    positions = ops.arange(num_positions, dtype="int32")[None, :]
    last = ops.cast(lengths, "int32")[:, None] - 1
    return ops.where(positions <= last, last - positions, positions)


def _gather(vectors: Any, positions: Any) -> Any:
    """Takes vectors [B, S, M] at positions [B, S] of their own row."""
    shape = ops.shape(vectors)
    flat = ops.reshape(vectors, (-1, vectors.shape[-1]))
    rows = ops.arange(shape[0], dtype="int32")[:, None] * shape[1]
    return gather_rows(flat, rows + positions)


def _at(vectors: Any, position: Any) -> Any:
    """Takes from vectors [B, S, M] the one at a position [B] of each row: [B, M]."""
    return ops.squeeze(_gather(vectors, position[:, None]), axis=1)
