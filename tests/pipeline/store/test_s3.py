"""Corpus and output at ``s3://``, through Beam's file systems."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from apache_beam.io.aws import s3io

from attribeam.pipeline.options import Options
from attribeam.pipeline.running import graph
from attribeam.pipeline.running.missing import units_of_run
from attribeam.pipeline.store import files, lock
from attribeam.pipeline.workers.engines import connect
from attribeam.schemas import UsageError
from attribeam.schemas.layout import part_lock_path
from tests.support.s3 import Store, served
from tests.support.tiny import assert_alike, command, content, rows, unit_files, write_jsonl
from tests.support.tiny import files as files_in

COUNT, SHARD, SHARDS = 11, 4, 3
METHODS = ("random", "saliency")
UNITS = units_of_run(dict.fromkeys(METHODS, ("attributions", "curves")))


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with served() as found:
        yield found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that isn't waited for."""
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    monkeypatch.setattr(lock, "LOOK", 0.01)
    monkeypatch.setattr(lock, "WATCH", 0.05)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines: list[Any] = [*rows(COUNT - 1), {"id": "empty", "text": ""}]
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", lines)


@pytest.fixture(scope="module")
def arguments(tiny_folder: Callable[..., Path]) -> list[object]:
    return [
        *("run", "--model", tiny_folder("bert"), "--methods", ",".join(METHODS)),
        *("--fractions", "0.5", "--shard-size", SHARD, "--device", "cpu"),
    ]


@pytest.fixture(scope="module")
def local(arguments: list[object], corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on a local disk."""
    out = tmp_path_factory.mktemp("local")
    assert command(*arguments, "--corpus", corpus, "--output", out).status == 1
    return out


@pytest.fixture
def at_s3(store: Store, quick: None, arguments: list[object], corpus: Path) -> list[object]:
    """The command with corpus and output at S3, and where that is as options of Beam's."""
    address = store.put("data/corpus.jsonl", corpus.read_bytes())
    return [*arguments, "--corpus", address, f"--s3_endpoint_url={store.url}"]


def test_a_run_that_stops_goes_on_where_it_was_and_is_read_there(
    at_s3: list[object],
    store: Store,
    local: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []

    def write(path: str, table: pa.Table) -> files.Written:
        if len(written) == 7:
            raise OSError("the network is gone")
        found = original(path, table)
        written.append(path)
        return found

    original = graph.write_parquet
    monkeypatch.setattr(graph, "write_parquet", write)
    assert command(*at_s3, "--output", "s3://bucket/run").status not in (0, 2)
    first = list(written)
    assert ".attribeam-lock" not in store.keys("run")
    # What a process that is killed leaves behind: half a file, and its lease.
    store.put("run/curves/method=random/shard-00001-of-00003.parquet.0a.tmp", b"half")
    store.put("run/.attribeam-lock", json.dumps({"token": "of the dead"}).encode())
    monkeypatch.setattr(graph, "write_parquet", original)
    written.clear()
    monkeypatch.setattr(
        graph, "write_parquet", lambda path, table: written.append(path) or original(path, table)
    )
    outcome = command(*at_s3, "--output", "s3://bucket/run")
    assert (outcome.status, "1 failure" in outcome.out) == (1, True), outcome
    assert not set(written) & set(first)  # Nothing was done twice.
    found = store.download("run", tmp_path)
    assert files_in(found) == files_in(local)
    assert files_in(found) >= unit_files(UNITS, SHARDS)
    tables, wanted = content(found), content(local)
    assert tables.keys() == wanted.keys()
    for path, table in wanted.items():
        assert_alike(tables[path], table)
    again = command(*at_s3, "--output", "s3://bucket/run")
    assert "nothing left to do" in again.out
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    counts = "select method, count(*) from attributions group by all order by all"
    found_there = command("query", "s3://bucket/run", counts, "--format", "csv")
    assert found_there.out.split() == ["method,count_star()", "random,10", "saliency,10"]
    # And as few large files, by the same addresses.
    assert command("compact", "s3://bucket/run").status == 0
    joined = {key for key in store.keys("run") if "shard-" in key and not key.startswith("fail")}
    assert {key.rpartition("/")[2] for key in joined} == {"shard-00000..00002-of-00003.parquet"}
    assert command("query", "s3://bucket/run", counts, "--format", "csv").out == found_there.out
    assert "nothing left to do" in command(*at_s3, "--output", "s3://bucket/run").out


def test_parts_share_a_bucket(at_s3: list[object], store: Store) -> None:
    """And take what others that were killed have left."""
    more = ("--output", "s3://bucket/shared", "--methods", "random", "--no-evaluate")
    first = command(*at_s3, *more, "--part", "0/2")
    assert "\nof the whole run, 1 of 3 shards are not done yet: 2 files missing\n" in first.out
    leases = [part_lock_path(1, 2), part_lock_path(0, 4)]
    half = "instances/shard-00001-of-00003.parquet.0a.tmp"
    for path in (*leases, half):
        store.put(f"shared/{path}", json.dumps({"token": "of the dead"}).encode())
    assert command(*at_s3, *more, "--part", "2/4").err == ""  # They are none of its business.
    assert {*leases, half} <= store.keys("shared")
    second = command(*at_s3, *more, "--part", "1/4")
    assert second.status == 0 and "\nthe whole run is done\n" in second.out
    assert "was left in use by another process; watching for" in second.err
    there = unit_files(units_of_run({"random": ("attributions",)}), SHARDS)
    assert there | {leases[1]} <= store.keys("shared")
    assert not {leases[0], half} & store.keys("shared")
    assert "nothing left to do: 3 shards" in command(*at_s3, *more).out
    assert leases[1] not in store.keys("shared")


def test_a_corpus_may_be_a_folder_or_a_glob(
    at_s3: list[object], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)  # Instead of Beam's option.
    for number in range(2):
        store.put(f"parts/train-{number}.jsonl", json.dumps({"id": number, "text": "a"}).encode())
    for name in ("parts", "parts/*.jsonl"):
        out = tmp_path / name.replace("*", "all")
        outcome = command(
            *(at_s3[:-3]), "--corpus", f"s3://bucket/{name}", "--output", out, "--no-evaluate"
        )
        assert outcome.status == 0, outcome
        assert len(content(out)["instances/shard-00000-of-00001.parquet"]) == 2


def test_files_are_listed_and_deleted(store: Store, quick: None) -> None:
    connect(Options("m", "c", "s3://bucket/x", beam=[f"--s3_endpoint_url={store.url}"]))
    root = "s3://bucket/files"
    for name in ("x", "deep/er/y", "deep/z", "deeper/w"):
        files.write_atomic(files.join(root, name), lambda handle: handle.write(b"content"))
    assert set(files.list_files(root)) == {"x", "deep/er/y", "deep/z", "deeper/w"}
    assert set(files.list_files(f"{root}/deep")) == {"er/y", "z"}
    with files.open_read(f"{root}/x") as handle:
        assert handle.read() == b"content"
    files.discard(f"{root}/x")
    files.discard(f"{root}/x")
    files.discard_folder(f"{root}/deep")
    files.discard_folder(f"{root}/deep")
    assert files.list_files(root) == ["deeper/w"]
    assert not files.exists(f"{root}/x")
    assert files.exists(f"{root}/deeper/w")
    assert files.list_files(f"{root}/none") == []


def test_a_failure_leaves_neither_object_nor_temporary(store: Store) -> None:
    connect(Options("m", "c", "s3://bucket/x", beam=[f"--s3_endpoint_url={store.url}"]))

    def fail(handle: Any) -> None:
        handle.write(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        files.write_atomic("s3://bucket/torn/x", fail)
    assert not store.keys("torn")


def test_calls_share_a_client_but_not_a_download(store: Store) -> None:
    flags = [f"--s3_endpoint_url={store.url}"]
    store.put("two/a", b"a" * 10)
    store.put("two/b", b"b" * 10)
    connect(Options("m", "c", "s3://bucket/x", beam=flags))
    first, second = (files.open_read(f"s3://bucket/two/{name}") for name in "ab")
    assert (first.read(4), second.read(4), first.read(), second.read()) == (
        *(b"aaaa", b"bbbb", b"aaaaaa", b"bbbbbb"),
    )
    system = files.FileSystems.get_filesystem("s3://bucket/two")
    clients = [s3io.S3IO(options=system._options).client for _ in range(2)]
    assert clients[0] is not clients[1]
    assert clients[0].client is clients[1].client


def test_a_bucket_that_is_not_there_is_named(at_s3: list[object]) -> None:
    outcome = command(*at_s3, "--output", "s3://no-such-bucket/run")
    assert outcome.status == 2, outcome
    # Beam logs what it raises.
    last = outcome.err.splitlines()[-1]
    assert last.startswith("attribeam: --output s3://no-such-bucket/run can't be written to: ")
    assert "NoSuchBucket" in last


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(
        "attribeam.pipeline.workers.engines.find_spec",
        lambda name: None if name == "boto3" else original(name),
    )
    with pytest.raises(
        UsageError, match=r"s3://b/c.jsonl needs .* `pip install 'attribeam\[s3\]'`"
    ):
        connect(Options("m", "s3://b/c.jsonl", "out"))
