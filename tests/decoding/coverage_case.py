"""A random model, its search with a coverage penalty, and the same scores by a NumPy loop over attention rows.

As a program, for another backend: python coverage_case.py FILE.npz writes both, from one compiled search, and samples
of the same model.
"""

import sys
from functools import cache
from typing import Any

import numpy as np

V = 19
BANNED = [0, 1, 2]
WEIGHT = 0.7
MAX_LENGTH = 13
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

    chosen = SearchSettings(**{"beam_size": 4, "max_length": MAX_LENGTH, "coverage_penalty": WEIGHT, **settings})
    found = search(model, ops.convert_to_tensor(source), settings=chosen, n_best=n_best, banned_ids=banned)
    return type(found)(*(ops.convert_to_numpy(x) for x in found))


def compile_search(model: Any) -> tuple[Any, list[None]]:
    """The same with numbers as inputs; and a list that grows with every compilation."""
    from keras import ops

    from nmt.compilation import compile_function
    from nmt.config.schema import SearchSettings
    from nmt.decoding.inference import search, split_numbers

    compilations: list[None] = []

    def split(length_penalty: float) -> Any:
        return split_numbers(
            SearchSettings(beam_size=4, max_length=MAX_LENGTH, coverage_penalty=WEIGHT, length_penalty=length_penalty)
        )

    def trace(source: Any, numbers: Any) -> Any:
        compilations.append(None)
        settings = split(1.0)[0].model_copy(update=numbers)
        return search(model, source, settings=settings, banned_ids=BANNED, length_bound=MAX_LENGTH)

    scalars = {name: str(value.dtype) for name, value in split(1.0)[1].items()}
    compiled = compile_function(trace, model.variables, num_inputs=1, scalars=scalars)

    def run(length_penalty: float) -> Any:
        found = compiled(ops.convert_to_tensor(SOURCE), split(length_penalty)[1])
        return type(found)(*(ops.convert_to_numpy(x) for x in found))

    return run, compilations


def compile_samples(model: Any) -> tuple[Any, list[None]]:
    """Three samples of each source that hardly repeat themselves, with numbers as inputs; see `compile_search`."""
    from keras import ops

    from nmt.compilation import compile_function
    from nmt.config.schema import SearchSettings
    from nmt.decoding.inference import search, split_numbers

    compilations: list[None] = []

    def split(seed: int) -> Any:
        sampling = {"beam_size": 1, "temperature": 1.5, "top_k": 12 + seed, "top_p": 0.95, "seed": seed}
        limits = {"no_repeat_ngram": 2 + seed, "repetition_penalty": 1.2, "max_length_ratio": 0.5 + seed}
        return split_numbers(SearchSettings(**sampling, **limits, max_length=MAX_LENGTH))

    def trace(source: Any, numbers: Any) -> Any:
        compilations.append(None)
        settings = split(1)[0].model_copy(update=numbers)
        bounds = {"length_bound": MAX_LENGTH, "top_k_bound": 16}
        return search(model, source, settings=settings, n_best=3, banned_ids=BANNED, **bounds)

    scalars = {name: str(value.dtype) for name, value in split(1)[1].items()}
    compiled = compile_function(trace, model.variables, num_inputs=1, scalars=scalars)
    return lambda seed: np.asarray(compiled(ops.convert_to_tensor(SOURCE), split(seed)[1]).ids), compilations


@cache
def compile_reading(model: Any) -> Any:
    """Teacher forcing, from source and target to attention rows; as single operations it takes a minute on JAX."""
    from nmt.compilation import compile_function
    from nmt.decoding.inference import read_attention

    return compile_function(lambda *ids: read_attention(model, *ids), model.variables, num_inputs=2)


def penalty_of(model: Any, source: np.ndarray, target: list[int]) -> float:
    """Equation 14 of Wu et al. 2016 for one source without padding and one target, with a weight of 1."""
    # Of one length, since JAX compiles every shape. What follows a token does not change its row.
    padded = np.pad(np.array([target], "int32"), ((0, 0), (0, MAX_LENGTH - len(target))))
    rows = np.asarray(compile_reading(model)(source[None], padded))[0, : len(target)].astype("float64")
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
    search_with, compilations = compile_search(model)
    found, other = search_with(1.0), search_with(0.3)
    draw_with, sample_compilations = compile_samples(model)
    np.savez(
        sys.argv[1],
        expected=expected_scores(model, found),
        other=other.scores,
        expected_other=expected_scores(model, other, 0.3),
        compilations=len(compilations),
        samples=draw_with(1),
        other_samples=draw_with(2),
        sample_compilations=len(sample_compilations),
        **found._asdict(),
    )
