"""What ``explain`` may be given, as what a run takes: a model's folder, and a corpus's file."""

import io
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from attribeam.pipeline.corpus.pictures import is_picture
from attribeam.schemas import UsageError, UsageTypeError
from attribeam.schemas.tables import IMAGE

_CORPORA = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow")
_RENAMED = {"instance_id": "id", "text_pair": "text_pair"}
_KINDS = "a text, a picture, or a list of texts, pairs, pictures, rows (dict) or attribeam.Row"


class Corpus(NamedTuple):
    """What is explained, as a run takes it.

    Attributes:
        path: The file, or the id of a data set.
        columns: Column by role, where that is certain.
    """

    path: str
    columns: dict[str, str]


def model_folder(model: Any, folder: Path, tokenizer: Any = None) -> str:
    """The folder or the hub id of a model; what is in memory is saved into a folder for it.

    Args:
        model: A path, a hub id, a model of transformers, a ``pipeline`` of it, or a model that
            ``load_model`` gave.
        folder: Where models from memory are saved, each below its own name.
        tokenizer: Of a model of transformers; or the processor of its pictures.

    Raises:
        UsageError: If it is none of these, or can't be saved.
    """
    if isinstance(model, str | PathLike):
        if tokenizer is not None:
            raise UsageError(f"a tokenizer goes with a model from memory; {model} has its own")
        return str(model)
    network, beside = _parts(model, tokenizer)
    if not hasattr(network, "save_pretrained"):
        raise UsageTypeError(
            f"the model is a {type(model).__name__}: give a folder, a hub id, a model of "
            "transformers (with tokenizer=), or a pipeline of it"
        )
    if not beside:
        raise UsageError(
            f"{type(network).__name__} comes without its tokenizer: give tokenizer=, or the "
            "processor of its pictures"
        )
    source = str(getattr(network.config, "_name_or_path", "") or type(network).__name__)
    place = folder / Path(source).name
    try:
        for each in (network, *beside):
            each.save_pretrained(place)
    except Exception as error:  # Of quantised or sharded models, from as many libraries.
        raise UsageError(
            f"{type(network).__name__} can't be saved ({type(error).__name__}: {error}): save it "
            "with save_pretrained, and give that folder"
        ) from error
    return str(place)


def _parts(model: Any, tokenizer: Any) -> tuple[Any, list[Any]]:
    """The network of transformers, and what is saved beside it."""
    if hasattr(model, "anatomy"):  # Of load_model.
        network, beside = model.whole, [model.tokenizer, model.processor]
    elif hasattr(model, "model") and hasattr(model, "preprocess"):  # A pipeline.
        own = [getattr(model, name, None) for name in ("tokenizer", "image_processor")]
        network, beside = model.model, own
    else:
        network, beside = model, []
    return network, [each for each in (*beside, tokenizer) if each is not None]


def corpus_of(given: Any, folder: Path) -> Corpus:
    """What is to be explained as a corpus; what is in memory is written into the folder.

    Ids are 0, 1 and so on where rows have none.

    Raises:
        UsageError: If it is nothing that can be explained.
    """
    if isinstance(given, PathLike) and not is_picture(str(given)):
        return Corpus(str(given), {})
    if isinstance(given, str) and given.endswith(_CORPORA) and Path(given).is_file():
        raise UsageError(
            f"{given!r} is a text here, and a file too: give pathlib.Path({given!r}) to explain "
            "its rows"
        )
    table, columns = _table(given)
    if not len(table):
        raise UsageError(f"there is nothing to explain: give {_KINDS}")
    if not {"id", "instance_id"} & {*table.column_names}:
        table = table.append_column("id", pa.array([str(at) for at in range(len(table))]))
        columns = columns and {**columns, "id": "id"}
    path = folder / ("pictures.parquet" if "image" in columns else "texts.parquet")
    pq.write_table(table, path)
    return Corpus(str(path), columns)


def _table(given: Any) -> tuple[pa.Table, dict[str, str]]:
    """Rows as a table, and which column is what, where that is certain."""
    if isinstance(given, pa.Table):
        return given, {}
    if type(given).__module__.partition(".")[0] == "pandas":
        frame = given.to_frame("text") if given.ndim == 1 else given
        return pa.Table.from_pandas(frame, preserve_index=False), {}
    if hasattr(given, "to_arrow"):  # Of polars.
        return given.to_arrow(), {}
    if hasattr(given, "data") and hasattr(given, "features"):  # Of the library datasets.
        return given.with_format("arrow")[:], {}
    if isinstance(given, str | bytes | Mapping | PathLike | Image.Image | np.ndarray):
        given = [given]
    if not isinstance(given, Iterable):
        raise UsageTypeError(f"what to explain is a {type(given).__name__}: give {_KINDS}")
    return _of_rows(list(given))


def _of_rows(rows: Sequence[Any]) -> tuple[pa.Table, dict[str, str]]:
    """Rows of one kind as a table."""
    if all(isinstance(row, str) and not _is_file(row) for row in rows):
        return pa.table({"text": pa.array(rows, pa.string())}), {"text": "text"}
    if all(isinstance(row, Mapping) for row in rows):
        return _of_dicts(rows)
    if all(type(row).__name__ == "Row" and hasattr(row, "text_pair") for row in rows):
        return _of_dicts([_unpacked(row) for row in rows])
    if all(isinstance(row, tuple | list) and len(row) == 2 for row in rows):
        first, second = ([row[side] for row in rows] for side in (0, 1))
        if all(isinstance(text, str) for text in second):
            if all(isinstance(text, str) and not _is_file(text) for text in first):
                return pa.table({"text": first, "text_pair": second}), {
                    "text": "text",
                    "pair": "text_pair",
                }
            images = pa.array([_image(each) for each in first], IMAGE)
            return pa.table({"image": images, "text": second}), {"image": "image", "text": "text"}
    images = pa.array([_image(row) for row in rows], IMAGE)
    return pa.table({"image": images}), {"image": "image"}


def _is_file(text: str) -> bool:
    """Whether a text is the path of a picture."""
    return is_picture(text) and len(text) < 1000 and Path(text).is_file()


def _of_dicts(rows: Sequence[Mapping[str, Any]]) -> tuple[pa.Table, dict[str, str]]:
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return pa.table({name: _column([row.get(name) for row in rows]) for name in names}), {}
    except pa.ArrowException as error:
        raise UsageError(f"the rows' values are of several kinds: {error}") from error


def _column(values: Sequence[Any]) -> pa.Array:
    """Values as a column; pictures as files."""
    if any(isinstance(each, Image.Image) for each in values):
        return pa.array([None if each is None else _image(each) for each in values], IMAGE)
    return pa.array(values)


def _unpacked(row: Any) -> dict[str, Any]:
    """The values of a ``Row`` that are given, by names that a corpus has for them.

    Raises:
        UsageError: If it has scores that others computed, for which a corpus has no column.
    """
    if row.given:
        raise UsageError(
            f"{row.instance_id} has scores that others computed ({', '.join(row.given)}): "
            "`attribeam run --scores` takes these"
        )
    values = {name: value for name, value in vars(row).items() if value is not None}
    del values["given"]
    return {_RENAMED.get(name, name): value for name, value in values.items()}


def _image(value: Any) -> dict[str, Any]:
    """A picture as a file, whichever way it is given."""
    match value:
        case bytes():
            content = value
        case Image.Image():
            out = io.BytesIO()
            value.save(out, "PNG")
            content = out.getvalue()
        case np.ndarray() if value.dtype == np.uint8:
            return _image(Image.fromarray(value))
        case str() | PathLike():
            try:
                content = Path(value).read_bytes()
            except OSError as error:
                raise UsageError(f"the picture {value} can't be read: {error}") from error
        case _:
            raise UsageTypeError(f"a {type(value).__name__} can't be explained: give {_KINDS}")
    return {"bytes": content, "path": None}
