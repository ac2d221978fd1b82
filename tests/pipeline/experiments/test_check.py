"""`attribeam check` from end to end: what it writes, how it goes on, and what it refuses."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import open_run, verify
from attribeam.pipeline.commands.status import DONE, USAGE
from attribeam.pipeline.experiments.check import CheckOptions, open_check
from attribeam.pipeline.experiments.check_plan import plan_check
from attribeam.schemas.tables import CHECKS
from attribeam.transforms import Model
from attribeam.transforms.network.rows import Rows
from tests.support.tiny import Outcome, command, files, rows, stamps, write_jsonl

METHODS = ("random", "saliency", "globenc", "lime")
QUICK = ("--device", "cpu", "--draws", 2, "--samples", 5, "--repeats", 1)
LIMIT = 4
Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def folder(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A run in float64, of two shards, that is checked but for one method."""
    root = tmp_path_factory.mktemp("check")
    corpus = write_jsonl(root / "corpus.jsonl", rows(12)[6:])
    given = ("--model", folder, "--corpus", corpus, "--output", root / "run", "--shard-size", 4)
    more = ("--dtype", "float64", "--device", "cpu", "--set", "lime.samples=8", "--no-evaluate")
    assert command("run", *given, "--methods", ",".join(METHODS), *more).status == DONE
    outcome = checked(root / "run", folder, "--methods", "random,saliency,lime")
    assert outcome.status == DONE, outcome.err
    return root / "run"


def checked(run: Path, model: Path, *more: object) -> Outcome:
    return command("check", run, "--model", model, "--limit", LIMIT, *QUICK, *more)


@pytest.fixture(scope="module")
def asked(run: Path) -> Iterator[Ask]:
    """Asks the run as it is by then."""
    with open_run(run, commented=False) as connection:
        yield lambda sql: connection.execute(sql).fetchall()


def test_a_check_goes_on_with_more(run: Path, folder: Path, asked: Ask) -> None:
    before = stamps(run)
    outcome = checked(run, folder)
    assert outcome.status == DONE, outcome.err
    after = stamps(run)
    # What was there stays, and the method that was left out has its files.
    assert {path: after[path] for path in before} == before
    new = {path.split("/")[0] for path in set(after) - set(before)}
    assert new == {"randomised", "noised"}  # Subsets serve all, and it isn't stochastic.
    assert "nothing is left to do" in checked(run, folder).out
    assert stamps(run) == after
    assert verify(run).problems == []
    counts = {table: asked(f"select count(*) from {table}")[0][0] for table in CHECKS}
    parts = len(asked("select distinct part from randomised where part is not null"))
    of_class = asked("select count(distinct method) from randomised where kind = 'class'")
    assert of_class == [(2,)]
    stages = LIMIT * (len(METHODS) * (1 + 2 * parts) + 2)
    assert counts["randomised"] == stages
    assert counts["noised"] == 2 * LIMIT * len(METHODS)
    assert counts["repeats"] == 2 * LIMIT


def test_stage_0_is_the_run(asked: Ask) -> None:
    found = asked(
        "select r.scores, a.scores from randomised as r join attributions as a "
        "using (instance_id, method) where kind = 'whole'",
    )
    assert found
    for ours, expected in found:
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)
    outputs = asked(
        "select s.probability, i.probabilities[s.target + 1] from subsets as s "
        "join instances as i using (instance_id) where kind = 'whole'",
    )
    np.testing.assert_allclose(*zip(*outputs, strict=True), rtol=0, atol=1e-12)


def test_what_cant_notice_doesnt(run: Path, folder: Path, asked: Ask) -> None:
    assert checked(run, folder).status == DONE
    found = asked(
        "select distinct spearman, jaccard from randomisation_by_instance where tokens > 1 "
        "and kind <> 'class' and (method = 'random' or (method = 'globenc' and part = 'head'))",
    )
    assert found == [(1.0, 1.0)]
    noticed = asked(
        "select min(spearman) < 0.9 from randomisation_by_instance where part = 'embeddings' "
        "and method in ('saliency', 'globenc', 'lime') group by method",
    )
    assert noticed == [(True,)] * 3
    still = asked("select largest, lipschitz from sensitivity where method = 'random'")
    assert still == [(0, 0)]


def test_a_plan_counts_and_writes_nothing(run: Path, folder: Path) -> None:
    before = files(run)
    options = CheckOptions(
        str(run), str(folder), limit=3, samples=7, draws=2, repeats=2, device="cpu"
    )
    check = open_check(options)
    costs = {cost.table: cost for cost in plan_check(check, check.steps(), sample=1)}
    # The head alone is the first stage of both kinds, and asked once.
    stages = 2 * len(check.parts) - 1
    assert costs["randomised"].runs == pytest.approx(1 + stages + 2 / len(METHODS))
    assert costs["noised"].runs == 2
    assert costs["repeats"].runs == pytest.approx(2 * 2 / len(METHODS))
    units = [int(one.removable.sum()) for one in check.instances]
    # Copies that are alike are run once.
    assert max(1 + n for n in units) < costs["subsets"].forwards < sum(1 + n + 7 for n in units)
    seen: list[int] = []
    run_model = Model.run

    def counting(model: Model, rows: Rows, **more: Any) -> Any:
        seen.append(len(rows))
        return run_model(model, rows, **more)

    _ = check.predictions
    with mock.patch.object(Model, "run", counting):
        check.of_subsets(slice(None))
    assert costs["subsets"].forwards == sum(seen)
    assert all(cost.seconds > 0 for cost in costs.values())
    outcome = checked(run, folder, "--limit", 3, "--plan")
    assert outcome.status == DONE and "runs of the methods" in outcome.out
    assert files(run) == before


def test_smoothed_scores_are_means(run: Path, folder: Path, asked: Ask) -> None:
    given = ("--checks", "randomise", "--methods", "saliency", "--smooth", 2, "--stages", "head")
    assert checked(run, folder, *given).status == DONE
    found = asked(
        "select r.scores, r.smoothed, list(n.scores order by n.sample) from randomised as r "
        "join noised as n using (instance_id, method) where smoothed is not null "
        "and r.kind = 'whole' group by all",
    )
    assert len(found) == LIMIT
    for scores, smoothed, noisy in found:
        # The same draws as those of --draws, and the input without noise.
        np.testing.assert_allclose(smoothed, np.mean([scores, *noisy], axis=0), atol=1e-12)


def test_a_failure_is_a_row(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = open_check(
        CheckOptions(str(run), str(folder), checks="repeats", limit=2, repeats=1, device="cpu")
    )
    (step,) = check.steps()
    monkeypatch.setattr(
        check.again.chosen[-1].method.compute, "__code__", (lambda *_: 1 / 0).__code__
    )
    rows = step.rows(["lime"])
    assert [row["scores"] for row in rows] == [None, None]
    assert all("ZeroDivisionError" in row["failure"] for row in rows)


def test_what_is_wrong_is_refused(
    run: Path, folder: Path, tiny_folder: Callable[..., Path]
) -> None:
    before = files(run)
    for given, message in (
        (("--checks", "all"), "--checks: there is no 'all'; there are randomise, noise"),
        (("--methods", "iba"), "--methods: iba has no scores in"),
        (("--stages", "layer.9"), "--stages: there is no 'layer.9'; there are head, layer."),
        (("--weights", "zero"), "--weights: there is no 'zero'; there are init, shuffle"),
        (("--radius", "0"), "--radius is above 0 and at most 1"),
        (("--draws", "1"), "--draws is between 2 and"),
        (("--model", tiny_folder("roberta")), "is not the model of the run"),
    ):
        outcome = command("check", run, "--model", folder, "--device", "cpu", *given)
        assert (outcome.status, outcome.out) == (USAGE, ""), given
        assert message in outcome.err, outcome.err
    assert files(run) == before


def test_verify_finds_what_was_changed(run: Path, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (path, *_) = sorted(copy.glob("randomised/*whole*"))
    table = pq.ParquetFile(path).read()
    scores = [[2 * score for score in own] for own in table["scores"].to_pylist()]
    at = table.schema.get_field_index("scores")
    pq.write_table(table.set_column(at, table.schema.field(at), [scores]), path)
    (problem,) = verify(copy).problems
    assert "of the untouched model differ from the run's attributions" in problem
