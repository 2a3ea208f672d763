"""Word alignments of given translations, and their error rate against alignments made by people.

The format is that of Pharaoh: `0-0 1-2` links word 0 of the source to word 0 of the target and word 1 to word 2, where
words are what white space separates. In a gold file, `1?2` or `1p2` is a link that is only possible.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nmt.data.corpus import read_aligned
from nmt.data.word_alignments import Link, parse_links
from nmt.errors import UserError
from nmt.streams import STANDARD, name_stream
from nmt.translators.opening import find_folder, find_kind, open_translator


@dataclass(frozen=True)
class GoldAlignment:
    """Links between the words of a sentence pair, by people."""

    sure: frozenset[Link]
    possible: frozenset[Link]
    """Those on which people may differ, and the sure ones."""


@dataclass(frozen=True)
class AlignmentErrors:
    """How a system's links A differ from sure ones S and possible ones P, over a whole text (Och and Ney 2003)."""

    num_links: int
    num_sure: int
    num_links_sure: int
    num_links_possible: int

    @property
    def precision(self) -> float:
        """|A ∩ P| / |A|; 1 if there are no links."""
        return self.num_links_possible / self.num_links if self.num_links else 1.0

    @property
    def recall(self) -> float:
        """|A ∩ S| / |S|; 1 if no links are sure."""
        return self.num_links_sure / self.num_sure if self.num_sure else 1.0

    @property
    def error_rate(self) -> float:
        """1 - (|A ∩ S| + |A ∩ P|) / (|A| + |S|); 0 if both are empty."""
        total = self.num_links + self.num_sure
        return 1 - (self.num_links_sure + self.num_links_possible) / total if total else 0.0

    def as_line(self) -> str:
        """Returns the line that `nmt align` prints."""
        return (
            f"AER {100 * self.error_rate:.2f}  precision {100 * self.precision:.2f}  recall {100 * self.recall:.2f}  "
            f"{self.num_links:,} links, {self.num_sure:,} sure links in the gold alignment"
        )


def align_files(
    model: Path, source: Path, target: Path, out: IO[str], *, as_json: bool, gold: Path | None = None
) -> AlignmentErrors | None:
    """Aligns the words of a file with those of its translation.

    Args:
        model: a run folder, a model folder or an ensemble.
        source: file of the source lines, or "-" for standard input.
        target: file of their translations.
        out: receives one line per pair.
        as_json: whether to write the records of `WordLinks` rather than links.
        gold: file of links by people, with as many lines.

    Returns:
        The errors, if there are gold links.

    Raises:
        UserError: there is no model, an export is given, the files differ in length, or a gold link is malformed.
    """
    kind = find_kind(model)
    if kind.fixed:
        raise UserError(
            f"{model} is an export ({kind.name}), which does not align given translations. Give the model that it was "
            "made from. (nmt translate --alignments works with SavedModels.)"
        )
    find_folder(model)  # a mistake in its path is reported before the text is read
    sources, targets, *rest = read_aligned(source, target, *([gold] if gold else []))
    expected = [
        read_gold(line, len(one.split()), len(other.split()), place=f"{name_stream(gold or STANDARD)}:{number}")
        for lines in rest
        for number, (one, other, line) in enumerate(zip(sources, targets, lines, strict=True), 1)
    ]
    aligned = []
    for links in open_translator(model, precision="float32").align(zip(sources, targets, strict=True)):
        out.write((json.dumps(links.as_record(), ensure_ascii=False) if as_json else links.as_pharaoh()) + "\n")
        aligned.append(links.links)
    return count_errors(aligned, expected) if gold else None


def read_gold(line: str, num_source: int, num_target: int, *, place: str) -> GoldAlignment:
    """Reads a line of gold links, such as "0-0 1?2"; see `parse_links`."""
    links = list(parse_links(line, num_source, num_target, place=place, is_gold=True))
    return GoldAlignment(frozenset(link for link, is_sure in links if is_sure), frozenset(link for link, _ in links))


def count_errors(aligned: Sequence[Sequence[Link]], gold: Sequence[GoldAlignment]) -> AlignmentErrors:
    """Compares the links of a text with gold ones, sentence by sentence, and adds up the counts."""
    pairs = [(set(links), expected) for links, expected in zip(aligned, gold, strict=True)]
    return AlignmentErrors(
        sum(len(links) for links, _ in pairs),
        sum(len(expected.sure) for _, expected in pairs),
        sum(len(links & expected.sure) for links, expected in pairs),
        sum(len(links & expected.possible) for links, expected in pairs),
    )
