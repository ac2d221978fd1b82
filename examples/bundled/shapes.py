"""A synthetic corpus of pictures of shapes, with a mask of each shape and a caption.

A picture shows one thing or two on a patterned ground, and up to three marks. A thing is of one of
six shapes and seven colours; the first thing's shape is the label. Grounds are darker than things.
Marks are small, of the things' colours, and mean nothing: no colour and no bright pixel by itself
tells a shape. The structures are

- ``one``: one thing;
- ``two``: two things of different shapes, which don't touch. The second's shape is the other label.

A caption says all but the marks: "a red ring and a blue star on green waves". Where things are is
drawn on a lattice of 4 pixels, without which a small model doesn't learn shapes in minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from random import Random

SIDE = 48
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
COLOURS = {
    "red": (225, 45, 45),
    "orange": (245, 140, 35),
    "yellow": (240, 220, 60),
    "green": (50, 190, 80),
    "blue": (70, 110, 245),
    "purple": (185, 80, 220),
    "white": (240, 240, 240),
}
# Two tones of each ground, neither as bright as any thing.
GROUNDS = {
    "red": ((70, 16, 20), (40, 8, 12)),
    "green": ((18, 66, 34), (8, 36, 18)),
    "blue": ((20, 30, 84), (10, 14, 46)),
    "brown": ((78, 52, 22), (46, 30, 12)),
    "grey": ((74, 74, 74), (40, 40, 40)),
}
TEXTURES = ("plain", "stripes", "checks", "dots", "waves")
MARKS = ("bar", "dot", "corner")
STRUCTURES = ("one", "two")

# Pictures of a turn, of which the last have two things.
_TURN = 3 * len(SHAPES)
_LATTICE = 4
_MOST_MARKS = 3
_MARK_REACH = 3
_MAX_TRIES = 1000


@dataclass(frozen=True)
class Thing:
    """A shape in a picture.

    Attributes:
        shape: One of ``SHAPES``.
        colour: One of ``COLOURS``.
        x: Column of its centre, in pixels.
        y: Row of its centre.
        reach: How far it reaches from its centre, in pixels.
        angle: How far it is turned, in degrees.
    """

    shape: str
    colour: str
    x: int
    y: int
    reach: int
    angle: int


@dataclass(frozen=True)
class Mark:
    """A small mark: its kind (``MARKS``), its colour, its centre, and how it is turned."""

    kind: str
    colour: str
    x: int
    y: int
    angle: int


@dataclass(frozen=True)
class Ground:
    """What is behind all: its colour (``GROUNDS``), its texture, and how this is laid.

    Attributes:
        colour: One of ``GROUNDS``.
        texture: One of ``TEXTURES``.
        period: Pixels until the texture repeats.
        angle: How far it is turned, in degrees.
        shift: By how many pixels it is moved.
    """

    colour: str
    texture: str
    period: int
    angle: int
    shift: int


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        id: ``shapes-SEED-NUMBER``, unique over seeds.
        things: One or two.
        ground: What is behind them.
        marks: At most three.
    """

    id: str
    things: tuple[Thing, ...]
    ground: Ground
    marks: tuple[Mark, ...]

    @property
    def structure(self) -> str:
        """``one`` or ``two``."""
        return STRUCTURES[len(self.things) - 1]

    @property
    def label(self) -> int:
        """The number of the first thing's shape."""
        return SHAPES.index(self.things[0].shape)

    @property
    def other_label(self) -> int | None:
        """The number of the second thing's shape, if there is one."""
        return SHAPES.index(self.things[1].shape) if len(self.things) > 1 else None

    @property
    def caption(self) -> str:
        """The picture in words, without the marks."""
        things = " and ".join(f"{article(t.colour)} {t.colour} {t.shape}" for t in self.things)
        colour, texture = self.ground.colour, self.ground.texture
        where = f"plain {colour}" if texture == "plain" else f"{colour} {texture}"
        return f"{things} on {where}"

    @property
    def content(self) -> str:
        """All that is seen, which tells its split."""
        return repr((self.things, self.ground, self.marks))


def generate(n: int, seed: int) -> list[Scene]:
    """Compose ``n`` pictures.

    Shapes take turns, and the last six of 18 pictures have two things, so that the first
    ``18 * k`` pictures hold each shape of each structure equally often. A longer list begins with
    the shorter ones of the same seed.

    Args:
        n: How many, 0 or more.
        seed: The same seed gives the same pictures.

    Returns:
        Scenes with different ids.

    Raises:
        ValueError: ``n`` is negative.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    rng = Random(f"shapes-{seed}")
    return [_scene(rng, number, f"shapes-{seed}-{number:06d}") for number in range(n)]


def _scene(rng: Random, number: int, name: str) -> Scene:
    shape = SHAPES[number % len(SHAPES)]
    two = number % _TURN >= _TURN - len(SHAPES)
    things = _things(rng, shape, two)
    ground = Ground(
        rng.choice(list(GROUNDS)),
        rng.choice(TEXTURES),
        rng.randint(5, 9),
        rng.randrange(0, 180, 15),
        rng.randrange(8),
    )
    return Scene(name, things, ground, _marks(rng, things))


def _things(rng: Random, shape: str, two: bool) -> tuple[Thing, ...]:
    """One thing, or two that don't touch."""
    if not two:
        return (_thing(rng, shape, (10, 14)),)
    other = rng.choice([each for each in SHAPES if each != shape])
    for _ in range(_MAX_TRIES):
        first, second = _thing(rng, shape, (9, 12)), _thing(rng, other, (9, 12))
        if _apart(first.x - second.x, first.y - second.y, first.reach + second.reach):
            return first, second
    raise RuntimeError(f"no room for two things in {_MAX_TRIES} tries")


def _thing(rng: Random, shape: str, reaches: tuple[int, int]) -> Thing:
    reach = rng.randint(*reaches)
    places = range(-(-reach // _LATTICE) * _LATTICE, SIDE - reach + 1, _LATTICE)
    angle = rng.choice((-15, 0, 15))
    return Thing(
        shape, rng.choice(list(COLOURS)), rng.choice(places), rng.choice(places), reach, angle
    )


def _marks(rng: Random, things: tuple[Thing, ...]) -> tuple[Mark, ...]:
    """Marks that touch no thing and no other mark; fewer where there is no room."""
    marks: list[Mark] = []
    for _ in range(rng.randint(0, _MOST_MARKS)):
        kind, colour = rng.choice(MARKS), rng.choice(list(COLOURS))
        x, y = (rng.randint(_MARK_REACH, SIDE - _MARK_REACH) for _ in "xy")
        free = all(_apart(x - t.x, y - t.y, t.reach + _MARK_REACH) for t in things)
        free = free and all(_apart(x - m.x, y - m.y, 2 * _MARK_REACH) for m in marks)
        angle = rng.randrange(0, 360, 15)
        if free:
            marks.append(Mark(kind, colour, x, y, angle))
    return tuple(marks)


def _apart(x: int, y: int, reach: int) -> bool:
    """Whether two that reach so far in all don't touch, their centres being so far from another."""
    return hypot(x, y) > reach + 1


def article(word: str) -> str:
    """The article before a word."""
    return "an" if word[0] in "aeiou" else "a"
