"""A random model, its search with a coverage penalty, and the same scores by a NumPy loop over attention rows.

As a program, for another backend: python coverage_case.py FILE.npz writes both.
"""

import sys
from typing import Any

import numpy as np

V = 19
BANNED = [0, 1, 2]
WEIGHT = 0.7
SOURCE = np.array([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0], [14, 3, 0, 0, 0], [10, 11, 12, 3, 0]], "int32")


def make_model(vocabulary_size: int = V, **settings: Any) -> Any:
    """A model with large random weights, so that probabilities are far apart and attention is uneven."""
    from nmt.config.schema import ModelConfig
    from nmt.models.seq2seq import make_seq2seq

    config = ModelConfig(embedding_units=11, encoder_units=10, decoder_units=14, attention_heads=2, **settings)
    model = make_seq2seq(config, source_vocabulary_size=V, target_vocabulary_size=vocabulary_size)
    random = np.random.default_rng(7)
    for weight in model.trainable_variables:
        weight.assign(random.normal(scale=0.7, size=weight.shape))
    return model


def run_search(
    model: Any, source: np.ndarray = SOURCE, *, n_best: int = 1, banned: Any = BANNED, **settings: Any
) -> Any:
    """Searches with a small length limit; the result as NumPy arrays."""
    from keras import ops

    from nmt.config.schema import SearchSettings
    from nmt.decoding.inference import search

    chosen = SearchSettings(**{"beam_size": 4, "max_length": 13, "coverage_penalty": WEIGHT, **settings})
    found = search(model, ops.convert_to_tensor(source), settings=chosen, n_best=n_best, banned_ids=banned)
    return type(found)(*(ops.convert_to_numpy(x) for x in found))


def penalty_of(model: Any, source: np.ndarray, target: list[int]) -> float:
    """Equation 14 of Wu et al. 2016 for one source without padding and one target, with a weight of 1."""
    from keras import ops

    before = np.array([[2, *target[:-1]]], "int32")
    rows = ops.convert_to_numpy(model(source[None], before).attention_weights)[0].astype("float64")
    assert rows.shape == (len(target), len(source))
    return sum(np.log(min(sum(row[i] for row in rows), 1.0)) for i in range(len(source)))


def expected_scores(model: Any, found: Any, length_penalty: float = 1.0) -> np.ndarray:
    """The scores of what a search found, hypothesis by hypothesis."""
    scores = np.zeros(found.scores.shape)
    for b, k in np.ndindex(scores.shape):
        length = int(found.lengths[b, k])
        source = SOURCE[b][SOURCE[b] != 0]
        scores[b, k] = found.log_probs[b, k] / ((5 + length) / 6) ** length_penalty
        scores[b, k] += WEIGHT * penalty_of(model, source, found.ids[b, k, :length].tolist())
    return scores


if __name__ == "__main__":
    model = make_model()
    found = run_search(model)
    np.savez(sys.argv[1], expected=expected_scores(model, found), **found._asdict())
