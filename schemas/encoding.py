"""How every Parquet file of ours is encoded, in runs and in what is published of them.

Whoever reads Parquet reads it: no encoding is younger than the format. Real numbers stand as they
are (PLAIN), since they don't repeat and a dictionary would make them larger, and zstd packs each
page; where they do repeat, as in curves, it finds that too. Splitting them by bytes makes scores a
few hundredths smaller and curves half again as large, and many readers can't read it.
"""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_SPLIT = "BYTE_STREAM_SPLIT"  # The encoding of early runs' real numbers.


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Returns what ``pyarrow.parquet`` is told wherever a table is written.

    Pages have checksums, and an index by which a reader finds those that it needs.

    Args:
        schema: The table's columns.
    """
    return {
        "compression": "zstd",
        "use_dictionary": [path for path, kind in _leaves(schema) if _repeats(kind)],
        "write_page_checksum": True,
        "write_page_index": True,
    }


def is_plain(footer: pq.FileMetaData) -> bool:
    """Whether whoever reads Parquet can read a file: what early runs wrote, not everybody can."""
    return not any(
        _SPLIT in footer.row_group(group).column(column).encodings
        for group in range(footer.num_row_groups)
        for column in range(footer.num_columns)
    )


def _leaves(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """The columns as Parquet has them: their paths, and the types of their values."""
    return [
        (f"{field.name}.list.element", field.type.value_type)
        if pa.types.is_list(field.type)
        else (field.name, field.type)
        for field in schema
    ]


def _repeats(kind: pa.DataType) -> bool:
    """Whether values are likely to repeat: real numbers and the files of pictures don't."""
    return not pa.types.is_floating(kind) and not pa.types.is_struct(kind)
