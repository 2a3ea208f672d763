"""Weights of a recurrence to begin with: rows at right angles (Saxe et al. 2014), so that no step blows a state up."""

from typing import Any

import numpy as np

from nmt import backend as _backend  # noqa: F401, before Keras is first imported

import keras  # isort: skip


class OrthogonalRows(keras.initializers.Orthogonal):
    """The same matrices [U, N] as Keras', U at most N, in half the time.

    They are the Q of a random matrix A = Q R. As R'R = A'A, a Cholesky factorisation finds the R with a positive
    diagonal, the one that makes Q unique. That squares the condition number, some 3 for four times as many random
    numbers as rows, which float64 has plenty of room for.
    """

    def __call__(self, shape: tuple[int, int], dtype: str | None = None) -> Any:
        """Draws a matrix."""
        rows, columns = shape
        drawn = np.asarray(keras.random.normal((columns, rows), seed=self.seed, dtype=dtype), "float64")
        transposed_r = np.linalg.cholesky(drawn.T @ drawn)
        return self.gain * keras.ops.convert_to_tensor(np.linalg.solve(transposed_r, drawn.T), dtype)
