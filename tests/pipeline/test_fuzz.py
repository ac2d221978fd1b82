"""Whatever a corpus or a file holds: a message, or a run in which every row is accounted for.

``python -m benchmarks.fuzz`` does the same with many more examples.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from attribeam.analysis import verify
from attribeam.schemas.index import INDEX
from tests.support.fuzzing import (
    Corpus,
    Damaged,
    Finished,
    check_damaged,
    check_run,
    corpora,
    damaged_corpora,
    damaged_runs,
    finished_run,
    write,
)


def some(examples: int) -> settings:
    """The profile of all tests, with so many examples."""
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[[str], Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(model, tmp_path_factory.mktemp("finished"))


@some(12)
@given(corpora())
def test_any_corpus(model: Path, tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / f"corpus{corpus.suffix}"
    count = write(corpus, path)
    check_run(model, path, folder / "out", count, corpus.options, Counter())


@some(8)
@given(damaged_corpora())
def test_a_damaged_corpus(
    model: Path, tmp_path_factory: pytest.TempPathFactory, corpus: tuple[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    suffix, content = corpus
    path = folder / f"corpus{suffix}"
    path.write_bytes(content)
    check_run(model, path, folder / "out", None, {}, Counter())


@some(12)
@given(damaged_runs())
def test_a_damaged_run(
    finished: Finished, tmp_path_factory: pytest.TempPathFactory, damage: Damaged
) -> None:
    check_damaged(finished, damage, tmp_path_factory.mktemp("fuzz") / "copy", Counter())


def test_a_footer_that_only_arrow_can_read(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "copy")
    # Files that an index knows are compared by their checksums, and not read.
    (tmp_path / "copy" / INDEX).unlink()
    path = min((tmp_path / "copy" / "attributions").glob("*/*.parquet"))
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    said = []
    for at in range(len(content) - footer, len(content) - 8, 400):
        spoiled = bytearray(content)
        spoiled[at] ^= 1 << (at % 8)
        path.write_bytes(spoiled)
        said += verify(tmp_path / "copy").problems
    assert any(f"{path.name}: damaged" in problem for problem in said)
    assert not any("can't be counted" in problem for problem in said)
