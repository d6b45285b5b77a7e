"""The design: markup escapes what it is given, colours can be read by day and by night, charts hold their points."""

from __future__ import annotations

import doctest
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptconv.report import axes, charts, markup, parts, rows
from ckptconv.report.charts import Line
from ckptconv.report.markup import Html, element, joined, prose
from ckptconv.report.page import fragment, page, style
from ckptconv.report.rows import Interval
from tests.support.html_page import Parsed, require_sound

HOSTILE = "<script>alert(1)</script>\" onload='x' & \x1b[2J\n"


@given(st.text())
def test_a_text_is_shown_and_never_markup(said):
    parsed = Parsed(element("p", said, title=said))
    assert [tag for tag, _ in parsed.elements] == ["p"]
    assert list(parsed.elements[0][1]) == ["title"]
    if said.isprintable():
        assert "".join(parsed.said("p")) == said == parsed.elements[0][1]["title"]


def test_markup_is_not_escaped_twice():
    assert element("p", element("b", "a < b"), " & ") == "<p><b>a &lt; b</b> &amp; </p>"
    assert joined(("<", Html("<br>"), None)) == "&lt;<br>"


def test_an_attribute_that_is_none_is_left_out():
    assert element("img", src="a", alt=None, class_="x", stroke_width=2) == '<img src="a" class="x" stroke-width="2">'


def test_the_examples_are_true():
    assert doctest.testmod(markup) == (0, 2)


def test_what_stands_between_backticks_is_code():
    assert prose("no `expect` & no `<b>`") == "no <code>expect</code> &amp; no <code>&lt;b&gt;</code>"
    assert prose("one ` alone <b>") == "one ` alone &lt;b&gt;"
    verdict = Parsed(parts.verdict(parts.WARN, "h", ["give `gpus=8`."], ["`rule`"]))
    assert verdict.said("code") == ["gpus=8", "rule"]


def hostile_page() -> str:
    return page(
        HOSTILE,
        [
            element("h1", HOSTILE),
            parts.verdict(parts.BAD, HOSTILE, [HOSTILE], [HOSTILE]),
            parts.section(HOSTILE, parts.facts({HOSTILE: HOSTILE, "none": ""})),
            parts.table([HOSTILE], [[HOSTILE]], HOSTILE),
            parts.folded([HOSTILE, parts.soft(HOSTILE), parts.mark("bad", HOSTILE)], HOSTILE),
            charts.lines(HOSTILE, [Line(HOSTILE, [(1, 1), (2, 2)])], x=HOSTILE, y=HOSTILE, levels={HOSTILE: 1.5}),
            rows.dots(HOSTILE, {HOSTILE: [(HOSTILE, 1.0)]}, x=HOSTILE),
            charts.legend({0: HOSTILE}),
        ],
    )


def test_every_part_takes_a_hostile_text_as_text():
    parsed = require_sound(hostile_page())
    shown = "<script>alert(1)</script>\" onload='x' & \\x1b[2J\\n"
    said = [text for _, text in parsed.texts if "script" in text]
    assert set(said) == {shown, f"{shown}: 1.00"}
    assert len(said) >= 20
    assert "\x1b" not in hostile_page()


def test_a_fragment_is_closed_and_takes_the_colour_of_the_notebook():
    text = fragment("good", HOSTILE, [(HOSTILE, HOSTILE), ("empty", "")], [HOSTILE])
    parsed = Parsed(text)
    assert not {"script", "h1", "body"} & {tag for tag, _ in parsed.elements}
    assert len([tag for tag, _ in parsed.elements if tag == "tr"]) == 1
    (css,) = parsed.said("style")
    assert set(re.findall(r"(?<![-\w])(?:color|background):([^;}]+)", css)) == {"inherit", "none"}
    assert set(re.findall(r"--hue:(#\w+)", css)) == set(re.findall(r"#\w+", css))
    assert "color:var" not in css


def colours(dark: bool) -> dict[str, str]:
    """The page's variables by day, or by night."""
    day, night = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)[:2]
    return dict(re.findall(r"--(\w+): (#\w{6})", day)) | (dict(re.findall(r"--(\w+): (#\w{6})", night)) if dark else {})


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_every_colour_of_text_can_be_read(dark):
    known = colours(dark)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for name in ("ink", "soft", "good", "warn", "bad", *(f"c{i}" for i in range(charts.COLOURS))):
        for below in ("paper", "box"):
            assert contrast(known[name], known[below]) >= 4.5, (name, below)


def test_the_edge_of_a_fragment_can_be_seen_on_white_and_on_black():
    for colour in re.findall(r"--hue:(#\w+)", fragment("good", "", [])):
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(colour, "#111111") >= 3


def test_numbers_are_where_the_axis_says():
    axis = axes.axis([0.0, 10.0], 50.0, 250.0)
    assert [(axis.position(at), name) for at, name in axis.ticks] == [
        (50, "0"), (90, "2"), (130, "4"), (170, "6"), (210, "8"), (250, "10"),
    ]  # fmt: skip
    log = axes.axis([1.0, 1000.0], 0.0, 306.0, log=True)
    assert [name for _, name in log.ticks] == ["1", "10", "100", "1000"]
    ends = [log.position(at) for at, _ in log.ticks]
    assert ends[1] - ends[0] == pytest.approx(ends[3] - ends[2])


@given(st.lists(st.floats(-1e12, 1e12, allow_nan=False), min_size=0, max_size=9), st.booleans(), st.integers(60, 600))
def test_an_axis_has_room_for_every_value_and_a_few_round_numbers(values, log, length):
    axis = axes.axis(values, 10.0, 10.0 + length, log=log)
    for value in values:
        if value > 0 or not log:
            assert 9.9 <= axis.position(value) <= 10.1 + length
    assert len(axis.ticks) <= 12
    if not log:
        assert 2 <= len(axis.ticks) <= 8


def test_a_value_that_is_not_finite_does_not_move_the_axis():
    assert axes.axis([1.0, math.inf, math.nan, 2.0], 0, 100).ticks == axes.axis([1.0, 2.0], 0, 100).ticks


def test_lines_are_told_apart_without_colour():
    drawn = charts.lines("s", [Line(str(i), [(0, i), (1, i)], i) for i in range(charts.COLOURS)], x="x", y="y")
    classes = [attrs["class"] for tag, attrs in Parsed(drawn).elements if tag == "polyline"]
    dashes = re.findall(r"\.(d\d) \{ stroke-dasharray: ([^}]+)\}", style())
    assert len({name.split()[-1] for name in classes}) == charts.COLOURS
    assert len({pattern for _, pattern in dashes}) == charts.COLOURS - 1  # the first is solid


def test_dots_of_two_groups_differ_by_shape_and_an_interval_is_drawn():
    groups = {"one": [("seed 0", 1.0), ("seed 1", 2.0)], "other": [("seed 0", 3.0)]}
    drawn = Parsed(rows.dots("s", groups, x="AP", intervals={"other": Interval(2.0, 3.0, 4.0)}, zero=True))
    tags = [tag for tag, attrs in drawn.elements if attrs.get("class", "").startswith("dot")]
    assert tags == ["circle", "circle", "rect"]
    assert drawn.said("title") == [
        "seed 0: 1.00", "seed 1: 2.00", "mean 3.00, interval from 2.00 to 4.00", "seed 0: 3.00",
    ]  # fmt: skip
    assert "0" in drawn.said("text")
