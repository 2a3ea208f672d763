"""The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

One layer with two ways to read a sequence, which compute the same: `keras.layers.LSTM`, hence cuDNN, for TensorFlow on
a GPU, and our own scan with a hand-written gradient everywhere else.

B sentences, T positions, I input units, U units. An ellipsis stands for any number of leading axes, such as [B, beam].
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from nmt.backend import keras, ops
from nmt.compilation import fuse, is_cudnn_fastest, is_differentiated, map_pair, scan
from nmt.models.layers import Dropout, OrthogonalRows, at_least_float32, matmul


class LSTMState(NamedTuple):
    """What an LSTM hands from one position to the next."""

    hidden: Any
    """[..., U], in the layer's compute type."""
    cell: Any
    """[..., U], at least float32: in 16 bits, what was written long ago would be lost to rounding."""


class Gates(NamedTuple):
    """The gates after their sigmoid or tanh, at one position or at all, each [..., U] and at least float32."""

    input: Any
    forget: Any
    candidate: Any
    output: Any


class LSTM(keras.layers.Layer):
    """An LSTM over right-padded rows, without a mask.

    z = x W + h R + b is split into i, f, g, o, in the order of Keras. Then

        c' = sigmoid(f) c + sigmoid(i) tanh(g)
        h' = sigmoid(o) tanh(c')

    The bias of the forget gate starts at 1 (Jozefowicz et al. 2015).

    Args:
        units: U.
        layer_norm: normalise x W and h R, each with a scale of its own (Ba et al. 2016, equation 20, but without
            normalising the cell).
        dropout: share of the weights R to drop in training, the same ones at all positions and in all rows (weight
            dropout, Merity et al. 2018).
    """

    def __init__(self, units: int, *, layer_norm: bool = False, dropout: float = 0.0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # Keras would round the cell state to the compute type
        self.units = units
        self.layer_norm = layer_norm
        # Weights of 16 bits are never drawn, only loaded, and no backend factorises 16-bit matrices.
        initializer = OrthogonalRows() if self.variable_dtype in ("float32", "float64") else "zeros"
        # It holds the weights of both ways to read. Its name is part of their paths in stored models.
        self.keras_lstm = keras.layers.LSTM(
            units, return_sequences=True, recurrent_initializer=initializer, name="fused"
        )
        self.weight_dropout = Dropout(dropout)
        if layer_norm:
            self.input_norm = keras.layers.LayerNormalization(center=False, name="input_norm")
            self.hidden_norm = keras.layers.LayerNormalization(center=False, name="hidden_norm")

    def build(self, input_shape: tuple) -> None:
        """Creates the weights for inputs [..., I]."""
        self.keras_lstm.build((None, None, input_shape[-1]))
        if self.layer_norm:
            self.input_norm.build((None, 4 * self.units))
            self.hidden_norm.build((None, 4 * self.units))
        self.built = True

    def get_initial_state(self, batch_shape: tuple) -> LSTMState:
        """Returns a state of zeros, [*batch_shape, U]."""
        shape = (*batch_shape, self.units)
        return LSTMState(ops.zeros(shape, self.compute_dtype), ops.zeros(shape, _get_cell_dtype(self)))

    def call(self, inputs: Any, initial_state: LSTMState | None = None, training: bool = False) -> Any:
        """Reads whole sequences.

        Args:
            inputs: [B, T, I].
            initial_state: each part [B, U]; None means zeros.
            training: whether to drop weights.

        Returns:
            Hidden states [B, T, U].
        """
        state = initial_state or self.get_initial_state((ops.shape(inputs)[0],))
        if self.layer_norm:  # cuDNN has no layer normalisation, and neither has the hand-written gradient
            return self._scan_with_norm(inputs, state, self.draw_kernel(training))
        if is_cudnn_fastest():
            with self._replace_kernel(self.draw_kernel(training)):
                return self.keras_lstm(inputs, initial_state=[ops.cast(x, self.compute_dtype) for x in state])
        return _batch_first(_recur(*self.project_inputs(inputs, state, training)))

    def project_inputs(self, inputs: Any, state: LSTMState, training: bool = False) -> tuple[Any, ...]:
        """Returns the arguments of `_recur` for inputs [B, T, I] and a state of [B, U].

        The projections of all positions are one matrix product, [T, B, I] -> [T, B, 4U].
        """
        projected = matmul(ops.transpose(inputs, (1, 0, 2)), self._get_weight("kernel"))
        kernel = self.draw_kernel(training)
        return projected, self._get_kernel(kernel), self._get_weight("bias"), *state

    def draw_kernel(self, training: bool = False) -> Any:
        """Draws a recurrent kernel [U, 4U] with dropped weights, for `step`; None if nothing is dropped."""
        if not training or not self.weight_dropout.rate:
            return None
        return self.weight_dropout(self._get_weight("recurrent_kernel"), training=training)

    def step(self, inputs: Any, state: LSTMState, kernel: Any = None) -> LSTMState:
        """Reads one position.

        Args:
            inputs: [..., I].
            state: each part [..., U].
            kernel: of the recurrence, from `draw_kernel`, which training draws once for all positions.

        Returns:
            The next state, each part [..., U].
        """
        return self._step_projected(self._project(inputs), state, kernel)[0]

    def step_with_gates(self, inputs: Any, state: LSTMState) -> tuple[LSTMState, Gates]:
        """Reads one position as `step` does and also returns its gates, each [..., U]."""
        return self._step_projected(self._project(inputs), state, None)

    def _step_projected(self, projected: Any, state: LSTMState, kernel: Any) -> tuple[LSTMState, Gates]:
        recurrent = matmul(state.hidden, self._get_kernel(kernel))  # [..., U] -> [..., 4U]
        if self.layer_norm:
            recurrent = self.hidden_norm(recurrent)
        gates = _activate(projected + at_least_float32(recurrent))
        return _next_state(gates, state.cell, self.compute_dtype), gates

    def _scan_with_norm(self, inputs: Any, state: LSTMState, kernel: Any) -> Any:
        """Reads whole sequences as `call` does, differentiated by the backend."""

        def body(state: LSTMState, projected: Any) -> LSTMState:
            return self._step_projected(projected, state, kernel)[0]

        projected = self._project(ops.transpose(inputs, (1, 0, 2)))  # [B, T, I] -> [T, B, 4U]
        return _batch_first(scan(body, state, projected).hidden)

    def _project(self, inputs: Any) -> Any:
        projected = matmul(inputs, self._get_weight("kernel"))
        if self.layer_norm:
            projected = self.input_norm(projected)
        # The bias is added in float32: on a CPU both a 16-bit product that adds it and a 16-bit sum are slower.
        return at_least_float32(projected) + at_least_float32(self._get_weight("bias"))

    def _replace_kernel(self, kernel: Any) -> AbstractContextManager:
        """Lets `keras_lstm` compute with a recurrent kernel from `draw_kernel` inside the block."""
        if kernel is None:
            return nullcontext()
        return keras.StatelessScope(state_mapping=[(self.keras_lstm.cell.recurrent_kernel, kernel)])

    def _get_kernel(self, drawn: Any) -> Any:
        return self._get_weight("recurrent_kernel") if drawn is None else drawn

    def _get_weight(self, name: str) -> Any:
        return ops.cast(getattr(self.keras_lstm.cell, name), self.compute_dtype)


def run_bidirectional(
    forward: LSTM, backward: LSTM, inputs: Any, reversed_inputs: Any, training: bool = False
) -> tuple[Any, Any]:
    """Reads two sequences with two layers of equal size, in parallel where that is faster (see `map_pair`).

    Args:
        forward: reads `inputs`.
        backward: reads `reversed_inputs`.
        inputs: [B, T, I].
        reversed_inputs: [B, T, I].
        training: whether to drop weights.

    Returns:
        The hidden states of both layers, each [B, T, U], each in the order in which its layer read.
    """
    if forward.layer_norm or is_cudnn_fastest():
        return forward(inputs, training=training), backward(reversed_inputs, training=training)
    state = forward.get_initial_state((ops.shape(inputs)[0],))
    arguments = forward.project_inputs(inputs, state, training)
    reversed_arguments = backward.project_inputs(reversed_inputs, state, training)
    first, second = map_pair(_recur, *zip(arguments, reversed_arguments, strict=True))
    return _batch_first(first), _batch_first(second)


def _get_cell_dtype(layer: keras.layers.Layer) -> str:
    return "float64" if layer.compute_dtype == "float64" else "float32"


def _activate(preactivations: Any) -> Gates:
    i, f, g, o = ops.split(at_least_float32(preactivations), 4, axis=-1)  # [..., 4U] -> 4 x [..., U]
    return Gates(ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o))


def _next_state(gates: Gates, cell: Any, dtype: str) -> LSTMState:
    cell = gates.forget * cell + gates.input * gates.candidate
    return LSTMState(ops.cast(gates.output * ops.tanh(cell), dtype), cell)


def _recur(projected: Any, kernel: Any, bias: Any, hidden: Any, cell: Any) -> Any:
    """Runs the LSTM over projected inputs, time first.

    Args:
        projected: [T, B, 4U], x W.
        kernel: [U, 4U], R.
        bias: [4U].
        hidden: [B, U], before the first position.
        cell: [B, U], before the first position, at least float32.

    Returns:
        Hidden states [T, B, U].
    """
    if is_differentiated():
        return _recur_with_gradient(projected, kernel, bias, hidden, cell)

    def forward(carry: Any, projected_t: Any) -> Any:
        hidden, cell = carry
        return _cell_forward(projected_t, ops.matmul(hidden, kernel), bias, cell)[:2]

    return scan(forward, (hidden, cell), projected, differentiable=False)[0]


@ops.custom_gradient
def _recur_with_gradient(projected: Any, kernel: Any, bias: Any, hidden: Any, cell: Any) -> Any:
    """Computes the same as `_recur`, and its gradient."""
    # Differentiated by the backend, the loop would add to the gradient of R, [U, 4U], at every position. That moves as
    # much memory as the arithmetic itself. Here the gradient of R is one matrix product after the loop, as in cuDNN.
    # Of each position only preactivations and cell are kept: computing the gates again is cheaper than reading them.
    cell_forward, cell_backward = fuse(_cell_forward), fuse(_cell_backward)
    # Transposed once, before the loops: a product that transposes on the way takes more than twice as long in float32
    # on a CPU.
    transposed = ops.transpose(kernel)

    def forward(carry: Any, projected_t: Any) -> Any:
        hidden, cell, *_ = carry
        # The cell before the position is part of the carry too, so that the scan collects it for the gradient.
        return *cell_forward(projected_t, ops.matmul(hidden, kernel), bias, cell), cell

    zeros = ops.zeros_like(ops.concatenate([hidden] * 4, axis=-1))  # [B, 4U]
    hiddens, _, preactivations, cells = scan(forward, (hidden, cell, zeros, cell), projected, differentiable=False)

    def gradient(upstream: Any) -> Any:
        def backward(carry: Any, at: Any) -> Any:
            later, d_cell = carry
            # The hidden state's gradient from the position after it, [B, 4U] -> [B, U].
            *d_gates, d_cell = cell_backward(ops.matmul(later, transposed), d_cell, *at)
            return ops.concatenate(d_gates, axis=-1), d_cell

        start, inputs = (zeros, ops.zeros_like(cell)), (upstream, preactivations, cells)
        d_projected, d_cells = scan(backward, start, inputs, reverse=True, differentiable=False)
        hiddens_before = ops.concatenate([hidden[None], hiddens[:-1]], axis=0)
        before, d_rows = ops.transpose(_flatten(hiddens_before)), _flatten(d_projected)  # [U, T * B], [T * B, 4U]
        d_kernel = ops.matmul(before, d_rows)
        # A product with ones: on a CPU it takes a fifth of the time of a sum over rows of bfloat16.
        d_bias = ops.matmul(ops.ones_like(before[:1]), d_rows)[0]
        return d_projected, d_kernel, d_bias, ops.matmul(d_projected[0], transposed), d_cells[0]

    return hiddens, gradient


def _cell_forward(projected: Any, recurrent: Any, bias: Any, cell: Any) -> tuple:
    """Computes one position after its matrix products.

    Args:
        projected: [B, 4U], x W.
        recurrent: [B, 4U], h R.
        bias: [4U].
        cell: [B, U], before the position.

    Returns:
        The next hidden state [B, U], the next cell [B, U], and the preactivations [B, 4U].
    """
    preactivations = ops.cast(projected, cell.dtype) + ops.cast(recurrent, cell.dtype) + ops.cast(bias, cell.dtype)
    state = _next_state(_activate(preactivations), cell, projected.dtype)
    return state.hidden, state.cell, ops.cast(preactivations, projected.dtype)


def _cell_backward(d_hidden: Any, d_cell: Any, upstream: Any, preactivations: Any, cell: Any) -> tuple:
    """Computes the gradient of `_cell_forward`. Gates and next cell are computed again from the preactivations.

    Args:
        d_hidden: [B, U], gradient of the next hidden state from the position after it.
        d_cell: [B, U], gradient of the next cell from the position after it.
        upstream: [B, U], gradient of the next hidden state from the layer's output.
        preactivations: [B, 4U].
        cell: [B, U], before the position.

    Returns:
        The gradients of the preactivations of i, f, g and o, each [B, U], and of the cell before the position, [B, U].
    """
    i, f, g, o = _activate(preactivations)
    squashed = ops.tanh(f * cell + i * g)  # tanh(c')
    d_hidden = ops.cast(upstream, squashed.dtype) + ops.cast(d_hidden, squashed.dtype)
    d_cell = d_cell + d_hidden * o * (1 - squashed * squashed)
    # With s = sigmoid(x), ds/dx = s (1 - s); with t = tanh(x), dt/dx = 1 - t t.
    d_gates = (
        d_cell * g * i * (1 - i),
        d_cell * cell * f * (1 - f),
        d_cell * i * (1 - g * g),
        d_hidden * squashed * o * (1 - o),
    )
    return *(ops.cast(d_gate, preactivations.dtype) for d_gate in d_gates), d_cell * f


def _batch_first(hiddens: Any) -> Any:
    return ops.transpose(hiddens, (1, 0, 2))  # [T, B, U] -> [B, T, U]


def _flatten(sequences: Any) -> Any:
    return ops.reshape(sequences, (-1, sequences.shape[-1]))  # [T, B, U] -> [T * B, U]
