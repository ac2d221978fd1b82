"""Joining files: the same rows in the same order, in groups that readers like, bounded memory."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis.joining import groups, join_files, metadata_of
from attribeam.schemas import table_schema
from attribeam.schemas.encoding import is_plain, parquet_options
from attribeam.schemas.tables import added


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([10], [(0, 1)]),
        ([10] * 25, [(0, 10), (10, 20), (20, 25)]),
        ([200], [(0, 1)]),
        ([200, 10, 10], [(0, 1), (1, 3)]),
        ([10, 10, 200, 10], [(0, 2), (2, 3), (3, 4)]),
        # What came to more than half is done, and takes no neighbour.
        ([60, 10, 40, 45, 30], [(0, 1), (1, 4), (4, 5)]),
        ([50, 50, 1], [(0, 2), (2, 3)]),
    ],
)
def test_neighbours_are_joined(sizes: list[int], expected: list[tuple[int, int]]) -> None:
    assert [(found.start, found.stop) for found in groups(sizes, 100)] == expected


def shard(folder: Path, number: int, rows: int) -> Path:
    """A file as a run wrote it, every number of which differs from all others."""
    scores = [[1000.0 * number, row] for row in range(rows)]
    table = pa.table(
        {
            "instance_id": [f"{number}-{row}" for row in range(rows)],
            "method": pa.array(["saliency"] * rows).cast(pa.dictionary(pa.int32(), pa.string())),
            "target": pa.array(range(rows), pa.int32()),
            "layer": pa.array([None] * rows, pa.int32()),
            "scores": pa.array(scores, pa.list_(pa.float32())),
        }
    )
    schema = table_schema("attributions")
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(rows, field.type))
    table = table.select(schema.names).cast(schema)
    table = table.replace_schema_metadata({"attribeam.seed": str(number)})
    path = folder / f"shard-{number:05d}.parquet"
    pq.write_table(table, path, **parquet_options(table.schema))
    return path


def test_rows_stay_as_they_are(tmp_path: Path) -> None:
    schema = table_schema("attributions")
    files = [shard(tmp_path, number, rows) for number, rows in enumerate([3, 0, 700, 11])]
    rows = pa.concat_tables([pq.read_table(file) for file in files]).unify_dictionaries()
    join_files(files, tmp_path / "all.parquet", schema, group_bytes=4096)
    with pq.ParquetFile(tmp_path / "all.parquet", page_checksum_verification=True) as joined:
        assert joined.read().equals(rows)
        assert joined.schema_arrow.equals(schema)
        footer = joined.metadata
    assert is_plain(footer)
    assert footer.num_row_groups > 3
    assert all(footer.row_group(n).total_byte_size < 4 * 4096 for n in range(footer.num_row_groups))
    assert metadata_of(footer) == {"attribeam.seed": "0"}


def test_what_it_says_of_itself_is_given(tmp_path: Path) -> None:
    files = [str(shard(tmp_path, number, 2)) for number in range(2)]
    asked: list[str] = []

    def opened(name: str) -> object:
        asked.append(name)
        return Path(name).open("rb")

    with (tmp_path / "all.parquet").open("wb") as target:
        join_files(files, target, table_schema("attributions"), {"a": "ü"}, opened=opened)  # type: ignore[arg-type]
    assert metadata_of(pq.read_metadata(tmp_path / "all.parquet")) == {"a": "ü"}
    assert asked == files * 2


def test_a_column_that_came_later_is_null(tmp_path: Path) -> None:
    schema = table_schema("attributions")
    later = sorted(added(schema))
    assert later
    old, new = shard(tmp_path, 0, 3), shard(tmp_path, 1, 4)
    pq.write_table(pq.read_table(old).drop_columns(later), old)
    join_files([old, new], tmp_path / "all.parquet", schema)
    found = pq.read_table(tmp_path / "all.parquet")
    assert found.column_names == schema.names
    assert found["instance_id"].to_pylist() == [f"0-{n}" for n in range(3)] + [
        f"1-{n}" for n in range(4)
    ]


def test_a_damaged_file_is_not_joined(tmp_path: Path) -> None:
    files = [shard(tmp_path, number, 50) for number in range(2)]
    content = bytearray(files[1].read_bytes())
    content[20] ^= 1
    files[1].write_bytes(content)
    with pytest.raises((pa.ArrowException, OSError)):
        join_files(files, tmp_path / "all.parquet", table_schema("attributions"))
