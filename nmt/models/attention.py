"""Attention of decoder queries over the encoder's memory: multi-head scaled dot product, bilinear, additive.

    papers                                                     here
    decoder state h_t (Luong), s_{i-1} (Bahdanau), Q           query
    encoder states h_s (Luong), annotations h_j (Bahdanau)     memory
    alignment a_t (Luong), alpha_ij (Bahdanau)                 attention_weights
    context vector c_t, c_i                                    context

All kinds project the memory once per sentence. Neither the memory nor its projections are ever copied per query, so
that a larger beam costs no memory.

B sentences, Q queries per sentence (target positions, or slots of the beam), N active queries of all sentences,
S source tokens, U query units, M memory units, C context units, H heads, D = U / H units per head.
"""

from typing import Any, NamedTuple

from nmt.backend import keras, ops
from nmt.models.layers import Dense, Dropout, at_least_float32
from nmt.models.queries import ActiveQueries

# Below every real energy by so much that its exponential is 0. Not -inf, which makes NaN of a row of padding only.
MASKED = -1e9


class AttentionMemory(NamedTuple):
    """The memory as one attention reads it, computed once per sentence by `project_memory`."""

    keys: Any
    """[B, S, U]; of multi-head attention [B, H, D, S]."""
    values: Any
    """[B, S, M]; of multi-head attention [B, H, S, D]."""
    mask: Any
    """bool [B, S], True on real tokens."""


class Attention(keras.layers.Layer):
    """The base class. A kind defines `project_memory` and `call`, and sets `context_units`, its C.

    Args:
        dropout: share of attention weights to drop in training.
    """

    context_units: int
    head_axis: tuple[int, ...] = ()
    """(H,) where each head has weights of its own."""

    def __init__(self, *, dropout: float = 0.0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.dropout = Dropout(dropout)

    def project_memory(self, memory: Any, mask: Any) -> AttentionMemory:
        """Projects the memory [B, S, M], whose real tokens the mask bool [B, S] marks."""
        raise NotImplementedError

    def call(self, query: Any, memory: AttentionMemory, drop_mask: Any = None) -> tuple[Any, Any]:
        """Attends to the memory.

        Args:
            query: [B, Q, U].
            memory: from `project_memory`.
            drop_mask: from `draw_mask`, in training.

        Returns:
            context: [B, Q, C], in the type of the query.
            attention_weights: [B, Q, S], at least float32, without dropout. Zero on padding, and each row sums to 1. A
                row whose memory is all padding is uniform.
        """
        raise NotImplementedError

    def draw_mask(self, memory: AttentionMemory, num_queries: Any, training: bool = False) -> Any:
        """Draws what the attention weights of all queries are multiplied by.

        Args:
            memory: from `project_memory`.
            num_queries: Q.
            training: whether to drop weights.

        Returns:
            [B, Q, S], of multi-head attention [B, H, Q, S], in the compute type; None if nothing is dropped.
        """
        if not training or not self.dropout.rate:
            return None
        num_rows, num_tokens = ops.shape(memory.mask)
        like = ops.ones((num_rows, *self.head_axis, num_queries, num_tokens), self.compute_dtype)
        return self.dropout.draw_mask(like, training=training)

    def attend_active(
        self, query: Any, memory: AttentionMemory, active: ActiveQueries, needs_weights: bool = False
    ) -> tuple[Any, Any]:
        """Attends to the memory with some of the queries of a search.

        Args:
            query: [N, U].
            memory: from `project_memory`.
            active: which N of the B * Q queries these are.
            needs_weights: whether the attention weights are read.

        Returns:
            context: [N, C].
            attention_weights: [B, Q, S], arbitrary for inactive queries; it may be None if it is not needed.
        """
        context, weights = self(active.scatter(query), memory)  # [N, U] -> [B, Q, U] -> [B, Q, C]
        return active.gather(context), weights


class BilinearAttention(Attention):
    """Bilinear attention (Luong et al. 2015, equation 8, "general").

    energy = query' W memory; the values are the memory itself, so C = M.
    """

    def __init__(self, units: int, memory_units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.context_units = memory_units
        self.key = Dense(units, use_bias=False, name="key")
        with keras.name_scope(self.name):
            self.key.build((None, None, memory_units))
        self.built = True

    def project_memory(self, memory: Any, mask: Any) -> AttentionMemory:
        """Projects the memory to keys, [B, S, M] -> [B, S, U]."""
        return AttentionMemory(self.key(memory), memory, mask)

    def call(self, query: Any, memory: AttentionMemory, drop_mask: Any = None) -> tuple[Any, Any]:
        """Attends as described in `Attention.call`."""
        energies = ops.matmul(query, ops.transpose(memory.keys, (0, 2, 1)))  # [B, Q, U] x [B, U, S] -> [B, Q, S]
        weights = _normalize(energies, memory.mask[:, None, :])
        return ops.matmul(_drop(weights, drop_mask, query.dtype), memory.values), weights


class AdditiveAttention(Attention):
    """Additive attention (Bahdanau et al. 2015, appendix A.1.2).

    energy = v' tanh(W query + V memory + b); the values are the memory itself, so C = M.
    """

    def __init__(self, units: int, memory_units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.context_units = memory_units
        self.query = Dense(units, use_bias=False, name="query")
        self.key = Dense(units, name="key")
        self.energy = Dense(1, use_bias=False, name="energy")
        with keras.name_scope(self.name):
            self.query.build((None, None, units))
            self.key.build((None, None, memory_units))
            self.energy.build((None, None, None, units))
        self.built = True

    def project_memory(self, memory: Any, mask: Any) -> AttentionMemory:
        """Projects the memory to keys, [B, S, M] -> [B, S, U]."""
        return AttentionMemory(self.key(memory), memory, mask)

    def call(self, query: Any, memory: AttentionMemory, drop_mask: Any = None) -> tuple[Any, Any]:
        """Attends as described in `Attention.call`."""
        matched = ops.tanh(self.query(query)[:, :, None, :] + memory.keys[:, None, :, :])  # [B, Q, S, U]
        # A sum instead of a product by one column: that gives NaN in bfloat16 on processors with AMX (TensorFlow 2.20).
        energies = ops.sum(at_least_float32(matched) * at_least_float32(self.energy.kernel[:, 0]), axis=-1)
        weights = _normalize(energies, memory.mask[:, None, :])
        return ops.matmul(_drop(weights, drop_mask, query.dtype), memory.values), weights


class MultiHeadAttention(Attention):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, section 3.2.2).

    Unlike there, no output projection W^O follows: every use of the context begins with a projection. C = U.
    """

    def __init__(self, units: int, memory_units: int, *, num_heads: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.context_units = units
        self.head_axis = (num_heads,)
        self.num_heads = num_heads
        self.head_units = units // num_heads
        self.query = Dense(units, use_bias=False, name="query")
        self.key = Dense(units, use_bias=False, name="key")
        self.value = Dense(units, use_bias=False, name="value")
        with keras.name_scope(self.name):
            self.query.build((None, None, units))
            self.key.build((None, None, memory_units))
            self.value.build((None, None, memory_units))
        self.built = True

    def project_memory(self, memory: Any, mask: Any) -> AttentionMemory:
        """Projects the memory [B, S, M] to keys [B, H, D, S] and values [B, H, S, D]."""
        # Laid out as the products of every step want them, so that only this one transposition is paid per sentence.
        keys = ops.transpose(self._split(self.key(memory)), (0, 2, 3, 1))  # [B, S, H, D] -> [B, H, D, S]
        values = ops.transpose(self._split(self.value(memory)), (0, 2, 1, 3))  # [B, S, H, D] -> [B, H, S, D]
        return AttentionMemory(keys, values, mask)

    def call(self, query: Any, memory: AttentionMemory, drop_mask: Any = None) -> tuple[Any, Any]:
        """Attends as described in `Attention.call`; the attention weights are the mean over the heads."""
        queries = ops.transpose(self._split(self.query(query)), (0, 2, 1, 3))  # [B, Q, H, D] -> [B, H, Q, D]
        energies = ops.matmul(queries, memory.keys)  # [B, H, Q, S]
        weights = _normalize(energies * self.head_units**-0.5, memory.mask[:, None, None, :])
        contexts = ops.matmul(_drop(weights, drop_mask, query.dtype), memory.values)
        contexts = ops.transpose(contexts, (0, 2, 1, 3))  # [B, H, Q, D] -> [B, Q, H, D]
        return ops.reshape(contexts, (*_sizes(contexts), self.context_units)), ops.mean(weights, axis=1)

    def attend_active(
        self, query: Any, memory: AttentionMemory, active: ActiveQueries, needs_weights: bool = False
    ) -> tuple[Any, Any]:
        """Attends as in `Attention`, without a transposition."""
        # Projected before they are scattered: inactive queries cost no product.
        heads = ops.reshape(self.query(query), (-1, self.num_heads, self.head_units))  # [N, U] -> [N, H, D]
        energies = ops.matmul(active.scatter_heads(heads), memory.keys)  # [B, H, Q, S]
        energies = _mask(energies * self.head_units**-0.5, memory.mask[:, None, None, :])
        # The softmax written out: for the few numbers of one step, oneDNN's takes several times as long.
        weights = ops.exp(energies - ops.max(energies, axis=-1, keepdims=True))
        weights = weights / ops.sum(weights, axis=-1, keepdims=True)
        contexts = ops.matmul(ops.cast(weights, query.dtype), memory.values)  # [B, H, Q, D]
        context = ops.reshape(active.gather_heads(contexts), (-1, self.context_units))  # [N, H, D] -> [N, U]
        return context, ops.mean(weights, axis=1) if needs_weights else None

    def _split(self, x: Any) -> Any:
        return ops.reshape(x, (*_sizes(x), self.num_heads, self.head_units))  # [B, T, H * D] -> [B, T, H, D]


def make_attention(
    kind: str, units: int, memory_units: int, *, num_heads: int, name: str, dropout: float = 0.0
) -> Attention:
    """Creates the attention that the configuration names.

    Args:
        kind: multi_head, bilinear or additive.
        units: U, of the queries.
        memory_units: M.
        num_heads: H, of multi_head alone; divides U.
        name: of the layer, part of its weights' paths.
        dropout: share of attention weights to drop in training.
    """
    if kind == "multi_head":
        return MultiHeadAttention(units, memory_units, num_heads=num_heads, name=name, dropout=dropout)
    kinds = {"bilinear": BilinearAttention, "additive": AdditiveAttention}
    return kinds[kind](units, memory_units, name=name, dropout=dropout)


def _sizes(x: Any) -> tuple:
    """Returns the first two sizes of x [B, T, ...], for a reshape, which infers B by itself if T is known."""
    return (-1, x.shape[1]) if x.shape[1] is not None else tuple(ops.shape(x)[:2])


def _drop(weights: Any, drop_mask: Any, dtype: str) -> Any:
    weights = ops.cast(weights, dtype)
    return weights if drop_mask is None else weights * drop_mask


def _normalize(energies: Any, mask: Any) -> Any:
    return ops.softmax(_mask(energies, mask), axis=-1)


def _mask(energies: Any, mask: Any) -> Any:
    # Energies become at least float32 first: -1e9 is beyond float16.
    return ops.where(mask, at_least_float32(energies), MASKED)
