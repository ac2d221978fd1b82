"""What is asked of a row: of its class there is one question, of labels, values and words several.

An instance is one question about one input. Where a row has several they are told apart by their
number, as ``ID#0``, ``ID#1`` and so on; those of a window are ``ID/0#0``.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.following import following
from attribeam.transforms.inputs.images.picture import Picture
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.inputs.row import ModelRowError, RowError, Target
from attribeam.transforms.network.model import VALUES, Model
from attribeam.transforms.recovery import is_device_lost


def questions(
    model: Model, instance: Instance, target: Target, *, objects: bool = False
) -> list[Instance]:
    """The questions about a row or a window.

    Args:
        model: The model.
        instance: The row.
        target: The label or the value that is asked for; None for each.
        objects: Ask for each class that a picture's masks are of.

    Raises:
        RowError: If there are none; as ``_span``.
    """
    if objects:
        return _of_objects(instance)
    if model.task == "causal_lm":
        return [_numbered(one, one.question) for one in following(instance, target)]
    if model.task == "token_classification":
        return [_numbered(one, number) for number, one in enumerate(_words(instance))]
    if model.task not in ("multi_label", *VALUES):
        return [instance]
    names = model.output_names
    before = (-1,) if model.task == "multi_label" else ()
    kinds = {"multi_label": "label", "regression": "value", "similarity": "value"}
    where = _span(model, instance) if model.task == "span" else [instance.readout] * len(names)
    several = target is None and len(names) > 1
    asked = [target] if isinstance(target, int) else range(len(names))
    found = [
        replace(
            instance,
            readout=where[number],
            asked=(*before, number),
            asked_names=(names[number],),
            question_kind=kinds.get(model.task, names[number]),
        )
        for number in asked
    ]
    return [_numbered(one, n) for n, one in zip(asked, found, strict=True)] if several else found


# Most tokens of an answer, as transformers' pipeline has it.
_LONGEST = 15


def _span(model: Model, instance: Instance) -> list[int]:
    """Where the best answer starts and ends: in the second text, or the only one.

    The row is run alone, so that the answer depends on nothing else. The best answer has the
    largest sum of the two logits, of at most 15 tokens.

    Raises:
        RowError: If that text has no tokens; ``ModelRowError`` if the model fails on the row.
        Exception: If the device is lost.
    """
    start, end = _logits_of_tokens(model, instance).T
    inside = ~instance.special & (instance.segment == instance.segment.max())
    # Of a blank second text there is no segment, and the question would be taken for the passage.
    if not inside.any() or (instance.text_pair and not instance.segment.any()):
        raise RowError("the passage has no tokens to find an answer in")
    places = np.arange(len(instance))
    lengths = places[None] - places[:, None]
    allowed = inside[:, None] & inside[None] & (lengths >= 0) & (lengths < _LONGEST)
    sums = np.where(allowed, start[:, None] + end[None], -np.inf)
    first, last = np.unravel_index(sums.argmax(), sums.shape)
    return [int(first), int(last)]


def _logits_of_tokens(model: Model, instance: Instance) -> NDArray[np.float64]:
    """Of each token how much an answer starts or ends there, [T, 2]."""
    try:
        found = model.logits_of_tokens(collate(model, [instance]).rows)[0].double().cpu().numpy()
        if not np.isfinite(found).all():
            raise ArithmeticError("the model's logits are not finite")
    except Exception as error:
        if is_device_lost(error):
            raise
        raise ModelRowError(f"the model failed on the row: {error}") from error
    return found


def _of_objects(instance: Instance) -> list[Instance]:
    """An instance for each class that a thing in a picture is known to be of, by its number."""
    assert isinstance(instance, Picture)
    found = sorted({thing.label for thing in instance.things if thing.label is not None})
    if not found:
        raise RowError("no mask of the picture has a class that could be explained")
    return [
        _numbered(replace(instance, own_target=label, question_kind="object"), number)
        for number, label in enumerate(found)
    ]


def _words(instance: Instance) -> Iterator[Instance]:
    """An instance for each word, read at its first token."""
    before: tuple[int, int] | None = None
    words = zip(instance.segment.tolist(), instance.word_ids.tolist(), strict=True)
    for at, word in enumerate(words):
        if word[1] >= 0 and word != before:
            yield replace(instance, readout=at, question_kind="token")
        before = word


def _numbered(instance: Instance, number: int | None) -> Instance:
    """A question by its number; None for that about all that follows."""
    return replace(
        instance,
        instance_id=f"{instance.instance_id}#{'all' if number is None else number}",
        row_id=instance.row_id or instance.instance_id,
        question=number,
    )
