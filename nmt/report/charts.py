"""Line charts and histograms as SVG, with axes, units and a legend; colours are those of the page's style sheet."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

WIDTH, HEIGHT = 560, 270  # units of the drawing, about one pixel each
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 12, 40
MAX_POINTS = 600  # per line; longer ones are averaged in groups
LOG_RATIO = 30  # between the largest and the smallest value, from which an axis that may be logarithmic is
NUM_COLORS = 6
MARK = 3.2


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str
    color: int
    """Number of its run, which chooses colour and marks."""
    points: Sequence[tuple[float, float | None]]
    """Update and value; a line is interrupted where a value is None."""
    band: Sequence[tuple[float, float, float]] = ()
    """Update, lower and upper bound of an interval."""
    is_dashed: bool = False
    has_marks: bool = False


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis: from values to units of the drawing."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def locate(self, value: float) -> float:
        """Returns where a value is drawn."""
        low, high, here = (math.log(x) if self.is_log else x for x in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (here - low) / (high - low)

    def choose_ticks(self) -> list[float]:
        """Returns round values within the axis."""
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(powers) < 5 else (1,)
            ticks = [step * 10.0**power for power in powers for step in steps]
        else:
            step = choose_step(self.high - self.low)
            ticks = [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [tick for tick in ticks if self.low <= tick <= self.high * (1 + 1e-9)]


def choose_step(span: float, most: int = 6) -> float:
    """Returns the smallest of 1, 2 and 5 times a power of ten that divides a span into at most so many parts.

    >>> choose_step(100.0), choose_step(0.7), choose_step(2100)
    (20.0, 0.2, 500.0)
    """
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * most >= span * (1 - 1e-9))


def format_number(value: float) -> str:
    """Returns a number of an axis.

    >>> format_number(20000), format_number(0.25), format_number(2.5e-05)
    ('20,000', '0.25', '2.5e-05')
    """
    if value and abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"


def draw_chart(
    title: str, unit: str, lines: Sequence[Line], *, may_be_log: bool = False, names_one: bool = False
) -> str:
    """Returns a figure with a chart over updates; nothing if no line has a value.

    Args:
        title: what is shown.
        unit: of the values.
        lines: in the order of the legend.
        may_be_log: whether a wide range of values, all above 0, is drawn on a logarithmic axis.
        names_one: whether a single line has a legend as well.
    """
    lines = [_thin(line) for line in lines]
    values = [y for line in lines for _, y in line.points if y is not None]
    values += [bound for line in lines for _, *bounds in line.band for bound in bounds]
    updates = [x for line in lines for x, y in line.points if y is not None]
    if not values:
        return ""
    x_axis = Axis(0, max(*updates, 1), LEFT, WIDTH - RIGHT)
    y_axis = _make_value_axis(values, may_be_log)
    parts = [*_draw_axes(x_axis, y_axis, "update", unit + (", logarithmic" if y_axis.is_log else ""))]
    for line in lines:
        parts += _draw_line(line, x_axis, y_axis)
    return _write_figure(title, parts, _write_legend(lines) if len(lines) > 1 or names_one else "")


def draw_histogram(
    title: str,
    unit: str,
    counts: Sequence[tuple[float, float, int]],
    *,
    marks: str = "pairs",
    is_log: bool = False,
    is_whole: bool = False,
) -> str:
    """Returns a figure with a bar for each range of values.

    Args:
        title: what is shown.
        unit: of the values.
        counts: start and end of each range, and the number of things in it.
        marks: what is counted.
        is_log: whether the axis of the counts is logarithmic, so that a few in a long tail are seen.
        is_whole: whether the values are whole numbers, of which a range does not include its end.
    """
    x_axis = Axis(counts[0][0], counts[-1][1], LEFT, WIDTH - RIGHT)
    highest = max(1, *(count for *_, count in counts))
    y_axis = Axis(0.5 if is_log else 0, highest * 1.05, HEIGHT - BOTTOM, TOP, is_log)
    parts = [*_draw_axes(x_axis, y_axis, unit, marks + (", logarithmic" if is_log else ""))]
    for start, end, count in counts:
        if not count:
            continue
        left, right, top = x_axis.locate(start), x_axis.locate(end), y_axis.locate(count)
        names = [format_number(start), format_number(end - 1 if is_whole else end)]
        note = f"{' to '.join(dict.fromkeys(names))} {unit}: {count:,} {marks}"
        parts.append(
            f'<rect class="run0 bar" x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(right - left - 1, 0.5):.1f}" '
            f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{html.escape(note)}</title></rect>'
        )
    return _write_figure(title, parts, "")


def _write_figure(title: str, parts: Sequence[str], legend: str) -> str:
    return (
        f'<figure class="chart"><figcaption>{html.escape(title)}</figcaption>'
        f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>'
        f"{legend}</figure>"
    )


def _make_value_axis(values: Sequence[float], may_be_log: bool) -> Axis:
    low, high = min(values), max(values)
    if may_be_log and low > 0 and high / low > LOG_RATIO:
        return Axis(low / 1.1, high * 1.1, HEIGHT - BOTTOM, TOP, is_log=True)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    # Values that cannot be negative have no axis below 0.
    return Axis(max(low - margin, 0) if low >= 0 else low - margin, high + margin, HEIGHT - BOTTOM, TOP)


def _draw_axes(x_axis: Axis, y_axis: Axis, x_unit: str, y_unit: str) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    for tick in y_axis.choose_ticks():
        y = y_axis.locate(tick)
        yield f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{format_number(tick)}</text>'
    for tick in x_axis.choose_ticks():
        x = x_axis.locate(tick)
        yield f'<path class="rule" d="M{x:.1f} {bottom}v4"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{format_number(tick)}</text>'
    yield f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>'
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + bottom) / 2
    yield f'<text class="unit" x="{middle_x}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_unit)}</text>'
    yield (
        f'<text class="unit" x="12" y="{middle_y}" text-anchor="middle" transform="rotate(-90 12 {middle_y})">'
        f"{html.escape(y_unit)}</text>"
    )


def _draw_line(line: Line, x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    color = line.color % NUM_COLORS
    if line.band:
        above = [f"{x_axis.locate(x):.1f} {y_axis.locate(high):.1f}" for x, _, high in line.band]
        below = [f"{x_axis.locate(x):.1f} {y_axis.locate(low):.1f}" for x, low, _ in reversed(line.band)]
        yield f'<path class="run{color} band" d="M{"L".join([*above, *below])}Z"/>'
    dashed = " dashed" if line.is_dashed else ""
    for is_gap, group in groupby(line.points, lambda point: point[1] is None):
        if not is_gap:
            places = [f"{x_axis.locate(x):.1f} {y_axis.locate(y):.1f}" for x, y in group if y is not None]
            # A line of one point is as long as its round ends.
            yield f'<path class="run{color} line{dashed}" d="M{"L".join(places if len(places) > 1 else places * 2)}"/>'
    bounds = {x: f" ({format_number(low)} to {format_number(high)})" for x, low, high in line.band}
    for x, y in line.points:
        if y is not None:
            note = html.escape(f"{line.name}, update {x:,.0f}: {y:.5g}{bounds.get(x, '')}")
            shape = _draw_mark(line.color, x_axis.locate(x), y_axis.locate(y), is_shown=line.has_marks)
            yield shape.replace("/>", f"><title>{note}</title></path>")


def _draw_mark(color: int, x: float, y: float, *, is_shown: bool) -> str:
    """Returns a circle, square, triangle or diamond, so that runs differ in more than colour; see-through if hidden."""
    r = MARK
    shapes = (
        f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}Z",
        f"M{x:.1f} {y - 1.3 * r:.1f}l{1.2 * r:.2f} {2.2 * r:.2f}h{-2.4 * r:.2f}Z",
        f"M{x:.1f} {y - 1.4 * r:.1f}l{1.4 * r:.2f} {1.4 * r:.2f}l{-1.4 * r:.2f} {1.4 * r:.2f}"
        f"l{-1.4 * r:.2f} {-1.4 * r:.2f}Z",
    )
    return (
        f'<path class="run{color % NUM_COLORS} {"mark" if is_shown else "point"}" d="{shapes[color % len(shapes)]}"/>'
    )


def _write_legend(lines: Sequence[Line]) -> str:
    entries = []
    for line in lines:
        color, dashed = line.color % NUM_COLORS, " dashed" if line.is_dashed else ""
        mark = _draw_mark(line.color, 13, 6, is_shown=True) if line.has_marks else ""
        entries.append(
            '<span><svg width="26" height="12" aria-hidden="true">'
            f'<path class="run{color} line{dashed}" d="M1 6H25"/>{mark}</svg>{html.escape(line.name)}</span>'
        )
    return f'<div class="legend">{"".join(entries)}</div>'


def _thin(line: Line) -> Line:
    """Averages neighbouring points of a long line, and keeps the middle of their updates."""
    size = -(-len(line.points) // MAX_POINTS)
    if size < 2:
        return line
    bounds = pairwise([*range(0, len(line.points), size), len(line.points)])
    points: list[tuple[float, float | None]] = []
    for start, end in bounds:
        group = line.points[start:end]
        values = [y for _, y in group if y is not None]
        points.append((group[len(group) // 2][0], sum(values) / len(values) if values else None))
    return Line(line.name, line.color, points, line.band, line.is_dashed, line.has_marks)
