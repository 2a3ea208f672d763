"""Word vectors in, word scores out: the embedding of pieces and the projection onto the vocabulary.

B sentences, T positions, E embedding units, V pieces in the vocabulary.
"""

from collections.abc import Callable
from typing import Any

from nmt.backend import keras, ops
from nmt.compilation import gather_rows
from nmt.models.layers import Dropout, at_least_float32, matmul


class Embedding(keras.layers.Layer):
    """The vectors of pieces, with dropout of values and of whole words (Gal and Ghahramani 2016).

    The matrix begins with rows of length 1, as suits an output projection that shares it. The vectors are `scale` times
    as long (Vaswani et al. 2017, section 3.4), without which the gates hardly see the words at first.
    """

    def __init__(
        self, vocabulary_size: int, units: int, *, scale: float, dropout: float, word_dropout: float, **kwargs: Any
    ):
        super().__init__(autocast=False, **kwargs)
        self.scale = scale
        self.matrix = self.add_weight(
            shape=(vocabulary_size, units),
            initializer=keras.initializers.RandomNormal(stddev=units**-0.5),
            name="matrix",
            autocast=False,
        )
        self.dropout = Dropout(dropout)
        self.word_dropout = Dropout(word_dropout, whole=True)
        self.built = True

    def call(self, ids: Any, training: bool = False) -> Any:
        """Looks up ids [B, T]: vectors [B, T, E] in the compute type."""
        vectors = ops.cast(gather_rows(self.matrix, ids) * self.scale, self.compute_dtype)
        return self.dropout(self.word_dropout(vectors, training=training), training=training)


class OutputProjection(keras.layers.Layer):
    """Scores every piece of the vocabulary; its matrix may be an embedding's (Press and Wolf 2017)."""

    def __init__(self, vocabulary_size: int, units: int, *, tied: Embedding | None, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.tied = tied
        if tied is None:
            self.own = self.add_weight(
                shape=(vocabulary_size, units), initializer="glorot_uniform", name="matrix", autocast=False
            )
        self.bias = self.add_weight(shape=(vocabulary_size,), initializer="zeros", name="bias", autocast=False)
        self.built = True

    @property
    def matrix(self) -> Any:
        """[V, E], one row a piece."""
        return self.own if self.tied is None else self.tied.matrix

    def call(self, states: Any) -> Any:
        """Attentional states [B, T, E] to logits [B, T, V], at least float32."""
        return self.make_scorer()(states)

    def make_scorer(self) -> Callable[[Any], Any]:
        """What `call` does, for many calls: a product that turns the matrix each time may take three times as long, but
        not one in 16 bits, for which it is rearranged in any case."""
        matrix = ops.cast(self.matrix, self.compute_dtype)
        if keras.backend.standardize_dtype(matrix.dtype) in ("float32", "float64"):
            columns = ops.transpose(matrix)
            return lambda states: at_least_float32(matmul(states, columns)) + self.bias
        return lambda states: at_least_float32(matmul(states, ops.transpose(matrix))) + self.bias

    def gather_logits(self, states: Any, ids: Any) -> Any:
        """The logits [B, T] of one piece a position, ids [B, T], without those of the others."""
        return ops.sum(at_least_float32(states) * gather_rows(self.matrix, ids), axis=-1) + gather_rows(self.bias, ids)

    def compute_mean_logit(self, states: Any) -> Any:
        """The mean [B, T] of the logits over the vocabulary, without making them."""
        mean = ops.mean(self.matrix, axis=0)
        return ops.sum(at_least_float32(states) * mean, axis=-1) + ops.mean(self.bias)
