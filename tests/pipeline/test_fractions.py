"""Units that are removed one after the other, and ERASER's fractions, through whole runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import open_run
from attribeam.pipeline.commands.arguments import parsers
from attribeam.pipeline.configuration import run_options
from attribeam.schemas.index import INDEX
from tests.support.tiny import command, texts, write_jsonl

FolderOf = Callable[..., Path]
Runs = dict[str, duckdb.DuckDBPyConnection]


@pytest.fixture(scope="module")
def folders(tiny_folder: FolderOf, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run by tenths, and one unit by unit, of texts from one token to twenty."""
    parent = tmp_path_factory.mktemp("runs")
    lines: list[dict[str, Any]] = [
        {"text": text, "label": number % 2}
        for number, text in enumerate(["good", *texts(4), "the film is good " * 5])
    ]
    corpus = write_jsonl(parent / "corpus.jsonl", lines)
    model = tiny_folder("bert", "classification")
    for name, more in (("tenths", ()), ("each", ("--fractions", "each"))):
        run = command(
            *("run", "--model", model, "--corpus", corpus, "--output", parent / name, *more),
            *("--methods", "saliency,random", "--dtype", "float64", "--device", "cpu"),
        )
        assert run.status == 0, run.err
    return {name: parent / name for name in ("tenths", "each")}


@pytest.fixture(scope="module")
def runs(folders: dict[str, Path]) -> Iterator[Runs]:
    opened = {name: open_run(folder, commented=False) for name, folder in folders.items()}
    yield opened
    for connection in opened.values():
        connection.close()


def test_every_number_of_units_is_removed_once(folders: dict[str, Path], runs: Runs) -> None:
    manifest = json.loads((folders["each"] / "run.json").read_text())
    assert (manifest["evaluation"]["fractions"], manifest["evaluation"]["each"]) == ([], True)
    assert "each" not in json.loads((folders["tenths"] / "run.json").read_text())["evaluation"]
    curves = (
        runs["each"]
        .sql(
            "select units, list(removed order by fraction) from curves "
            'group by instance_id, method, "order", units'
        )
        .fetchall()
    )
    assert len(curves) == 6 * 2 * 3
    assert len({units for units, _ in curves}) > 3 and min(curves)[0] == 1
    assert all(removed == list(range(units + 1)) for units, removed in curves)
    verified = command("verify", folders["each"])
    assert "sound: everything adds up" in verified.out, verified.out


@pytest.mark.parametrize("view", ["degradation_curves", "perturbation_auc"])
def test_means_at_fractions_are_those_of_a_run_by_tenths(view: str, runs: Runs) -> None:
    keys = "method, protocol, operation" + ', "order", fraction' * (view == "degradation_curves")
    found, expected = (
        runs[name].sql(f"from {view} order by {keys}").fetchall() for name in ("each", "tenths")
    )
    assert len(found) == len(expected) >= 2
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def test_every_instance_counts_the_same(runs: Runs) -> None:
    names = ("comprehensiveness", "sufficiency", "aopc", "log_odds", "auc_difference")
    names += ("decision_flip_fraction", "decision_flip_low")
    means = ", ".join(f"avg({name})" for name in names)
    found = runs["each"].sql(f"select {', '.join(names)} from faithfulness order by method")
    expected = runs["each"].sql(
        f"select {means} from faithfulness_by_instance group by method order by method"
    )
    for one, other in zip(found.fetchall(), expected.fetchall(), strict=True):
        assert one == pytest.approx(other, abs=1e-12)
        assert one[-1] == one[-2]


def test_no_flip_is_later_than_by_tenths(runs: Runs) -> None:
    by_run = {
        name: run.sql(
            "select instance_id, method, decision_flip_fraction from faithfulness_by_instance"
        ).fetchall()
        for name, run in runs.items()
    }
    known = {(name, method): value for name, method, value in by_run["tenths"]}
    assert len(known) == len(by_run["each"]) == 12
    assert all(value <= known[name, method] for name, method, value in by_run["each"])


def test_a_point_that_is_missing_is_found(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["each"], tmp_path / "copy")
    # By the index the file would be another one, whose rows nobody counts.
    (copy / INDEX).unlink()
    (file,) = copy.glob("curves/method=saliency/*.parquet")
    table = pq.ParquetFile(file).read()
    gone = next(
        number
        for number, row in enumerate(table.to_pylist())
        if row["removed"] == 1 < row["units"] and row["order"] == "lerf"
    )
    less = pa.concat_tables([table.slice(0, gone), table.slice(gone + 1)])
    pq.write_table(less, file, write_page_checksum=True)
    verified = command("verify", copy)
    assert "curves: 1 have not the points that run.json asks for" in verified.out


def test_fractions_of_eraser() -> None:
    _, run, _ = parsers()
    given = ["--model", "m", "--corpus", "c", "--output", "o", "--fractions", "eraser"]
    evaluation = run_options(run.parse_args(given), {}, []).evaluation
    assert (evaluation.fractions, evaluation.each) == ((0.01, 0.05, 0.1, 0.2, 0.5), False)
