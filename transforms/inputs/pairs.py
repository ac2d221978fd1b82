"""Pairs of a picture and a text: an instance of each, compared with the features of the other.

Both explain the same number, exp(logit_scale) times the cosine of their features
(``logits_per_image``). The instances of a row ``ID`` are ``ID/image`` and ``ID/text``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPModel

from attribeam.transforms.inputs.batch import TOKEN_BUDGETS, Instance, pack
from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.inputs.row import EncodeOptions, ModelRowError, Row, RowError
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.towers import scale_of
from attribeam.transforms.recovery import halving

# By the kind of input of a tower, what its side of a pair is called.
SIDES: Mapping[str, Literal["image", "text"]] = {"images": "image", "text": "text"}
_Features = NDArray[np.float64]


def encode_pair(model: Model, row: Row, options: EncodeOptions) -> list[Instance]:
    """The two instances of a row, that of its picture first; not compared yet (``compared``).

    Raises:
        RowError: If one of them can't be encoded.
    """
    return [_side(tower, row, options) for tower in model.towers.values()]


def _side(tower: Model, row: Row, options: EncodeOptions) -> Instance:
    kind = inputs_of(tower)
    instance, *others = kind.encode(tower, row, options)
    if others:
        raise RowError("the text of a pair can't be windows (--overflow truncate cuts it)")
    kind.check(instance)
    side = SIDES[tower.modality]
    return replace(
        instance, instance_id=f"{row.instance_id}/{side}", row_id=row.instance_id, side=side
    )


def compared(
    model: Model, pairs: Sequence[Sequence[Instance]]
) -> list[list[Instance] | ModelRowError]:
    """Pairs, each side with the features of the other.

    Each picture and each text is run once, whatever pairs it is in.

    Args:
        model: The model of pairs.
        pairs: Of each the two instances, as ``encode_pair`` gives them.

    Returns:
        Per pair its instances; or why there are none, if the model fails on a side.

    Raises:
        Exception: If the device is lost.
    """
    scale = float(scale_of(cast(CLIPModel, model.whole)))
    found: list[list[_Features | Exception]] = [
        _features(tower, [pair[number] for pair in pairs])
        for number, tower in enumerate(model.towers.values())
    ]
    return [_with_features(pair, sides, scale) for pair, *sides in zip(pairs, *found, strict=True)]


def _with_features(
    pair: Sequence[Instance], sides: Sequence[_Features | Exception], scale: float
) -> list[Instance] | ModelRowError:
    for side in sides:
        if isinstance(side, Exception):
            error = ModelRowError(f"the model failed on the row: {side}")
            error.__cause__ = side
            return error
    others: Any = reversed(sides)
    return [replace(one, against=scale * other) for one, other in zip(pair, others, strict=True)]


def _features(tower: Model, instances: Sequence[Instance]) -> list[_Features | Exception]:
    """Features of each, of a length of 1, [n]; or what went wrong."""
    numbers: dict[bytes, int] = {}
    of_each = [numbers.setdefault(instance.content, len(numbers)) for instance in instances]
    first = {number: at for at, number in reversed(list(enumerate(of_each)))}
    # Nothing is asked of them: all of their features are wanted.
    several = [replace(instances[first[n]], asked=None) for n in range(len(numbers))]
    found: list[_Features | Exception] = [ArithmeticError("not run")] * len(several)

    def run(part: Sequence[int]) -> _Features:
        with torch.no_grad():
            rows = collate(tower, [several[number] for number in part]).rows
            return tower.run(rows)[0].double().cpu().numpy()

    budget = TOKEN_BUDGETS[tower.device.type]
    with borrowed(tower.network):
        for batch in pack([len(one) for one in several], budget, tower.head_size):
            for part, features in halving(run, batch):
                if isinstance(features, Exception):
                    found[part[0]] = features
                else:
                    for number, own in zip(part, features, strict=True):
                        found[number] = own if np.isfinite(own).all() else _not_finite()
    return [found[number] for number in of_each]


def _not_finite() -> Exception:
    return ArithmeticError("the model's features are not finite")
