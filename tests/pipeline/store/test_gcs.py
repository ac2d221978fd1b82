"""Runs at Google's store, against a server of its protocol: as at S3."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from attribeam.pipeline.options import Options
from attribeam.pipeline.running import graph
from attribeam.pipeline.store import files, lock
from attribeam.pipeline.workers.engines import connect
from tests.support.gcs import GoogleStore, served
from tests.support.tiny import assert_alike, command, content, rows, write_jsonl
from tests.support.tiny import files as files_in

NO_AUTH = "--no_auth"


@pytest.fixture(scope="module")
def store() -> Iterator[GoogleStore]:
    with served() as found:
        yield found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    monkeypatch.setattr(lock, "WATCH", 0.1)
    monkeypatch.setattr(lock, "LOOK", 0.05)


@pytest.fixture(scope="module")
def arguments(tiny_folder: Callable[..., Path]) -> list[object]:
    usual = ("--model", tiny_folder("bert"), "--methods", "saliency", "--device", "cpu")
    return ["run", *usual, "--no-evaluate", "--shard-size", 3]


def test_a_run_that_stops_goes_on_where_it_was_and_is_read_there(
    arguments: list[object],
    store: GoogleStore,
    quick: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows(8))
    there = [*arguments, NO_AUTH, "--corpus", store.put("data/corpus.jsonl", corpus.read_bytes())]
    written: list[str] = []

    def write(path: str, table: pa.Table) -> files.Written:
        if len(written) == 3:
            raise OSError("the network is gone")
        found = original(path, table)
        written.append(path)
        return found

    original = graph.write_parquet
    with monkeypatch.context() as patched:
        patched.setattr(graph, "write_parquet", write)
        assert command(*there, "--output", "gs://bucket/run").status not in (0, 2)
    assert ".attribeam-lock" not in store.keys("run")
    store.put("run/instances/shard-00001-of-00003.parquet.0a.tmp", b"half")
    first = len(store.keys("run"))
    outcome = command(*there, "--output", "gs://bucket/run")
    assert (outcome.status, outcome.err) == (0, ""), outcome
    assert first < len(store.keys("run"))
    assert command(*arguments, "--corpus", corpus, "--output", tmp_path / "local").status == 0
    found = store.download("run", tmp_path / "found")
    assert files_in(found) == files_in(tmp_path / "local")
    tables, wanted = content(found), content(tmp_path / "local")
    for path, table in wanted.items():
        assert_alike(tables[path], table)
    # The hint after a run can be followed.
    assert 'next:   attribeam query gs://bucket/run "from cost"' in outcome.out
    counts = "select method, count(*) from attributions group by all"
    asked = command("query", "gs://bucket/run", counts, "--format", "csv")
    assert (asked.status, asked.out.split()) == (0, ["method,count_star()", "saliency,8"])


def test_a_small_table_is_one_request(
    store: GoogleStore, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from requests import Session

    connect(Options("m", "c", "gs://bucket/x", beam=[NO_AUTH]))
    asked: list[str] = []
    request = Session.request
    monkeypatch.setattr(
        Session,
        "request",
        lambda self, method, url, *more, **others: (
            asked.append(method) or request(self, method, url, *more, **others)
        ),
    )
    table = pa.table({"x": [1, 2, 3]})
    for _ in range(2):
        files.write_parquet("gs://bucket/one/x.parquet", table)
    # Google's client may ask for what it knows of the bucket, once.
    assert (asked.count("POST"), {*asked} - {"GET"}) == (2, {"POST"})
    assert files.read_parquet("gs://bucket/one/x.parquet").equals(table)
    assert store.keys("one") == {"x.parquet"}


def test_what_is_no_run_is_said(store: GoogleStore) -> None:
    outcome = command("query", "gs://bucket/nothing", "from run")
    assert outcome.status == 2
    assert "gs://bucket/nothing is no run, or you may not see it" in outcome.err
