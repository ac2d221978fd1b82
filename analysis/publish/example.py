"""The instance that a card shows: words with numbers under them say more than names of columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from attribeam.analysis.publish.wide import column_of
from attribeam.schemas.layout import PUBLISHED, WIDE
from attribeam.schemas.manifest import Manifest

# What can be taken in: tokens, methods, characters of a text.
_TOKENS, _METHODS, _CHARACTERS = 20, 6, 300
_LOOKED_AT = 200


class Example(NamedTuple):
    """An instance as a card shows it.

    Attributes:
        text: Its text.
        prediction: Name of the class that the model predicts; None where it predicts none.
        label: Name of the gold class; None if it is unknown.
        methods: Names of the methods that are shown.
        rows: A token and its score under each method, in words.
        more: Number of tokens that aren't shown.
        others: Number of methods that aren't.
    """

    text: str
    prediction: str | None
    label: str | None
    methods: Sequence[str]
    rows: Sequence[Sequence[str]]
    more: int
    others: int


def example_of(stage: Path, manifest: Manifest) -> Example | None:
    """The first instance that is short enough, or the first; None where there are no scores.

    Args:
        stage: The folder of the data set.
        manifest: Its manifest.
    """
    files = sorted((stage / PUBLISHED / WIDE).glob("*.parquet"))
    if not files or "tokens" not in pq.read_schema(files[0]).names:
        return None  # Of pictures, which a table can't show.
    with pq.ParquetFile(files[0]) as parquet:
        rows = next(parquet.iter_batches(_LOOKED_AT)).to_pylist()
    named = [row for row in rows if row["tokens"] is not None]
    short = [row for row in named if len(row["tokens"]) <= _TOKENS and _scored(row, manifest)]
    if not named:
        return None
    row = (short or named)[0]
    scored = _scored(row, manifest)
    if not scored:
        return None
    shown, tokens = scored[:_METHODS], row["tokens"][:_TOKENS]
    columns = [row[column_of(name)] for name in shown]
    texts = " / ".join(filter(None, [row["text"], row["text_pair"]]))
    return Example(
        text=texts[:_CHARACTERS] + "..." * (len(texts) > _CHARACTERS),
        prediction=_named(row["prediction"], manifest),
        label=_named(row["label"], manifest),
        methods=shown,
        rows=[
            [token, *(f"{scores[at]:.3g}" for scores in columns)] for at, token in enumerate(tokens)
        ],
        more=len(row["tokens"]) - len(tokens),
        others=len(scored) - len(shown),
    )


def _scored(row: dict[str, Any], manifest: Manifest) -> list[str]:
    """The methods that have scores for an instance."""
    return [name for name in manifest["methods"] if row.get(column_of(name)) is not None]


def _named(number: int | None, manifest: Manifest) -> str | None:
    """A class by its name, if it has one."""
    labels = manifest["identity"]["model"]["labels"]
    if number is None:
        return None
    return labels[number] if labels and number < len(labels) else str(number)
