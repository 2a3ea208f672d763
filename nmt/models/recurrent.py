"""The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000): one layer, two executions.

B sentences, T positions, I input units, U units; an ellipsis stands for any leading axes, such as [B, beam].
"""

from typing import Any, NamedTuple

from nmt.backend import keras, ops
from nmt.compilation import fuse, is_cudnn_fastest, map_pair, scan
from nmt.models.layers import OrthogonalRows, at_least_float32, matmul


class LSTMState(NamedTuple):
    """What an LSTM hands from one position to the next."""

    hidden: Any
    """[..., U], in the layer's compute type."""
    cell: Any
    """[..., U], at least float32: what was written long ago must survive many small forgettings."""


class Gates(NamedTuple):
    """The gates at one position or at all of them, each [..., U] and at least float32, after their sigmoid or tanh."""

    input: Any
    forget: Any
    candidate: Any
    output: Any


class LSTM(keras.layers.Layer):
    """An LSTM over right-padded rows, without a mask.

    z = x W + h R + b, cut into i, f, g, o in Keras' order; c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o)
    tanh(c'). The forget gate's bias starts at 1 (Jozefowicz et al. 2015). With `layer_norm`, x W and h R are normalised
    each with a scale of its own (Ba et al. 2016, equation 20, without normalising the cell).

    On a GPU TensorFlow runs whole sequences through `keras.layers.LSTM`, hence cuDNN, which needs there to be no mask;
    elsewhere they run through our own scan, whose input projection and weight gradient are one matrix product each for
    the whole sequence.
    """

    def __init__(self, units: int, *, layer_norm: bool = False, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # Keras would round the cell state to the compute type
        self.units = units
        self.layer_norm = layer_norm
        # Weights of 16 bits are only ever loaded, and no backend factorises matrices of them.
        initializer = OrthogonalRows() if self.variable_dtype in ("float32", "float64") else "zeros"
        self.keras_lstm = keras.layers.LSTM(
            units, return_sequences=True, recurrent_initializer=initializer, name="fused"
        )
        if layer_norm:
            self.input_norm = keras.layers.LayerNormalization(center=False, name="input_norm")
            self.hidden_norm = keras.layers.LayerNormalization(center=False, name="hidden_norm")

    def build(self, input_shape: tuple) -> None:
        """Makes the weights for inputs [..., I]."""
        self.keras_lstm.build((None, None, input_shape[-1]))
        if self.layer_norm:
            self.input_norm.build((None, 4 * self.units))
            self.hidden_norm.build((None, 4 * self.units))
        self.built = True

    def get_initial_state(self, batch_shape: tuple) -> LSTMState:
        """Returns the state of nothing read yet: zeros, [*batch_shape, U]."""
        shape = (*batch_shape, self.units)
        return LSTMState(ops.zeros(shape, self.compute_dtype), ops.zeros(shape, _cell_dtype(self)))

    def call(self, inputs: Any, initial_state: LSTMState | None = None) -> Any:
        """Reads whole sequences.

        Args:
            inputs: [B, T, I].
            initial_state: each [B, U]; zeros where it is None.

        Returns:
            Hidden states [B, T, U].
        """
        state = initial_state or self.get_initial_state((ops.shape(inputs)[0],))
        if self.layer_norm:
            return self._scan(inputs, state)
        if is_cudnn_fastest():
            return self.keras_lstm(inputs, initial_state=[ops.cast(x, self.compute_dtype) for x in state])
        return _batch_first(_recur(*self.project_inputs(inputs, state)))

    def project_inputs(self, inputs: Any, state: LSTMState) -> tuple[Any, ...]:
        """What the recurrence over inputs [B, T, I] begins with: the arguments of `_recur`."""
        projected = matmul(ops.transpose(inputs, (1, 0, 2)), self._weight("kernel"))
        return projected, self._weight("recurrent_kernel"), self._weight("bias"), *state

    def step(self, inputs: Any, state: LSTMState) -> LSTMState:
        """Reads one position: inputs [..., I] and state [..., U] give the next state [..., U]."""
        return self.step_with_gates(inputs, state)[0]

    def step_with_gates(self, inputs: Any, state: LSTMState) -> tuple[LSTMState, Gates]:
        """Reads one position and shows its gates."""
        return self._cell_forward(self._project(inputs), state)

    def _cell_forward(self, projected: Any, state: LSTMState) -> tuple[LSTMState, Gates]:
        recurrent = matmul(state.hidden, self._weight("recurrent_kernel"))
        if self.layer_norm:
            recurrent = self.hidden_norm(recurrent)
        gates = _gates(projected + at_least_float32(recurrent))
        return _next_state(gates, state.cell, self.compute_dtype), gates

    def _scan(self, inputs: Any, state: LSTMState) -> Any:
        """Whole sequences by plain differentiation, for what has no gradient of its own here (layer normalisation)."""

        def body(state: LSTMState, projected: Any) -> LSTMState:
            return self._cell_forward(projected, state)[0]

        projected = self._project(ops.transpose(inputs, (1, 0, 2)))
        return _batch_first(scan(body, state, projected).hidden)

    def _project(self, inputs: Any) -> Any:
        projected = matmul(inputs, self._weight("kernel"))
        if self.layer_norm:
            projected = self.input_norm(projected)
        # A product in 16 bits that adds its bias itself takes longer, and so does a sum of them.
        return at_least_float32(projected) + at_least_float32(self._weight("bias"))

    def _weight(self, name: str) -> Any:
        return ops.cast(getattr(self.keras_lstm.cell, name), self.compute_dtype)


def run_bidirectional(forward: LSTM, backward: LSTM, ahead: Any, back: Any) -> tuple[Any, Any]:
    """Reads two sequences with two layers of equal size, both at once where that is faster.

    Args:
        forward, backward: the layers.
        ahead, back: what each of them reads, [B, T, I].

    Returns:
        Hidden states [B, T, U] of the one and of the other.
    """
    if forward.layer_norm or is_cudnn_fastest():
        return forward(ahead), backward(back)
    state = forward.get_initial_state((ops.shape(ahead)[0],))
    pairs = zip(forward.project_inputs(ahead, state), backward.project_inputs(back, state), strict=True)
    first, second = map_pair(_recur, *pairs)
    return _batch_first(first), _batch_first(second)


def _cell_dtype(layer: keras.layers.Layer) -> str:
    return "float64" if layer.compute_dtype == "float64" else "float32"


def _gates(preactivations: Any) -> Gates:
    i, f, g, o = ops.split(at_least_float32(preactivations), 4, axis=-1)
    return Gates(ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o))


def _next_state(gates: Gates, cell: Any, dtype: str) -> LSTMState:
    cell = gates.forget * cell + gates.input * gates.candidate
    return LSTMState(ops.cast(gates.output * ops.tanh(cell), dtype), cell)


@ops.custom_gradient
def _recur(projected: Any, kernel: Any, bias: Any, hidden: Any, cell: Any) -> Any:
    """Runs the recurrence over projected inputs, time first.

    Left to plain differentiation, a loop adds up the recurrent kernel's gradient [U, 4U] once a position, which costs
    as much memory traffic as the arithmetic itself; here it is one matrix product after the loop, as in cuDNN. Of what
    a position computes only preactivations and cell are kept, since reading gates costs more than making them again.

    Args:
        projected: [T, B, 4U], inputs after their projection.
        kernel: [U, 4U], recurrent.
        bias: [4U].
        hidden: [B, U], before the first position.
        cell: [B, U], before the first position, at least float32.

    Returns:
        Hidden states [T, B, U].
    """
    advance, retreat = fuse(_cell_forward), fuse(_cell_backward)
    # Made before the loops: a product that transposes on the way takes more than twice as long in float32 on a CPU.
    transposed = ops.transpose(kernel)

    def forward(carry: Any, projected_t: Any) -> Any:
        hidden, cell, *_ = carry
        return *advance(projected_t, ops.matmul(hidden, kernel), bias, cell), cell

    nothing = ops.zeros_like(ops.concatenate([hidden] * 4, axis=-1))
    start = (hidden, cell, nothing, cell)
    hiddens, _, preactivations, cells = scan(forward, start, projected, differentiable=False)

    def gradient(*args: Any, upstream: Any = None) -> Any:
        def backward(carry: Any, at: Any) -> Any:
            later, d_cell = carry
            *d_gates, d_cell = retreat(ops.matmul(later, transposed), d_cell, *at)
            return ops.concatenate(d_gates, axis=-1), d_cell

        inputs = (args[0] if upstream is None else upstream, preactivations, cells)
        start = (nothing, ops.zeros_like(cell))
        d_projected, d_cells = scan(backward, start, inputs, reverse=True, differentiable=False)
        hiddens_before = ops.concatenate([hidden[None], hiddens[:-1]], axis=0)
        before, d_rows = ops.transpose(_rows(hiddens_before)), _rows(d_projected)
        d_kernel = ops.matmul(before, d_rows)
        # A product with ones: on a CPU a fifth of the time that adding up rows of bfloat16 takes.
        d_bias = ops.matmul(ops.ones_like(before[:1]), d_rows)[0]
        return d_projected, d_kernel, d_bias, ops.matmul(d_projected[0], transposed), d_cells[0]

    return hiddens, gradient


def _cell_forward(projected: Any, recurrent: Any, bias: Any, cell: Any) -> tuple:
    """One position after its products: the next hidden state and cell, and the preactivations [B, 4U]."""
    preactivations = ops.cast(projected, cell.dtype) + ops.cast(recurrent, cell.dtype) + ops.cast(bias, cell.dtype)
    state = _next_state(_gates(preactivations), cell, projected.dtype)
    return state.hidden, state.cell, ops.cast(preactivations, projected.dtype)


def _cell_backward(d_hidden: Any, d_cell: Any, upstream: Any, preactivations: Any, cell: Any) -> tuple:
    """The gradient at one position, whose gates and next cell are made again.

    Args:
        d_hidden: [B, U], of its hidden state, from the position after it.
        d_cell: [B, U], of its cell, from there too.
        upstream: [B, U], of its hidden state, from outside of the recurrence.
        preactivations: [B, 4U].
        cell: [B, U], before it.

    Returns:
        The gradients of the four gates' preactivations, each [B, U], and of the cell before it.
    """
    i, f, g, o = _gates(preactivations)
    squashed = ops.tanh(f * cell + i * g)
    d_hidden = ops.cast(upstream, squashed.dtype) + ops.cast(d_hidden, squashed.dtype)
    d_cell = d_cell + d_hidden * o * (1 - squashed * squashed)
    d_gates = (
        d_cell * g * i * (1 - i),
        d_cell * cell * f * (1 - f),
        d_cell * i * (1 - g * g),
        d_hidden * squashed * o * (1 - o),
    )
    return *(ops.cast(d_gate, preactivations.dtype) for d_gate in d_gates), d_cell * f


def _batch_first(hiddens: Any) -> Any:
    return ops.transpose(hiddens, (1, 0, 2))  # [T, B, U] -> [B, T, U]


def _rows(sequences: Any) -> Any:
    return ops.reshape(sequences, (-1, sequences.shape[-1]))  # [T, B, U] -> [T * B, U]
