"""Names of points: none covers another, or a point, at any width that they are placed for."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from attribeam.analysis.plots.cost import cost_scatter
from attribeam.analysis.plots.figures import themed
from attribeam.analysis.plots.names import WIDTHS, names_placed
from tests.support.crowd import CROWD, crowd

LETTER, LINE, MARKER = 0.6, 1.3, 5.5  # As wide as DejaVu Sans, of a letter's size.
Box = tuple[float, float, float, float]


def boxes(layout: dict[str, Any], width: int) -> tuple[dict[str, Box], dict[str, Box]]:
    """What names and points cover in a figure of that width: left, top, right, bottom."""
    margin = layout["margin"]
    across = width - margin["l"] - margin["r"]
    down = layout["height"] - margin["t"] - margin["b"]
    names, points = {}, {}
    for note in layout["annotations"]:
        (low, high), (bottom, top) = layout["xaxis"]["range"], layout["yaxis"]["range"]
        x = across * (note["x"] - low) / (high - low)
        y = down * (top - note["y"]) / (top - bottom)
        points[note["text"]] = (x - MARKER, y - MARKER, x + MARKER, y + MARKER)
        x += note["ax"] if note["showarrow"] else note["xshift"]
        y += note["ay"] if note["showarrow"] else -note["yshift"]
        wide, high = (
            LETTER * len(note["text"]) * note["font"]["size"],
            LINE * note["font"]["size"],
        )
        x -= {"left": 0, "center": 0.5, "right": 1}[note["xanchor"]] * wide
        y -= {"top": 0, "middle": 0.5, "bottom": 1}[note["yanchor"]] * high
        names[note["text"]] = (x, y, x + wide, y + high)
        assert x >= -1 and x + wide <= across + margin["r"] + 1 and -1 <= y <= down - high + 1
    return names, points


def meet(one: Box, other: Box) -> bool:
    return (
        min(one[2], other[2]) - max(one[0], other[0]) > 0.5
        and min(one[3], other[3]) - max(one[1], other[1]) > 0.5
    )


def check(layout: dict[str, Any], width: int) -> None:
    names, points = boxes(layout, width)
    assert len(names) == len(CROWD)
    assert [p for p in combinations(names, 2) if meet(names[p[0]], names[p[1]])] == []
    assert [(n, p) for n in names for p in points if meet(names[n], points[p])] == []


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_no_name_covers_another_at_any_width(widths: tuple[int, int]) -> None:
    layout = cost_scatter(crowd(), "auc_difference", "AUC difference").to_plotly_json()["layout"]
    layout |= names_placed(layout, *widths)
    for width in np.linspace(*widths, 9):
        check(layout, int(width))
    assert layout["height"] <= 720


def test_a_width_that_was_asked_for_has_its_own_places() -> None:
    figure = cost_scatter(crowd(), "auc_difference", "AUC difference")
    check(themed(figure, "dark", 400).to_plotly_json()["layout"], 400)


def test_points_in_one_place_and_a_single_one() -> None:
    one = [dict(crowd()[0], method=f"m{at}") for at in range(4)]
    for rows in (one, one[:1]):
        layout = cost_scatter(rows, "auc_difference", "a").to_plotly_json()["layout"]
        names, _ = boxes(layout, 900)
        assert not any(meet(names[a], names[b]) for a, b in combinations(names, 2))
