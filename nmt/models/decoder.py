"""The decoder: whole target sequences in training, one word at a time in search, with the same weights.

B sentences, T target positions, Q queries (positions, or the beam), S source pieces, E embedding units, U decoder
units, V pieces in the vocabulary.
"""

from typing import Any, NamedTuple

from nmt.backend import keras, ops
from nmt.compilation import scan
from nmt.models.attention import AttentionMemory, make_attention
from nmt.models.embedding import Embedding, OutputProjection
from nmt.models.encoder import EncoderOutput
from nmt.models.layers import Dense, Dropout, at_least_float32
from nmt.models.queries import ActiveQueries
from nmt.models.recurrent import LSTM, LSTMState


class DecoderState(NamedTuple):
    """What one decoder step hands to the next."""

    layers: tuple[LSTMState, ...]
    """One state a layer, each [B, Q, U]."""
    attentional: Any
    """[B, Q, E], the vector that the output projection scored (Luong et al. 2015, equation 5)."""


class DecoderOutput(NamedTuple):
    """What a whole target sequence became."""

    states: Any
    """Attentional states [B, T, E], for the output projection."""
    attention_weights: Any
    """[B, T, S], at least float32, the mean over heads and hops."""


class Decoder(keras.layers.Layer):
    """A stack of LSTMs of which the lowest `num_hops` attend to the source.

    The bottom layer reads target embeddings alone; its output is the first query; the context feeds each upper layer
    and the attentional state (GNMT, Wu et al. 2016; RNMT+, Chen et al. 2018). A layer that attends asks anew, with what
    the layers below know of earlier contexts. So no recurrence waits for attention, and a whole target runs layer by
    layer. With `input_feeding` the bottom layer also reads the last attentional state, and a target runs word by word.
    """

    def __init__(
        self,
        embedding: Embedding,
        projection: OutputProjection,
        *,
        num_layers: int,
        units: int,
        memory_units: int,
        final_units: int,
        attention: str,
        num_heads: int,
        num_hops: int,
        input_feeding: bool,
        dropout: float,
        output_dropout: float,
        layer_norm: bool,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.embedding = embedding
        self.projection = projection
        self.units = units
        self.input_feeding = input_feeding
        self.output_units = projection.matrix.shape[1]
        self.start_state = Dense(2 * num_layers * units, activation="tanh", name="start_state")
        self.layers = [LSTM(units, layer_norm=layer_norm, name=f"layer_{n}") for n in range(num_layers)]
        with keras.name_scope(self.name):
            self.attentions = [
                make_attention(attention, units, memory_units, num_heads=num_heads, name=f"attention_{n}")
                for n in range(num_hops)
            ]
        self.attentional = Dense(self.output_units, activation="tanh", name="attentional")
        self.dropout = Dropout(dropout)
        self.output_dropout = Dropout(output_dropout)
        with keras.name_scope(self.name):
            self._build(final_units, self.attentions[0].context_units)

    def _build(self, final_units: int, context_units: int) -> None:
        embedding_units = self.embedding.matrix.shape[1]
        self.start_state.build((None, final_units))
        self.layers[0].build((None, None, embedding_units + (self.output_units if self.input_feeding else 0)))
        for layer in self.layers[1:]:
            layer.build((None, None, self.units + context_units))
        self.attentional.build((None, None, self.units + context_units))
        self.built = True

    def get_initial_state(self, encoded: EncoderOutput) -> DecoderState:
        """The state before the first word, with one query a sentence: each [B, 1, U]."""
        parts = ops.split(self.start_state(encoded.final_state)[:, None, :], 2 * len(self.layers), axis=-1)
        layers = [LSTMState(h, at_least_float32(c)) for h, c in zip(parts[::2], parts[1::2], strict=True)]
        attentional = ops.zeros((ops.shape(encoded.final_state)[0], 1, self.output_units), self.compute_dtype)
        return DecoderState(tuple(layers), attentional)

    def project_memory(self, encoded: EncoderOutput) -> tuple[AttentionMemory, ...]:
        """The memory as each attending layer sees it, made once a sentence."""
        return tuple(attention.project_memory(encoded.memory, encoded.memory_mask) for attention in self.attentions)

    def call(self, ids: Any, encoded: EncoderOutput, training: bool = False) -> DecoderOutput:
        """Reads targets that begin with BOS, ids [B, T], and returns what predicts the word after each."""
        memory = self.project_memory(encoded)
        state = self.get_initial_state(encoded)
        vectors = self.embedding(ids, training=training)
        run = self._word_by_word if self.input_feeding else self._layer_by_layer
        states, weights = run(vectors, state, memory, training)
        return DecoderOutput(self.output_dropout(states, training=training), weights)

    def step(self, ids: Any, state: DecoderState, memory: tuple[AttentionMemory, ...]) -> tuple[Any, DecoderState, Any]:
        """Reads one word for each query.

        Args:
            ids: int [B, Q], the words just chosen, BOS at first.
            state: each [B, Q, ...].
            memory: from `project_memory`.

        Returns:
            logits: [B, Q, V], at least float32.
            state: the next one.
            attention_weights: [B, Q, S].
        """
        state, weights = self._advance(self.embedding(ids), state, memory, masks=None)
        return self.projection(state.attentional), state, weights

    def step_active(
        self, ids: Any, state: DecoderState, memory: tuple[AttentionMemory, ...], queries: ActiveQueries
    ) -> DecoderState:
        """As `step`, for some of the queries, and without logits.

        Args:
            ids: int [N].
            state: each [N, ...].
            memory: from `project_memory`.
            queries: which N of the B x Q.

        Returns:
            The next state, whose attentional part [N, E] is what the output projection scores.
        """
        return self._advance(self.embedding(ids), state, memory, masks=None, queries=queries)[0]

    def _layer_by_layer(
        self, vectors: Any, state: DecoderState, memory: tuple[AttentionMemory, ...], training: bool
    ) -> Any:
        hidden, context, all_weights = vectors, None, []
        for n, layer in enumerate(self.layers):
            inputs = hidden if n == 0 else ops.concatenate([self.dropout(hidden, training=training), context], axis=-1)
            above = layer(inputs, _one_query(state.layers[n]))
            hidden = above if n == 0 else hidden + above
            if n < len(self.attentions):
                context, weights = self.attentions[n](hidden, memory[n])
                all_weights.append(weights)
        hidden = self.dropout(hidden, training=training)
        return self.attentional(ops.concatenate([hidden, context], axis=-1)), _mean(all_weights)

    def _word_by_word(
        self, vectors: Any, state: DecoderState, memory: tuple[AttentionMemory, ...], training: bool
    ) -> Any:
        def body(carry: Any, at: Any) -> Any:
            return self._advance(at[0][:, None, :], carry[0], memory, masks=at[1:])

        shape = ops.shape(vectors)
        ones = ops.ones((shape[1], shape[0], 1, self.units), self.compute_dtype)
        masks = [self.dropout(ones, training=training) for _ in self.layers]
        no_weights = ops.zeros((shape[0], 1, ops.shape(memory[0].mask)[1]), state.layers[0].cell.dtype)
        states, weights = scan(body, (state, no_weights), (ops.transpose(vectors, (1, 0, 2)), *masks))
        return _batch_first(states.attentional), _batch_first(weights)

    def _advance(
        self,
        vectors: Any,
        state: DecoderState,
        memory: tuple[AttentionMemory, ...],
        *,
        masks: Any,
        queries: ActiveQueries | None = None,
    ) -> tuple[DecoderState, Any]:
        """One word for each query, vectors [B, Q, E], or [N, E] where `queries` says which are asked; `masks` are the
        dropout masks of its layers, or None."""
        hidden, context, all_weights, layers = vectors, None, [], []
        if self.input_feeding:
            hidden = ops.concatenate([vectors, state.attentional], axis=-1)
        for n, layer in enumerate(self.layers):
            inputs = hidden if n == 0 else ops.concatenate([_masked(hidden, masks, n - 1), context], axis=-1)
            layers.append(layer.step(inputs, state.layers[n]))
            hidden = layers[n].hidden if n == 0 else hidden + layers[n].hidden
            if n < len(self.attentions):
                if queries is None:
                    context, weights = self.attentions[n](hidden, memory[n])
                    all_weights.append(weights)
                else:
                    context = self.attentions[n].attend_active(hidden, memory[n], queries)
        top = _masked(hidden, masks, len(self.layers) - 1)
        attentional = self.attentional(ops.concatenate([top, context], axis=-1))
        return DecoderState(tuple(layers), attentional), _mean(all_weights) if all_weights else None


def _masked(hidden: Any, masks: Any, n: int) -> Any:
    return hidden if masks is None else hidden * masks[n]


def _one_query(state: LSTMState) -> LSTMState:
    return LSTMState(*(ops.squeeze(part, axis=1) for part in state))  # [B, 1, U] -> [B, U]


def _batch_first(sequence: Any) -> Any:
    return ops.transpose(ops.squeeze(sequence, axis=2), (1, 0, 2))  # [T, B, 1, N] -> [B, T, N]


def _mean(all_weights: list) -> Any:
    return sum(all_weights) / len(all_weights)
