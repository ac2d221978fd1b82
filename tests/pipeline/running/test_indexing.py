"""What the index of a run says: what was said of each file once, and else what the file is."""

from pathlib import Path

from attribeam.analysis import load_manifest
from attribeam.pipeline.running.indexing import index_run
from attribeam.pipeline.store.records import Said, checksums, write_index, write_records
from attribeam.schemas.index import INDEX
from tests.support.synthetic_run import synthetic_run, write_run


def test_an_index_says_what_is_known_and_reads_the_rest(tmp_path: Path) -> None:
    write_run(synthetic_run(rows=8, shard_size=2, failing=True), tmp_path)
    root, manifest = str(tmp_path), load_manifest(tmp_path)
    index_run(root, manifest, read=True)
    whole = list(Said(root).all())
    tables = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("shard-*")}
    assert {entry.path for entry in whole} == tables
    assert any(entry.path.startswith("failures/") for entry in whole)

    # Two ways of the first file, another size of the second, and a file that isn't there.
    first, second, third, *others = whole
    write_index(root, [first, third, *others[:-3]], ())
    write_records(root, [first._replace(sha256="0" * 64), second._replace(bytes=3), third])
    write_records(root, [*others[2:-3], third._replace(path=f"{third.path}.gone")])
    index_run(root, manifest, read=False)
    assert list(Said(root).all()) == [third, *others[:-3]]
    assert Said(root).records == []
    assert first.path not in checksums(root)

    index_run(root, manifest, read=True)
    assert list(Said(root).all()) == whole
    before = (tmp_path / INDEX).stat().st_ino
    index_run(root, manifest, read=True)
    assert (tmp_path / INDEX).stat().st_ino == before  # There was nothing new to be said.
