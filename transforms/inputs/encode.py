"""From rows of a corpus to encoded instances, one for each question about each window."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from attribeam.schemas import Failure
from attribeam.schemas.errors import one_line
from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.following import told
from attribeam.transforms.inputs.generating import with_continuations
from attribeam.transforms.inputs.given import check_model, check_options, rows_of
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.pairs import compared, encode_pair
from attribeam.transforms.inputs.questions import questions
from attribeam.transforms.inputs.row import EncodeOptions, ModelRowError, Row, RowError
from attribeam.transforms.network.model import Model

# What is done to the instances of all rows once they are encoded.
_Run = Callable[[Model, Sequence[Sequence[Instance]]], list[list[Instance] | ModelRowError]]


def encode(
    model: Model,
    texts: Iterable[str | tuple[str, str] | Row],
    options: EncodeOptions | None = None,
) -> list[Instance]:
    """Encodes texts, pairs of texts or rows, for use from Python.

    Args:
        model: The model.
        texts: What to encode.
        options: How; None for the model's limit, and of rows of ids for all of its positions.

    Returns:
        An instance per text; with ``overflow="stride"`` longer texts are several, one after the
        other (``Instance.row_id`` and ``window`` say which).

    Raises:
        RowError: If one of them can't be encoded.
        UsageTypeError: If something else is given.
    """
    check_model(model)
    check_options(options)
    of_texts = options or EncodeOptions(model.of_texts.max_length)
    of_ids = options or EncodeOptions(model.of_texts.capacity)
    several = list(rows_of(texts))
    if model.task == "causal_lm":
        several = with_continuations(model, several, of_ids)
    found = [
        encode_windows(model, row, of_texts if row.input_ids is None else of_ids) for row in several
    ]
    if model.beside is not None:
        return [one for pair in compared(model, found) for one in _raised(pair)]
    if model.task == "causal_lm":
        found = [_raised(row) for row in told(model, found)]
    for instances in found:
        for instance in instances:
            inputs_of(model).check(instance)
    return [instance for instances in found for instance in instances]


def _raised(found: list[Instance] | ModelRowError) -> list[Instance]:
    """Instances; or what went wrong, raised."""
    if isinstance(found, ModelRowError):
        raise found
    return found


def encode_rows(
    model: Model, rows: Iterable[Row], options: EncodeOptions
) -> tuple[list[Instance], list[Failure]]:
    """Encodes rows; those that can't be encoded become failures of stage ``read`` or ``encode``.

    Those that the model fails on, where it is asked for answers, are failures of stage ``forward``.
    """
    if model.beside is not None:
        return _encode_run(model, rows, options, compared)
    if model.task == "causal_lm":
        rows = with_continuations(model, rows, options)
        return _encode_run(model, rows, options, told)
    instances: list[Instance] = []
    failures: list[Failure] = []
    for row in rows:
        try:
            found = encode_windows(model, row, options)
        except RowError as error:
            failures.append(_failure(row, error))
            continue
        for instance in found:
            try:
                inputs_of(model).check(instance)
            except RowError as error:
                name, of, at = instance.instance_id, instance.row_id, instance.corpus_row
                failures.append(Failure(name, "encode", None, "RowError", str(error), of, at))
            else:
                instances.append(instance)
    return instances, failures


def _encode_run(
    model: Model, rows: Iterable[Row], options: EncodeOptions, run: _Run
) -> tuple[list[Instance], list[Failure]]:
    """As ``encode_rows``, of a model that is run on rows: all of a row are instances, or none is.

    Args:
        model: The model.
        rows: The rows.
        options: How they are encoded.
        run: What runs it, on what all rows are encoded to.
    """
    encoded: list[tuple[Row, list[Instance]]] = []
    failures: list[Failure] = []
    for row in rows:
        try:
            encoded.append((row, encode_windows(model, row, options)))
        except RowError as error:
            failures.append(_failure(row, error))
    instances: list[Instance] = []
    found = run(model, [pair for _, pair in encoded])
    for (row, _), pair in zip(encoded, found, strict=True):
        if isinstance(pair, ModelRowError):
            failures.append(_failure(row, pair))
        else:
            instances += pair
    return instances, failures


def _failure(row: Row, error: RowError) -> Failure:
    """The failures row of one that can't be encoded, or that the model failed on."""
    cause = error.__cause__
    if isinstance(error, ModelRowError) and cause is not None:
        message = one_line(str(cause)) or one_line(repr(cause))
        kind, at = type(cause).__name__, row.corpus_row
        return Failure(row.instance_id, "forward", None, kind, message, corpus_row=at)
    stage = "encode" if row.problem is None else "read"
    where = "" if row.files is None or row.problem is not None else f" ({row.files})"
    message, at = f"{error}{where}", row.corpus_row
    return Failure(row.instance_id, stage, None, "RowError", message, corpus_row=at)


def encode_row(model: Model, row: Row, options: EncodeOptions) -> Instance:
    """Encodes a row that is one instance.

    Raises:
        RowError: As ``encode_windows``; or if the row is several windows.
    """
    found = encode_windows(model, row, options)
    if model.task == "causal_lm":
        (found,) = (_raised(row) for row in told(model, [found]))
    first, *others = found
    if others:
        several = "windows" if first.window is not None else "questions"
        raise RowError(f"the text is {1 + len(others)} {several}, not one instance")
    inputs_of(model).check(first)
    return first


def encode_windows(model: Model, row: Row, options: EncodeOptions) -> list[Instance]:
    """Encodes one row: into one instance, or into several.

    With ``overflow="stride"`` these are its windows, and of models that are asked several questions
    about each (``questions``) there is one for each question. Of a pair there are its two sides,
    which are yet to be compared (``pairs``).

    Raises:
        RowError: If the row was unreadable, has no text, is too long (``overflow="fail"``), has a
            label or a token that the model doesn't have, or lacks what a masked LM needs.
    """
    if row.problem is not None:
        raise RowError(row.problem)
    _check_label(model, row, options)
    if model.beside is not None:
        found = encode_pair(model, row, options)
    else:
        found = inputs_of(model).encode(model, row, options)
    return [
        question
        for instance in found
        for question in questions(
            model,
            replace(instance, corpus_row=row.corpus_row, given=row.given),
            options.target,
            objects=options.objects,
        )
    ]


def _check_label(model: Model, row: Row, options: EncodeOptions) -> None:
    if model.task == "masked_lm":
        return  # The correct word is the label.
    if model.task != "classification":
        if row.label is not None:
            raise RowError(f"label {row.label}: rows of a {model.task} model have no class")
        return
    if row.label is None:
        if options.need_label:
            raise RowError("no label, but the gold class is to be explained (--target gold)")
    elif not 0 <= row.label < model.num_outputs:
        raise RowError(
            f"label {row.label} is outside the model's classes 0 to {model.num_outputs - 1} "
            "(--label-column none ignores labels)"
        )
