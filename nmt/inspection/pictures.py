"""The heat maps of an inspection as PNG files, drawn by matplotlib."""

import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nmt.files import atomic_write
from nmt.inspection.beam_picture import measure_letters
from nmt.inspection.heat_maps import HeatMap, make_attention_maps, make_layer_maps, make_saliency_map
from nmt.inspection.inspect import Inspection

# These are preferred to other installed fonts that have a letter.
FONTS = ["DejaVu Sans", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans"]
COLORS = {False: "cividis", True: "PuOr_r"}
CELL, LETTER, UNITS_HEIGHT = 0.28, 0.085, 3.0  # inches
DPI = 110
COLUMNS = 3  # maps side by side
NO_LETTERS = "Last Resort"  # a font of placeholders for all letters
SHAPING_VERSION = (3, 11)  # of matplotlib, the first that orders and joins letters as their script does
RIGHT_TO_LEFT = ("R", "AL")


def draw_pictures(found: Inspection, folder: Path, *, warn: Callable[[str], None]) -> list[Path]:
    """Draws attention.png, gradients.png and one file per layer, such as decoder-layer-0.png; returns their paths.

    Args:
        found: what to draw.
        folder: of the files.
        warn: receives a message if some letters cannot be drawn as they should.
    """
    letters = set("".join([*found.source_tokens, *found.target_tokens]))
    fonts, missing = choose_fonts(letters)
    for message in find_warnings(letters, missing):
        warn(message)
    named = {"attention": make_attention_maps(found), "gradients": [make_saliency_map(found)]}
    for name, (_, maps) in zip(found.trace.layers, make_layer_maps(found), strict=True):
        named[name.replace(".", "-").replace("_", "-")] = maps
    paths = []
    for name, maps in named.items():
        paths.append(folder / f"{name}.png")
        with atomic_write(paths[-1]) as file, _use_fonts(fonts):
            _draw(maps).savefig(file, format="png", dpi=DPI)
    return paths


def choose_fonts(letters: set[str]) -> tuple[list[str], list[str]]:
    """Chooses installed fonts. matplotlib takes a letter from the first of them that has it.

    Returns:
        The names of the fonts, and the letters that no installed font has.
    """
    from matplotlib import font_manager

    installed = {font.name: font.fname for font in font_manager.fontManager.ttflist if NO_LETTERS not in font.name}
    preferred = [name for name in FONTS if name in installed]
    missing = {letter for letter in letters if unicodedata.category(letter)[0] not in "CZ"}  # no spaces, no controls
    chosen: list[str] = []
    for name in [*preferred, *sorted(installed.keys() - set(preferred))]:
        if chosen and not missing:
            break
        font = font_manager.get_font(installed[name])
        if (has := {letter for letter in missing if font.get_char_index(ord(letter))}) or not chosen:
            chosen.append(name)
            missing -= has
    return chosen, sorted(missing)


def find_warnings(letters: set[str], missing: Sequence[str]) -> Iterator[str]:
    """Yields what will look wrong: letters that no font has, and right-to-left text that matplotlib cannot order."""
    import matplotlib

    if missing:
        scripts = sorted({unicodedata.name(letter, "unnamed").split()[0] for letter in missing})
        yield (
            f"no installed font has the letters {''.join(missing)} ({', '.join(scripts)}), so that the pictures show "
            "boxes instead. Install a font for them, such as Noto Sans CJK JP for Japanese."
        )
    if matplotlib.__version_info__[:2] < SHAPING_VERSION and any(
        unicodedata.bidirectional(letter) in RIGHT_TO_LEFT for letter in letters
    ):
        yield (
            f"matplotlib {matplotlib.__version__} draws right-to-left text in the wrong order. Install matplotlib 3.11 "
            "or later."
        )


@contextmanager
def _use_fonts(fonts: Sequence[str]) -> Iterator[None]:
    """Draws with these fonts. A letter that none of them has becomes a box."""
    from matplotlib import rc_context

    with rc_context({"font.family": list(fonts), "font.size": 9}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _draw(maps: Sequence[HeatMap]) -> Any:
    """Returns a figure with the maps side by side, each with its labels and a colour bar."""
    from matplotlib.figure import Figure  # not pyplot, which needs a display

    columns = min(COLUMNS, len(maps))
    rows = -(-len(maps) // columns)
    first = maps[0]
    width = CELL * len(first.columns) + LETTER * _find_longest(first.rows) + 1.5
    height = (CELL * len(first.rows) or UNITS_HEIGHT) + LETTER * _find_longest(first.columns) + 0.6
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


def _find_longest(labels: Sequence[str]) -> float:
    return max(map(measure_letters, labels), default=0.0)
