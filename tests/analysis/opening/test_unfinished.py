"""A run that isn't finished is not asked without a word: what is missing is counted and said."""

from pathlib import Path

import pytest

from attribeam.analysis.opening.files import unfinished
from attribeam.schemas import UsageError
from tests.support.synthetic_run import synthetic_run, write_run
from tests.support.tiny import command

# In two shards: instances, of three methods attributions and curves, of two of them layers, and of
# one information.
FILES = 2 * (1 + 3 + 3 + 2 + 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(synthetic_run(), tmp_path / "a run")


def test_files_are_counted(folder: Path) -> None:
    assert unfinished(folder) is None
    (folder / "curves" / "method=paths" / "shard-00001-of-00002.parquet").unlink()
    # What is half written is no file yet, and other layouts' shards are none of this run's.
    (folder / "instances" / "shard-00000-of-00002.parquet.tmp").touch()
    (folder / "instances" / "shard-00000-of-00003.parquet").touch()
    assert unfinished(folder) == (
        f"not finished: {FILES - 1} of {FILES} files are there. "
        "Run the same command again: it does what is missing"
    )
    for path in (folder / "layers" / "method=paths").iterdir():
        path.unlink()
    (folder / "layers" / "method=paths").rmdir()
    assert f"{FILES - 3} of {FILES}" in str(unfinished(folder))
    with pytest.raises(UsageError, match="no run folder"):
        unfinished(folder.parent)


@pytest.mark.parametrize(
    "words",
    [
        ("query", "from faithfulness"),
        ("query", "no such thing"),
        ("open",),
        ("plot", "degradation"),
        ("triggers",),
        ("prune", "--model", "none", "--corpus", "none"),
        ("attack", "--model", "none", "--corpus", "none"),
    ],
)
def test_every_command_says_so(folder: Path, words: tuple[str, ...]) -> None:
    name, *others = words
    before = command(name, folder, *others)
    assert "not finished" not in before.err
    (folder / "instances" / "shard-00001-of-00002.parquet").unlink()
    after = command(name, folder, *others)
    assert after.status == before.status
    first, *more = after.err.splitlines()
    assert first.startswith(f"{folder} is not finished: {FILES - 1} of {FILES} files are there")
    assert more == before.err.splitlines()
    assert "not finished" not in after.out


def test_another_folder_is_refused_as_before(tmp_path: Path) -> None:
    assert command("query", tmp_path, "from cost").err.count("no run folder") == 1
