"""Whatever is done to a run, in whatever order: it is what a fresh run would be, or it says no.

``ATTRIBEAM_MACHINE=200 pytest tests/pipeline/running/test_machine.py`` tries as many sequences as
one has time for.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from attribeam.analysis import verify
from attribeam.pipeline.running import graph
from attribeam.pipeline.store.files import is_whole
from attribeam.schemas import CONTENT_FIELDS
from attribeam.schemas.layout import LOCK, MANIFEST
from tests.pipeline.running.test_resume import cut, flip
from tests.support.models import save_tiny
from tests.support.tiny import Outcome, assert_alike, command, files, rows, write_jsonl

METHODS = ("random", "saliency", "globenc")
EXAMPLES = int(os.environ.get("ATTRIBEAM_MACHINE", "3"))
STEPS = 9
# Each is a setting that numbers depend on.
OTHERS = (
    ("--seed", 7),
    ("--shard-size", 2),
    ("--limit", 3),
    ("--target", 1),
    ("--max-length", 9),
    ("--id-column", "none"),
)


class Stopped(OSError):
    """What stands for a disk that has become full."""


class Machine(RuleBasedStateMachine):
    """A run, what was asked of it, and what a fresh one of the same settings has."""

    folder: ClassVar[Path]
    fresh: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.out = Path(mkdtemp(dir=self.folder)) / "out"
        self.asked: set[str] = set()
        self.layers = False
        self.flipped: set[str] = set()

    def words(self, methods: set[str], *more: object) -> list[object]:
        """A call; with curves, so that all that is there is of one fresh run."""
        return [
            *("run", "--model", self.folder / "model", "--corpus", self.folder / "corpus.jsonl"),
            *("--output", self.out, "--device", "cpu", "--shard-size", 3, "--fractions", "0.5"),
            *("--methods", ",".join(sorted(methods)), *more),
        ]

    def call(self, *words: object) -> Outcome:
        """Runs a command, which may not fail in another way than by a sentence."""
        outcome = command(*words)
        assert outcome.status in (0, 1, 2)
        assert "Traceback" not in outcome.err
        if outcome.status == 2:
            assert outcome.err.startswith(
                ("attribeam: ", "attribeam run: error: ", "attribeam plan: error: ")
            )
        return outcome

    def done(self, methods: set[str], *, repair: bool, outcome: Outcome) -> None:
        """Checks what a call that wasn't stopped has come to."""
        if "is damaged" in outcome.err:  # Met on the way; the remedy is named.
            assert self.flipped and not repair and "--repair" in outcome.err
            return
        assert outcome.status == 1, outcome.err  # Of the row that has no text.
        if repair:
            self.flipped.clear()
        expected = self.expected(methods)
        assert expected <= files(self.out), expected - files(self.out)

    def expected(self, methods: set[str]) -> set[str]:
        """Paths of the files of some methods."""
        return {
            path
            for path in files(self.fresh) - {MANIFEST}
            if not path.startswith("layers/") or self.layers
            for method in (path.partition("method=")[2].partition("/")[0] or None,)
            if method is None or method in methods
        }

    @rule(methods=st.sets(st.sampled_from(METHODS), min_size=1), repair=st.booleans())
    def run(self, methods: set[str], repair: bool) -> None:
        self.asked |= methods
        more = ["--layers"] * (self.layers and "globenc" in methods)
        outcome = self.call(*self.words(methods, *more, *["--repair"] * repair))
        self.done(methods - ({"globenc"} - {*more}), repair=repair, outcome=outcome)

    @rule(methods=st.sets(st.sampled_from(METHODS), min_size=1), after=st.integers(0, 6))
    def stopped(self, methods: set[str], after: int) -> None:
        """A run whose disk is full after some files; half a file may stay behind."""
        self.asked |= methods
        original, written = graph.write_parquet, []

        def write(path: str, table: pa.Table) -> Any:
            if len(written) == after:
                Path(f"{path}.0a1b.tmp").parent.mkdir(parents=True, exist_ok=True)
                Path(f"{path}.0a1b.tmp").write_bytes(b"half")
                raise Stopped("no space left on device")
            found = original(path, table)
            written.append(path)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(graph, "write_parquet", write)
            outcome = self.call(*self.words(methods))
        assert "stopped: " in outcome.err or len(written) <= after
        self.flipped -= {Path(path).relative_to(self.out).as_posix() for path in written}

    @precondition(lambda self: (self.out / MANIFEST).exists())
    @rule(other=st.sampled_from(OTHERS))
    def other_settings(self, other: tuple[str, object]) -> None:
        before = {path: (self.out / path).read_bytes() for path in files(self.out)}
        outcome = self.call(*self.words(self.asked, *other))
        assert outcome.status == 2
        assert "holds a run with other settings: " in outcome.err
        assert {path: (self.out / path).read_bytes() for path in files(self.out)} == before

    @precondition(lambda self: (self.out / MANIFEST).exists())
    @rule(which=st.integers(0, 99), how=st.sampled_from([cut, flip, Path.unlink]))
    def damaged(self, which: int, how: Callable[[Path], None]) -> None:
        whole = sorted(path for path in files(self.out) if is_whole(str(self.out / path)))
        tables = [path for path in whole if path.endswith(".parquet")]
        if not tables:
            return
        path = tables[which % len(tables)]
        if how is flip and not pq.ParquetFile(self.out / path).metadata.num_rows:
            return  # There is no byte of data to change.
        how(self.out / path)
        self.flipped.discard(path)
        if how is flip:
            self.flipped.add(path)

    @precondition(lambda self: self.asked)
    @rule()
    def gets_layers(self) -> None:
        self.layers = True
        self.asked.add("globenc")
        outcome = self.call(*self.words({"globenc"}, "--layers"))
        self.done({"globenc"}, repair=False, outcome=outcome)

    @precondition(lambda self: (self.out / MANIFEST).exists())
    @rule()
    def asks(self) -> None:
        outcome = self.call(
            "query", self.out, "select method, n from faithfulness", "--format", "csv"
        )
        if outcome.status == 0 and not self.flipped:
            assert {line.split(",")[0] for line in outcome.out.splitlines()[1:]} <= {*METHODS}

    @invariant()
    def nothing_is_wrong(self) -> None:
        """What is there, and isn't known to be damaged, is what a fresh run has."""
        if not self.out.exists():
            return
        assert not (self.out / LOCK).exists()
        there = files(self.out)
        broken = {path for path in there if not is_whole(str(self.out / path))} | self.flipped
        for path in there - broken:
            name = path.split("/")[0]
            if path.endswith(".parquet") and name not in ("corpus", "statistics"):
                assert path in self.tables, path
                assert_alike(_table(self.out, path), self.tables[path])

    tables: ClassVar[dict[str, pa.Table]]

    def teardown(self) -> None:
        """The end of it: the same command, and verify finds nothing."""
        if self.asked:
            more = ["--layers"] * self.layers
            self.call(*self.words(self.asked, *more, "--repair"))
            assert verify(self.out).problems == []
            assert files(self.out) - {MANIFEST} == self.expected(self.asked)
            manifest, fresh = (
                json.loads((folder / MANIFEST).read_text()) for folder in (self.out, self.fresh)
            )
            assert manifest["identity"] == fresh["identity"]
            for name, record in manifest["methods"].items():
                assert record["params"] == fresh["methods"][name]["params"]
        shutil.rmtree(self.out.parent)


def _table(out: Path, path: str) -> pa.Table:
    """A table, but for the columns that need not be equal when computed again."""
    return pq.ParquetFile(out / path).read().select(CONTENT_FIELDS[path.split("/", maxsplit=1)[0]])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("machine")
    save_tiny(folder / "model", "bert")
    lines: list[Any] = rows(5)
    lines[1] = {"id": "empty", "text": ""}
    write_jsonl(folder / "corpus.jsonl", lines)
    Machine.folder, Machine.fresh = folder, folder / "fresh"
    first = Machine()
    first.out = Machine.fresh
    assert command(*first.words({*METHODS}, "--layers")).status == 1
    Machine.tables = {
        path: _table(Machine.fresh, path)
        for path in files(Machine.fresh)
        if path.endswith(".parquet") and not path.startswith("corpus/")
    }
    yield Machine


def test_a_run_is_what_a_fresh_one_would_be(machine: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=EXAMPLES < 10,
            suppress_health_check=list(HealthCheck),
        ),
    )
