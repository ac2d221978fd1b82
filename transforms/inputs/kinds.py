"""The kinds of input that there are, and whose a model is."""

from collections.abc import Sequence

import numpy as np
import torch

from attribeam.transforms.inputs.batch import Batch, Instance, longest, padded, put
from attribeam.transforms.inputs.images.kind import Images
from attribeam.transforms.inputs.seam import Inputs
from attribeam.transforms.inputs.text.kind import Text
from attribeam.transforms.network.model import Model

KINDS: dict[str, Inputs] = {"text": Text(), "images": Images()}


def inputs_of(about: Model | Instance) -> Inputs:
    """The kind of input that a model takes, or that an instance is."""
    return KINDS[about.modality]


def collate(model: Model, instances: Sequence[Instance]) -> Batch:
    """Pads instances to the longest of them and puts them on the model's device."""
    rows = inputs_of(model).rows(model, instances)
    inputs: dict[tuple[object, ...], int] = {}
    row = [inputs.setdefault(i.input_key, len(inputs)) for i in instances]
    several = rows
    if len(inputs) < len(instances):
        first = longest(instances, row)
        several = rows.shared(*(put(np.asarray(x), model.device) for x in (first, row)))
    removable: torch.Tensor = put(
        padded([i.removable for i in instances], False, np.bool_), model.device
    )
    return Batch(tuple(instances), rows, removable, several)
