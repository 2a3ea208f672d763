"""Token vectors in, token scores out: the embedding and the projection onto the vocabulary.

B sentences, T positions, E embedding units, V tokens in the vocabulary. An ellipsis stands for any number of axes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nmt.backend import keras, ops
from nmt.compilation import gather_rows
from nmt.models.layers import Dropout, at_least_float32, matmul


class Embedding(keras.layers.Layer):
    """Token vectors with dropout of single values and of whole tokens.

    Tokens are dropped by position. Gal and Ghahramani (2016) drop all occurrences of a word in a sentence together.

    The rows of the matrix start with an expected length of 1, which suits an output projection that shares them. The
    vectors are `scale` times as long (Vaswani et al. 2017, section 3.4): with shorter ones the gates of an LSTM hardly
    react to the input at first.

    Args:
        vocabulary_size: V.
        units: E.
        scale: factor from rows of the matrix to vectors.
        dropout: share of values to drop in training.
        word_dropout: share of tokens whose whole vector is dropped in training.
        locked_dropout: drop the same values of all vectors of a sentence.
    """

    def __init__(
        self,
        vocabulary_size: int,
        units: int,
        *,
        scale: float,
        dropout: float,
        word_dropout: float,
        locked_dropout: bool = False,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.scale = scale
        self.matrix = self.add_weight(
            shape=(vocabulary_size, units),
            initializer=keras.initializers.RandomNormal(stddev=units**-0.5),
            name="matrix",
            autocast=False,
        )
        self.dropout = Dropout(dropout, locked=locked_dropout)
        self.word_dropout = Dropout(word_dropout, whole_vectors=True)
        self.built = True

    def call(self, ids: Any, training: bool = False, word_mask: Any = None) -> Any:
        """Looks up ids int [...]; returns vectors [..., E] in the compute type.

        In training, `word_mask` [..., 1] decides which tokens are dropped (see `draw_word_mask`). If it is None, a mask
        is drawn.
        """
        # Scaled before the cast: a product in 16 bits would round twice.
        vectors = ops.cast(gather_rows(self.matrix, ids) * self.scale, self.compute_dtype)
        if word_mask is None:
            word_mask = self.draw_word_mask(ids, training=training)
        return self.dropout(vectors if word_mask is None else vectors * word_mask, training=training)

    def draw_word_mask(self, ids: Any, training: bool = False) -> Any:
        """Draws which tokens of ids int [...] to drop, for several calls that read the same tokens.

        Returns:
            [..., 1] in the compute type; None if no token is dropped.
        """
        if not training or not self.word_dropout.rate:
            return None  # before any operation is added, since every step of a search looks up tokens
        like = ops.cast(ids[..., None], self.compute_dtype)  # only its shape and type are used
        return self.word_dropout.draw_mask(like, training=training)


class OutputProjection(keras.layers.Layer):
    """Scores every token of the vocabulary. Its matrix may be that of an embedding (Press and Wolf 2017).

    Args:
        vocabulary_size: V.
        units: E.
        tied: the embedding whose matrix it shares, or None for a matrix of its own.
        lexical_units: units that a lexical model (see `Decoder`) appends to the states, with a matrix of their own; 0
            without one.

    States then have L = E + lexical_units units, otherwise L = E.
    """

    def __init__(
        self, vocabulary_size: int, units: int, *, tied: Embedding | None, lexical_units: int = 0, **kwargs: Any
    ):
        super().__init__(autocast=False, **kwargs)
        self.tied = tied
        self.units = units
        self.lexical_units = lexical_units
        if tied is None:
            self.own = self.add_weight(
                shape=(vocabulary_size, units), initializer="glorot_uniform", name="matrix", autocast=False
            )
        if lexical_units:
            self.lexical = self.add_weight(
                shape=(vocabulary_size, lexical_units),
                initializer="glorot_uniform",
                name="lexical_matrix",
                autocast=False,
            )
        self.bias = self.add_weight(shape=(vocabulary_size,), initializer="zeros", name="bias", autocast=False)
        self.built = True

    @property
    def matrices(self) -> list:
        """The variables of which the matrix consists, each [V, ...], one row per token."""
        first = self.own if self.tied is None else self.tied.matrix
        return [first, self.lexical] if self.lexical_units else [first]

    @property
    def matrix(self) -> Any:
        """[V, L], one row per token."""
        return ops.concatenate(self.matrices, axis=1) if self.lexical_units else self.matrices[0]

    def call(self, states: Any) -> Any:
        """Projects attentional states [..., L] to logits [..., V], at least float32."""
        return self.make_scorer()(states)

    def make_scorer(self) -> Callable[[Any], Any]:
        """Returns a function that does what `call` does, with the work that is the same for every call done once.

        A search makes one before its first step.
        """
        matrix = ops.cast(self.matrix, self.compute_dtype)
        bias = at_least_float32(self.bias)
        if keras.backend.standardize_dtype(matrix.dtype) in ("float32", "float64"):
            # A product that transposes its matrix on the way takes up to three times as long on a CPU.
            columns = ops.transpose(matrix)  # [V, L] -> [L, V]
            return lambda states: at_least_float32(matmul(states, columns)) + bias
        # In 16 bits oneDNN rearranges the matrix in any case, so that the transposition is free.
        return lambda states: at_least_float32(matmul(states, ops.transpose(matrix))) + bias

    def gather_logits(self, states: Any, ids: Any) -> Any:
        """Computes the logit of one token per position, without those of the others.

        Args:
            states: [..., L].
            ids: int [...].

        Returns:
            [...], at least float32.
        """
        rows, biases = (at_least_float32(gather_rows(weight, ids)) for weight in (self.matrix, self.bias))
        return ops.sum(at_least_float32(states) * rows, axis=-1) + biases

    def compute_mean_logit(self, states: Any, banned_ids: Sequence[int] = ()) -> Any:
        """Computes the mean of the logits over the vocabulary, without the logits: [..., L] -> [...], at least float32.

        The mean of the products is the product with the mean row. Label smoothing needs it.

        Args:
            states: [..., L].
            banned_ids: tokens that are left out of the mean.
        """
        matrix, bias = at_least_float32(self.matrix), at_least_float32(self.bias)
        if banned_ids:
            shares = np.ones(matrix.shape[0])
            shares[list(banned_ids)] = 0
            shares = ops.cast(shares / shares.sum(), matrix.dtype)
            mean, mean_bias = ops.matmul(shares, matrix), ops.sum(shares * bias)  # [V] x [V, L] -> [L]
        else:
            mean, mean_bias = ops.mean(matrix, axis=0), ops.mean(bias)  # [V, L] -> [L]
        return ops.sum(at_least_float32(states) * mean, axis=-1) + mean_bias
