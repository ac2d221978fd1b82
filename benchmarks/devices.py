"""Whether a GPU gives the processor's numbers: the bundled corpora, every method, both devices.

In float64 all must be equal to rounding. In float32 the medians are told: what decides between
equal numbers (a ranking's ties, a pattern's next word, a tree's next edge) is decided otherwise by
rounding, on a processor as well. Where there is no GPU, two runs on the processor are compared.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from attribeam.pipeline import Options, run

Floats = NDArray[np.float64]
_EXAMPLES = Path(__file__).parent.parent / "examples"
# Largest difference in float64, over the largest number of its row.
LIMIT = 1e-7
# Times and what depends on them.
_COSTS = ("seconds", "passes_seconds")


class Case(NamedTuple):
    """A bundled model, its corpus, and options of its run."""

    model: str
    corpus: str
    options: Mapping[str, str] = {}


_PROMPTS = {"prompts": str(_EXAMPLES / "prompts.txt")}
CASES = (
    Case("sentiment-bert", "sentiment"),
    Case("agreement-bert", "agreement"),
    Case("shapes-vit", "shapes"),
    Case("shapes-clip", "shapes", _PROMPTS),
    Case("notes-llama", "notes"),
)


def main(limit: int = 8) -> bool:
    """Prints the largest difference of every method; says whether all are within the limits."""
    other = "cuda" if torch.cuda.is_available() else "cpu"
    good = True
    for case in CASES:
        for dtype in ("float64", "float32"):
            with tempfile.TemporaryDirectory() as folder:
                here, there = Path(folder) / "here", Path(folder) / "there"
                _run(case, "cpu", dtype, limit, here)
                _run(case, other, dtype, limit, there)
                found = dict(differences(here, there))
            print(f"{case.model}, {dtype}, cpu and {other}:")
            good = (_told(found) if dtype == "float64" else _rounding(found)) and good
    return good


def _told(found: Mapping[str, Floats]) -> bool:
    """Prints the largest difference, and of all tables that are above the limit theirs."""
    worst = {unit: float(rows.max(initial=0.0)) for unit, rows in found.items()}
    above = {unit: most for unit, most in worst.items() if not most <= LIMIT}
    for unit, most in above.items():
        print(f"  {unit:<44} {most:8.1e}  above the limit")
    within = max((most for most in worst.values() if most <= LIMIT), default=0.0)
    print(
        f"  {len(worst) - len(above)} of {len(worst)} kinds of tables are equal to {within:.1e}",
        flush=True,
    )
    return not above


def _rounding(found: Mapping[str, Floats]) -> bool:
    """Prints the kinds of tables whose rows differ most, by their median."""
    middle = {unit: float(np.median(rows)) for unit, rows in found.items() if len(rows)}
    for unit in sorted(middle, key=lambda unit: -middle[unit])[:5]:
        rows = found[unit]
        share = np.mean(rows > 1e-3)
        print(f"  {unit:<44} median {middle[unit]:8.1e}, {share:4.0%} of rows above 1e-3")
    every = np.concatenate(list(found.values()))
    print(f"  all: median {np.median(every):.1e}, {np.mean(every > 1e-3):.1%} of rows above 1e-3")
    return True


def _run(case: Case, device: str, dtype: str, limit: int, output: Path) -> None:
    run(
        Options(
            model=str(_EXAMPLES / "models" / case.model),
            corpus=str(_EXAMPLES / "data" / f"{case.corpus}.parquet"),
            output=str(output),
            methods="all",
            limit=limit,
            shard_size=limit,
            device=device,
            dtype=dtype,
            **case.options,  # type: ignore[arg-type]
        )
    )


def differences(here: Path, there: Path) -> Iterator[tuple[str, Floats]]:
    """How much each row differs, [n], of each folder of tables of two runs.

    A row's numbers are compared with the largest of them, at least 1 where it has no list of
    numbers. Rows that one run lacks, and values other than numbers that differ, are infinitely
    different.
    """
    folders = sorted({path.parent.relative_to(here) for path in here.rglob("*.parquet")})
    for folder in folders:
        if folder.parts and folder.parts[0] != "corpus":  # At the root is the index of files.
            yield str(folder), _of_tables(*(_rows(root / folder) for root in (here, there)))


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of all files of a folder, without what they cost."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))
    rows: list[dict[str, Any]] = table.drop_columns(
        [name for name in _COSTS if name in table.column_names]
    ).to_pylist()
    return rows


def _of_tables(mine: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> Floats:
    if len(mine) != len(others):
        return np.array([np.inf])
    return np.array([_of_rows(one, other) for one, other in zip(mine, others, strict=True)])


def _of_rows(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    numbers = [name for name, value in one.items() if _is_numbers(value)]
    if any(one[name] != other[name] for name in one if name not in numbers):
        return float("inf")
    pairs = [(np.asarray(one[n], float), np.asarray(other[n], float)) for n in numbers]
    if any(left.shape != right.shape for left, right in pairs):
        return float("inf")
    lists = [np.nanmax(np.abs(left)) for left, _ in pairs if left.size and left.ndim]
    scale = max(lists) if lists and max(lists) > 0 else 1.0
    return max((float(np.nanmax(np.abs(a - b), initial=0.0)) for a, b in pairs), default=0) / scale


def _is_numbers(value: object) -> bool:
    """Whether a value is a real number, or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, float) for one in value)
    return isinstance(value, float)
