"""Where the tables of a run lie: every path is a function of table, method and shard.

::

    OUT/run.json
    OUT/README.md                                                   which files are which table
    OUT/corpus/rows-00012.parquet                                   the corpus, normalised
    OUT/corpus/continuations-00012.parquet                          what a language model has said
    OUT/statistics/sample-01000.parquet                             what some methods need of it
    OUT/given/theirs-3f0c9a7d52e1b846/rows-00012.parquet            scores of `--scores theirs=`
    OUT/model/3f0c9a7d52e1b846/config.json                          only for workers elsewhere
    OUT/instances/shard-00012-of-00100.parquet
    OUT/attributions/method=saliency/shard-00012-of-00100.parquet
    OUT/layers/method=globenc/shard-00012-of-00100.parquet          only with --layers
    OUT/information/method=iba/shard-00012-of-00100.parquet         only with --layers
    OUT/heads/method=attattr/shard-00012-of-00100.parquet           and other tables of a method
    OUT/localisation/method=saliency/shard-00012-of-00100.parquet   only of pictures with masks
    OUT/curves/method=saliency/shard-00012-of-00100.parquet
    OUT/failures/instances/shard-00012-of-00100.parquet             only where something failed
    OUT/failures/attributions.saliency/shard-00012-of-00100.parquet
    OUT/attributions/method=iba/shard-00012..00057-of-00100.parquet made of several by `compact`
    OUT/pruning/attattr-1f0c9b7a52de.parquet                        of `attribeam prune`
    OUT/attacks/attattr-90b2e4417c3f.parquet                        of `attribeam attack`
    OUT/randomised/1f0c9b7a52de-cascading-3-ab12cd34.parquet        of `attribeam check`

The existence of a table's file is its commit marker, so a file is renamed into place only when it
is whole, and after the file of its failures. Paths are relative to the run's folder and use ``/``.
"""

import re
from typing import NamedTuple

from attribeam.schemas.tables import EVALUATIONS, TABLES

MANIFEST = "run.json"
LOCK = ".attribeam-lock"  # There while a process has the folder to itself.
REPLACING = ".attribeam-replacing"  # There while some of its files take the place of others.
DATABASE = "attribeam.duckdb"  # Views for the duckdb command; holds no data.
FORMAT = 5  # That is written.
FORMATS = (4, 5)  # That are read; docs/tables.md says for how long.
CORPUS = "corpus"
STATISTICS = "statistics"
GIVEN = "given"
MODEL = "model"
FAILURES = "failures"

# What finds the committed files of each table, and none that is still being written.
_SHARDS = "shard-*-of-*.parquet"
GLOBS = (
    {
        "instances": f"instances/{_SHARDS}",
        "failures": f"{FAILURES}/*/{_SHARDS}",
    }
    | {
        table: f"{table}/method=*/{_SHARDS}"
        for table in TABLES
        if table not in ("instances", "failures")
    }
    | {table: f"{table}/*.parquet" for table in EVALUATIONS}
)
# And in what `attribeam publish` writes, whose manifest names this folder as its layout.
PUBLISHED = "data"
PUBLISHED_GLOBS = {table: f"{PUBLISHED}/{table}/**/*.parquet" for table in GLOBS}
WIDE = "wide"  # A folder there: a row of each instance with all that is said of it, for people.
OVERLAYS = "overlays"  # What it was called, of pictures alone.
CARD = "README.md"  # Its card, whose name is the hub's; in a run, what `datasets` is to know.
REPRODUCE = "reproduce.yaml"  # Beside it: how the run is made again.
REPORT = "report.html"  # What `attribeam report` writes, and may lie beside a card, too.
UNFINISHED = "UPLOAD-NOT-FINISHED.md"  # There while it is uploaded in more than one commit.

_PART_LOCK = re.compile(rf"{re.escape(LOCK)}\.(\d{{5,}})-of-(\d{{5,}})", re.ASCII)
# What a file of several shards says of itself: how many rows each of them has.
SHARD_ROWS = "attribeam.shard_rows"
# What a file that was made of several others says of them: paths and rows, in order.
JOINED_FILES = "attribeam.files"
_SHARD = re.compile(r"shard-(\d{5,})(?:\.\.(\d{5,}))?-of-(\d{5,})\.parquet", re.ASCII)


class Unit(NamedTuple):
    """What is committed at a time for a shard: a table, for one method where it has methods."""

    table: str
    method: str | None = None

    def __str__(self) -> str:
        return self.table if self.method is None else f"{self.table}.{self.method}"

    @property
    def folder(self) -> str:
        """Folder of the unit's files, relative to the run's folder."""
        return self.table if self.method is None else f"{self.table}/method={self.method}"


class Place(NamedTuple):
    """What the path of a unit's file says: its unit, its shards, and how many shards there are.

    The shards are one, or some that follow each other in a file that was made of theirs.
    """

    unit: Unit
    shards: range
    num_shards: int

    @classmethod
    def of(cls, unit: Unit, shard: int, num_shards: int) -> "Place":
        """Where one shard of a unit is."""
        return cls(unit, range(shard, shard + 1), num_shards)

    @property
    def joined(self) -> bool:
        """Whether it is of several shards."""
        return len(self.shards) > 1


def shard_name(shard: int, num_shards: int) -> str:
    """File name of a shard; the shard count is in it so that two layouts can't mix."""
    return f"shard-{shard:05d}-of-{num_shards:05d}.parquet"


def shards_name(shards: range, num_shards: int) -> str:
    """File name of one shard, or of several that follow each other."""
    if len(shards) == 1:
        return shard_name(shards[0], num_shards)
    return f"shard-{shards[0]:05d}..{shards[-1]:05d}-of-{num_shards:05d}.parquet"


def shards_path(place: Place, *, failures: bool = False) -> str:
    """Path of a unit's table, or of its failures, for one or several shards."""
    folder = f"{FAILURES}/{place.unit}" if failures else place.unit.folder
    return f"{folder}/{shards_name(place.shards, place.num_shards)}"


def unit_path(unit: Unit, shard: int, num_shards: int) -> str:
    """Path of a unit's table for one shard."""
    return f"{unit.folder}/{shard_name(shard, num_shards)}"


def failures_path(unit: Unit, shard: int, num_shards: int) -> str:
    """Path of the failures that computing a unit met in one shard; absent where there were none."""
    return f"{FAILURES}/{unit}/{shard_name(shard, num_shards)}"


def corpus_path(shard: int) -> str:
    """Path of the normalised corpus rows of one shard."""
    return f"{CORPUS}/rows-{shard:05d}.parquet"


def continuations_path(shard: int) -> str:
    """Path of what a language model said after the prompts of one shard that had nothing."""
    return f"{CORPUS}/continuations-{shard:05d}.parquet"


def given_path(name: str, digest: str, shard: int) -> str:
    """Path of the scores that were given for the rows of one shard, under a method's name."""
    return f"{GIVEN}/{name}-{digest[:16]}/rows-{shard:05d}.parquet"


def statistics_path(sample: int) -> str:
    """Path of the statistics that were estimated from so many texts of the corpus."""
    return f"{STATISTICS}/sample-{sample:05d}.parquet"


def parse_statistics_path(path: str) -> int | None:
    """Reads the size of the sample out of the path of its statistics; None if it is none."""
    found = re.fullmatch(rf"{STATISTICS}/sample-(\d{{5,}})\.parquet", path)
    return None if found is None else int(found[1])


def model_path(digest: str, name: str | None = None) -> str:
    """Path of the copy of the model whose files have a digest, or of one of its files."""
    return f"{MODEL}/{digest}" if name is None else f"{MODEL}/{digest}/{name}"


def evaluation_path(table: str, name: str) -> str:
    """Path of one evaluation's rows of a table of ``EVALUATIONS``."""
    return f"{table}/{name}.parquet"


def part_lock_path(index: int, count: int) -> str:
    """Path of what is there while a process works on a part of a run."""
    return f"{LOCK}.{index:05d}-of-{count:05d}"


def parse_part_lock_path(path: str) -> tuple[int, int] | None:
    """Reads (number of the part, of all parts) out of the path of its lock; None if it is none."""
    found = _PART_LOCK.fullmatch(path)
    return None if found is None else (int(found[1]), int(found[2]))


def parse_failures_path(path: str) -> Place | None:
    """What the path of a unit's failures says; None if it is none."""
    match path.split("/"):
        case [folder, unit, name] if folder == FAILURES:
            table, _, method = unit.partition(".")
            return _place(Unit(table, method or None), name)
    return None


def parse_unit_path(path: str) -> Place | None:
    """What a relative path says; None if it is not that of a unit's table."""
    match path.split("/"):
        case [table, name] if table != FAILURES:
            return _place(Unit(table), name)
        case [table, partition, name] if table != FAILURES and partition.startswith("method="):
            return _place(Unit(table, partition.removeprefix("method=")), name)
    return None


def shards_of(name: str) -> tuple[range, int] | None:
    """What the name of a unit's file says: its shards, and how many there are; None if nothing."""
    found = _SHARD.fullmatch(name)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    if found[2] is not None and last <= first:
        return None
    return range(first, last + 1), int(found[3])


class ShardNames:
    """Reads names of files of one shard each, of which there may be very many.

    Args:
        num_shards: How many shards the run has.
    """

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._end = shard_name(0, num_shards).removeprefix("shard-00000")
        self._digits = slice(len("shard-"), -len(self._end))

    def __call__(self, name: str) -> int | None:
        """The shard whose file has a name; None if it is that of no single one."""
        if not (name.endswith(self._end) and name.startswith("shard-")):
            return None
        digits = name[self._digits]
        if not (digits.isdecimal() and digits.isascii()):
            return None
        is_written_so = len(digits) == 5 or (len(digits) > 5 and digits[0] != "0")
        shard = int(digits)
        return shard if is_written_so and shard < self._num_shards else None


def _place(unit: Unit, name: str) -> Place | None:
    found = shards_of(name)
    return None if found is None else Place(unit, *found)
