"""``--perturb-dtype``: decided once, by what it changes, and kept to on every machine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attribeam.pipeline.running import perturbing
from attribeam.transforms import precision
from tests.support.tiny import Outcome, assert_alike, command, content, rows, write_jsonl

DONE, USAGE = 0, 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows(9))


@pytest.fixture
def run(
    tmp_path: Path, tiny_folder: Callable[..., Path], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs on a machine that has units for bfloat16, or hasn't."""

    def called(asked: str, *more: str, units: bool, out: str = "out") -> Outcome:
        monkeypatch.setattr(perturbing, "computes_bfloat16", lambda device: units)
        given = ("--methods", "random", *more) if "--methods" not in more else more
        return command(
            *("run", "--model", tiny_folder("bert"), "--corpus", corpus),
            *("--output", tmp_path / out, "--device", "cpu", "--shard-size", "4"),
            *("--fractions", "0.5", "--perturb-dtype", asked, *given),
        )

    return called


def manifest(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


def test_what_was_decided_holds_on_other_machines(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    done = run("auto", units=True)
    assert done.status == DONE and "curves are in bfloat16: of " in done.out
    begun = manifest(tmp_path / "out")
    assert begun["evaluation"]["dtype"] == "bfloat16"
    assert begun["executions"][0]["perturb_dtype"]["instances"] == 9
    more = run("auto", "--methods", "saliency", units=False)
    assert more.status == DONE and "curves are in" not in more.out
    assert manifest(tmp_path / "out")["evaluation"] == begun["evaluation"]
    assert "perturb_dtype" not in manifest(tmp_path / "out")["executions"][1]
    # As if all had been asked for at once, by name, but for what batch mates make of bfloat16.
    assert run("bfloat16", "--methods", "random,saliency", units=False, out="named").status == DONE
    ours, named = content(tmp_path / "out"), content(tmp_path / "named")
    assert ours.keys() == named.keys()
    for path in (path for path in ours if path.startswith("curves/")):
        pair = (side[path]["probability"].to_numpy() for side in (ours, named))
        np.testing.assert_allclose(*pair, atol=0.01)
    refused = run("float32", "--methods", "random", units=True)
    assert refused.status == USAGE
    assert 'evaluation.dtype was "bfloat16", now null' in refused.err


def test_without_units_it_is_float32_and_stays_so(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    done = run("auto", units=False)
    assert done.status == DONE and "curves are in float32: the processor has no units" in done.out
    assert run("auto", "--methods", "saliency", units=True).status == DONE
    assert "dtype" not in manifest(tmp_path / "out")["evaluation"]
    assert run("float32", "--methods", "random,saliency", units=True, out="named").status == DONE
    for path, table in content(tmp_path / "out").items():
        assert_alike(table, content(tmp_path / "named")[path])


def test_beyond_the_bound_it_is_float32(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(precision.BOUND, "change", 0.0)
    done = run("auto", units=True)
    assert done.status == DONE and "curves are in float32: of " in done.out
    found = manifest(tmp_path / "out")
    assert "dtype" not in found["evaluation"]
    assert found["executions"][0]["perturb_dtype"]["change"] > 0
