"""The chart: round marks that enclose every value, dots in their place, text that is text."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.scatter import Point, place, scatter, ticks

_VALUES = st.lists(
    st.floats(-1e9, 1e9, allow_nan=False).map(lambda v: round(v, 6)), min_size=1, max_size=8
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_VALUES)
def test_marks_enclose_every_value_and_are_few(values: list[float]) -> None:
    marks = ticks(values)
    assert marks == sorted(set(marks)) and 2 <= len(marks) <= 12
    slack = (marks[-1] - marks[0]) * 1e-6
    assert marks[0] - slack <= min(values) and max(values) <= marks[-1] + slack


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 6], [0, 1, 2, 3, 4, 5, 6]),
        ([13.3, 25.2], [12, 14, 16, 18, 20, 22, 24, 26]),
        ([0, 0], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([5, 5], [4.4, 4.6, 4.8, 5, 5.2, 5.4, 5.6]),
        ([0, 0.06], [0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06]),
    ],
)
def test_marks_are_round(values: list[float], expected: list[float]) -> None:
    assert ticks(values) == pytest.approx(expected)


def test_a_value_lies_where_its_share_is() -> None:
    assert place(5, [0, 10], 100, 200) == 150


def test_every_point_is_a_dot_in_the_colour_of_its_group() -> None:
    points = [
        Point(1, 2, "base", "one"),
        Point(2, 3, "tiny", "two"),
        Point(3, 4, "base", "three"),
        Point(float("nan"), 4, "base", "no value"),
    ]
    html = scatter(points, "seconds", "wer")
    colours = re.findall(r'r="6" fill="(#\w+)"', html)
    assert len(colours) == 3
    assert colours[0] == colours[2] != colours[1]
    assert "<title>two</title>" in html and "no value" not in html


def test_names_are_not_html() -> None:
    html = scatter([Point(1, 1, "<b>m</b>", "<script>")], "<i>x</i>", 'y"')
    assert not re.search(r"<(b|script|i)>", html)


def test_nothing_to_show() -> None:
    assert scatter([], "x", "y") == ""
