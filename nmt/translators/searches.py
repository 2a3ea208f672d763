"""The compiled searches of a model."""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from nmt.compilation import compile_function, has_static_shapes
from nmt.config.schema import SearchSettings
from nmt.data.tokenizer import Tokenizer
from nmt.decoding.beam_search import Hypotheses
from nmt.decoding.grouping import round_to_bucket_width
from nmt.decoding.inference import search, split_numbers
from nmt.decoding.prefix import Prefixes
from nmt.decoding.spelling import Spellings
from nmt.models.ensemble import DecodingModel

# Compiled searches that a model keeps, some 12 MB each. All numbers but the beam size, the number of hypotheses and the
# power of two above top_k are their inputs, so that few are needed.
MAX_SEARCHES = 8


class Searches:
    """The compiled searches of a model.

    Args:
        model: in inference.
        tokenizer: of the target.
    """

    def __init__(self, model: DecodingModel, tokenizer: Tokenizer):
        self._model = model
        self._tokenizer = tokenizer
        self._get_compiled = lru_cache(MAX_SEARCHES)(self._compile)

    @cached_property
    def spellings(self) -> Spellings:
        """The bytes of the target tokens."""
        return Spellings(self._tokenizer.token_bytes)

    def run(
        self,
        source: np.ndarray,
        settings: SearchSettings,
        n_best: int,
        prefixes: Prefixes | None = None,
        phrases: np.ndarray | None = None,
        only_next: bool = False,
    ) -> Hypotheses:
        """Searches with the settings for n hypotheses; see `nmt.decoding.inference.search`."""
        structure, numbers = split_numbers(settings)
        length_bound = round_to_bucket_width(settings.max_length) if has_static_shapes() else None
        scalars = tuple((name, str(value.dtype)) for name, value in numbers.items())
        top_k_bound = round_to_bucket_width(settings.top_k) if settings.top_k else None
        demands = (prefixes is not None, phrases is not None, only_next)
        compiled = self._get_compiled(structure, scalars, n_best, length_bound, top_k_bound, demands)
        return compiled(source, *(prefixes or ()), *(() if phrases is None else (phrases,)), numbers)

    def _compile(
        self,
        structure: SearchSettings,
        scalars: tuple[tuple[str, str], ...],
        n_best: int,
        length_bound: int | None,
        top_k_bound: int | None,
        demands: tuple[bool, bool, bool],
    ) -> Callable:
        has_prefixes, has_phrases, only_next = demands

        def run(source: Any, *inputs: Any) -> Any:
            *given, numbers = inputs
            demands: dict[str, Any] = {}
            if has_prefixes:
                prefixes = Prefixes(*given[:2])
                demands |= {"prefixes": prefixes, "spellings": self.spellings, "only_next": only_next}
            if has_phrases:
                demands |= {"phrases": given[-1]}
            return search(
                self._model,
                source,
                settings=structure.model_copy(update=numbers),
                n_best=n_best,
                banned_ids=self._tokenizer.banned_ids,
                refill=not has_static_shapes(),
                length_bound=length_bound,
                top_k_bound=top_k_bound,
                **demands,
            )

        num_inputs = 1 + 2 * has_prefixes + has_phrases
        return compile_function(run, self._model.variables, num_inputs=num_inputs, scalars=dict(scalars))
