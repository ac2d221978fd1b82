"""Where a method sees a picture's class, beside a mask of it: counts and ratios per instance.

The protocols of weakly supervised segmentation (Chefer et al. 2021, after ImageNet-Segmentation),
of the pointing game (Zhang et al. 2018), and of relevance mass and rank (Arras et al. 2022). What a
set of pictures gives is pooled from them in SQL.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.images.maps import patch_map, pixel_map
from attribeam.transforms.inputs.images.picture import Picture
from attribeam.transforms.inputs.images.things import Mask, Thing, meant_at, seen_at

Map = NDArray[np.float64]
Levels = NDArray[np.int64]
# What differs by less of a map's span is equal, in whatever order sums were taken.
_STEPS = 10**12


class Localisation(NamedTuple):
    """A row of ``localisation``, but for its instance and method.

    Attributes:
        target: The class that is looked for.
        level: Whether the map is that of ``patch`` scores, enlarged, or of ``pixel`` scores.
        region: ``object``, the masks that are known to be of that class, or ``mask``, all that the
            picture's label is of, since none is.
        threshold: Above what a pixel counts as found: the map's ``mean``.
        tp: Pixels found inside of the mask.
        fp: Pixels found outside.
        fn: Pixels inside that aren't found.
        tn: Pixels outside that aren't found.
        average_precision: Mean over found and not found of both rankings taken together.
        f1: Harmonic mean of precision and recall.
        f1_rows: Mean over rows of pixels of the same of each, 0 for a row without any.
        hit: Whether a pixel of the largest value is inside; a map of equal values points nowhere.
        mass_inside: Share of the positive scores inside; a patch's lies evenly in it.
        rank_accuracy: Of as many pixels of the largest values as the mask has, the share inside.
        hit_other: Whether a pixel of the largest value is in another thing.
        mass_other: Share of the positive scores in other things.
        empty_mask: Whether the mask is empty: then what is a share of it is None.
    """

    target: int
    level: str
    region: str
    threshold: str
    tp: int
    fp: int
    fn: int
    tn: int
    average_precision: float | None
    f1: float | None
    f1_rows: float | None
    hit: bool | None
    mass_inside: float | None
    rank_accuracy: float | None
    hit_other: bool | None
    mass_other: float | None
    empty_mask: bool


def localise(
    picture: Picture,
    scores: NDArray[np.floating],
    target: int,
    pixels: NDArray[np.floating] | None = None,
) -> Localisation | None:
    """How well scores of positions, [T], find what is masked; None of a picture without a mask.

    Args:
        picture: The picture.
        scores: Raw scores.
        pixels: Raw scores of pixels, [H * W], where there are some: they are the map then.
        target: The class whose things are looked for.
    """
    if not picture.things:
        return None
    assert picture.grid is not None
    own = seen_at(picture.things, target)
    region, mask = ("mask", meant_at(picture.things)) if own is None else ("object", own)
    others = _others(picture.things, target, mask) if region == "object" else None
    values = pixel_map(scores, picture.grid) if pixels is None else _square(pixels, mask)
    span = float(values.max() - values.min())
    found = values - values.mean() > span / _STEPS
    flat, some = span == 0, bool(mask.any())
    levels = _levels(values)
    highest = (levels == levels.max()) & (not flat)
    even = patch_map(np.asarray(scores, np.float64), picture.grid) if pixels is None else values
    positive = np.maximum(even, 0)
    mass = float(positive.sum())

    def share(region: Mask) -> float | None:
        return float(positive[region].sum()) / mass if mass > 0 else None

    return Localisation(
        target=target,
        level="patch" if pixels is None else "pixel",
        region=region,
        threshold="mean",
        tp=int((found & mask).sum()),
        fp=int((found & ~mask).sum()),
        fn=int((~found & mask).sum()),
        tn=int((~found & ~mask).sum()),
        average_precision=average_precision(levels, mask) if some else None,
        f1=float(_f1(found.reshape(1, -1), mask.reshape(1, -1))[0]) if some else None,
        f1_rows=float(_f1(found, mask).mean()) if some else None,
        hit=bool((highest & mask).any()) if some else None,
        mass_inside=share(mask) if some else None,
        rank_accuracy=_rank_accuracy(levels, mask) if some else None,
        hit_other=None if others is None else bool((highest & others).any()),
        mass_other=None if others is None else share(others),
        empty_mask=not some,
    )


def _square(pixels: NDArray[np.floating], mask: Mask) -> Map:
    """Scores of pixels as a map, [H, W]."""
    return np.asarray(pixels, np.float64).reshape(mask.shape)


def _others(things: Sequence[Thing], target: int, mask: Mask) -> Mask | None:
    """Where things of other classes are seen and that of the target isn't; None without any."""
    others = [thing.mask for thing in things if thing.label != target]
    return np.logical_or.reduce(others) & ~mask if others else None


def _levels(values: Map) -> Levels:
    """A map brought to 0 to ``_STEPS``; all 0 for one of equal values."""
    low, span = values.min(), values.max() - values.min()
    found: Levels = np.rint((values - low) / (span or 1.0) * _STEPS).astype(np.int64)
    return found


def average_precision(levels: Levels, mask: Mask) -> float:
    """Average precision of one ranking of all pixels as inside and as outside.

    With the map brought to 0 to 1 as m, the 2 * H * W values m and 1 - m are ranked together; right
    are m inside and 1 - m outside. Values that differ by rounding alone are equal: of m near 1 / 2
    the authors' code lets rounding decide. A map of equal values says nothing: 0.5.

    Source:
        The segmentation script of Chefer et al. 2021; steps at distinct values, as scikit-learn.
    """
    if not levels.any():
        return 0.5
    ranked = np.concatenate([_STEPS - levels.reshape(-1), levels.reshape(-1)])
    right = np.concatenate([~mask.reshape(-1), mask.reshape(-1)])
    order = np.argsort(-ranked, kind="stable")
    ranked, hits = ranked[order], np.cumsum(right[order])
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _f1(found: Mask, mask: Mask) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall of each row; 0 where nothing is, or is found."""
    both, either = (found & mask).sum(1), found.sum(1) + mask.sum(1)
    shares: NDArray[np.float64] = 2 * both / np.maximum(either, 1)
    return shares


def _rank_accuracy(levels: Levels, mask: Mask) -> float:
    """Share inside of as many pixels of the largest values as the mask has; of equal, the first."""
    count = int(mask.sum())
    best = np.argsort(-levels.reshape(-1), kind="stable")[:count]
    return float(mask.reshape(-1)[best].mean())
