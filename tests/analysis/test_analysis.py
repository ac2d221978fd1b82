"""Opening runs, querying them, and finding every kind of damage."""

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import (
    load_manifest,
    open_run,
    print_report,
    run_query,
    run_query_to,
    verify,
)
from attribeam.schemas import Failure, Unit, UsageError, unit_path
from attribeam.schemas.layout import FORMAT
from tests.support.synthetic_run import Row, SyntheticRun, synthetic_run, write_run, write_table

ODD_NAMES = ("it's", "a  b", "a[b]", "*", "[!x]?", "ünï", 'quo"te', "{a,b}", "--x;")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody changes."""
    return write_run(synthetic_run(rows=60, shard_size=25), tmp_path_factory.mktemp("run"))


def asked(folder: Path, sql: str, format: str = "table", **options: Any) -> str:
    out = io.StringIO()
    run_query(folder, sql, format, out, **options)
    return out.getvalue()


# Opening


@pytest.mark.parametrize(
    "source",
    [
        "select comment from duckdb_views() where view_name = 'faithfulness'",
        "select COLUMN_COMMENT from information_schema.columns where table_name = 'faithfulness'",
        "from query('select comment from duck' || 'db_views() where comment is not null')",
    ],
)
def test_queries_find_comments_wherever_they_look(folder: Path, source: str) -> None:
    comments = [
        entry for row in json.loads(asked(folder, source, "json")) for entry in row.values()
    ]
    assert any(comments)


def test_manifest_is_in_tables(folder: Path) -> None:
    with open_run(folder, commented=False) as connection:
        methods = connection.execute(
            "select method, params->>'steps', additive, tables, passes from methods order by all"
        ).fetchall()
        run = connection.execute(
            "select corpus_rows, corpus_split, model_labels, model_num_layers, settings_seed, "
            "evaluation->>'protocol', executions->0->>'command' from run"
        ).fetchone()
    scored = ["attributions", "curves"]
    assert methods == [
        ("attention", None, False, [*scored, "layers", "information"], ["forward"]),
        ("gradient", None, False, scored, ["forward"]),
        ("paths", "20", True, [*scored, "layers"], ["forward"]),
    ]
    labels = ["negative", "neutral", "positive"]
    assert run == (60, None, labels, 3, 0, "token", "attribeam run")
    assert load_manifest(folder)["format"] == FORMAT


@pytest.fixture(scope="module")
def oddly_named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of 3 rows with odd names, and some of 2 rows that those match as patterns."""
    parent = tmp_path_factory.mktemp("parent")
    for name in ("a", "b", "ab", "x", "a b"):
        write_run(synthetic_run(rows=2, failing=False), parent / name)
    for name in ODD_NAMES:
        write_run(synthetic_run(rows=3, failing=False), parent / name)
    return parent


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_may_have_any_name(oddly_named: Path, name: str) -> None:
    with open_run(oddly_named / name, commented=False) as connection:
        assert connection.execute("select count(*) from instances").fetchone() == (3,)
        assert connection.execute("select count(*) from attributions").fetchone() == (9,)


def test_a_folder_of_any_name_can_be_verified(oddly_named: Path) -> None:
    assert verify(oddly_named / "[!x]?").problems == []


def test_temporary_files_are_not_read(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=2, failing=False), tmp_path)
    (folder / "instances" / ".tmp-shard-00000-of-00001.parquet.1234").write_bytes(b"half")
    (folder / "instances" / "shard-00000-of-00001.parquet.tmp").write_bytes(b"half")
    with open_run(folder, commented=False) as connection:
        assert connection.execute("select count(*) from instances").fetchone() == (2,)
    assert verify(folder).problems == []


def test_empty_tables_are_typed(tmp_path: Path) -> None:
    for dtype, kind in (("float32", "FLOAT[]"), ("float64", "DOUBLE[]")):
        folder = write_run(synthetic_run(rows=1, failing=False, dtype=dtype), tmp_path / dtype)
        for file in folder.rglob("*.parquet"):
            file.unlink()
        with open_run(folder, commented=False) as connection:
            types = {
                (table, column): type
                for table in ("attributions", "layers")
                for column, type in connection.execute(
                    f"select column_name, column_type from (describe {table})"
                ).fetchall()
            }
        assert types["attributions", "method"] == types["layers", "method"] == "VARCHAR"
        assert types["attributions", "bias"] == types["layers", "scale"] == kind.removesuffix("[]")
        for column in (("attributions", "scores"), ("layers", "rollout"), ("layers", "mixing")):
            assert types[column] == kind


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{outside}')",
        "copy (select 1) to '{outside}'",
        "attach '{outside}.db'",
        "set enable_external_access = true",
        "set threads = 1",
        "install httpfs",
        "select * from pathlib",
    ],
)
def test_an_open_run_reaches_nothing_outside(folder: Path, tmp_path: Path, sql: str) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    with open_run(folder, commented=False) as connection, pytest.raises(duckdb.Error):
        connection.execute(sql.format(outside=outside)).fetchall()
    assert outside.read_text() == "secret"


def test_external_access_on_request(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("hello")
    with open_run(folder, external_access=True, commented=False) as connection:
        row = connection.execute(f"select content from read_text('{outside}')").fetchone()
    assert row == ("hello",)


def test_large_sorts_spill_while_locked(folder: Path) -> None:
    with open_run(folder, commented=False) as connection:
        row = connection.execute(
            "select current_setting('temp_directory'), current_setting('lock_configuration')"
        ).fetchone()
    assert row is not None
    assert Path(row[0]).is_absolute()
    assert row[1] is True


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    for action in (open_run, verify, load_manifest):
        with pytest.raises(UsageError, match=re.escape(str(tmp_path)) + ".*attribeam run"):
            action(tmp_path)
        with pytest.raises(UsageError, match="no run folder"):
            action(tmp_path / "missing")
    (tmp_path / "run.json").write_text('{"format": 3}')
    with pytest.raises(UsageError, match="another version"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="can't be read"):
        open_run(tmp_path)


def test_opening_a_damaged_run_points_to_verify(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=2, failing=False), tmp_path)
    (folder / "instances" / "shard-00000-of-00001.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(UsageError, match="attribeam verify"):
        open_run(folder)


# Queries


def test_table_is_short_and_fits(folder: Path) -> None:
    text = asked(folder, "select *, repeat('long ', 99) as text from tokens", width=90)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 90
    assert re.fullmatch(r"\.\.\. \d+ more rows \(use --format csv for all\)", lines[-1])
    assert sum(line.startswith("row-") for line in lines) % 40 == 0
    narrow = asked(folder, "from faithfulness", width=50)
    assert max(map(len, narrow.splitlines())) <= 50
    # The first column says in each block which row it is.
    assert narrow.count("gradient") > 1


def test_table_cells() -> None:
    from attribeam.analysis.query.terminal import print_rows

    out = io.StringIO()
    names = ["n", "value", "scores", "text", "flag", "none"]
    rows: list[list[Any]] = [
        [1, 0.123456, [0.1, 1, 2, 3, 4, 5], "[bold]a\nb\x1b[31m", True, None],
        [1234567, 1e-9, [], "日本", False, None],
        [2, 12345.6, [None], ":smile:", True, None],
        [3, math.nan, None, "", True, None],
    ]
    print_rows(names, rows, out, width=120)
    head, _, *lines = out.getvalue().splitlines()
    assert head.split() == names
    assert lines[0].startswith("      1     0.1235  ")
    assert "  [0.1000, 1, 2, 3, ... 2 more]  [bold]a b\ufffd[31m  true   null" in lines[0]
    assert lines[1].split() == ["1234567", "1.000e-09", "[]", "日本", "false", "null"]
    assert lines[2].split() == ["2", "12346", "[null]", ":smile:", "true", "null"]
    assert lines[3].split() == ["3", "nan", "null", "true", "null"]
    assert lines[0].index("0.1235") + 6 == lines[1].index("1.000e-09") + 9


def test_numbers_are_never_cut() -> None:
    from attribeam.analysis.query.terminal import print_rows

    out = io.StringIO()
    print_rows(["text", "a", "b"], [["x" * 99, 10**30, 2 * 10**30]], out, width=40)
    assert str(10**30) in out.getvalue()
    assert str(2 * 10**30) in out.getvalue()


def test_empty_result(folder: Path) -> None:
    lines = asked(folder, "select method, n from faithfulness where n < 0").splitlines()
    assert lines[0].split() == ["method", "n"]
    assert lines[-1] == "0 rows"
    assert asked(folder, "select method, n from faithfulness where n < 0", "csv") == "method,n\n"
    assert json.loads(asked(folder, "from cost where false", "json")) == []


def test_csv(folder: Path) -> None:
    sql = (
        "select 0.1::float as f, [0.5::float, null] as l, null as n, 'a,\"b\"\nc' as t, true as b, "
        "sum(1) as s, 'nan'::double as x, 'a' || chr(13) || 'b' as r, '\\xAA\\x00'::blob as y"
    )
    header, row = csv.reader(io.StringIO(asked(folder, sql, "csv"), newline=""))
    assert header == ["f", "l", "n", "t", "b", "s", "x", "r", "y"]
    assert row[:6] == ["0.1", "[0.5, null]", "", 'a,"b"\nc', "true", "1"]
    assert row[6:] == ["nan", "a\rb", "aa00"]
    count = asked(folder, "from tokens", "csv").count("\n") - 1
    with open_run(folder, commented=False) as connection:
        assert connection.execute("select count(*) from tokens").fetchone() == (count,)


def test_json(folder: Path) -> None:
    sql = (
        "select 0.1::float as f, ['nan'::float, 0.1, null] as l, {'a': 'inf'::double} as s, "
        "1 as d, 2 as d, date '2026-01-02' as t, sum(1)::hugeint as h, 1.5::decimal(4, 2) as m, "
        "'x'::blob as b, null::float[] as z, [[0.1::float], null] as nested "
        "union all select null, null, null, 3, 4, null, null, null, null, [], null order by 4"
    )
    first, second = json.loads(asked(folder, sql, "json"))
    assert first == {
        "f": 0.1,
        "l": [None, 0.1, None],
        "s": {"a": None},
        "d": 1,
        "d_1": 2,
        "t": "2026-01-02",
        "h": 1,
        "m": 1.5,
        "b": "78",
        "z": None,
        "nested": [[0.1], None],
    }
    assert second["z"] == []


TABLE = (
    "select 'a|b & 50 %' as name_of, 1234.5678 as x, 0.00012345::float as y, null as z, "
    "[1, 2, 3, 4, 5] as l union all select 'x_y\\', -0.5, 1e-9, null, null order by 1"
)


def test_markdown(folder: Path) -> None:
    assert asked(folder, TABLE, "markdown").splitlines() == [
        r"| name\_of | x | y | z | l |",
        "|---|---:|---:|---|---|",
        r"| a\|b & 50 % | 1234.57 | 0.0001234 | null | \[1, 2, 3, 4, ... 1 more\] |",
        r"| x\_y\\ | -0.50 | 1.000e-09 | null | null |",
    ]


def test_latex(folder: Path) -> None:
    assert asked(folder, TABLE, "latex").splitlines() == [
        r"\begin{tabular}{lrrll}",
        r"\toprule",
        r"name\_of & x & y & z & l \\",
        r"\midrule",
        r"a|b \& 50 \% & 1234.57 & 0.0001234 & null & [1, 2, 3, 4, ... 1 more] \\",
        r"x\_y\textbackslash{} & -0.50 & 1.000e-09 & null & null \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_json_lines(folder: Path) -> None:
    lines = asked(folder, "select unnest([1, 2]) as a, 'x' as a, 'nan'::float as b", "jsonl")
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"a": 1, "a_1": "x", "b": None},
        {"a": 2, "a_1": "x", "b": None},
    ]
    assert asked(folder, "select 1 where false", "jsonl") == ""


def test_into_a_file(folder: Path, tmp_path: Path) -> None:
    """By its ending, and what is there stays where the query fails."""
    sql = "select instance_id, count(*) as n from attributions group by 1 order by 1"
    for name in ("out.csv", "out.md", "out.jsonl", "out.tex", "out.json"):
        run_query_to(tmp_path / name, folder, sql)
        kind = {"md": "markdown", "tex": "latex"}.get(name[4:], name[4:])
        assert (tmp_path / name).read_text() == asked(folder, sql, kind)
    run_query_to(tmp_path / "out.parquet", folder, sql)
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["instance_id", "n"]
    run_query_to(tmp_path / "named", folder, sql, "csv")
    assert (tmp_path / "named").read_text() == asked(folder, sql, "csv")
    with pytest.raises(UsageError, match=r"out\.png doesn't say what it is to hold: end it with"):
        run_query_to(tmp_path / "out.png", folder, sql)
    before = (tmp_path / "out.csv").read_bytes()
    with pytest.raises(UsageError):
        run_query_to(tmp_path / "out.csv", folder, "select error('no') from instances")
    assert (tmp_path / "out.csv").read_bytes() == before
    with pytest.raises(UsageError, match="can't be written"):
        run_query_to(tmp_path / "nowhere" / "out.csv", folder, sql)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_sql_from_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("select 7 as a;\n"))
    assert asked(folder, "-", "csv") == "a\n7\n"


def test_parquet(folder: Path) -> None:
    out = io.BytesIO()
    run_query(
        folder, "select instance_id, scores, 1 as a, 2 as a from attributions", "parquet", out
    )
    table = pq.read_table(io.BytesIO(out.getvalue()))
    assert table.column_names == ["instance_id", "scores", "a", "a_1"]
    assert table.schema.field("scores").type == pa.list_(pa.float32())
    binary = io.BytesIO()
    text = io.TextIOWrapper(binary)
    run_query(folder, "select 1 as a", "parquet", text)
    assert pq.read_table(io.BytesIO(binary.getvalue())).to_pylist() == [{"a": 1}]
    with pytest.raises(UsageError, match="cast"):
        run_query(folder, "select interval 1 day", "parquet", io.BytesIO())

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(UsageError, match="redirect"):
        run_query(folder, "select 1", "parquet", Terminal())


def test_sql_files_and_several_statements(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "my query.sql"
    script.write_text(
        "-- two\ncreate view mine as select count(*) as n from instances;\n"
        "select n + 1 as m from mine;"
    )
    assert json.loads(asked(folder, str(script), "json")) == [{"m": 60}]
    assert json.loads(asked(folder, "select 1 as a; select 2 as a", "json")) == [{"a": 2}]
    with pytest.raises(UsageError, match=r"missing\.sql"):
        asked(folder, str(tmp_path / "missing.sql"))


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", r'syntax error at or near "selec"(.|\n)*LINE 1'),
        ("select nothing from instances", r'"nothing" not found(.|\n)*Candidate bindings'),
        ("from attribution", r"attribution does not exist(.|\n)*attributions,(.|\n)*faithfulness"),
        ("select 'x'::int", "Could not convert"),
        ("", "no statement"),
        ("-- nothing", "no statement"),
        ("set threads = 1", "locked"),
    ],
)
def test_errors_are_duckdbs_own(folder: Path, sql: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        asked(folder, sql)
    assert len(str(error.value).splitlines()) <= 6


def test_errors_while_a_result_is_read(folder: Path) -> None:
    sql = "select case when i < 99999 then '1' else 'x' end::int from range(100000) as t(i)"
    for format in ("table", "csv", "json"):
        with pytest.raises(UsageError, match="Could not convert"):
            asked(folder, sql, format)


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{}/out.csv'",
        "explain analyze copy (select 1) to '{}/out.csv'",
        "attach '{}/out.csv'",
        "export database '{}/out'",
        "prepare p as copy (select 1) to '{}/out.csv'; execute p",
    ],
)
def test_a_query_writes_no_files(folder: Path, sql: str) -> None:
    with pytest.raises(UsageError, match="redirect"):
        asked(folder, sql.format(folder))
    assert not list(folder.glob("out*"))


def test_a_query_may_write_files_on_request(folder: Path, tmp_path: Path) -> None:
    asked(folder, f"copy (select 1 as a) to '{tmp_path}/out.csv'", external_access=True)
    assert (tmp_path / "out.csv").read_text() == "a\n1\n"


def test_unknown_format(folder: Path) -> None:
    with pytest.raises(UsageError, match="table, csv, json, jsonl, markdown, latex, parquet"):
        asked(folder, "select 1", "xml")


# Verification


def test_a_sound_run(folder: Path) -> None:
    report = verify(folder)
    assert report.problems == []
    facts = {fact.method: fact for fact in report.facts}
    assert facts["gradient"][1:6] == (59, 59, 0, 59, 0)
    assert facts["paths"][1:6] == (59, 58, 1, 58, 0)
    assert facts["attention"][1:6] == (59, 59, 0, 58, 1)
    assert facts["gradient"][6:8] == (None, None)
    assert facts["paths"][6:8] == (58, 0)
    assert facts["attention"][6:8] == (58, 1)
    assert facts["gradient"].median_gap is None
    assert 0 < (facts["paths"].median_gap or 0) < 0.1
    out = io.StringIO()
    print_report(report, out, width=100)
    text = out.getvalue()
    assert "30 of 30 files are there" in text
    assert "60 rows of the corpus: 59 instances, 1 failed" in text
    assert text.splitlines()[-1].startswith("sound")


def test_a_sound_run_without_evaluation_or_in_double(tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"evaluate": False},
        "double": {"dtype": "float64"},
        "two": {"operations": ("mask", "delete"), "orders": ("morf",)},
        "asymmetric": {"fractions": (0.01, 0.25)},
    }
    for name, options in kinds.items():
        report = verify(write_run(synthetic_run(**options), tmp_path / name))
        assert report.problems == []
        assert all((fact.evaluated is None) == (name == "plain") for fact in report.facts)
    print_report(report, io.StringIO())


def test_a_limited_corpus_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    run = synthetic_run(rows=4)
    run.manifest["identity"]["corpus"] |= {"rows": 1000, "limit": 4}
    assert verify(write_run(run, tmp_path)).problems == []


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two shards, to be copied and damaged."""
    return write_run(synthetic_run(), tmp_path_factory.mktemp("pristine"))


INSTANCES = unit_path(Unit("instances"), 0, 2)
PATHS = unit_path(Unit("attributions", "paths"), 0, 2)
CURVES = unit_path(Unit("curves", "gradient"), 1, 2)
LAYERS = unit_path(Unit("layers", "attention"), 1, 2)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_byte(path: Path) -> None:
    """Changes one byte in the data of a column, which leaves every structure whole."""
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(4)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start + chunk.total_compressed_size - 3] ^= 0x40
    path.write_bytes(bytes(content))


def change_columns(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.rename_columns(["id", *table.column_names[1:]]), path)


def change_types(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    field = pa.field("instance_id", pa.large_string())
    pq.write_table(table.set_column(0, field, table.column(0).cast(pa.large_string())), path)


@pytest.mark.parametrize("path", [INSTANCES, PATHS, CURVES, LAYERS, "failures/instances/*.parquet"])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (truncate, "damaged .*same command again"),
        (flip_a_byte, "damaged .*(?i:crc|checksum)"),
        (change_columns, "other columns than the table: id, "),
        (change_types, "instance_id is large_string instead of string"),
    ],
)
def test_damaged_files(
    pristine: Path, tmp_path: Path, path: str, damage: Callable[[Path], None], problem: str
) -> None:
    folder = copytree(pristine, tmp_path / "run")
    (file,) = folder.glob(path)
    damage(file)
    report = verify(folder)
    (found,) = report.problems
    assert re.match(f"{re.escape(file.relative_to(folder).as_posix())}: .*{problem}", found)
    # The other shard is still counted.
    assert "1 of 2 shards" in report.summary[-1]
    assert report.facts[0].instances > 0


@pytest.mark.parametrize("path", [INSTANCES, PATHS, CURVES, LAYERS])
def test_missing_files(pristine: Path, tmp_path: Path, path: str) -> None:
    folder = copytree(pristine, tmp_path / "run")
    (folder / path).unlink()
    (problem,) = verify(folder).problems
    assert problem.startswith("not finished: 19 of 20 files are there. Run the same command again")


def test_foreign_files(tmp_path: Path) -> None:
    run = synthetic_run()
    folder = write_run(run, tmp_path)
    for path in (
        "instances/shard-00000-of-00003.parquet",
        "curves/method=x/shard-00000-of-00002.parquet",
        "layers/method=gradient/shard-00000-of-00002.parquet",
    ):
        write_table(run, [], path.split("/")[0], folder / path)
    problems = verify(folder).problems
    assert len(problems) == 3
    assert all("no shard of a method of run.json" in problem for problem in problems)


def test_rows_of_another_method(tmp_path: Path) -> None:
    run = synthetic_run()
    folder = write_run(run, tmp_path)
    rows = [row for row in run.attributions if row["method"] == "gradient"]
    write_table(run, rows, "attributions", folder / PATHS)
    (problem,) = verify(folder).problems
    assert problem == f"{PATHS}: has rows of gradient. Run the same command again with --repair"


def test_an_unreadable_manifest_is_a_problem(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=1, failing=False), tmp_path)
    (folder / "run.json").write_text("{")
    (problem,) = verify(folder).problems
    assert "can't be read" in problem


def first(rows: list[Row], **values: object) -> Row:
    return next(row for row in rows if values.items() <= row.items())


def drop(table: str, **values: object) -> Callable[[SyntheticRun], None]:
    def change(run: SyntheticRun) -> None:
        rows = getattr(run, table)
        rows.remove(first(rows, **values))

    return change


def double(table: str, **values: object) -> Callable[[SyntheticRun], None]:
    def change(run: SyntheticRun) -> None:
        rows = getattr(run, table)
        rows.append(first(rows, **values))

    return change


def put(table: str, column: str, value: object, **values: object) -> Callable[[SyntheticRun], None]:
    def change(run: SyntheticRun) -> None:
        first(getattr(run, table), **values)[column] = value

    return change


def spoil(
    table: str, column: str, value: object, **values: object
) -> Callable[[SyntheticRun], None]:
    """Sets the second entry of a list."""

    def change(run: SyntheticRun) -> None:
        first(getattr(run, table), **values)[column][1] = value

    return change


def shorten(table: str, column: str, **values: object) -> Callable[[SyntheticRun], None]:
    def change(run: SyntheticRun) -> None:
        first(getattr(run, table), **values)[column].pop()

    return change


def drop_layers(run: SyntheticRun) -> None:
    """Takes away all layers of an instance under a method."""
    run.layers = [row for row in run.layers if not (LAYER.items() - {("layer", 1)}) <= row.items()]


def fail(stage: str, method: str | None, name: str) -> Callable[[SyntheticRun], None]:
    def change(run: SyntheticRun) -> None:
        row = Failure(name, stage, method, "E", "", name)._asdict()
        run.failures.append(row)

    return change


AT_4 = {"instance_id": "row-4"}
PATHS_4 = {"instance_id": "row-4", "method": "paths"}
LAYER = {"instance_id": "row-4", "method": "attention", "layer": 1}
POINT = {"instance_id": "row-4", "method": "paths", "order": "lerf", "fraction": 0.3}
NAN = math.nan


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (
            put("curves", "probability", 0.5, **PATHS_4, order="morf", fraction=0.0),
            ["curves: 1 begin with another probability than their instance has, such as row-4 un"],
        ),
        (drop("failures", stage="encode"), ["corpus: 9 rows, but 8 instances and 0 failed"]),
        (drop("instances", **AT_4), ["attributions: 3 belong to no instance, such as row-4"]),
        (double("instances", **AT_4), ["instances: 1 ids occur more than once, such as row-4"]),
        (shorten("instances", "special", **AT_4), ["1 have lists of different lengths"]),
        (put("instances", "input_ids", None, **AT_4), ["1 have lists of different lengths"]),
        (spoil("instances", "logits", NAN, **AT_4), ["no finite numbers, such as row-4"]),
        (spoil("instances", "logits", None, **AT_4), ["no finite numbers, such as row-4"]),
        (spoil("instances", "probabilities", 0.9, **AT_4), ["do not sum to 1, such as those of"]),
        (put("instances", "prediction", 7, **AT_4), ["1 is not the largest logit"]),
        (fail("forward", None, "row-4"), ["have also failed before they were one, such as row-4"]),
        (
            drop("attributions", **PATHS_4),
            ["paths: 8 instances, but 6 attributed and 1 failed: 1 are missing, such as row-4"],
        ),
        (
            drop("failures", stage="attribute", method="paths"),
            ["paths: 8 instances, but 7 attributed and 0 failed: 1 are missing, such as row-2"],
        ),
        (
            double("attributions", **PATHS_4),
            ["attributions: 1 occur more than once, such as row-4 under paths"],
        ),
        (spoil("attributions", "scores", NAN, **PATHS_4), ["scores that are no finite numbers"]),
        (spoil("attributions", "scores", math.inf, **PATHS_4), ["scores that are no finite"]),
        (spoil("attributions", "scores", None, **PATHS_4), ["scores that are no finite numbers"]),
        (shorten("attributions", "scores", **PATHS_4), ["1 have not one score per token"]),
        (put("attributions", "scores", None, **PATHS_4), ["1 have not one score per token"]),
        (put("attributions", "delta", NAN, **PATHS_4), ["gap that is no finite number, such as"]),
        (
            put("attributions", "scale", NAN, **PATHS_4),
            ["a scale or bias that is no finite number"],
        ),
        (put("attributions", "bias", NAN, **PATHS_4), ["a scale or bias that is no finite number"]),
        (put("attributions", "unattributed", NAN, **PATHS_4), ["no finite number unattributed"]),
        (put("attributions", "delta", None, **PATHS_4), ["additive methods have no completeness"]),
        (put("attributions", "seconds", -1.0, **PATHS_4), ["cost a time that is no finite"]),
        (
            fail("attribute", "gradient", "row-4"),
            ["attributions: 1 have also failed, such as row-4 under gradient"],
        ),
        (
            fail("attribute", "paths", "row-4"),
            ["layers: 1 have also failed, such as row-4 under paths"],
        ),
        (
            drop("layers", **LAYER),
            ["layers: 1 have not each layer of the model once, such as row-4 under attention"],
        ),
        (double("layers", **LAYER), ["layers: 1 have not each layer of the model once"]),
        (put("layers", "layer", 3, **LAYER), ["layers: 1 have not each layer of the model once"]),
        (put("layers", "layer", None, **LAYER), ["1 have not each layer of the model once"]),
        (shorten("layers", "local", **LAYER), ["layers: 1 have not one number per token"]),
        (shorten("layers", "rollout", **LAYER), ["layers: 1 have not one number per token"]),
        (shorten("layers", "mixing", **LAYER), ["layers: 1 have not one number per token"]),
        (put("layers", "local", None, **LAYER), ["layers: 1 have not one number per token"]),
        (spoil("layers", "local", NAN, **LAYER), ["layers: 1 have values that are no finite"]),
        (spoil("layers", "rollout", None, **LAYER), ["layers: 1 have values that are no finite"]),
        (spoil("layers", "mixing", NAN, **LAYER), ["layers: 1 have values that are no finite"]),
        (spoil("layers", "mixing", None, **LAYER), ["layers: 1 have values that are no finite"]),
        (put("layers", "scale", None, **LAYER), ["layers: 1 have values that are no finite"]),
        (spoil("layers", "rollout", 1.1, **LAYER), ["layers: the rollout of 1 does not sum to 1"]),
        (spoil("layers", "mixing", 1.1, **LAYER), ["1 have context-mixing ratios outside 0 to 1"]),
        (spoil("layers", "mixing", -0.1, **LAYER), ["1 have context-mixing ratios outside 0 to"]),
        (shorten("information", "bits", **LAYER), ["information: 1 have not one number per token"]),
        (put("information", "bits", None, **LAYER), ["1 have not one number per token"]),
        (spoil("information", "bits", NAN, **LAYER), ["information: 1 have bits that are no"]),
        (spoil("information", "bits", -0.1, **LAYER), ["information: 1 have bits that are no"]),
        (drop("information", **LAYER), ["information: 1 have not each layer of the model once"]),
        (
            drop_layers,
            [
                "attention: 8 attributed, but 6 have further rows and 1 failed: 1 are missing, "
                "such as row-4"
            ],
        ),
        (
            drop("failures", stage="attribute", method="attention"),
            [
                "attention: 8 attributed, but 7 have further rows and 0 failed: 1 are missing, "
                "such as row-5"
            ],
        ),
        (
            drop("attributions", instance_id="row-4", method="attention"),
            ["layers: 1 belong to no attribution, such as row-4 under attention"],
        ),
        (drop("curves", **POINT), ["1 have not the points that run.json asks for, such as row-4"]),
        (double("curves", **POINT), ["1 have not the points that run.json asks for"]),
        (put("curves", "fraction", 0.35, **POINT), ["1 have not the points that run.json asks"]),
        (put("curves", "order", "morf", **POINT), ["1 have not the points that run.json asks"]),
        (put("curves", "probability", NAN, **POINT), ["1 points have values that are no finite"]),
        (put("curves", "probability", 1.5, **POINT), ["no finite numbers, or no probability"]),
        (put("curves", "logit", None, **POINT), ["1 points have values that are no finite"]),
        (
            put("curves", "target", 7, **POINT),
            ["curves: 1 points follow another class than the scores explain, such as row-"],
        ),
        (
            put("curves", "removed", 1, **(POINT | {"fraction": 0.0})),
            ["curves: 1 points remove nothing where they should"],
        ),
        (
            drop("failures", stage="perturb"),
            [
                "attention: 8 attributed, but 7 have curves and 0 failed: 1 are missing, "
                "such as row-3"
            ],
        ),
        (fail("perturb", "paths", "row-4"), ["curves: 1 have also failed, such as row-4 under"]),
        (double("failures", stage="attribute"), ["failures: 1 occur more than once"]),
        (
            put("failures", "stage", "lunch", stage="encode"),
            ["1 have a stage or method that can't"],
        ),
    ],
)
def test_rows_that_do_not_add_up(
    tmp_path: Path, change: Callable[[SyntheticRun], None], problems: list[str]
) -> None:
    run = synthetic_run(shard_size=9)
    change(run)
    report = verify(write_run(run, tmp_path))
    for expected in problems:
        assert any(expected in problem for problem in report.problems), report.problems
    out = io.StringIO()
    print_report(report, out, width=100)
    assert re.search(r"\n\d+ problems?\n$", out.getvalue())


@pytest.mark.parametrize("change", [None, drop("instances", **AT_4), drop("curves", **POINT)])
def test_what_is_large_is_counted_in_its_files(
    tmp_path: Path,
    change: Callable[[SyntheticRun], None] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = synthetic_run()
    if change is not None:
        change(run)
    held = verify(write_run(run, tmp_path))
    monkeypatch.setattr("attribeam.analysis.verifying.verify._SMALL", 0)
    assert verify(tmp_path) == held
    assert bool(held.problems) == (change is not None)


@pytest.mark.parametrize(
    ("dtype", "step", "sound"),
    [
        ("float32", 3e-5, True),
        ("float32", 3e-4, False),
        ("float64", 3e-7, True),
        ("float64", 3e-6, False),
        ("mixed", 0.02, True),
        ("bfloat16", 0.04, False),
    ],
)
def test_how_far_the_beginning_of_a_curve_may_be(
    dtype: str, step: float, sound: bool, tmp_path: Path
) -> None:
    run = synthetic_run(dtype=dtype)
    start = first(run.curves, **PATHS_4, order="random", fraction=0.0)
    start["probability"] += step if start["probability"] < 0.5 else -step
    problems = verify(write_run(run, tmp_path)).problems
    assert (problems == []) == sound, problems
    assert sound or problems[0].startswith("curves: 1 begin with another probability")


@pytest.mark.parametrize("target", ["predicted", "gold", 1])
def test_the_class_of_curves_from_before_it_was_stored(target: str | int, tmp_path: Path) -> None:
    """It is that of the run."""
    run = synthetic_run()
    run.manifest["identity"]["settings"]["target"] = target
    for row in run.curves:
        (instance,) = (i for i in run.instances if i["instance_id"] == row["instance_id"])
        explained = {"predicted": instance["prediction"], "gold": instance["label"]}.get(
            str(target), target
        )
        row["target"] = None
        if row["fraction"] == 0:
            row["probability"] = instance["probabilities"][explained]
    wrong = first(run.curves, **PATHS_4, order="lerf", fraction=0.0)
    assert verify(write_run(run, tmp_path / "sound")).problems == []
    wrong["probability"] = 1 - wrong["probability"]
    (problem,) = verify(write_run(run, tmp_path / "mixed")).problems
    assert "such as row-4 under paths: another model, tokenizer or text made one" in problem


def test_curves_without_attributions(tmp_path: Path) -> None:
    run = synthetic_run()
    drop("attributions", **PATHS_4)(run)
    fail("attribute", "paths", "row-4")(run)
    problems = [p for p in verify(write_run(run, tmp_path)).problems if "belong" in p]
    assert problems == [
        f"{table}: 1 belong to no attribution, such as row-4 under paths"
        for table in ("layers", "curves")
    ]


def test_a_method_that_was_not_to_be_evaluated_needs_no_curves(tmp_path: Path) -> None:
    run = synthetic_run(failing=False)
    run.manifest["methods"]["gradient"]["tables"] = ["attributions"]
    run.curves = [row for row in run.curves if row["method"] != "gradient"]
    folder = write_run(run, tmp_path)
    shutil.rmtree(folder / "curves" / "method=gradient", ignore_errors=True)
    report = verify(folder)
    assert not report.problems
    evaluated = {fact.method: fact.evaluated for fact in report.facts}
    assert evaluated.pop("gradient") is None
    assert all(evaluated.values())


def test_layers_are_expected_of_the_methods_that_were_told_to_give_them(tmp_path: Path) -> None:
    run = synthetic_run()
    folder = write_run(run, tmp_path)
    run.manifest["methods"]["paths"]["tables"] = ["attributions", "curves"]
    (folder / "run.json").write_text(json.dumps(run.manifest))
    problems = verify(folder).problems
    assert len(problems) == 2
    assert all(problem.startswith("layers/method=paths/shard-0000") for problem in problems)
    shutil.rmtree(folder / "layers" / "method=paths")
    report = verify(folder)
    assert not report.problems
    layered = {fact.method: (fact.detailed, fact.not_detailed) for fact in report.facts}
    none = (None, None)
    assert layered == {"attention": (7, 1), "gradient": none, "paths": none}
