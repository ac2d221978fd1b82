"""Scenes as pixels: each pixel is of one thing, of a mark, or of the ground; nothing is blurred."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from math import cos, pi, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from examples.bundled.shapes import COLOURS, GROUNDS, SIDE, Ground, Mark, Scene, Thing

Pixels = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Coordinates = NDArray[np.float64]

# Centres of pixels, by column and by row.
_X, _Y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)


def _turned(x: float, y: float, angle: float) -> tuple[Coordinates, Coordinates]:
    """Coordinates of all pixels in a frame with this origin, turned by so many degrees."""
    across, down = _X - x, _Y - y
    c, s = cos(radians(angle)), sin(radians(angle))
    return c * across + s * down, c * down - s * across


# Shapes that reach 1 from their centres -------------------------------------------------------


def _within(corners: Sequence[tuple[float, float]], u: Coordinates, v: Coordinates) -> Flags:
    """Inside of a convex polygon, whose corners go round clockwise as seen."""
    inside = np.ones_like(u, bool)
    for (x, y), (to_x, to_y) in zip(corners, [*corners[1:], corners[0]], strict=True):
        inside &= (to_x - x) * (v - y) - (to_y - y) * (u - x) >= 0
    return inside


def _corner(turn: float, reach: float = 1.0) -> tuple[float, float]:
    """A corner so many turns clockwise from the top."""
    return reach * sin(2 * pi * turn), -reach * cos(2 * pi * turn)


def _star(u: Coordinates, v: Coordinates) -> Flags:
    """Five points: kites from the middle."""
    inside = np.zeros_like(u, bool)
    for at in range(5):
        kite = (
            *((0.0, 0.0), _corner(at / 5 - 0.1, 0.5)),
            *(_corner(at / 5), _corner(at / 5 + 0.1, 0.5)),
        )
        inside |= _within(kite, u, v)
    return inside


def _cross(u: Coordinates, v: Coordinates) -> Flags:
    upright = (np.abs(u) <= 0.3) & (np.abs(v) <= 0.95)
    return upright | ((np.abs(v) <= 0.3) & (np.abs(u) <= 0.95))


_SHAPES: dict[str, Callable[[Coordinates, Coordinates], Flags]] = {
    "circle": lambda u, v: u * u + v * v <= 0.9**2,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) <= 0.71,
    "triangle": lambda u, v: _within([_corner(at / 3) for at in range(3)], u, v),
    "cross": _cross,
    "ring": lambda u, v: np.abs(np.sqrt(u * u + v * v) - 0.72) <= 0.24,
    "star": _star,
}


def mask_of(thing: Thing) -> Flags:
    """Where a thing is seen, [SIDE, SIDE]."""
    u, v = _turned(thing.x, thing.y, thing.angle)
    return _SHAPES[thing.shape](u / thing.reach, v / thing.reach)


# Marks and grounds ----------------------------------------------------------------------------


def _mark(mark: Mark) -> Flags:
    u, v = _turned(mark.x, mark.y, mark.angle)
    if mark.kind == "dot":
        return u * u + v * v <= 1.5**2
    if mark.kind == "bar":
        return (np.abs(u) <= 2.8) & (np.abs(v) <= 0.8)
    corner = (np.abs(u + 1.2) <= 0.8) & (np.abs(v) <= 2)
    return corner | ((np.abs(v - 1.2) <= 0.8) & (np.abs(u) <= 2))


_TEXTURES: dict[str, Callable[[Coordinates, Coordinates, int], Flags]] = {
    "plain": lambda u, v, period: np.zeros_like(u, bool),
    "stripes": lambda u, v, period: v % period < period / 2,
    "checks": lambda u, v, period: (u % period < period / 2) ^ (v % period < period / 2),
    "dots": lambda u, v, period: (
        (u % period - period / 2) ** 2 + (v % period - period / 2) ** 2 < (period / 3) ** 2
    ),
    "waves": lambda u, v, period: (v + 1.5 * np.sin(u / 2)) % period < period / 2,
}


def _ground(ground: Ground) -> Pixels:
    u, v = _turned(0.1 + ground.shift, 0.1, ground.angle)
    light, dark = (np.array(tone, np.uint8) for tone in GROUNDS[ground.colour])
    raised = _TEXTURES[ground.texture](u, v, ground.period)
    return np.where(raised[..., None], light, dark)


# Pictures -------------------------------------------------------------------------------------


def draw(scene: Scene) -> Pixels:
    """A scene's pixels: red, green and blue, [SIDE, SIDE, 3]."""
    pixels = _ground(scene.ground)
    for mark in scene.marks:
        pixels[_mark(mark)] = COLOURS[mark.colour]
    for thing in scene.things:
        pixels[mask_of(thing)] = COLOURS[thing.colour]
    return pixels


def picture_file(scene: Scene) -> bytes:
    """A scene's picture as a PNG file."""
    return _png(Image.fromarray(draw(scene)))


def mask_file(thing: Thing) -> bytes:
    """A thing's mask as a PNG file of black and white."""
    return _png(Image.fromarray(mask_of(thing)))


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
