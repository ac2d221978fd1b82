"""Whether the same heads matter: between subsets of a run, and with another run."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr, spearmanr

from attribeam.analysis import open_run
from attribeam.schemas import VIEWS, Unit, table_schema, unit_path
from tests.support.synthetic_run import synthetic_run, write_run
from tests.support.tiny import command

LAYERS, HEADS = 3, 4


def write_heads(folder: Path, names: Sequence[str], seed: int) -> np.ndarray:
    """Writes heads of instances, each a shard; their attributions, [N, L, H]."""
    rng = np.random.default_rng(seed)
    # Some heads are equally important.
    values = rng.integers(0, 5, (len(names), LAYERS, HEADS)).astype(np.float32)
    schema = table_schema("heads")
    for number, name in enumerate(names):
        rows = [
            dict.fromkeys(schema.names)
            | {"instance_id": name, "method": "attattr", "layer": layer, "head": head}
            | {"attr_max": float(values[number, layer, head])}
            for layer, head in np.ndindex(LAYERS, HEADS)
        ]
        path = folder / unit_path(Unit("heads", "attattr"), number, len(names))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return values


def expected(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    means = [of.astype(float).mean(0).ravel() for of in (one, other)]
    return pearsonr(*means).statistic, spearmanr(*means).statistic


def test_between_subsets(tmp_path: Path) -> None:
    run = synthetic_run(rows=6, failing=False)
    subsets = ["a", "b", None, "a", "b", "a"]
    for row, subset in zip(run.instances, subsets, strict=True):
        row["subset"] = subset
    folder = write_run(run, tmp_path)
    values = write_heads(folder, [row["instance_id"] for row in run.instances], 0)
    with open_run(folder, commented=False) as connection:
        found = connection.execute("from head_agreement").fetchall()
    groups = {name: values[[s == name for s in subsets]] for name in (None, "a", "b")}
    pairs = [(None, "a"), (None, "b"), ("a", "b")]
    assert sorted((row[1] or "", row[4]) for row in found) == [("", "a"), ("", "b"), ("a", "b")]
    for one, other in pairs:
        (row,) = (row for row in found if (row[1], row[4]) == (one, other))
        assert row[0] == row[3] == "attattr" and row[6] == LAYERS * HEADS
        assert (row[2], row[5]) == (len(groups[one]), len(groups[other]))
        assert row[9:] == (0, 0)
        assert row[7:9] == pytest.approx(expected(groups[one], groups[other]), abs=1e-9)


def test_with_another_run(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    values = []
    for seed, folder in enumerate(folders):
        run = synthetic_run(rows=4, failing=False)
        write_run(run, folder)
        values.append(write_heads(folder, [row["instance_id"] for row in run.instances], seed))
    files = f"{folders[1]}/heads/*/*.parquet"
    query = f"from head_agreement_with('{files}')"
    with open_run(folders[0], external_access=True, commented=False) as connection:
        ((method, other, heads, *numbers, n, other_n),) = connection.execute(query).fetchall()
    assert (method, other, heads, n, other_n) == ("attattr", "attattr", LAYERS * HEADS, 4, 4)
    assert numbers == pytest.approx(expected(*values), abs=1e-9)
    # Another run's files are outside this one's folder, unless it is named beforehand.
    with (
        open_run(folders[0], commented=False) as connection,
        pytest.raises(duckdb.PermissionException),
    ):
        connection.execute(query)
    outcome = command("query", folders[0], query)
    assert outcome.status == 2 and "--with NAME=DIR" in outcome.err
    assert command("query", folders[0], query, "--external-access").status == 0
    named = "from head_agreement_with('other')"
    for access in (False, True):
        others = {"other": folders[1]}
        with open_run(
            folders[0], others=others, external_access=access, commented=False
        ) as connection:
            (found,) = connection.execute(named).fetchall()
        assert found[3:5] == pytest.approx(numbers[:2], abs=1e-9)


def test_it_is_explained(tmp_path: Path) -> None:
    with open_run(write_run(synthetic_run(rows=2), tmp_path)) as connection:
        query = "select column_name, comment from duckdb_columns() where table_name = ?"
        columns = connection.execute(query, ["head_agreement"]).fetchall()
        assert len(columns) == 11 and all(comment for _, comment in columns)
        query = "select comment from duckdb_functions() where function_name = ?"
        (view,) = (view for view in VIEWS if view.name == "head_agreement_with")
        assert connection.execute(query, [view.name]).fetchall() == [(view.comment,)]
