"""An inspection as a web page that needs no other file.

S source tokens, T target tokens, P positions, U units.
"""

import base64
import html
from collections.abc import Iterator, Sequence
from importlib.resources import files

import numpy as np

from nmt.inspection.beam_picture import draw_tree
from nmt.inspection.heat_maps import HeatMap, make_attention_maps, make_layer_maps, make_saliency_map
from nmt.inspection.inspect import Inspection, describe_probability, list_alternatives

# Perceptually uniform or nearly so, and safe for colour-blind readers: cividis, and ColorBrewer's PuOr.
COLORS = {
    False: "#00224e #123570 #3b496c #575d6d #707173 #8a8678 #a59c74 #c3b369 #e1cc55 #fee838",
    True: "#2d004b #542788 #8073ac #b2abd2 #d8daeb #f7f7f7 #fee0b6 #fdb863 #e08214 #b35806 #7f3b08",
}
# The page loads nothing. A script in a text could not load or send anything even if a bug inserted it as markup.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
CELL, UNIT_COLUMN, LAYER_HEIGHT = 20, 20, 240  # pixels
SECTIONS = {
    "words": "Token probabilities and alternatives",
    "neighbours": "Nearest training sentences",
    "attention": "Attention",
    "gradients": "Gradient reach",
    "layers": "Gates and cells",
    "beam": "The beam",
}


def write_html(found: Inspection) -> str:
    """Returns the page. It is written for the eye: values are rounded to 1/255 of the range of their picture."""
    parts = {
        "words": _write_words(found),
        **({"neighbours": _write_neighbours(found)} if found.neighbours else {}),
        "attention": _write_attention(found),
        "gradients": _write_gradients(found),
        "layers": _write_layers(found),
        "beam": _write_beam(found),
    }
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in SECTIONS.items() if key in parts)
    body = "\n".join(f'<h2 id="{key}">{title}</h2>\n{parts[key]}' for key, title in SECTIONS.items() if key in parts)
    start = f"<h1>Inspection of a translation</h1>\n{_write_texts(found)}\n<nav>{links}</nav>"
    return write_page(f"{found.source} – nmt inspect", f"{start}\n{body}")


def write_page(title: str, body: str, *, style: str = "") -> str:
    """Returns a page that needs no other file, with the style and the script of this package.

    Args:
        title: of the window; text.
        body: HTML, which may hold heat maps (`write_maps`).
        style: further rules of its style sheet.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n"
        f"<style>\n{_read('style.css')}{style}</style></head>\n<body>\n{body}\n"
        f"<script>\n{_read('page.js')}</script></body></html>\n"
    )


def _write_texts(found: Inspection) -> str:
    texts = [("Source", found.source), ("Translation", found.translation)]
    if found.is_reference:
        texts.append(("Reference, shown below", found.target))
    rows = "".join(f'<dt>{name}</dt><dd dir="auto">{html.escape(text)}</dd>' for name, text in texts)
    note = f"<p>{html.escape(found.index_problem)}</p>" if found.index_problem else ""
    return f"<dl>{rows}<dt>Probability</dt><dd>{describe_probability(found)}</dd></dl>{note}"


def _write_words(found: Inspection) -> str:
    rows = []
    for t, (token, log_prob) in enumerate(zip(found.target_tokens, found.trace.log_probs, strict=True)):
        others = "".join(
            f'<span class="other">{_write_token(other)} <small>{share:.3f}</small></span>'
            for other, share in list_alternatives(found, t)[:4]
        )
        sources = "".join(
            f"<td>{_write_token(found.source_tokens[int(row.argmax())])} <small>{row.max():.2f}</small></td>"
            for row in (found.trace.mean_attention[t], found.trace.saliency[t])
        )
        share = float(np.exp(log_prob))
        rows.append(
            f'<tr><td>{_write_token(token)}</td><td class="number">{share:.3f}</td>'
            f'<td><meter value="{share:.4f}"></meter></td><td>{others}</td>{sources}</tr>'
        )
    names = ("Token", "Probability", "", "Alternatives", "Attends to", "Depends most on")
    header = "".join(f"<th>{name}</th>" for name in names)
    return (
        "<p>The probability of each token, given those before it, and the most probable alternatives. “Attends to” is "
        "the source token with the largest mean attention weight, and “depends most on” the one with the largest "
        f'gradient.</p><div class="wide"><table><tr>{header}</tr>{"".join(rows)}</table></div>'
    )


def _write_neighbours(found: Inspection) -> str:
    rows = []
    for token, neighbours in zip(found.target_tokens, found.neighbours, strict=True):
        for n, one in enumerate(neighbours):
            before, chosen, after = map(html.escape, one.split_text())
            if one.position == len(one.tokens) - 1:
                chosen = f"<bdi>{chosen}</bdi>"  # so that </s> after right-to-left text reads </s>
            first = f'<td rowspan="{len(neighbours)}">{_write_token(token)}</td>' if n == 0 else ""
            rows.append(
                f'<tr>{first}<td class="number">{one.distance:.3f}</td>'
                f'<td class="text"><bdi dir="auto">{before}<mark>{chosen}</mark>{after}</bdi></td>'
                f'<td class="text"><bdi dir="auto">{html.escape(one.sentence.source)}</bdi></td>'
                f"<td><small>{html.escape(one.location)}</small></td></tr>"
            )
    names = ("Token", "Distance", "Training target", "Training source", "Line")
    header = "".join(f"<th>{name}</th>" for name in names)
    return (
        "<p>The training sentences with the nearest states. A state is the vector that the output projection reads to "
        "predict a token, and the distance is Euclidean. The marked token is the one that the state predicts."
        f'</p><div class="wide"><table><tr>{header}</tr>{"".join(rows)}</table></div>'
    )


def _write_attention(found: Inspection) -> str:
    return (
        "<p>Each row shows how one target token spreads its attention over the source tokens; a row sums to 1. Each "
        "hop is a decoder layer that attends.</p>" + write_maps(make_attention_maps(found))
    )


def _write_gradients(found: Inspection) -> str:
    return (
        "<p>How strongly the log-probability of each target token reacts to a small change of each source token’s "
        "vector, by any path: attention, encoder states and the previous tokens. It shows which source tokens a token "
        "depends on. Attention shows which ones it reads.</p>" + write_maps([make_saliency_map(found)])
    )


def _write_layers(found: Inspection) -> str:
    parts = [
        "<p>The input gate writes the candidate into the cell, the forget gate keeps what the cell holds, and the "
        "output gate shows it. One row is one unit. In all pictures of a layer the units are in the same order: by the "
        "position at which their cell is largest. Columns of the decoder are the tokens that it predicts there.</p>"
    ]
    for title, maps in make_layer_maps(found):
        parts.append(f"<h3>{html.escape(title)}</h3>{write_maps(maps)}")
    return "".join(parts)


def _write_beam(found: Inspection) -> str:
    return (
        "<p>Every hypothesis that was in the beam, with the scores of those that ended. The thick line is the "
        "translation. Dashed hypotheses left the beam for likelier ones, or were open at the end. Dotted ones were "
        f'pruned. Point at a token for its figures.</p><div class="wide">{draw_tree(found)}</div>'
    )


def write_maps(maps: Sequence[HeatMap]) -> str:
    """Returns heat maps side by side as HTML, which the script of the page draws."""
    return f'<div class="maps">{"".join(map(_write_map, maps))}</div>'


def _write_map(one: HeatMap) -> str:
    num_rows, num_columns = one.values.shape
    height = CELL if one.rows else LAYER_HEIGHT / num_rows
    # One grid track per label, so that no label is cut and none lies over another.
    style = (
        f"grid-template-columns:auto repeat({num_columns},{CELL}px);grid-template-rows:repeat({num_rows},{height}px)"
    )
    order = "" if one.rows else f' data-order="{" ".join(map(str, one.order))}"'
    colors = COLORS[one.is_signed]
    canvas = (
        f'<canvas role="img" aria-label="{html.escape(one.title)}" data-rows="{num_rows}" data-columns="{num_columns}" '
        f'data-low="{one.low:.6g}" data-high="{one.high:.6g}" data-unit="{html.escape(one.unit)}" '
        f'data-colors="{colors}"{order} data-values="{_pack(one)}" '
        f'style="grid-area:1/2/span {num_rows}/span {num_columns}"></canvas>'
    )
    labels = [*_place_rows(one), *_place_columns(one)]
    bar = (
        f'<div class="bar">{one.low:.3g}<i style="background:linear-gradient(to right,{colors.replace(" ", ",")})"></i>'
        f"{one.high:.3g} {html.escape(one.unit)}</div>"
    )
    grid = f'<div class="grid" style="{style}">{canvas}{"".join(labels)}</div>'
    return f"<figure><figcaption>{html.escape(one.title)}</figcaption>{grid}{bar}<output></output></figure>"


def _place_rows(one: HeatMap) -> Iterator[str]:
    if not one.rows:
        yield f'<span class="units" style="grid-area:1/1/span {len(one.values)}">{len(one.values)} units</span>'
    for n, label in enumerate(one.rows, 1):
        yield f'<span class="row" style="grid-area:{n}/1" dir="auto">{html.escape(label)}</span>'


def _place_columns(one: HeatMap) -> Iterator[str]:
    for n, label in enumerate(one.columns, 2):
        area = f"{len(one.values) + 1}/{n}"
        yield f'<span class="column" style="grid-area:{area}" dir="auto">{html.escape(label)}</span>'


def _pack(one: HeatMap) -> str:
    """Returns the values as bytes of their range, in base64."""
    shares = (one.values - one.low) / max(one.high - one.low, 1e-12)
    return base64.b64encode(np.round(255 * np.clip(shares, 0, 1)).astype("uint8").tobytes()).decode("ascii")


def _write_token(token: str) -> str:
    return f'<bdi dir="auto">{html.escape(token)}</bdi>'


def _read(name: str) -> str:
    return files("nmt.inspection").joinpath("assets", name).read_text(encoding="utf-8")
