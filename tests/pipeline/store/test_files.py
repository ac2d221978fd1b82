"""Files that are whole or not there, and tables as Parquet."""

import errno
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from attribeam.pipeline.running.tables import failures_table, with_metadata
from attribeam.pipeline.store.files import (
    DamagedError,
    discard,
    discard_folder,
    is_whole,
    join,
    list_checked,
    list_files,
    read_parquet,
    write_atomic,
    write_parquet,
)
from attribeam.schemas import TABLES, Failure, Unit, table_schema, unit_path
from attribeam.schemas.encoding import is_plain
from attribeam.schemas.tables import IMAGE, SEGMENT
from tests.support.tiny import files

ROWS = 4000
METHODS = ("alpha", "beta")
SHARDS = 3


def example(schema: pa.Schema, rows: int, seed: int = 0) -> pa.Table:
    """A table of a schema with random content and a null here and there."""
    rng = np.random.default_rng(seed)
    items: dict[pa.DataType, Callable[[], Any]] = {
        pa.string(): lambda: f"w{rng.integers(50)}",
        IMAGE: lambda: {"bytes": rng.bytes(9), "path": None},
        SEGMENT: lambda: {
            "kind": f"k{rng.integers(3)}",
            **{name: int(rng.integers(9)) for name in ("first", "last")},
            "removable": bool(rng.integers(2)),
        },
        pa.bool_(): lambda: bool(rng.integers(2)),
        pa.float32(): lambda: float(np.float32(rng.normal())),
        pa.float64(): lambda: float(rng.normal()),
        **{kind: lambda: int(rng.integers(9)) for kind in (pa.int8(), pa.int32(), pa.int64())},
    }

    def value(kind: pa.DataType, row: int) -> Any:
        if row % 7 == 3:
            return None
        if pa.types.is_list(kind):
            return [items[kind.value_type]() for _ in range(row % 5)]
        return items[kind.value_type if pa.types.is_dictionary(kind) else kind]()

    columns = []
    for field in schema:
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        columns.append(
            pa.array([value(field.type, n) for n in range(rows)], plain).cast(field.type)
        )
    return pa.Table.from_arrays(columns, schema=schema)


# Whole or not at all


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "c[d]" / "file"
    write_atomic(str(path), lambda handle: handle.write(b"content"))
    assert path.read_bytes() == b"content"
    assert files(tmp_path) == {"a b/c[d]/file"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_leaves_neither_file_nor_temporary(error: BaseException, tmp_path: Path) -> None:
    def fail(handle: Any) -> None:
        handle.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomic(str(tmp_path / "file"), fail)
    assert files(tmp_path) == set()


def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def fail(handle: Any) -> None:
        handle.write(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_atomic(str(path), fail)
    assert path.read_bytes() == b"before"
    assert files(tmp_path) == {"file"}


def test_half_a_file_is_never_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write(handle: Any) -> None:
        handle.write(b"a" * 100_000)
        handle.flush()
        assert not path.exists()
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith("file.") and temporary.suffix == ".tmp"
        handle.write(b"a" * 100_000)

    write_atomic(str(path), write)
    assert path.stat().st_size == 200_000


def test_a_reader_sees_the_old_or_the_new_and_nothing_between(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomic(str(path), lambda handle: handle.write(contents[0]))
    stop = threading.Event()
    seen = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        write_atomic(str(path), lambda handle, turn=turn: handle.write(contents[turn % 2]))
    stop.set()
    reader.join()
    assert seen <= set(contents)


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Two attempts at one shard, as a runner may make them, write the same and both succeed."""
    path = str(tmp_path / "file")

    def outer(handle: Any) -> None:
        handle.write(b"same")
        write_atomic(path, lambda inner: inner.write(b"same"))

    write_atomic(path, outer)
    assert files(tmp_path) == {"file"}


def test_listing_and_deleting(tmp_path: Path) -> None:
    root = str(tmp_path / "it's [a] run")
    for name in ("x", "deep/er/y", "deep/z"):
        write_atomic(join(root, name), lambda handle: handle.write(b""))
    assert set(list_files(root)) == {"x", "deep/er/y", "deep/z"}
    discard(join(root, "x"))
    discard(join(root, "x"))
    discard_folder(join(root, "deep"))
    discard_folder(join(root, "deep"))
    assert list_files(root) == []
    assert list_files(join(root, "none")) == []


# Parquet


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("rows", [0, 1, 50])
def test_every_table_comes_back(name: str, double: bool, rows: int, tmp_path: Path) -> None:
    table = example(table_schema(name, double=double), rows)
    path = str(tmp_path / "t.parquet")
    write_parquet(path, table)
    found = read_parquet(path)
    assert found.equals(table)
    schema = table_schema(name, double=double)
    assert found.schema.equals(schema)
    assert [f.metadata[b"comment"] for f in found.schema] == [
        f.metadata[b"comment"] for f in schema
    ]


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    table = example(table_schema("attributions"), 20)
    path = str(tmp_path / "t.parquet")
    write_parquet(path, table)
    assert read_parquet(path, ["scores"]).equals(table.select(["scores"]))


def test_metadata_is_kept_and_added_to(tmp_path: Path) -> None:
    table = with_metadata(failures_table([Failure("a", "read", None, "E", "m")]), {"key": "ü"})
    path = str(tmp_path / "t.parquet")
    write_parquet(path, with_metadata(table, {"more": "1"}))
    metadata = read_parquet(path).schema.metadata
    assert metadata[b"key"].decode() == "ü"
    assert metadata[b"more"] == b"1"


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_whoever_reads_parquet_reads_it(name: str, double: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(str(path), example(table_schema(name, double=double), 50))
    footer = pq.ParquetFile(path).metadata
    group = footer.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    for column in columns:
        # All of them are of the format's first version.
        assert {*column.encodings} <= {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY"}
        dictionary = any("DICTIONARY" in encoding for encoding in column.encodings)
        real = column.physical_type in ("FLOAT", "DOUBLE")
        assert not (real and dictionary), column.path_in_schema
        assert column.has_offset_index, column.path_in_schema
    assert is_plain(footer)


@pytest.mark.parametrize("double", [False, True])
def test_every_bit_of_a_real_number_is_kept(double: bool, tmp_path: Path) -> None:
    """Of not-a-numbers of every kind, of both zeros and of the smallest numbers too."""
    kind, bits = (np.float64, np.uint64) if double else (np.float32, np.uint32)
    drawn = np.random.default_rng(0).integers(0, np.iinfo(bits).max, 4000, bits, endpoint=True)
    edges = np.array([0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e-45], kind).view(bits)
    values = np.concatenate([drawn, edges])
    schema = table_schema("attributions", double=double)
    table = example(schema, len(values))
    lists = pa.ListArray.from_arrays(
        pa.array(range(len(values) + 1), pa.int32()), pa.array(values.view(kind))
    )
    for name, column in (("scores", lists), ("bias", pa.array(values.view(kind)))):
        at = schema.get_field_index(name)
        table = table.set_column(at, schema.field(at), column)
    path = str(tmp_path / "t.parquet")
    write_parquet(path, table)
    found = read_parquet(path)
    for column in (found["bias"], pc.list_flatten(found["scores"])):
        assert (column.to_numpy().view(bits) == values).all()


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(str(path), example(table_schema("attributions"), ROWS))
    whole = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    for index in range(group.num_columns):
        column = group.column(index)
        damaged = bytearray(whole)
        start = column.dictionary_page_offset or column.data_page_offset
        damaged[start + column.total_compressed_size - 5] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"CRC checksum verification failed.* --repair"):
            read_parquet(str(path))
        # Which its end doesn't tell.
        assert is_whole(str(path))


@pytest.mark.parametrize("size", [0, 3, 11, 12, 100, -1])
def test_a_file_that_is_cut_short_is_found(size: int, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert not is_whole(str(path))
    write_parquet(str(path), example(table_schema("attributions"), 20))
    assert is_whole(str(path))
    path.write_bytes(path.read_bytes()[:size])
    assert not is_whole(str(path))
    assert list(list_checked(str(tmp_path))) == [("t.parquet", False)]
    with pytest.raises(DamagedError, match=re.escape(f"{path} is damaged (")):
        read_parquet(str(path))


def test_a_file_that_cannot_be_read_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_parquet(str(tmp_path / "none.parquet"))
    with pytest.raises(IsADirectoryError):
        read_parquet(str(tmp_path))


def test_a_full_disk_says_which_file(tmp_path: Path) -> None:
    def fail(handle: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/file'"):
        write_atomic(str(tmp_path / "file"), fail)


@pytest.fixture(scope="module")
def attributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    """A folder of a run's attributions, and all of its rows."""
    root = tmp_path_factory.mktemp("out")
    tables = []
    for seed, (method, shard) in enumerate((m, s) for m in METHODS for s in range(SHARDS)):
        table = example(table_schema("attributions"), 10, seed)
        names = pa.array([method] * len(table)).cast(table.schema.field("method").type)
        table = table.set_column(1, table.schema.field("method"), names)
        write_parquet(str(root / unit_path(Unit("attributions", method), shard, SHARDS)), table)
        tables.append(table)
    return root / "attributions", pa.concat_tables(tables).unify_dictionaries()


def test_arrow_reads_the_folder(attributions: tuple[Path, pa.Table]) -> None:
    folder, table = attributions
    assert pq.read_table(folder).select(table.column_names).to_pylist() == table.to_pylist()


def test_pandas_reads_the_folder(attributions: tuple[Path, pa.Table]) -> None:
    folder, table = attributions
    frame = pd.read_parquet(folder)
    assert len(frame) == len(table)
    assert frame.groupby("method", observed=True).size().to_dict() == dict.fromkeys(METHODS, 30)
    known = frame["scores"].dropna()
    assert sum(map(len, known)) == sum(len(s) for s in table["scores"].to_pylist() if s is not None)


def test_datasets_reads_the_files(attributions: tuple[Path, pa.Table], tmp_path: Path) -> None:
    folder, table = attributions
    loaded = datasets.load_dataset(
        "parquet",
        data_files=f"{folder}/**/*.parquet",
        split="train",
        cache_dir=str(tmp_path),
    )
    key = str
    assert sorted(map(key, loaded.to_list())) == sorted(map(key, table.to_pylist()))
