"""The tour of the documentation, done: its commands and queries run and come to what it shows.

``python -m tests.test_tour`` does it too, and writes what came out into the page.
"""

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from attribeam.analysis import run_query
from tests.support.tiny import command

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/tour.md"
WIDTH = 100
# What is done, and right after it what came out.
STEP = re.compile(r"^```(sh|sql)\n(.*?)^```\n\n```text\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^```\S", re.MULTILINE)
# Columns that differ from machine to machine, and such a number in a command's output.
TIMES = {"ms"}
SECONDS = re.compile(r"\d+\.\d s\b")


class Step(NamedTuple):
    """A command or a query of the page, and what the page says comes out."""

    kind: str
    given: str
    shown: str


class Table(NamedTuple):
    """A table as it is printed."""

    columns: list[str]
    rows: list[list[str]]


def steps() -> list[Step]:
    return [Step(*found.groups()) for found in STEP.finditer(PAGE.read_text(encoding="utf-8"))]


def done(given: list[Step]) -> Iterator[str]:
    """Does the steps in the current folder; yields what comes out of each."""
    run = ""
    for step in given:
        if step.kind == "sql":
            out = StringIO()
            run_query(run, step.given, out=out, width=WIDTH)
            yield tidy(out.getvalue())
            continue
        (line,) = step.given.replace("\\\n", " ").splitlines()
        program, *arguments = shlex.split(line)
        assert program == "attribeam"
        outcome = command(*map(located, arguments), ranked=True)
        assert (outcome.status, outcome.err) == (0, ""), outcome.err
        if "--output" in arguments:
            run = arguments[arguments.index("--output") + 1]
        yield tidy(outcome.out)


def located(argument: str) -> str:
    """An argument, from wherever the current folder is."""
    return str(ROOT / argument) if argument.startswith("examples/") else argument


def tidy(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines())


def table(text: str) -> Table:
    head, rule, *rows = text.splitlines()
    assert set(rule) == {"─"}, "the tour's tables fit a page, with one line of names"
    return Table(split(head), [split(row) for row in rows])


def split(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def same(found: str, shown: str) -> bool:
    """Whether two cells are equal, numbers but for 2 in the third digit after the point."""
    try:
        return abs(float(found) - float(shown)) < 0.0025
    except ValueError:
        return found == shown


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("tour"))
    try:
        return list(done(steps()))
    finally:
        os.chdir(before)


def test_every_block_is_a_step() -> None:
    assert len(steps()) >= 10
    assert len(FENCE.findall(PAGE.read_text(encoding="utf-8"))) == 2 * len(steps())


def test_it_comes_to_what_the_page_shows(found: list[str]) -> None:
    for step, text in zip(steps(), found, strict=True):
        # A run prints lines, and a table of its own between them.
        for part, shown in zip(text.split("\n\n"), step.shown.split("\n\n"), strict=True):
            if "─" in shown:
                compare(step, table(part), table(shown))
            else:
                assert SECONDS.sub("", part.rstrip()) == SECONDS.sub("", shown.rstrip())


def compare(step: Step, ours: Table, theirs: Table) -> None:
    assert ours.columns == theirs.columns
    assert len(ours.rows) == len(theirs.rows) > 0
    for row, expected in zip(ours.rows, theirs.rows, strict=True):
        for column, cell, shown in zip(ours.columns, row, expected, strict=True):
            if column in TIMES:
                assert float(cell) >= 0
            else:
                assert same(cell, shown), f"{step.given}: {row} is shown as {expected}"


def write_page() -> None:
    """Writes what comes out of the steps into the page."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        texts = iter(list(done(steps())))
    page = PAGE.read_text(encoding="utf-8")
    page = STEP.sub(lambda step: f"```{step[1]}\n{step[2]}```\n\n```text\n{next(texts)}```\n", page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write_page()
