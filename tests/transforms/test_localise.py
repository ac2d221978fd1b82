"""What maps of pictures find of masks, by hand and beside scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

from attribeam.transforms.inputs.images.maps import pixel_map
from attribeam.transforms.inputs.images.picture import Picture, picture_of
from attribeam.transforms.inputs.images.things import Thing, things_of
from attribeam.transforms.inputs.row import Row, RowError
from attribeam.transforms.localise import Localisation, localise
from attribeam.transforms.network.anatomy import Grid

TOY = Grid(3, 4, 4, 2, 2)
Mask = NDArray[np.bool_]


def picture(*things: Thing, grid: Grid = TOY, label: int | None = 0) -> Picture:
    pixels = np.zeros((grid.channels, grid.height, grid.width))
    return picture_of(Row("toy", label=label), pixels, grid, things)


def mask_of(*pixels: tuple[int, int]) -> Mask:
    mask = np.zeros((4, 4), bool)
    mask[tuple(np.array(pixels).T)] = True
    return mask


LOWER_RIGHT = mask_of((2, 2), (2, 3), (3, 2), (3, 3))
UPPER_RIGHT = mask_of((0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
ZEROS = np.zeros(5)


def found_of(scores: NDArray[np.float64], mask: Mask) -> Localisation:
    found = localise(picture(Thing(mask, 0, True)), scores, 0)
    assert found is not None
    return found


def test_two_pictures_by_hand() -> None:
    """Worked by hand from the protocol."""
    one = found_of(np.array([9, 0, 0, 0, 1.0]), LOWER_RIGHT)
    two = found_of(np.array([9, 0.2, 0.9, 0.4, 0.1]), UPPER_RIGHT)
    rows = (one, two)
    tp, fp, fn, tn = (sum(getattr(row, name) for row in rows) for name in ("tp", "fp", "fn", "tn"))
    assert (tp + tn) / (tp + fp + fn + tn) == 0.96875
    assert tn / (tn + fp + fn) == pytest.approx(0.958333, abs=1e-6)
    assert tp / (tp + fp + fn) == pytest.approx(0.888889, abs=1e-6)
    means = {name: np.mean([getattr(r, name) for r in rows]) for name in ("f1", "f1_rows")}
    assert means["f1"] == pytest.approx(0.944444, abs=1e-6) and means["f1_rows"] == 0.5
    precision = [row.average_precision for row in rows]
    # In fractions: 0.92672 of the second. (Rounding breaks its ties: in float64 0.93607, in float32
    # 0.92826 come out of scikit-learn on the map that torch enlarges.)
    assert precision == pytest.approx([1.0, 0.9267195478132978], abs=1e-12)
    assert (one.hit, two.hit, one.mass_inside) == (True, True, 1.0)
    # The mask has all of the second patch, and a quarter of the last.
    assert two.mass_inside == pytest.approx((0.9 + 0.1 / 4) / 1.6)
    # Its four pixels are the highest; the fifth of the mask is behind the last row's first.
    assert (one.rank_accuracy, two.rank_accuracy) == (1.0, 0.8)
    assert one.region == "object" and one.hit_other is None and one.mass_other is None


def test_a_map_of_equal_values() -> None:
    found = found_of(np.full(5, 0.3), LOWER_RIGHT)
    assert (found.tp, found.fp, found.fn, found.tn) == (0, 0, 4, 12)
    assert (found.average_precision, found.f1, found.hit) == (0.5, 0.0, False)
    assert found.mass_inside == 0.25
    assert found_of(ZEROS, LOWER_RIGHT).mass_inside is None


def test_an_empty_mask() -> None:
    found = found_of(np.array([9, 0, 0, 0, 1.0]), np.zeros((4, 4), bool))
    assert found.empty_mask and (found.tp, found.fn) == (0, 0)
    assert (found.average_precision, found.f1, found.hit, found.mass_inside) == (None,) * 4


def test_without_a_mask() -> None:
    assert localise(picture(), ZEROS, 0) is None


def test_beside_scikit_learn() -> None:
    grid, rng = Grid(3, 24, 36, 6, 4, ("[CLS]", "[DISTILL]")), np.random.default_rng(0)
    for step in (None, 0.5):
        scores = rng.normal(size=grid.positions)
        scores = scores if step is None else np.round(scores / step) * step
        mask = rng.random((24, 36)) < 0.2
        found = localise(picture(Thing(mask, 3, True), grid=grid), scores, 3)
        assert found is not None
        values = pixel_map(scores, grid)
        share = np.round((values - values.min()) / np.ptp(values), 9)
        ranked = np.round(np.stack([1 - share.reshape(-1), share.reshape(-1)]), 9)
        right = np.stack([~mask.reshape(-1), mask.reshape(-1)])
        expected = average_precision_score(right.reshape(-1), ranked.reshape(-1))
        assert found.average_precision == pytest.approx(expected, abs=1e-12)
        over = values > values.mean() + 1e-9
        assert found.f1 == pytest.approx(f1_score(mask.reshape(-1), over.reshape(-1)), abs=1e-12)
        assert found.tp == (over & mask).sum() and found.tn == (~over & ~mask).sum()


def test_things_of_several_classes() -> None:
    things = (Thing(LOWER_RIGHT, 0, True), Thing(UPPER_RIGHT, 2, False))
    scores = np.array([9, -1, 0.9, 0.4, 0.1])
    own, other = (localise(picture(*things), scores, target) for target in (0, 2))
    assert own is not None and other is not None
    assert (own.region, other.region) == ("object", "object")
    # Where both are seen, at (2, 3), it is the explained class that is.
    assert own.mass_inside == pytest.approx(0.1 / 1.4)
    assert own.mass_other == pytest.approx(0.9 / 1.4)
    assert other.mass_inside == pytest.approx((0.9 + 0.1 / 4) / 1.4)
    assert other.mass_other == pytest.approx(0.1 * 3 / 4 / 1.4)
    assert (own.hit, own.hit_other, other.hit, other.hit_other) == (False, True, True, False)


def test_of_another_class_what_the_label_says_is_inside() -> None:
    things = (Thing(LOWER_RIGHT, 0, True), Thing(UPPER_RIGHT, 2, False))
    found = localise(picture(*things), np.array([9, 0, 0, 0, 1.0]), 1)
    assert found is not None
    assert (found.region, found.tp, found.fn, found.mass_other) == ("mask", 4, 0, None)


def test_rationales_are_of_the_pictures_class() -> None:
    things = (Thing(LOWER_RIGHT, 0, True), Thing(UPPER_RIGHT, 2, True))
    for label, expected in ((0, [0, 0, 0, 0, 1]), (2, [0, 0, 1, 0, 0]), (1, [0, 0, 1, 0, 1])):
        rationale = picture(*things, label=label).rationale
        assert rationale is not None and rationale.tolist() == expected


def test_as_many_labels_as_masks() -> None:
    row = Row("a", label=1, mask=[b"a", b"b"], mask_label=[0])
    with pytest.raises(RowError, match="there are 2 of mask, and 1 labels of them"):
        things_of(row, lambda _: LOWER_RIGHT, 3)
    with pytest.raises(RowError, match="outside the model's classes 0 to 2"):
        things_of(replace(row, mask_label=[0, 3]), lambda _: LOWER_RIGHT, 3)
    found = things_of(replace(row, mask_label=None, other_mask=b"c"), lambda _: LOWER_RIGHT, 3)
    assert [(thing.label, thing.meant) for thing in found] == [(1, True), (1, True), (None, False)]
