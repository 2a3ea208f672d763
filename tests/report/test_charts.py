import re

import pytest

from nmt.report.charts import MAX_POINTS, Axis, Line, draw_chart, draw_histogram

NASTY = '<b>"run"</b> & co'


def places(svg, kind):
    """The first point of each path of a kind, in units of the drawing."""
    found = re.findall(
        rf'<path class="run\d {kind}[^"]*" d="M([\d.]+) ([\d.]+)', svg.partition('<div class="legend"')[0]
    )
    return [(float(x), float(y)) for x, y in found]


def ticks(svg):
    """Place by value of the ticks of both axes."""
    texts = re.findall(r'<text class="tick" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)<', svg)
    x_axis = {float(value.replace(",", "")): float(x) for x, _, anchor, value in texts if anchor == "middle"}
    y_axis = {float(value.replace(",", "")): float(y) - 4 for _, y, anchor, value in texts if anchor == "end"}
    return x_axis, y_axis


def between(axis, value):
    """Where a value must be by the first and the last tick."""
    (low, start), (high, end) = min(axis.items()), max(axis.items())
    return start + (value - low) * (end - start) / (high - low)


def test_points_are_where_the_ticks_say():
    points = [(100.0, 12.0), (700.0, 31.5), (2000.0, 37.0)]
    svg = draw_chart("BLEU", "BLEU", [Line("run", 1, points, has_marks=True)])
    x_axis, y_axis = ticks(svg)
    assert list(x_axis) == [0, 500, 1000, 1500, 2000]
    # The marks of the second run are squares, which begin at their corner.
    for (x, y), (update, value) in zip(places(svg, "mark"), points, strict=True):
        assert x + 3.2 == pytest.approx(between(x_axis, update), abs=0.2)
        assert y + 3.2 == pytest.approx(between(y_axis, value), abs=0.2)


def test_wide_ranges_of_a_loss_are_logarithmic():
    points = [(1.0, 9.0), (2.0, 0.9), (3.0, 0.09)]
    svg = draw_chart("Loss", "nats", [Line("run", 0, points)], may_be_log=True)
    assert "nats, logarithmic" in svg
    heights = [y for _, y in places(svg, "point")]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    _, y_axis = ticks(svg)
    assert 1 in y_axis and 0.1 in y_axis
    assert "logarithmic" not in draw_chart("Loss", "nats", [Line("run", 0, [*points, (4.0, 0.0)])], may_be_log=True)


def test_a_missing_value_interrupts_the_line():
    svg = draw_chart("Loss", "nats", [Line("run", 0, [(1.0, 2.0), (2.0, 1.5), (3.0, None), (4.0, 1.0), (5.0, 0.9)])])
    lines = re.findall(r'class="run0 line" d="([^"]+)"', svg.partition('<div class="legend"')[0])
    assert [line.count("L") for line in lines] == [1, 1]
    assert draw_chart("Loss", "nats", [Line("run", 0, [(1.0, None)])]) == ""


def test_the_band_is_inside_the_axis_and_in_the_notes():
    line = Line("run", 0, [(0.0, 20.0), (10.0, 30.0)], [(0.0, 18.0, 22.5), (10.0, 29.0, 32.0)])
    svg = draw_chart("BLEU", "BLEU", [line])
    [band] = re.findall(r'class="run0 band" d="M([^"]+)Z"', svg)
    _, y_axis = ticks(svg)
    heights = [float(place.split()[1]) for place in band.split("L")]
    assert heights == [pytest.approx(between(y_axis, value), abs=0.2) for value in (22.5, 32.0, 29.0, 18.0)]
    assert "run, update 10: 30 (29 to 32)" in svg


def test_long_curves_keep_their_mean():
    points = [(float(n), float(n % 2)) for n in range(4 * MAX_POINTS)]
    svg = draw_chart("Loss", "nats", [Line("run", 0, points)])
    assert svg.count("run0 point") == MAX_POINTS
    assert svg.count(": 0.5<") == MAX_POINTS


def test_names_are_escaped():
    svg = draw_chart(NASTY, NASTY, [Line(NASTY, 0, [(1.0, 2.0)])])
    svg += draw_histogram(NASTY, NASTY, [(0.0, 1.0, 3)])
    assert "<b>" not in svg
    assert svg.count("&lt;b&gt;") >= 6


def test_bars_are_as_high_as_their_counts():
    svg = draw_histogram("Lengths", "tokens", [(0.0, 5.0, 10), (5.0, 10.0, 40)])
    first, second = (float(height) for height in re.findall(r'height="([\d.]+)"><title>', svg))
    assert second == pytest.approx(4 * first, rel=0.01)
    assert "5 to 10 tokens: 40 pairs" in svg


def test_a_range_of_whole_numbers_does_not_have_its_end():
    svg = draw_histogram("Lengths", "tokens", [(0, 1, 10), (1, 5, 40)], is_whole=True)
    assert "<title>0 tokens: 10 pairs</title>" in svg and "<title>1 to 4 tokens: 40 pairs</title>" in svg


def test_ticks_stay_within_the_axis():
    assert Axis(0.31, 0.74, 0, 1).choose_ticks() == pytest.approx([0.4, 0.5, 0.6, 0.7])
    assert Axis(0.02, 700, 0, 1, is_log=True).choose_ticks() == pytest.approx([0.1, 1, 10, 100])


def test_a_single_line_has_a_legend_if_that_is_asked():
    lines = [Line("first run", 0, [(1, 2.0), (2, 3.0)])]
    assert ">first run</span>" in draw_chart("Title", "unit", lines, names_one=True)
    assert ">first run</span>" not in draw_chart("Title", "unit", lines)
