"""What each format from 4 on has left behind: it opens, says what it said, and goes on."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import open_run, verify
from attribeam.analysis.query.output import write_json
from attribeam.schemas import TABLES, VIEWS, UsageError, table_schema
from attribeam.schemas.layout import FORMAT, FORMATS
from attribeam.schemas.tables import EVALUATIONS
from tests.compat.make import CORPUS, HERE, METHODS
from tests.support.conditioning import SINGLE
from tests.support.tiny import assert_alike, command, files, scores, stamps

FIRST_OF_TWO = "shard-00000-of-00002.parquet"


@pytest.fixture(scope="module", params=[path.name for path in sorted(HERE.glob("*.tar.xz"))])
def archive(request: pytest.FixtureRequest) -> Path:
    """An archive of each format: a run, and what was published of it."""
    return HERE / request.param


@pytest.fixture(scope="module")
def folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in it, to be read alone."""
    return extracted(archive, tmp_path_factory.mktemp("format"))


@pytest.fixture
def run(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of it, to go on with from where its model and corpus are."""
    monkeypatch.chdir(HERE)
    return extracted(archive, tmp_path) / "run"


def extracted(archive: Path, target: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="data")
    return target


def test_an_archive_is_there_of_each_format_that_is_read() -> None:
    there = {int(re.findall(r"\d+", path.name)[0]) for path in HERE.glob("*.tar.xz")}
    assert there | {FORMAT} == {*FORMATS}


@pytest.mark.parametrize("kind", ["run", "published"])
def test_views_give_the_rows_that_they_gave(archive: Path, folder: Path, kind: str) -> None:
    given = json.loads(Path(str(archive).replace(".tar.xz", ".json")).read_text(encoding="utf-8"))
    with open_run(folder / kind, commented=False) as connection:
        for sql, expected in given.items():
            found = written(connection.sql(sql))
            assert len(found) == len(expected) > 0, sql
            for row, then in zip(found, expected, strict=True):
                for name, value in then.items():
                    assert_close(row[name], value, f"{name} {sql}")


def written(relation: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
    """The rows of a query as JSON has them."""
    out, reader = io.StringIO(), relation.to_arrow_reader()
    write_json(reader.schema, reader, out)
    rows: list[dict[str, Any]] = json.loads(out.getvalue())
    return rows


def assert_close(found: Any, expected: Any, where: str) -> None:
    """Checks that values of JSON are equal, up to the rounding of floats."""
    if isinstance(expected, list) and expected and isinstance(expected[0], float):
        assert len(found) == len(expected), where
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours, theirs, where)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=SINGLE, abs=SINGLE), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("kind", ["run", "published"])
def test_everything_opens(folder: Path, kind: str) -> None:
    with open_run(folder / kind) as connection:
        for name in (*TABLES, *EVALUATIONS, *(view.name for view in VIEWS if not view.is_macro)):
            connection.execute(f"from {name}").fetchall()
        for name in TABLES:
            described = connection.execute(f"describe {name}").fetchall()
            assert [column for column, *_ in described] == table_schema(name).names
    assert verify(folder / kind).problems == []


def test_columns_that_came_later_are_null(folder: Path) -> None:
    later = "question, question_kind, outputs, image, width, height, rows, columns, patch, mask"
    with open_run(folder / "run", commented=False) as connection:
        assert connection.execute(f"select distinct {later} from instances").fetchall() == [
            (None,) * 10
        ]
        described = connection.execute(f"describe select {later} from instances").fetchall()
        picture = "STRUCT(bytes BLOB, path VARCHAR)"
        kinds = ["INTEGER", "VARCHAR", "VARCHAR[]", picture, *["INTEGER"] * 5, picture]
        assert [kind for _, kind, *_ in described] == kinds


def test_what_a_later_version_adds_is_passed_over(archive: Path, tmp_path: Path) -> None:
    """Columns, keys and tables that nobody knows yet; and files that lack what was added since."""
    folder = extracted(archive, tmp_path) / "published"
    with open_run(folder, commented=False) as connection:
        before = {sql: connection.execute(sql).fetchall() for sql in _ASKED}
    (first, *_) = sorted(folder.glob("**/instances/*.parquet"))
    rows = pq.ParquetFile(first).read()
    added = [c.name for c in table_schema("instances") if (c.metadata or {}).get(b"added")]
    rows = rows.drop_columns([name for name in added if name in rows.column_names])
    pq.write_table(rows.append_column("later", pa.array([{"a": 1}] * len(rows))), first)
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    manifest["later"] = manifest["identity"]["settings"]["later"] = {"a": [1]}
    later = folder / "data" / "later" / "train-00000-of-00001.parquet"
    later.parent.mkdir()
    pq.write_table(rows, later)
    manifest["methods"]["saliency"]["tables"].append("later")
    (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    with open_run(folder, commented=False) as connection:
        assert {sql: connection.execute(sql).fetchall() for sql in _ASKED} == before
        for name in TABLES:
            described = connection.execute(f"describe {name}").fetchall()
            assert [column for column, *_ in described] == table_schema(name).names
        asked = "select count(*), count(image) from instances"
        assert connection.execute(asked).fetchall() == [(4, 0)]


_ASKED = (
    "select instance_id, tokens, label, prediction from instances order by all",
    "from attributions order by all",
    "select method, comprehensiveness from faithfulness order by all",
)


def test_a_database_of_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("open", run).status == 0
    monkeypatch.chdir(run)
    with duckdb.connect("attribeam.duckdb", read_only=True) as connection:
        asked = "select count(*), count(outputs) from instances"
        assert connection.execute(asked).fetchall() == [(4, 0)]


def test_a_report_is_made_of_it(folder: Path, tmp_path: Path) -> None:
    for kind in ("run", "published"):
        outcome = command("report", folder / kind, "--output", tmp_path / f"{kind}.html")
        assert (outcome.status, outcome.err) == (0, "")
        page = (tmp_path / f"{kind}.html").read_text(encoding="utf-8")
        assert "pattern_ablation" in page
        assert all(f'"{instance}"' in page for instance in ("c0", "c1", "c2", "c4"))


def test_it_is_published_with_all_columns(folder: Path, tmp_path: Path) -> None:
    before = stamps(folder / "run")
    target = tmp_path / "published"
    outcome = command(
        "publish", folder / "run", "user/name", "--dry-run", target, "--license", "mit"
    )
    assert (outcome.status, outcome.err) == (0, "")
    assert verify(target).problems == []
    assert json.loads((target / "run.json").read_text())["format"] == FORMAT
    for name in TABLES:
        for path in (target / "data" / name).rglob("*.parquet"):
            assert pq.read_schema(path).equals(table_schema(name)), path
    # The tables of those who published it then, and one for people; the run is what it was.
    tables = [
        {path.rpartition("/")[0] for path in files(place) if path.startswith("data/")}
        for place in (target, folder / "published")
    ]
    assert tables[0] == tables[1] | {"data/wide"}
    assert stamps(folder / "run") == before


def test_what_is_there_is_not_computed_again(run: Path) -> None:
    before = stamps(run)
    for methods in METHODS:
        outcome = command("run", "--output", run, *CORPUS, *methods)
        assert outcome.out.startswith("nothing left to do"), outcome.err
    assert stamps(run) == before


def test_what_is_missing_is_computed(run: Path) -> None:
    """A shard of this format comes before one of another: they are read as one table."""
    lost = {
        *(f"instances/{FIRST_OF_TWO}", f"curves/method=saliency/{FIRST_OF_TWO}"),
        *(f"{name}/method=attattr/{FIRST_OF_TWO}" for name in ("heads", "tree_nodes")),
    }
    before = stamps(run)
    rows = {path: pq.ParquetFile(run / path).read() for path in lost}
    for path in lost:
        (run / path).unlink()
    for methods in METHODS:
        outcome = command("run", "--output", run, *CORPUS, *methods)
        assert "worked on (1 more were there already)" in outcome.out, outcome.err
    assert {path for path, at in stamps(run).items() if before[path] != at} == lost | {"run.json"}
    assert json.loads((run / "run.json").read_text())["format"] == FORMAT
    for path in lost:
        found = pq.ParquetFile(run / path).read()
        assert found.schema.names == table_schema(path.split("/")[0]).names
        # What has a column now that it had none for then has values there, or nulls.
        assert_alike(found.select(rows[path].column_names), rows[path])
    assert verify(run).problems == []
    with open_run(run, commented=False) as connection:
        asked = "select count(*), count(question) from instances"
        assert connection.execute(asked).fetchall() == [(4, 0)]
        assert connection.execute("select count(*) from faithfulness").fetchall() == [(5,)]


def test_a_method_is_added_as_to_a_new_run(run: Path, tmp_path: Path) -> None:
    before = stamps(run)
    new = tmp_path / "new"
    more = ("--methods", "grad_x_input,attention_rollout")
    for output in (run, new):
        assert "2 worked on" in command("run", "--output", output, *CORPUS, *more).out
    kept = {path: at for path, at in stamps(run).items() if path in before}
    assert {path for path in before if kept[path] != before[path]} == {"run.json"}
    for method in ("grad_x_input", "attention_rollout"):
        assert scores(run, [method]) == scores(new, [method])
    assert verify(run).problems == []
    with open_run(run, others={"new": new}, commented=False) as connection:
        ours, theirs = (
            connection.execute(f"from {of}faithfulness where method = 'grad_x_input'").fetchone()
            for of in ("", "new.")
        )
        assert ours is not None and theirs is not None
        for value, expected in zip(ours, theirs, strict=True):
            assert_close(value, expected, "faithfulness")


def test_another_setting_is_refused(run: Path) -> None:
    outcome = command("run", "--output", run, *CORPUS, *METHODS[0], "--seed", "1")
    assert outcome.err.count("\n") == 1
    assert "settings.seed was 0, now 1" in outcome.err


@pytest.mark.parametrize(
    ("versions", "remedy"),
    [
        ({"attribeam": "9.1.0"}, "attribeam 9.1.0 wrote.*pip install 'attribeam>=9.1.0'"),
        ({"attribeam": "9; rm -r ."}, "a newer attribeam wrote.*install the newest"),
        (None, "a newer attribeam wrote.*install the newest"),
    ],
)
def test_a_newer_format_is_refused_with_the_version_to_install(
    run: Path, versions: dict[str, str] | None, remedy: str
) -> None:
    manifest = json.loads((run / "run.json").read_text())
    manifest["executions"].append({"versions": versions, "steps": [1]})
    manifest |= {"format": FORMAT + 1, "identity": None}
    (run / "run.json").write_text(json.dumps(manifest))
    wanted = rf"run.json has format {FORMAT + 1}, which {remedy}"
    with pytest.raises(UsageError, match=wanted):
        open_run(run)
    for arguments in (
        ("run", "--output", run, *CORPUS, *METHODS[0]),
        ("query", run, "from cost"),
        ("publish", run, "user/name", "--dry-run", run / "new"),
    ):
        outcome = command(*arguments)
        assert outcome.err.count("\n") == 1
        assert re.search(wanted, outcome.err)


def test_only_columns_that_came_later_may_be_lacking(run: Path) -> None:
    path = run / "instances" / FIRST_OF_TWO
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.drop_columns(["correct"]), path)
    assert any("other columns" in problem for problem in verify(run).problems)
