"""The heat maps of an inspection as PNG files, drawn by matplotlib."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nmt.files import atomic_write
from nmt.inspection.heat_maps import HeatMap, make_attention_maps, make_layer_maps, make_saliency_map
from nmt.inspection.inspect import Inspection

# matplotlib takes a letter from the first of these fonts that has it.
FONTS = ["DejaVu Sans", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans"]
COLORS = {False: "cividis", True: "PuOr_r"}
CELL, UNITS_HEIGHT, DPI = 0.28, 3.0, 110  # inches, inches, dots per inch
COLUMNS = 3  # maps side by side


def draw_pictures(found: Inspection, folder: Path) -> list[Path]:
    """Draws attention.png, gradients.png and one file per layer, such as decoder-layer-0.png; returns their paths."""
    named = {"attention": make_attention_maps(found), "gradients": [make_saliency_map(found)]}
    for name, (_, maps) in zip(found.trace.layers, make_layer_maps(found), strict=True):
        named[name.replace(".", "-").replace("_", "-")] = maps
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, maps in named.items():
        paths.append(folder / f"{name}.png")
        with atomic_write(paths[-1]) as file, _choose_fonts():
            _draw(maps).savefig(file, format="png", dpi=DPI)
    return paths


@contextmanager
def _choose_fonts() -> Iterator[None]:
    """Draws with those of the fonts that are installed. A letter that none of them has becomes a box."""
    from matplotlib import font_manager, rc_context

    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in FONTS if name in installed]
    with rc_context({"font.family": fonts, "font.size": 9}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _draw(maps: Sequence[HeatMap]) -> Any:
    """Returns a figure with the maps side by side, each with its labels and a colour bar."""
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    columns = min(COLUMNS, len(maps))
    rows = -(-len(maps) // columns)
    first = maps[0]
    width = CELL * len(first.columns) + 2.2
    height = (CELL * len(first.rows) or UNITS_HEIGHT) + 1.5
    figure = Figure(figsize=(max(width * columns, 6), height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, one in zip(axes, maps, strict=False):
        image = panel.imshow(
            one.values, cmap=COLORS[one.is_signed], vmin=one.low, vmax=one.high, aspect="auto", interpolation="nearest"
        )
        panel.set_title(one.title, fontsize=10)
        panel.set_xticks(range(len(one.columns)), list(one.columns), rotation=90, parse_math=False)
        if one.rows:
            panel.set_yticks(range(len(one.rows)), list(one.rows), parse_math=False)
        else:
            panel.set_ylabel(f"{len(one.values)} units")
            panel.set_yticks([])
        figure.colorbar(image, ax=panel, label=one.unit)
    for panel in axes[len(maps) :]:
        panel.remove()
    return figure
