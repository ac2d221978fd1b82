"""Tables in a terminal: numbers under each other, and names that were meant."""

from io import StringIO
from itertools import product
from pathlib import Path

import pytest

from attribeam.analysis import run_query
from attribeam.analysis.query.terminal import print_rows, shown_column
from attribeam.schemas import UsageError
from tests.support.synthetic_run import synthetic_run, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(synthetic_run(rows=3), tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([0.6157, 0.05438, None], ["0.6157", "0.0544", "null"]),
        ([10.6188, 0.0084, 2.5], ["10.6188", "0.0084", "2.5000"]),
        ([530.9, 0.4], ["530.9", "0.4"]),
        ([1.0, 3.0], ["1", "3"]),
        ([2388.62, 57446.1], ["2389", "57446"]),
        ([1e-9, 0.5], ["1.000e-09", "0.5000"]),
        ([0.0, 0.25], ["0.00", "0.25"]),
        ([float("inf"), 0.25], ["inf", "0.25"]),
        ([1, 20], ["1", "20"]),
        (["a", 0.5], ["a", "0.5000"]),
    ],
)
def test_decimals_are_those_of_the_column(values: list[object], cells: list[str]) -> None:
    assert shown_column(values) == cells


def test_what_is_the_same_in_all_rows_is_said_once() -> None:
    names = ["method", "protocol", *(f"measure_{number}" for number in range(9))]
    rows = [[name, "token", *(0.1 * n + k for k in range(9))] for n, name in enumerate("abc")]
    out = StringIO()
    print_rows(names, rows, out, width=80)
    assert "in all rows: protocol token" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80
    out = StringIO()
    print_rows(names[:3], [row[:3] for row in rows], out, width=80)  # It fits.
    assert out.getvalue().count("token") == 3


def test_further_tables_say_which_row_is_which() -> None:
    names = ["method", "kind", "operation", *(f"measure{number}" for number in range(9))]
    rows = [
        [method, "x" * len(method), operation, *(0.1 * k + n for k in range(9))]
        for n, (method, operation) in enumerate(product(("a", "bb"), ("mask", "impute")))
    ]
    out = StringIO()
    print_rows(names, rows, out, width=60)
    tables = out.getvalue().split("\n\n")
    further = [table.split() for table in tables if "measure" in table][1:]
    assert further
    for words in further:
        assert words[:2] == ["method", "operation"]
        assert ["bb", "impute"] in [words[n : n + 2] for n in range(len(words))]
    assert max(map(len, out.getvalue().splitlines())) <= 60


FAITHFULNESS = (
    *("method", "protocol", "operation", "n", "comprehensiveness", "sufficiency", "aopc"),
    *("log_odds", "auc_morf", "auc_lerf", "auc_random", "auc_difference", "flipped"),
    *("decision_flip_fraction", "decision_flip_low", "left_out"),
)


def printed_faithfulness(methods: int, width: int) -> list[str]:
    rows = [
        [f"a_method_with_name_no_{n:02}", "token", "mask", 100]
        + [0.1234 + n / 100 + k / 7 for k in range(11)]
        + [0]
        for n in range(methods)
    ]
    out = StringIO()
    print_rows(FAITHFULNESS, rows, out, width=width)
    return out.getvalue().splitlines()


def test_many_methods_are_one_table_with_its_headline_columns() -> None:
    lines = printed_faithfulness(28, 80)
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("a_method") for line in lines) == 28
    heads = lines[1].split()
    assert heads == ["method", "difference", "comprehensiveness", "sufficiency", "flipped"]
    assert sum("─" in line for line in lines) == 1
    (once,) = [line for line in lines if line.startswith("in all rows")]
    assert once == "in all rows: protocol token, operation mask, n 100, left_out 0"
    # What isn't shown is said.
    said = " ".join(lines[lines.index(once) + 1 :])
    shown = {"method", "protocol", "operation", "n", "left_out", "auc_difference", *heads}
    assert all(name in said for name in {*FAITHFULNESS} - shown)


def test_few_methods_have_all_columns_and_so_has_a_wide_terminal() -> None:
    few = printed_faithfulness(3, 80)
    assert sum("─" in line for line in few) > 1
    assert sum(line.startswith("a_method_with_name_no_00") for line in few) > 1
    wide = printed_faithfulness(28, 250)
    assert wide[0].split() == [*FAITHFULNESS]
    assert not any("no room" in line for line in (*few, *wide))


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select count(*) from tokens where method = 'gradeint'", "did you mean gradient?"),
        ("from tokens where method in ('paths', 'walks') limit 1", "no method 'walks'"),
        ("from agreement_over(methods := ['paths', 'walks'])", "no method 'walks'"),
        ("from tokens where method = 'paths' limit 1", ""),
    ],
)
def test_methods_that_no_run_has_are_told(
    sql: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_query(folder, sql, out=StringIO())
    err = capsys.readouterr().err
    assert said in err if said else err == ""


def test_a_macro_without_parentheses_is_told(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"parentheses, as in `from agreement_over\("):
        run_query(folder, "from agreement_over", out=StringIO())
