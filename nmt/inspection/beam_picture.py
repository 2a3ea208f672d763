"""The beam of an inspection as SVG."""

import html
import unicodedata
from collections.abc import Iterator

from nmt.inspection.inspect import Inspection

ROW, MARGIN, LETTER, GAP, SCORE = 18, 12, 8.2, 28, 40  # pixels


def draw_tree(found: Inspection) -> str:
    """Returns the tree from left to right, one column per position, as an SVG element.

    Every hypothesis ends on a row of its own. The translation is on the first one.
    """
    nodes, best = found.beam.nodes, set(found.beam.get_path(found.beam.best))
    rows, heights = _place_rows(found)
    starts = _place_columns(found)
    parts = []
    for n, node in enumerate(nodes):
        x, y = starts[node.length], MARGIN + ROW * rows[n]
        kind = (
            "best"
            if n in best
            else {"pruned": "pruned", "crowded out": "lost", "not pursued": "lost"}.get(node.fate, "")
        )
        edge = ""
        if node.parent >= 0:
            parent_x = starts[node.length - 1] + GAP / 2 + LETTER * measure_letters(found.beam_tokens[node.parent])
            parent_y = MARGIN + ROW * rows[node.parent]
            edge = f'<path d="M{parent_x:.0f} {parent_y}H{parent_x + 6:.0f}V{y}H{x - 5}"/>'
        token = html.escape(found.beam_tokens[n])
        note = f"log-probability {node.log_prob:.3f}, score {node.score:.3f}, {node.fate}"
        end = f'<tspan class="score" dx="6">{node.score:.2f}</tspan>' if node.fate == "finished" else ""
        parts.append(
            f'<g class="{kind}"><title>{token}: {note}</title>{edge}<circle cx="{x}" cy="{y}" r="3"/>'
            f'<text x="{x + 7}" y="{y + 4}"><tspan>{token}</tspan>{end}</text></g>'
        )
    width, height = starts[-1] + SCORE, 2 * MARGIN + ROW * heights
    return (
        f'<svg role="img" aria-label="The beam as a tree" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    )


def _place_rows(found: Inspection) -> tuple[dict[int, int], int]:
    """Returns the row of each node, and the number of rows. A node is on the row of its best continuation."""
    nodes, best = found.beam.nodes, set(found.beam.get_path(found.beam.best))
    children: dict[int, list[int]] = {}
    for n, node in enumerate(nodes[1:], 1):
        children.setdefault(node.parent, []).append(n)
    rows: dict[int, int] = {}

    def walk() -> Iterator[int]:
        waiting = [0]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += sorted(children.get(node, []), key=lambda n: (n in best, nodes[n].log_prob))  # the last is first

    num_rows, starts_row = 0, False
    for n in walk():
        num_rows += starts_row
        rows[n] = num_rows
        starts_row = n not in children
    return rows, num_rows + 1


def _place_columns(found: Inspection) -> list[int]:
    """Returns where the tokens of each length begin, and where the last ones end.

    The longest token of a column decides its width.
    """
    longest: dict[int, float] = {}
    for node, token in zip(found.beam.nodes, found.beam_tokens, strict=True):
        longest[node.length] = max(longest.get(node.length, 0), measure_letters(token))
    starts = [MARGIN]
    for length in range(max(longest) + 1):
        starts.append(int(starts[-1] + GAP + LETTER * longest[length]))
    return starts


def measure_letters(token: str) -> float:
    """Returns the width of a token in letters; those of East Asian scripts count twice."""
    return sum(1.8 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in token)
