"""What is given to the functions for use from Python: taken as meant, or refused in a sentence."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attribeam.schemas import UsageTypeError
from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.row import EncodeOptions, Row
from attribeam.transforms.network.model import Model


def check_model(model: Any) -> None:
    """Checks that a model is one of ours.

    Raises:
        UsageTypeError: If it isn't; says how to come by one.
    """
    if isinstance(model, Model):
        return
    folder = repr(model) if isinstance(model, str) else "FOLDER"
    hint = "" if isinstance(model, str) else ", a folder that save_pretrained has written"
    raise UsageTypeError(f"the model is {kind_of(model)}: give load_model({folder}){hint}")


def check_instances(instances: Any) -> None:
    """Checks that instances are a list of what ``encode`` gives.

    Raises:
        UsageTypeError: If they aren't.
    """
    if isinstance(instances, Instance):
        raise UsageTypeError("the instances are a single one: give a list of them")
    if isinstance(instances, str) or not isinstance(instances, Sequence):
        raise UsageTypeError(f"the instances are {kind_of(instances)}: give encode(model, [TEXT])")
    for instance in instances:
        if not isinstance(instance, Instance):
            raise UsageTypeError(
                f"one of the instances is {kind_of(instance)}: give encode(model, [TEXT])"
            )


def rows_of(texts: Any) -> Iterator[Row]:
    """The rows that texts, pairs of texts or rows are.

    Raises:
        UsageTypeError: If they are something else, or a single one.
    """
    if isinstance(texts, str | Row):
        raise UsageTypeError(f"the texts are {kind_of(texts)}: give a list of them")
    if hasattr(texts, "columns") or hasattr(texts, "column_names"):
        raise UsageTypeError(f"the texts are {kind_of(texts)}: give the column that holds them")
    if isinstance(texts, Mapping | bytes) or not isinstance(texts, Iterable):
        raise UsageTypeError(
            f"the texts are {kind_of(texts)}: give a list of strings, pairs or rows"
        )
    for number, text in enumerate(texts):
        yield _row(number, text)


def check_options(options: Any) -> None:
    """Checks that options are some.

    Raises:
        UsageTypeError: If they aren't.
    """
    if options is not None and not isinstance(options, EncodeOptions):
        raise UsageTypeError(f"the options are {kind_of(options)}: give EncodeOptions(MAX_LENGTH)")


def _row(number: int, text: Any) -> Row:
    if isinstance(text, Row):
        for name in ("text", "text_pair"):
            value = getattr(text, name)
            if value is not None and not isinstance(value, str):
                raise UsageTypeError(f"the {name} of row {text.instance_id!r} is {kind_of(value)}")
        return text
    name = f"text-{number}"
    if isinstance(text, str):
        return Row(name, text)
    if isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(t, str) for t in text):
        return Row(name, *text)
    raise UsageTypeError(
        f"text {number} is {kind_of(text)}: give a string, a pair of two, or a "
        'attribeam.Row("ID", TEXT) for what else there is to say'
    )


def kind_of(value: Any) -> str:
    """What a value is, as messages say it."""
    return "None" if value is None else f"a {type(value).__name__}"
