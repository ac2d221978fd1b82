"""What is asked of a row: of its class there is one question, of labels, values and words several.

An instance is one question about one input. Where a row has several they are told apart by their
number, as ``ID#0``, ``ID#1`` and so on; those of a window are ``ID/0#0``.
"""

from collections.abc import Iterator
from dataclasses import replace

from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.network.model import Model


def questions(model: Model, instance: Instance, target: int | None) -> list[Instance]:
    """The questions about a row or a window.

    Args:
        model: The model.
        instance: The row.
        target: The label or the value that is asked for; None for each.
    """
    if model.task == "token_classification":
        return [_numbered(one, number) for number, one in enumerate(_words(instance))]
    if model.task not in ("multi_label", "regression"):
        return [instance]
    names = model.output_names
    kind, before = ("label", (-1,)) if model.task == "multi_label" else ("value", ())
    several = target is None and len(names) > 1
    asked = range(len(names)) if target is None else [target]
    found = [
        replace(
            instance,
            asked=(*before, number),
            asked_names=(names[number],),
            question_kind=kind,
        )
        for number in asked
    ]
    return [_numbered(one, n) for n, one in zip(asked, found, strict=True)] if several else found


def _words(instance: Instance) -> Iterator[Instance]:
    """An instance for each word, read at its first token."""
    before: tuple[int, int] | None = None
    words = zip(instance.segment.tolist(), instance.word_ids.tolist(), strict=True)
    for at, word in enumerate(words):
        if word[1] >= 0 and word != before:
            yield replace(instance, readout=at, question_kind="token")
        before = word


def _numbered(instance: Instance, number: int) -> Instance:
    return replace(
        instance,
        instance_id=f"{instance.instance_id}#{number}",
        row_id=instance.row_id or instance.instance_id,
        question=number,
    )
