"""Names of points, each beside its own, so that none covers another at any width of a range.

A page's figure is as wide as its window. Heights are fixed, so that two boxes which share some
height are to be kept apart across alone: where one is from the other is linear in the width, and
whether they ever meet is known from the two ends of the range.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Boxes = (
    Array  # [boxes, 5]: share of the width; pixels from there to the left and right; top, bottom.
)
Span = Sequence[float]

# Widths in pixels that names are placed for: of a phone, of half a screen, and of a screen.
WIDTHS = ((330, 440), (440, 680), (680, 1500))
POINT = "point"  # What annotations are called that are names of points.
_LETTER = 0.62  # Width of a letter, of its size: a wide font's.
_LINE = 1.35  # Height of a line, of its size.
_MARKER = 6.0  # Half a marker's width in pixels.
_RINGS = (
    8,
    14,
    22,
    32,
    44,
    58,
    74,
    92,
    112,
    134,
    160,
    190,
)  # How far from its point a name may be, in pixels.
_TURNS = 16
_STEPS = 6  # Places of a leading line that are looked at.
_CROSSED = 25.0  # What it is worth, in pixels, not to lead over a point or another line.
_COVERED, _OUTSIDE = 1e4, 1e7
_GROWTH = 1.2
_TRIES = 4
_ORDERS = 6  # Orders in which names choose that are tried at a height.


def _around() -> Array:
    """Where a name's edge may be from its point, the nearest first: right and down, [moves, 2]."""
    turns = [math.tau * turn / _TURNS for turn in range(_TURNS)]
    places = [[ring * math.cos(turn), ring * math.sin(turn)] for ring in _RINGS for turn in turns]
    return np.round(places, 1) + 0.0


_MOVES = _around()
_FAR = np.repeat(np.array(_RINGS, dtype=float), _TURNS)
_NEAR = (_RINGS[0] + _RINGS[1]) / 2 > _FAR  # Names so near need no line.
# Which edge of a name is where it was moved to, the one towards its point: a share of its size.
_BESIDE = np.abs(_MOVES[:, 1]) < np.abs(_MOVES[:, 0])
_SIDE = (1 - np.sign(_MOVES[:, 0])) / 2
_LEVEL = np.where(_BESIDE, 0.5, (1 - np.sign(_MOVES[:, 1])) / 2)
_SIDES = {0.0: "left", 0.5: "center", 1.0: "right"}
_LEVELS = {0.0: "top", 0.5: "middle", 1.0: "bottom"}


def has_names(layout: Mapping[str, Any]) -> bool:
    """Whether names of points are on a figure of that layout."""
    return any(_is_name(note) for note in layout.get("annotations", ()))


def names_placed(layout: Mapping[str, Any], narrowest: int, widest: int) -> dict[str, Any]:
    """Where the names of a figure's points cover neither another nor a point.

    A name that isn't close beside its point has a line to it. Where there is no room for all, the
    figure becomes higher.

    Args:
        layout: The figure's, in plain objects, with the ranges of both axes, all margins, a height,
            and an annotation called ``POINT`` for each point, in the order in which they choose.
        narrowest: The least width in pixels that it is shown in.
        widest: The largest one.

    Returns:
        The layout's height and annotations.
    """
    margin = layout["margin"]
    widths = (narrowest - margin["l"] - margin["r"], widest - margin["l"] - margin["r"])
    spans = layout["xaxis"]["range"], layout["yaxis"]["range"]
    notes = [note for note in layout["annotations"] if _is_name(note)]
    for tried in range(_TRIES):
        height = round(layout["height"] * _GROWTH**tried)
        inside = height - margin["t"] - margin["b"]
        names = [_named(note, spans, inside) for note in notes]
        places, crowded = _fitted(names, widths, inside, margin["r"])
        if not crowded:
            break
    others = [note for note in layout["annotations"] if not _is_name(note)]
    return {
        "height": height,
        "annotations": others + [_moved(n, at) for n, at in zip(notes, places, strict=True)],
    }


def _is_name(note: Mapping[str, Any]) -> bool:
    return bool(note.get("name") == POINT)


def _moved(note: Mapping[str, Any], place: int) -> dict[str, Any]:
    """A name where it was placed, as plotly has it."""
    across, down = (float(part) for part in _MOVES[place])
    kept = {k: v for k, v in note.items() if k not in ("ax", "ay", "xshift", "yshift")}
    near = bool(_NEAR[place])
    return {
        **kept,
        **({"xshift": across, "yshift": -down} if near else {"ax": across, "ay": down}),
        "showarrow": not near,
        "xanchor": _SIDES[float(_SIDE[place])],
        "yanchor": _LEVELS[float(_LEVEL[place])],
    }


class _Name(NamedTuple):
    """A name: its point, as a share of the width and in pixels from the top, and its own size."""

    across: float
    down: float
    width: float
    height: float


def _named(note: Mapping[str, Any], spans: tuple[Span, Span], height: float) -> _Name:
    size = note["font"]["size"]
    return _Name(
        _share(note["x"], spans[0]),
        height * (1 - _share(note["y"], spans[1])),
        _LETTER * size * len(note["text"]),
        _LINE * size,
    )


def _share(value: float, span: Span) -> float:
    return (value - span[0]) / (span[1] - span[0])


def _fitted(
    names: list[_Name], widths: tuple[int, int], height: float, beyond: float
) -> tuple[list[int], int]:
    """Which of the moves each name takes, and how many cover another; see ``_placed``.

    Who found no place chooses first the next time.
    """
    order = list(range(len(names)))
    best: tuple[list[int], int] = ([], len(names) + 1)
    for _ in range(_ORDERS):
        moves, crowded = _placed([names[at] for at in order], widths, height, beyond)
        if len(crowded) < best[1]:
            best = [moves[order.index(at)] for at in range(len(names))], len(crowded)
        if not crowded:
            break
        late = [order[at] for at in crowded]
        order = late + [at for at in order if at not in late]
    return best


def _placed(
    names: list[_Name], widths: tuple[int, int], height: float, beyond: float
) -> tuple[list[int], list[int]]:
    """Which of the moves each name takes, and which names cover another.

    Args:
        names: In the order in which they choose.
        widths: The least and the largest width between the axes' ends.
        height: The height there.
        beyond: How far names may reach over the right end.
    """
    points = np.array(
        [[n.across, -_MARKER, _MARKER, n.down - _MARKER, n.down + _MARKER] for n in names]
    )
    boxes, lines = np.empty((0, 5)), np.empty((0, 5))
    chosen, crowded = [], []
    for at, name in enumerate(names):
        own = _boxes(name)
        outside = (own[:, 0] * widths[0] + own[:, 1] < 0) | (own[:, 3] < 0) | (own[:, 4] > height)
        outside |= (own[:, 0] - 1) * widths[0] + own[:, 2] > beyond
        met = _meetings(own, np.concatenate([boxes, lines, points]), widths)
        # Lines are only looked at of places where a name may stand.
        left = np.flatnonzero(~outside & (met == 0))
        left = left if len(left) else np.arange(len(own))
        leads = _leads(name, own)[left].reshape(-1, 5)
        met[left] += _along(_meetings(leads, boxes, widths))
        others = np.concatenate([np.delete(points, at, 0), lines])
        crossed = _along(_meetings(leads, others, widths))
        cost = _FAR[left] + _CROSSED * crossed + _COVERED * met[left] + _OUTSIDE * outside[left]
        best = int(left[np.argmin(cost)])
        if met[best] or outside[best]:
            crowded.append(at)
        chosen.append(best)
        boxes = np.concatenate([boxes, own[best : best + 1]])
        if not _NEAR[best]:
            lines = np.concatenate([lines, _leads(name, own)[best]])
    return chosen, crowded


def _boxes(name: _Name) -> Boxes:
    """What a name covers after each of the moves."""
    left = _MOVES[:, 0] - _SIDE * name.width
    top = name.down + _MOVES[:, 1] - _LEVEL * name.height
    across = np.full(len(_MOVES), name.across)
    return np.stack([across, left, left + name.width, top, top + name.height], axis=1)


def _leads(name: _Name, boxes: Boxes) -> Boxes:
    """Places of the line from a point to the middle of its name, [moves, ``_STEPS``, 5]."""
    shares = np.linspace(0, 1, _STEPS + 2)[None, 1:-1]
    middle = (boxes[:, 1:2] + boxes[:, 2:3]) / 2, (boxes[:, 3:4] + boxes[:, 4:5]) / 2
    across, down = shares * middle[0], name.down + shares * (middle[1] - name.down)
    # Within its own name there is no line, and none where a name is beside its point.
    hidden = (across >= boxes[:, 1:2]) & (across <= boxes[:, 2:3]) | _NEAR[:, None]
    hidden &= (down >= boxes[:, 3:4]) & (down <= boxes[:, 4:5]) | _NEAR[:, None]
    across, down = np.where(hidden, 0.0, across), np.where(hidden, name.down, down)
    return np.stack([np.full_like(across, name.across), across, across, down, down], axis=-1)


def _along(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    total: npt.NDArray[np.int64] = counts.reshape(-1, _STEPS).sum(1)
    return total


def _meetings(some: Boxes, others: Boxes, widths: tuple[int, int]) -> npt.NDArray[np.int64]:
    """How many of the others each box meets at some width of the range."""
    a, b = some[:, None], others[None]
    ends = [(a[..., 0] - b[..., 0]) * width for width in widths]
    low, high = np.minimum(*ends), np.maximum(*ends)
    across = (low + a[..., 1] < b[..., 2]) & (high + a[..., 2] > b[..., 1])
    met: npt.NDArray[np.int64] = (across & (a[..., 3] < b[..., 4]) & (a[..., 4] > b[..., 3])).sum(1)
    return met
