"""What a model computes for one sentence and one translation of it: gates, cells, attention, gradients.

The model's own layers compute it, position by position, from the inputs that they have when the model translates. The
models themselves know nothing of it, so that translating costs what it did.

N copies of the sentence, S source tokens and T target tokens, EOS included in both, P positions (S or T), E embedding
units, I input units and U units of a layer, H heads, A alternatives, V tokens in the target vocabulary, L units of the
attentional state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nmt.backend import keras, ops, tree
from nmt.compilation import compile_function, compute_gradient, has_static_shapes, scan
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.models.attention import Attention, AttentionMemory, MultiHeadAttention
from nmt.models.decoder import Decoder, DecoderMemory, DecoderState, shift_right
from nmt.models.encoder import Encoder, EncoderOutput
from nmt.models.layers import at_least_float32, matmul
from nmt.models.recurrent import LSTM
from nmt.models.seq2seq import Seq2Seq

NUM_ALTERNATIVES = 5
MAX_COPIES = 32  # target tokens whose gradients are computed at once, on one copy of the sentence each


@dataclass(frozen=True)
class LayerTrace:
    """What an LSTM layer does at each position, all float32.

    Positions of the encoder are source tokens, those of the decoder the target tokens that are predicted there. For all
    positions but the first that the layer reads,

        cell[p] = forget_gate[p] * cell[p - 1] + input_gate[p] * candidate[p]
        output[p] = output_gate[p] * tanh(cell[p])

    The backward layer reads from the last position to the first, so that p + 1 stands for p - 1.
    """

    inputs: np.ndarray
    """[P, I], what the layer reads."""
    input_gate: np.ndarray
    """[P, U], 0 to 1: how much of the candidate is written into the cell."""
    forget_gate: np.ndarray
    """[P, U], 0 to 1: how much of the cell is kept."""
    output_gate: np.ndarray
    """[P, U], 0 to 1: how much of the cell is shown."""
    candidate: np.ndarray
    """[P, U], -1 to 1: what is offered to be written."""
    cell: np.ndarray
    """[P, U], the cell state, of any size."""
    output: np.ndarray
    """[P, U], -1 to 1, the hidden state."""
    initial_output: np.ndarray
    """[U], the hidden state before the first position that is read."""
    initial_cell: np.ndarray
    """[U], the cell before that position."""


@dataclass(frozen=True)
class Trace:
    """What a model computes for a sentence and a translation."""

    source_ids: np.ndarray
    """int32 [S]."""
    target_ids: np.ndarray
    """int32 [T]."""
    log_probs: np.ndarray
    """float32 [T], log-probability (nats) of each target token, given those before it."""
    alternative_ids: np.ndarray
    """int32 [T, A], the likeliest tokens at each position, best first."""
    alternative_log_probs: np.ndarray
    """float32 [T, A]."""
    attention: np.ndarray
    """float32 [hops, H, T, S], attention over the source for each target token; rows sum to 1."""
    saliency: np.ndarray
    """float32 [T, S], norm of the gradient of each target token's log-probability with respect to each source token's
    vector (nats per unit of length)."""
    states: np.ndarray
    """float32 [T, L], attentional states: what the output projection reads to predict each target token."""
    layers: dict[str, LayerTrace]
    """By name: encoder.forward, encoder.backward, encoder.upper_1, …, decoder.layer_0, …"""

    @property
    def mean_attention(self) -> np.ndarray:
        """float32 [T, S], the mean of the attention over hops and heads."""
        return self.attention.mean(axis=(0, 1))

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Returns every array by its name, such as saliency or decoder.layer_0.forget_gate, as for `numpy.savez`."""
        named = {name: value for name, value in vars(self).items() if name != "layers"}
        layers = {f"{layer}.{name}": value for layer, its in self.layers.items() for name, value in vars(its).items()}
        return {**named, "mean_attention": self.mean_attention, **layers}


def trace(model: Seq2Seq, source_ids: Sequence[int], target_ids: Sequence[int]) -> Trace:
    """Traces one sentence.

    A model that predicts from right to left is traced in its own order, and its positions are returned in reading
    order, with EOS last.

    Args:
        model: in inference.
        source_ids: S of them, with EOS.
        target_ids: of a translation, T of them, with EOS unless it is cut off.
    """
    target = np.asarray(target_ids, "int32")
    order = np.arange(len(target))
    if model.right_to_left:
        num_tokens = len(target) - (target[-1] == EOS_ID)
        order[:num_tokens] = order[:num_tokens][::-1]
    source, target = np.asarray(source_ids, "int32")[None], target[order][None]
    read, log_probs, attention = _run(model, source, target)
    best = np.argsort(-log_probs, axis=1, kind="stable")[:, :NUM_ALTERNATIVES]
    # The backward layer reads the reversed source.
    places = {"backward": slice(None, None, -1)}
    encoder = {f"encoder.{name}": _as_trace(one, places.get(name, slice(None))) for name, one in read.encoder.items()}
    decoder = {f"decoder.layer_{n}": _as_trace(one, order) for n, one in enumerate(read.decoder)}
    return Trace(
        source_ids=source[0],
        target_ids=target[0][order],
        log_probs=log_probs[np.arange(len(order)), target[0]][order],
        alternative_ids=best.astype("int32")[order],
        alternative_log_probs=np.take_along_axis(log_probs, best, axis=1)[order],
        attention=attention[:, :, order],
        saliency=_measure_saliency(model, source, target)[order],
        states=read.states[0][order],
        layers={**encoder, **decoder},
    )


class _LayerRead(NamedTuple):
    """What a layer computes for N sentences, position by position."""

    inputs: Any  # [N, P, I]
    gates: Any  # Gates, each [N, P, U]
    states: Any  # LSTMState, each [N, P, U]
    initial: Any  # LSTMState, each [N, U]


class _Read(NamedTuple):
    """What a model computes for N sentences."""

    encoder: dict[str, _LayerRead]
    decoder: list[_LayerRead]
    attention: tuple  # queries, each [N, T, U], and memories of the layers that attend
    states: Any  # attentional states [N, T, L]


def _run(model: Seq2Seq, source: np.ndarray, target: np.ndarray) -> tuple[_Read, np.ndarray, np.ndarray]:
    """Reads ids [1, S] and [1, T].

    Returns:
        What the model computes, log-probabilities [T, V] and attention [hops, H, T, S].
    """

    def run(source: Any, target: Any) -> tuple:
        read = _read(model, model.source_embedding(source), target)
        log_probs = ops.log_softmax(model.projection(read.states), axis=-1)
        attention = [_read_heads(*one)[0] for one in zip(model.decoder.attentions, *read.attention, strict=True)]
        return read._replace(attention=()), log_probs[0], ops.stack(attention)

    # JAX would compile every single operation otherwise. For one sentence, TensorFlow takes longer to trace a graph.
    if has_static_shapes():
        run = compile_function(run, model.variables, num_inputs=2)
    return tree.map_structure(_to_numpy, run(ops.convert_to_tensor(source), ops.convert_to_tensor(target)))


def _read(model: Seq2Seq, vectors: Any, target: Any) -> _Read:
    """Reads source vectors [N, S, E], without padding, and translations int [N, T]."""
    encoder, encoded = _read_encoder(model.encoder, vectors)
    decoder, memory = model.decoder, model.decoder.project_memory(encoded)
    state = tree.map_structure(lambda x: ops.squeeze(x, axis=1), decoder.get_initial_state(encoded))
    layers, queries, states = _read_decoder(decoder, decoder.embedding(shift_right(target, BOS_ID)), state, memory)
    return _Read(encoder, layers, (queries, memory.hops), states)


def _read_encoder(encoder: Encoder, vectors: Any) -> tuple[dict[str, _LayerRead], EncoderOutput]:
    """Computes what `Encoder.call` does for vectors [N, S, E] without padding."""
    forward, backward = _read_layer(encoder.forward, vectors), _read_layer(encoder.backward, ops.flip(vectors, axis=1))
    layers = {"forward": forward, "backward": backward}
    outputs = [forward.states.hidden, backward.states.hidden]
    ends = final = ops.concatenate([hidden[:, -1] for hidden in outputs], axis=-1)
    memory = ops.concatenate([outputs[0], ops.flip(outputs[1], axis=1)], axis=-1)
    for layer in encoder.upper:
        layers[layer.name] = _read_layer(layer, memory)
        memory = memory + layers[layer.name].states.hidden
        final = memory[:, -1]
    if encoder.both_ends:
        final = ops.concatenate([ends, final], axis=-1)
    if encoder.bridge:
        memory = ops.concatenate([memory, vectors], axis=-1)
    return layers, EncoderOutput(memory, ops.ones(ops.shape(vectors)[:2], "bool"), final, vectors)


def _read_layer(layer: LSTM, inputs: Any) -> _LayerRead:
    initial = layer.get_initial_state((ops.shape(inputs)[0],))

    def take_step(carry: Any, at: Any) -> Any:
        return layer.step_with_gates(at, carry[0])

    states, gates = _batch_first(_scan(take_step, (initial,), ops.transpose(inputs, (1, 0, 2))))
    return _LayerRead(inputs, gates, states, initial)


def _read_decoder(
    decoder: Decoder, vectors: Any, state: DecoderState, memory: DecoderMemory
) -> tuple[list[_LayerRead], list, Any]:
    """Computes what `Decoder.step` does for target vectors [N, T, E], one after the other.

    Returns:
        What each layer computes, the queries of each layer that attends, [N, T, U], and attentional states [N, T, L].
    """

    def take_step(carry: Any, vector: Any) -> Any:
        before, context, layers, all_inputs, all_gates, queries = carry[0], None, [], [], [], []
        hidden = ops.concatenate([vector, before.attentional], axis=-1) if decoder.input_feeding else vector
        for n, layer in enumerate(decoder.layers):
            all_inputs.append(hidden if n == 0 else ops.concatenate([hidden, context], axis=-1))
            after, gates = layer.step_with_gates(all_inputs[n], before.layers[n])
            layers.append(after)
            all_gates.append(gates)
            hidden = after.hidden if n == 0 else hidden + after.hidden
            if n < len(decoder.attentions):
                queries.append(hidden)
                row, weights = decoder.attentions[n](hidden[:, None], memory.hops[n])  # [N, 1, C], [N, 1, S]
                context = row[:, 0]
        attentional = decoder._combine(hidden[:, None], row, weights, memory)[:, 0]
        return DecoderState(tuple(layers), attentional), all_inputs, all_gates, queries

    found = _batch_first(_scan(take_step, (state,), ops.transpose(vectors, (1, 0, 2))))
    states, all_inputs, all_gates, queries = found
    layers = [_LayerRead(*one) for one in zip(all_inputs, all_gates, states.layers, state.layers, strict=True)]
    return layers, queries, states.attentional


def _scan(take_step: Any, initial: tuple, inputs: Any) -> Any:
    """Scans with a body that returns the carried state and more, given only the state to begin with."""
    blank = tree.map_structure(ops.zeros_like, take_step(initial, inputs[0]))
    return scan(take_step, (*initial, *blank[1:]), inputs)


def _read_heads(attention: Attention, query: Any, memory: AttentionMemory) -> Any:
    """Returns the attention weights of each head, [N, H, T, S]. The layer itself returns their mean."""
    if not isinstance(attention, MultiHeadAttention):
        return attention(query, memory)[1][:, None]
    queries = matmul(query, attention.query.kernel)  # [N, T, U]
    queries = ops.reshape(queries, (*ops.shape(query)[:2], attention.num_heads, attention.head_units))
    energies = ops.matmul(ops.transpose(queries, (0, 2, 1, 3)), memory.keys)  # [N, H, T, S]
    return ops.softmax(at_least_float32(energies * attention.head_units**-0.5), axis=-1)


def _measure_saliency(model: Seq2Seq, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the norms of gradients [T, S], see `Trace.saliency`, given ids [1, S] and [1, T]."""
    # One copy of the sentence per target token: then one pass back gives the gradient of every token.
    parts = []
    for start in range(0, target.shape[1], MAX_COPIES):
        places = np.arange(start, min(start + MAX_COPIES, target.shape[1]))

        def sum_log_probs(vectors: Any, places: np.ndarray = places) -> Any:
            states = _read(model, vectors, np.repeat(target, len(places), axis=0)).states
            log_probs = ops.log_softmax(model.projection(_take_own(states, places)), axis=-1)  # [N, V]
            return ops.sum(_take_own(log_probs, target[0, places]))

        vectors = ops.repeat(model.source_embedding(source), len(places), axis=0)  # [N, S, E]
        parts.append(_to_numpy(compute_gradient(sum_log_probs, vectors, model.variables)))
    return np.linalg.norm(np.concatenate(parts), axis=-1)


def _take_own(rows: Any, places: np.ndarray) -> Any:
    """Takes from each of rows [N, P, ...] what is at its own place, [N, ...]."""
    indices = places.reshape(-1, *[1] * (len(rows.shape) - 1))
    return ops.squeeze(ops.take_along_axis(rows, ops.convert_to_tensor(indices), axis=1), axis=1)


def _as_trace(layer: _LayerRead, order: Any) -> LayerTrace:
    gates = layer.gates
    rows = (layer.inputs, gates.input, gates.forget, gates.output, gates.candidate, layer.states.cell)
    return LayerTrace(*(x[0][order] for x in (*rows, layer.states.hidden)), *(x[0] for x in layer.initial))


def _batch_first(nest: Any) -> Any:
    return tree.map_structure(lambda x: ops.transpose(x, (1, 0, 2)), nest)  # [P, N, ...] -> [N, P, ...]


def _to_numpy(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(ops.cast(x, "float32")))
