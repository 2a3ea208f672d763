"""Attention of queries over the memory: multi-head scaled dot, bilinear, additive.

B sentences, Q queries (target positions, or the beam), S source pieces, U query units, M memory units, H heads, D units
a head. The memory is projected once a sentence and never copied for a query.
"""

from typing import Any, NamedTuple

from nmt.backend import keras, ops
from nmt.models.layers import Dense, at_least_float32
from nmt.models.queries import ActiveQueries

# Beyond every energy, yet within bfloat16; energies are at least float32 when it is put in.
MASKED = -1e9


class AttentionMemory(NamedTuple):
    """The memory as one attention sees it, made once a sentence by `project_memory`."""

    keys: Any
    values: Any
    mask: Any
    """bool [B, S], True on real pieces."""


class Attention(keras.layers.Layer):
    """What all kinds have in common."""

    def attend_active(self, hidden: Any, keyed: AttentionMemory, queries: ActiveQueries) -> Any:
        """Attends for some of the queries of a search, hidden [N, U] -> contexts [N, C]."""
        context, _ = self(queries.scatter(hidden), keyed)
        return queries.gather(context)


class BilinearAttention(Attention):
    """Bilinear attention (Luong et al. 2015, "general"; our query is their h_t).

    energies = query W memory; the values are the memory itself.
    """

    def __init__(self, units: int, memory_units: int, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.context_units = memory_units
        self.key = Dense(units, use_bias=False, name="key")
        with keras.name_scope(self.name):
            self.key.build((None, None, memory_units))
        self.built = True

    def project_memory(self, memory: Any, mask: Any) -> AttentionMemory:
        """Projects the memory [B, S, M], whose real pieces `mask` [B, S] marks."""
        return AttentionMemory(self.key(memory), memory, mask)

    def call(self, query: Any, keyed: AttentionMemory) -> tuple[Any, Any]:
        """Attends.

        Args:
            query: [B, Q, U].
            keyed: the memory, from `project_memory`.

        Returns:
            context: [B, Q, M].
            attention_weights: at least float32 [B, Q, S], zero where masked; uniform in a row of padding only.
        """
        energies = ops.matmul(query, ops.transpose(keyed.keys, (0, 2, 1)))
        weights = _distribution(energies, keyed.mask[:, None, :])
        return ops.matmul(ops.cast(weights, query.dtype), keyed.values), weights


class AdditiveAttention(Attention):
    """Additive attention (Bahdanau et al. 2015, appendix A.1.2; our memory is their annotations h).

    energies = v tanh(W query + V memory); the values are the memory itself.
    """

    def __init__(self, units: int, memory_units: int, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
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
        """Projects the memory [B, S, M], whose real pieces `mask` [B, S] marks."""
        return AttentionMemory(self.key(memory), memory, mask)

    def call(self, query: Any, keyed: AttentionMemory) -> tuple[Any, Any]:
        """Attends; arguments and results as in `BilinearAttention`."""
        matched = ops.tanh(self.query(query)[:, :, None, :] + keyed.keys[:, None, :, :])  # [B, Q, S, U]
        # Not a product by one column, of which TensorFlow 2.20 makes NaN in bfloat16 on processors with AMX.
        energies = ops.sum(at_least_float32(matched) * at_least_float32(self.energy.kernel[:, 0]), axis=-1)
        weights = _distribution(energies, keyed.mask[:, None, :])
        return ops.matmul(ops.cast(weights, query.dtype), keyed.values), weights


class MultiHeadAttention(Attention):
    """Multi-head scaled dot attention (Vaswani et al. 2017, section 3.2.2).

    Unlike there, the heads' contexts are not projected once more: every use of the context begins with a projection.
    """

    def __init__(self, units: int, memory_units: int, *, num_heads: int, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.context_units = units
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
        """Projects the memory [B, S, M], whose real pieces `mask` [B, S] marks, to keys [B, H, D, S], values [B, H, S,
        D]."""
        keys = ops.transpose(self._split(self.key(memory)), (0, 2, 3, 1))
        values = ops.transpose(self._split(self.value(memory)), (0, 2, 1, 3))
        return AttentionMemory(keys, values, mask)

    def call(self, query: Any, keyed: AttentionMemory) -> tuple[Any, Any]:
        """Attends; arguments and results as in `BilinearAttention`, but the context is [B, Q, U].

        The weights returned are the mean over the heads.
        """
        queries = ops.transpose(self._split(self.query(query)), (0, 2, 1, 3))  # [B, H, Q, D]
        energies = ops.matmul(queries, keyed.keys)  # [B, H, Q, S]
        weights = _distribution(energies * self.head_units**-0.5, keyed.mask[:, None, None, :])
        contexts = ops.matmul(ops.cast(weights, query.dtype), keyed.values)
        contexts = ops.transpose(contexts, (0, 2, 1, 3))  # [B, H, Q, D] -> [B, Q, H, D]
        return ops.reshape(contexts, (*_sizes(contexts), self.context_units)), ops.mean(weights, axis=1)

    def attend_active(self, hidden: Any, keyed: AttentionMemory, queries: ActiveQueries) -> Any:
        """As in `Attention`, without a transposition."""
        asking = ops.reshape(self.query(hidden), (-1, self.num_heads, self.head_units))
        energies = ops.matmul(queries.scatter_heads(asking), keyed.keys)  # [B, H, Q, S]
        energies = _masked(energies * self.head_units**-0.5, keyed.mask[:, None, None, :])
        # Of few numbers oneDNN's softmax takes several times as long.
        weights = ops.exp(energies - ops.max(energies, axis=-1, keepdims=True))
        weights = weights / ops.sum(weights, axis=-1, keepdims=True)
        contexts = ops.matmul(ops.cast(weights, hidden.dtype), keyed.values)  # [B, H, Q, D]
        return ops.reshape(queries.gather_heads(contexts), (-1, self.context_units))

    def _split(self, x: Any) -> Any:
        return ops.reshape(x, (*_sizes(x), self.num_heads, self.head_units))  # [B, N, H * D] -> [B, N, H, D]


def make_attention(kind: str, units: int, memory_units: int, *, num_heads: int, name: str) -> keras.layers.Layer:
    """Returns the attention named by the configuration: multi_head, bilinear or additive."""
    if kind == "multi_head":
        return MultiHeadAttention(units, memory_units, num_heads=num_heads, name=name)
    return {"bilinear": BilinearAttention, "additive": AdditiveAttention}[kind](units, memory_units, name=name)


def _sizes(x: Any) -> tuple:
    """The first two sizes of x [B, N, ...], of which a reshape may find the first by itself."""
    return (-1, x.shape[1]) if x.shape[1] is not None else tuple(ops.shape(x)[:2])


def _distribution(energies: Any, mask: Any) -> Any:
    return ops.softmax(_masked(energies, mask), axis=-1)


def _masked(energies: Any, mask: Any) -> Any:
    return ops.where(mask, at_least_float32(energies), MASKED)
