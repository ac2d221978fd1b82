"""What the report shows of `attribeam check`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.opening.runs import reading
from attribeam.analysis.report.checks import check_sheets
from attribeam.schemas import table_schema
from attribeam.schemas.layout import evaluation_path
from tests.support.synthetic_run import METHODS, Row, synthetic_run, write_run


def written(folder: Path, table: str, rows: list[Row], name: str) -> None:
    path = folder / evaluation_path(table, name)
    path.parent.mkdir(exist_ok=True)
    content = pa.Table.from_pylist(
        [{"evaluation": name, **row} for row in rows], table_schema(table)
    )
    pq.write_table(content, path)


def test_check_sheets(tmp_path: Path) -> None:
    run = synthetic_run(failing=False, evaluate=False)
    folder = write_run(run, tmp_path / "run")
    with reading(folder) as connection:
        assert list(check_sheets(connection)) == []
    whole, head = [], []
    for row in run.attributions:
        same = {"instance_id": row["instance_id"], "method": row["method"], "prediction": 0}
        whole.append({**same, "kind": "whole", "stage": 0, "scores": row["scores"]})
        scores = row["scores"] if row["method"] == "paths" else [-s for s in row["scores"]]
        cut = {"kind": "cascading", "weights": "init", "seed": 0, "stage": 1, "part": "<head>"}
        head.append({**same, **cut, "scores": scores})
    written(folder, "randomised", whole + head, "large")
    written(folder, "randomised", (whole + head)[:1], "small")
    noisy = [{**row, "kind": None, "sample": 0, "noise_norm": 1.0, "radius": 0.1} for row in whole]
    written(folder, "noised", [{k: v for k, v in r.items() if k != "kind"} for r in noisy], "n")
    with reading(folder) as connection:
        sheets = {sheet.key: sheet for sheet in check_sheets(connection)}
    assert [*sheets] == ["randomisation-cascading-init", "sensitivity"]
    sheet = sheets["randomisation-cascading-init"]
    (column,) = sheet.columns
    assert (str(column.label), column.better) == ("&lt;head&gt;", "lower")
    assert "-1 to 1" in column.meaning
    assert {line.name: line.cells[0].text for line in sheet.rows}["paths"] == "1.000"
    assert len(sheet.rows) == len(METHODS)
    assert all("attribeam check" in sheet.note for sheet in sheets.values())
    assert all(column.meaning for column in sheets["sensitivity"].columns)
