"""Whether other libraries, old and new, read what is published: each in its own environment.

    make readers

What can't be installed is said, and what reads otherwise than this version ends with status 1.
"""

import json
import math
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from attribeam.analysis.publish.publish import publish
from tests.support.synthetic_run import synthetic_run, write_run

# What each finds: the rows of the attributions, the sum of all scores, the first instance's text.
_PYARROW = """
import pyarrow.parquet as pq
import pyarrow as pa
tables = [pq.ParquetFile(path).read() for path in files]
rows = [row for table in tables for row in table.to_pylist()]
text = pq.ParquetFile(instances).read().to_pylist()[0]["text"]
"""
_POLARS = """
import polars as pl
rows = [row for path in files for row in pl.read_parquet(path).to_dicts()]
text = pl.read_parquet(instances)["text"][0]
"""
_DUCKDB = """
import duckdb
asked = duckdb.sql(f"select scores from read_parquet({files!r})").fetchall()
rows = [{"scores": scores} for (scores,) in asked]
((text,),) = duckdb.sql(f"select text from read_parquet({instances!r}) limit 1").fetchall()
"""
_FASTPARQUET = """
from fastparquet import ParquetFile
rows = [{"scores": s} for p in files for s in ParquetFile(p).to_pandas(["scores"])["scores"]]
text = ParquetFile(instances).to_pandas(["text"])["text"][0]
"""
_DATASETS = """
import datasets
given = {"split": "test", "cache_dir": folder + "-cache"}
rows = list(datasets.load_dataset(folder, "attributions", **given))
text = datasets.load_dataset(folder, "wide", **given)[0]["text"]
"""
_SPARK = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").getOrCreate()
rows = [{"scores": row.scores} for row in spark.read.parquet(*files).select("scores").collect()]
text = spark.read.parquet(instances).select("text").first().text
"""
_PRINT = """
scores = [score for row in rows for score in row["scores"]]
print(json.dumps([len(rows), math.fsum(scores), text]))
"""
_HYPARQUET = """
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
const read = async path =>
  parquetReadObjects({ file: await asyncBufferFromFile(path), compressors })
const rows = (await Promise.all(FILES.map(read))).flat()
let sum = 0
for (const row of rows) for (const score of row.scores) sum += score
console.log(JSON.stringify([rows.length, sum, (await read(INSTANCES))[0].text]))
"""


class Reader(NamedTuple):
    """A library: what pip or npm installs, and how it reads."""

    packages: tuple[str, ...]
    program: str


READERS = (
    Reader(("pyarrow==12.0.1", "numpy<2"), _PYARROW),
    Reader(("pyarrow",), _PYARROW),
    Reader(("polars==1.0.0",), _POLARS),
    Reader(("polars",), _POLARS),
    Reader(("duckdb==0.10.3",), _DUCKDB),
    Reader(("duckdb",), _DUCKDB),
    Reader(("fastparquet",), _FASTPARQUET),
    Reader(("datasets==2.21.0", "numpy<2", "fsspec<2024.7", "huggingface_hub<1"), _DATASETS),
    Reader(("datasets>=3,<4", "huggingface_hub<1"), _DATASETS),
    Reader(("datasets>=4,<5",), _DATASETS),
    Reader(("datasets>=5,<6",), _DATASETS),
    Reader(("pyspark>=3.5,<4",), _SPARK),
    Reader(("pyspark>=4",), _SPARK),
    Reader(("hyparquet", "hyparquet-compressors"), _HYPARQUET),
)


def main(wanted: list[str]) -> int:
    """Tries the readers whose packages begin with one of some names; all without any."""
    with tempfile.TemporaryDirectory(prefix="attribeam-readers-") as place:
        folder = _published(Path(place))
        expected = _expected(folder)
        wrong = 0
        for reader in READERS:
            if not wanted or reader.packages[0].startswith(tuple(wanted)):
                said = _tried(reader, folder, Path(place) / "environment", expected)
                print(f"{' '.join(reader.packages)}: {said}", flush=True)
                wrong += said.startswith("WRONG")
    return 1 if wrong else 0


def _published(place: Path) -> Path:
    run = write_run(synthetic_run(rows=60, shard_size=25), place / "run")
    publish(run, "someone/some-run", license="mit", dry_run=place / "published")
    return place / "published"


def _paths(folder: Path) -> tuple[list[str], str]:
    """The files of the scores, and that of the instances."""
    files = sorted(map(str, (folder / "data" / "attributions").rglob("*.parquet")))
    (instances,) = (folder / "data" / "instances").glob("*.parquet")
    return files, str(instances)


def _expected(folder: Path) -> list[object]:
    files, instances = _paths(folder)
    rows = [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    scores = math.fsum(score for row in rows for score in row["scores"])
    return [len(rows), scores, pq.ParquetFile(instances).read()["text"][0].as_py()]


def _tried(reader: Reader, folder: Path, place: Path, expected: list[object]) -> str:
    """What came of a reader, in a sentence."""
    shutil.rmtree(place, ignore_errors=True)
    install = _node if reader.program is _HYPARQUET else _python
    try:
        command = install(reader, folder, place)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"can't be installed here ({said.strip().splitlines()[-1][:100]})"
    done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)
    if done.returncode:
        return f"WRONG: {(done.stderr.strip().splitlines() or ['it failed'])[-1][:200]}"
    found = json.loads(done.stdout.strip().splitlines()[-1])
    same = found[::2] == expected[::2] and math.isclose(found[1], float(str(expected[1])))
    return "reads all of it" if same else f"WRONG: {found} instead of {expected}"


def _python(reader: Reader, folder: Path, place: Path) -> list[str]:
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    _checked([python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *reader.packages])
    files, instances = _paths(folder)
    given = f"folder, files, instances = {str(folder)!r}, {files!r}, {instances!r}\n"
    (place / "read.py").write_text(
        f"import json, math\n{given}{reader.program}{_PRINT}", encoding="utf-8"
    )
    return [python, "read.py"]


def _node(reader: Reader, folder: Path, place: Path) -> list[str]:
    place.mkdir()
    _checked(["npm", "install", "--silent", "--prefix", str(place), *reader.packages])
    files, instances = _paths(folder)
    given = f"const FILES = {json.dumps(files)}, INSTANCES = {json.dumps(instances)}\n"
    lines = reader.program.strip().splitlines()
    (place / "read.mjs").write_text("\n".join([*lines[:2], given, *lines[2:]]), encoding="utf-8")
    return ["node", "read.mjs"]


def _checked(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
