"""The decoder: whole target sequences in training, one token at a time in search, with the same weights.

    papers                                                          here
    attentional hidden state, h~_t (Luong et al. 2015, eq. 5)       attentional
    input feeding (Luong et al. 2015, section 3.3)                  input_feeding
    attention vector fed to all layers (Wu et al. 2016)             context
    s_0 = tanh(W h_1) (Bahdanau et al. 2015, appendix A.2.2)        get_initial_state

B sentences, T target positions, Q queries per sentence (the slots of a beam), N active queries of all sentences,
S source tokens, E embedding units, F units of the encoder's final state, U decoder units, C context units, V tokens in
the vocabulary, L units of the attentional state: E, or 2 E with a lexical model.
"""

from collections.abc import Sequence
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
    """What one decoder step hands to the next, for Q queries per sentence; packed, [N, ...] instead of [B, Q, ...]."""

    layers: tuple[LSTMState, ...]
    """One state per layer, each part [B, Q, U]."""
    attentional: Any
    """[B, Q, L], the vector that the output projection scored."""


class DecoderMemory(NamedTuple):
    """What the decoder reads of the source at every step."""

    hops: tuple[AttentionMemory, ...]
    """The memory as each layer that attends reads it."""
    vectors: tuple[Any, ...]
    """The source embeddings [B, S, E] of a lexical model; empty without one."""


class DecoderOutput(NamedTuple):
    """What the decoder computes for whole target sequences."""

    states: Any
    """Attentional states [B, T, L], the input of the output projection."""
    attention_weights: Any
    """[B, T, S], at least float32, the mean over heads and hops."""


class StepDropout(NamedTuple):
    """What training drops at one position, with input feeding. All of it is drawn before the loop over positions.

    On JAX, a loop cannot advance a seed, which is a variable. Parts are empty where nothing is dropped.
    """

    layers: Sequence[Any] = ()
    """Factors of the output of each layer, [B, 1, U]."""
    attention: Sequence[Any] = ()
    """Factors of the attention weights of each layer that attends, see `Attention.draw_mask`."""
    kernels: Sequence[Any] = ()
    """The recurrent kernel of each layer, [U, 4U]."""


NO_DROPOUT = StepDropout()


class Decoder(keras.layers.Layer):
    """A stack of LSTMs, of which the lowest `num_hops` attend to the source.

    The bottom layer reads target embeddings alone, and its output is the first query. The context feeds each upper
    layer and the attentional state (GNMT, Wu et al. 2016; RNMT+, Chen et al. 2018). A later hop attends again, with a
    query that depends on the earlier contexts. Attention thus stays outside of the recurrence, and whole targets are
    computed layer by layer.

    With input feeding, the bottom layer also reads the attentional state of the previous position. Then targets are
    computed token by token, which is slower.

    With a lexical model (Nguyen and Chiang 2018), the source embeddings e_s reach the output projection past all
    recurrent layers. With the attention weights a_s of the last hop, l = tanh(sum a_s e_s), and tanh(W l) + l is
    appended to the attentional state.

    Args:
        embedding: of the target, E units.
        projection: of attentional states onto the vocabulary, E units.
        num_layers: LSTM layers.
        units: U.
        memory_units: size of the encoder's memory.
        final_units: size of the encoder's final state.
        attention: kind of attention, see `make_attention`.
        num_heads: of multi-head attention.
        num_hops: layers that attend, from 1 to `num_layers`.
        input_feeding: see above.
        dropout: share of values to drop between layers.
        output_dropout: share of values to drop before the output projection.
        layer_norm: normalise the LSTMs.
        locked_dropout: drop the same values of all vectors of a sentence.
        recurrent_dropout: share of the recurrent weights to drop.
        attention_dropout: share of the attention weights to drop.
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
        locked_dropout: bool = False,
        recurrent_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.embedding = embedding
        self.projection = projection
        self.units = units
        self.input_feeding = input_feeding
        self.output_units = projection.units + projection.lexical_units
        self.start_state = Dense(2 * num_layers * units, activation="tanh", name="start_state")
        lstm: dict[str, Any] = {"layer_norm": layer_norm, "dropout": recurrent_dropout}
        self.layers = [LSTM(units, name=f"layer_{n}", **lstm) for n in range(num_layers)]
        attend: dict[str, Any] = {"num_heads": num_heads, "dropout": attention_dropout}
        with keras.name_scope(self.name):
            self.attentions = [
                make_attention(attention, units, memory_units, name=f"attention_{n}", **attend) for n in range(num_hops)
            ]
        self.attentional = Dense(projection.units, activation="tanh", name="attentional")
        self.dropout = Dropout(dropout, locked=locked_dropout)
        self.output_dropout = Dropout(output_dropout, locked=locked_dropout)
        if projection.lexical_units:
            self.lexical = Dense(projection.lexical_units, use_bias=False, activation="tanh", name="lexical")
        with keras.name_scope(self.name):
            self._build(final_units, self.attentions[0].context_units)

    def _build(self, final_units: int, context_units: int) -> None:
        embedding_units = self.embedding.matrix.shape[1]
        self.start_state.build((None, final_units))
        self.layers[0].build((None, None, embedding_units + (self.output_units if self.input_feeding else 0)))
        for layer in self.layers[1:]:
            layer.build((None, None, self.units + context_units))
        self.attentional.build((None, None, self.units + context_units))
        if self.projection.lexical_units:
            self.lexical.build((None, None, self.projection.lexical_units))
        self.built = True

    def get_initial_state(self, encoded: EncoderOutput) -> DecoderState:
        """Returns the state before the first token, for one query per sentence: [B, 1, ...]."""
        # One projection for the hidden state and cell of all layers: [B, F] -> [B, 1, 2 * layers * U].
        parts = ops.split(self.start_state(encoded.final_state)[:, None, :], 2 * len(self.layers), axis=-1)
        layers = [LSTMState(h, at_least_float32(c)) for h, c in zip(parts[::2], parts[1::2], strict=True)]
        attentional = ops.zeros((ops.shape(encoded.final_state)[0], 1, self.output_units), self.compute_dtype)
        return DecoderState(tuple(layers), attentional)

    def project_memory(self, encoded: EncoderOutput) -> DecoderMemory:
        """Projects the memory for each layer that attends, once per sentence."""
        hops = tuple(attention.project_memory(encoded.memory, encoded.memory_mask) for attention in self.attentions)
        return DecoderMemory(hops, (encoded.vectors,) if self.projection.lexical_units else ())

    def call(self, ids: Any, encoded: EncoderOutput, training: bool = False, word_mask: Any = None) -> DecoderOutput:
        """Reads whole targets (teacher forcing).

        Args:
            ids: int [B, T], each row starts with BOS.
            encoded: the source.
            training: whether to drop values.
            word_mask: see `Embedding`.

        Returns:
            For each position, what predicts the token after it.
        """
        memory = self.project_memory(encoded)
        state = self.get_initial_state(encoded)
        vectors = self.embedding(ids, training=training, word_mask=word_mask)
        run = self._run_by_token if self.input_feeding else self._run_by_layer
        states, weights = run(vectors, state, memory, training)
        return DecoderOutput(self.output_dropout(states, training=training), weights)

    def step(self, ids: Any, state: DecoderState, memory: DecoderMemory) -> tuple[Any, DecoderState, Any]:
        """Reads one token per query.

        Args:
            ids: int [B, Q], the tokens chosen last; BOS at first.
            state: each part [B, Q, ...].
            memory: from `project_memory`.

        Returns:
            logits: [B, Q, V], at least float32.
            state: the next one, each part [B, Q, ...].
            attention_weights: [B, Q, S], at least float32.
        """
        state, weights = self._step_vectors(self.embedding(ids), state, memory)
        return self.projection(state.attentional), state, weights

    def step_active(self, ids: Any, state: DecoderState, memory: DecoderMemory, active: ActiveQueries) -> DecoderState:
        """Reads one token for each active query of a search, as `step` does.

        Args:
            ids: int [N].
            state: each part [N, ...].
            memory: from `project_memory`.
            active: which N of the B * Q queries these are.

        Returns:
            The next state, each part [N, ...]. Its attentional part [N, L] is the input of the output projection.
        """
        return self._step_vectors(self.embedding(ids), state, memory, active=active)[0]

    def _run_by_layer(
        self, vectors: Any, state: DecoderState, memory: DecoderMemory, training: bool
    ) -> tuple[Any, Any]:
        hidden, context, all_weights = vectors, None, []
        for n, layer in enumerate(self.layers):
            inputs = hidden if n == 0 else ops.concatenate([self.dropout(hidden, training=training), context], axis=-1)
            above = layer(inputs, _squeeze_query(state.layers[n]), training=training)  # [B, T, E or U + C] -> [B, T, U]
            hidden = above if n == 0 else hidden + above  # residual, except over the bottom layer, whose input is E
            if n < len(self.attentions):
                attention, hop = self.attentions[n], memory.hops[n]
                drop_mask = attention.draw_mask(hop, ops.shape(vectors)[1], training)
                context, weights = attention(hidden, hop, drop_mask)  # [B, T, U] -> [B, T, C], [B, T, S]
                all_weights.append(weights)
        hidden = self.dropout(hidden, training=training)
        return self._combine(hidden, context, weights, memory), _mean(all_weights)

    def _run_by_token(
        self, vectors: Any, state: DecoderState, memory: DecoderMemory, training: bool
    ) -> tuple[Any, Any]:
        def body(carry: Any, at: Any) -> Any:
            vectors, masks, attention_masks = at
            dropout = StepDropout(masks, attention_masks, kernels)
            return self._step_vectors(vectors[:, None, :], carry[0], memory, dropout)

        shape = ops.shape(vectors)
        ones = ops.ones((shape[1], shape[0], 1, self.units), self.compute_dtype)
        masks = [self.dropout(ones, training=training, time_axis=0) for _ in self.layers]  # one per layer, [T, B, 1, U]
        drawn = [a.draw_mask(m, shape[1], training) for a, m in zip(self.attentions, memory.hops, strict=True)]
        # [B, ..., T, S] -> [T, B, ..., 1, S]
        attention_masks = [ops.moveaxis(mask, -2, 0)[..., None, :] for mask in drawn if mask is not None]
        kernels = [layer.draw_kernel(training) for layer in self.layers]
        no_weights = ops.zeros((shape[0], 1, ops.shape(memory.hops[0].mask)[1]), state.layers[0].cell.dtype)
        states, weights = scan(body, (state, no_weights), (ops.transpose(vectors, (1, 0, 2)), masks, attention_masks))
        return _batch_first(states.attentional), _batch_first(weights)

    def _step_vectors(
        self,
        vectors: Any,
        state: DecoderState,
        memory: DecoderMemory,
        dropout: StepDropout = NO_DROPOUT,
        active: ActiveQueries | None = None,
    ) -> tuple[DecoderState, Any]:
        """Reads the vector of one token per query.

        Args:
            vectors: [B, Q, E], or [N, E] with `active`.
            state: each part [B, Q, ...], or [N, ...].
            memory: from `project_memory`.
            dropout: what to drop.
            active: which queries these are; None means all.

        Returns:
            The next state and the attention weights [B, Q, S], or None with `active`.
        """
        hidden, context, all_weights, layers = vectors, None, [], []
        if self.input_feeding:
            hidden = ops.concatenate([vectors, state.attentional], axis=-1)
        for n, layer in enumerate(self.layers):
            inputs = hidden if n == 0 else ops.concatenate([_drop(hidden, dropout, n - 1), context], axis=-1)
            layers.append(layer.step(inputs, state.layers[n], _get(dropout.kernels, n)))
            hidden = layers[n].hidden if n == 0 else hidden + layers[n].hidden
            if n < len(self.attentions):
                attention, hop = self.attentions[n], memory.hops[n]
                if active is None:
                    context, weights = attention(hidden, hop, _get(dropout.attention, n))
                    all_weights.append(weights)
                else:
                    context, weights = attention.attend_active(hidden, hop, active, bool(memory.vectors))
        top = _drop(hidden, dropout, len(self.layers) - 1)
        attentional = self._combine(top, context, weights, memory, active)
        return DecoderState(tuple(layers), attentional), _mean(all_weights) if all_weights else None

    def _combine(
        self, hidden: Any, context: Any, weights: Any, memory: DecoderMemory, active: ActiveQueries | None = None
    ) -> Any:
        """Returns attentional states [..., L] from the top layer [..., U], contexts [..., C] and weights [B, Q, S]."""
        attentional = self.attentional(ops.concatenate([hidden, context], axis=-1))
        if not memory.vectors:
            return attentional
        [vectors] = memory.vectors
        average = ops.tanh(ops.matmul(ops.cast(weights, vectors.dtype), vectors))  # [B, Q, S] x [B, S, E] -> [B, Q, E]
        if active is not None:
            average = active.gather(average)  # [B, Q, E] -> [N, E]
        return ops.concatenate([attentional, self.lexical(average) + average], axis=-1)


def _drop(hidden: Any, dropout: StepDropout, n: int) -> Any:
    return hidden * dropout.layers[n] if dropout.layers else hidden


def _get(drawn: Sequence[Any], n: int) -> Any:
    return drawn[n] if drawn else None


def _squeeze_query(state: LSTMState) -> LSTMState:
    return LSTMState(*(ops.squeeze(part, axis=1) for part in state))  # [B, 1, U] -> [B, U]


def _batch_first(sequence: Any) -> Any:
    return ops.transpose(ops.squeeze(sequence, axis=2), (1, 0, 2))  # [T, B, 1, N] -> [B, T, N]


def _mean(all_weights: list) -> Any:
    return sum(all_weights) / len(all_weights)


def shift_right(targets: Any, bos_id: int) -> Any:
    """Returns what the decoder reads to predict targets int [..., T]: BOS, then all but the last token, [..., T]."""
    return ops.concatenate([ops.full_like(targets[..., :1], bos_id), targets[..., :-1]], axis=-1)
