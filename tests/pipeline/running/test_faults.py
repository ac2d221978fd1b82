"""Parts on hosts that share a store alone, are killed, and are cut off; ``make faults``: more."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.faults import made_twice, simulate
from tests.support.faulty_store import Write

FAULTS = 20


def test_parts_that_are_killed_and_cut_off(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    for package in ("boto3", "flask_cors", "moto"):
        pytest.importorskip(package)
    found = simulate(tmp_path, tiny_folder("bert"), faults=FAULTS, shards=16, seed=20)
    assert not found.problems, found
    assert found.kills + found.cuts == FAULTS and min(found.kills, found.cuts) > 2, found


def test_what_two_processes_made_is_noticed() -> None:
    path = "bucket/run/curves/method=random/shard-00001-of-00016.parquet"
    once = [Write(path, "host1-0"), Write(path, "host1-0"), Write(f"{path}.tmp", "host1-1")]
    assert made_twice(once) == []
    assert made_twice([*once, Write(path, "host1-1")]) == [
        f"{path} was made by ['host1-0', 'host1-1']"
    ]
