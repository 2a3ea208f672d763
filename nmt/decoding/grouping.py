"""Groups of sentences that are translated together, and the shapes that a search is compiled for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nmt.compilation import has_static_shapes
from nmt.config.schema import DecodingConfig
from nmt.data.batching import pad
from nmt.models.queries import SIZE_MULTIPLE

# Open slots of the beam in one step. More are hardly faster and need memory for their logits, [slots, vocabulary].
MAX_QUERIES = 640
# With dynamic shapes, new sentences take the place of finished ones. A search is given this many times the sentences
# that it searches at a time, so that it rarely runs short of new ones.
REFILLS = 8
# With static shapes, each shape is compiled. Widths are therefore this and its doubles, and what does not fill a batch
# is padded to so few rows. Wide padding costs little: a search takes as many steps as its translations are long.
MIN_WIDTH = 16
FEW_ROWS = (1, 16)


@dataclass(frozen=True)
class Group:
    """Sentences translated at once."""

    members: list[int]
    """Their indices."""
    shape: tuple[int, int] | None
    """Rows and width to pad to, or None for a graph that takes every shape."""

    def pad(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Returns the members' ids, int32 [rows, width], each row ended by EOS; rows without a member are EOS alone."""
        rows, width = self.shape or (len(self.members), 0)
        return pad([*(ids[n] for n in self.members), *[[]] * (rows - len(self.members))], width)


class Grouping:
    """Sorts sentences into groups of similar length, for a graph that takes every shape.

    Groups of more than a few sentences are multiples of `SIZE_MULTIPLE`, for the reason given in `round_up`; the
    remainder goes to the next group.

    Args:
        batch_tokens: most source tokens of a group, padding included.
        max_rows: most sentences of a group.
    """

    def __init__(self, batch_tokens: int, max_rows: int):
        self.batch_tokens = batch_tokens
        self.max_rows = max_rows

    def split(self, lengths: Sequence[int]) -> Iterator[Group]:
        """Yields groups that contain every sentence once, shortest first; `lengths` [N] count EOS."""
        members: list[int] = []
        for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
            while len(members) >= _count_rows(self.batch_tokens, lengths[n], self.max_rows):
                size = len(members) // SIZE_MULTIPLE * SIZE_MULTIPLE or len(members)
                yield Group(members[:size], None)
                members = members[size:]
            members.append(n)
        if members:
            yield Group(members, None)


class ShapedGrouping:
    """Sorts sentences into groups of few shapes, for JAX, which compiles each of them.

    Args:
        batch_tokens: most source tokens of a group, padding included.
        max_rows: most sentences of a group.
    """

    def __init__(self, batch_tokens: int, max_rows: int):
        self.batch_tokens = batch_tokens
        self.max_rows = max_rows

    def split(self, lengths: Sequence[int]) -> Iterator[Group]:
        """Yields groups that contain every sentence once; `lengths` [N] count EOS."""
        by_width: dict[int, list[int]] = {}
        for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
            by_width.setdefault(round_to_bucket_width(lengths[n]), []).append(n)
        left_over: list[int] = []
        for width, members in by_width.items():
            # Sentences that do not fill a batch move on to the next width.
            members = left_over + members
            rows = _count_rows(self.batch_tokens, width, self.max_rows)
            full = len(members) // rows * rows
            for start in range(0, full, rows):
                yield Group(members[start : start + rows], (rows, width))
            left_over = members[full:]
        if left_over:
            rows = next((few for few in FEW_ROWS if len(left_over) <= few < rows), rows)
            yield Group(left_over, (rows, width))


def make_grouping(batch_tokens: int, max_rows: int) -> Grouping | ShapedGrouping:
    """Returns the grouping for the backend, for graphs that compute a group from beginning to end."""
    return (ShapedGrouping if has_static_shapes() else Grouping)(batch_tokens, max_rows)


def make_search_grouping(settings: DecodingConfig, n_best: int = 1) -> Grouping | ShapedGrouping:
    """Returns the grouping for the backend and a search with these settings for n hypotheses per sentence."""
    max_active = choose_max_active(settings.count_slots(n_best))
    return make_grouping(settings.batch_tokens, max_active * (1 if has_static_shapes() else REFILLS))


def choose_max_active(num_slots: int) -> int:
    """Returns how many sentences to search at a time, given the hypotheses of each."""
    return max(1, MAX_QUERIES // num_slots)


def round_to_bucket_width(length: int) -> int:
    """Returns the smallest width for so many tokens among those that searches are compiled for with static shapes."""
    width = MIN_WIDTH
    while width < length:
        width *= 2
    return width


def _count_rows(batch_tokens: int, width: int, max_rows: int) -> int:
    return max(1, min(max_rows, batch_tokens // width))
