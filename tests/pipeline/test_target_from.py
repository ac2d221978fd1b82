"""`--target-from`: a run explains what another one does, found by id, or is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from attribeam.analysis import open_run, verify
from attribeam.analysis.publish.reproduce import options_of, reproduction
from attribeam.pipeline.commands.status import DONE, FAILED, USAGE
from attribeam.pipeline.corpus.targets import read_targets
from attribeam.pipeline.experiments.check import CheckOptions, open_check
from tests.conftest import LoadTiny
from tests.support.tiny import Outcome, command, rows, table, write_jsonl

COUNT = 6
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def other_model(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the first run with its classes turned round, as by training on other labels."""
    folder = tmp_path_factory.mktemp("turned") / "model"
    shutil.copytree(tiny_folder("bert"), folder)
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if name.startswith("classifier"):
            weights[name] = -value.clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def run(other_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    corpus = write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows(COUNT))

    def into(output: Path, *more: object, model: Path = other_model) -> Outcome:
        given = ("--model", model, "--corpus", corpus, "--output", output, "--device", "cpu")
        quick = ("--methods", "saliency,raw_attention", "--no-evaluate", "--shard-size", 4)
        return command("run", *given, *quick, *more)

    return into


@pytest.fixture(scope="module")
def first(
    run: Run, tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("first") / "first"
    assert run(folder, model=tiny_folder("bert")).status == DONE
    return folder


@pytest.fixture(scope="module")
def second(run: Run, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("second") / "second"
    outcome = run(folder, "--target-from", first)
    assert outcome.status == DONE, outcome.err
    return folder


def test_the_classes_of_another_run_are_explained(first: Path, second: Path, run: Run) -> None:
    predicted = {r["instance_id"]: r["prediction"] for r in table(first, "instances").to_pylist()}
    own = {r["instance_id"]: r["prediction"] for r in table(second, "instances").to_pylist()}
    explained = table(second, "attributions", "saliency").to_pylist()
    assert {row["instance_id"]: row["target"] for row in explained} == predicted
    assert own != predicted  # Else nothing would have been shown.
    assert set(table(second, "attributions", "raw_attention")["target"].to_pylist()) == {None}
    assert verify(second).problems == []
    with open_run(second, others={"first": first}, commented=False) as connection:
        found = connection.execute(
            "select method, n, other_class, other_tokens from agreement_with('first')"
        ).fetchall()
    assert sorted(found) == [("raw_attention", COUNT, 0, 0), ("saliency", COUNT, 0, 0)]
    manifest = json.loads((second / "run.json").read_text())
    settings, again = manifest["identity"]["settings"], options_of(manifest)
    assert again["target_from"] == "first" and "target" not in again
    assert "--target-from: it was a folder" in reproduction(manifest)
    assert settings["target"] == "given" and settings["target_from"]["source"] == "first"
    # The same command goes on, and one with another target is refused.
    same = run(second, "--target-from", first)
    assert same.out.startswith("nothing left to do"), same.err
    other = run(second)
    assert other.status == USAGE and 'settings.target was "given"' in other.err


def test_a_chain_of_runs_and_a_check(
    first: Path, second: Path, other_model: Path, tiny: LoadTiny
) -> None:
    """What took its classes from another run hands them on; a check explains them too."""
    digest = read_targets(str(first), tiny("bert")).digest
    assert read_targets(str(second), tiny("bert")).digest == digest
    settings = json.loads((second / "run.json").read_text())["identity"]["settings"]
    assert settings["target_from"]["targets_sha256"] == digest
    options = CheckOptions(str(second), str(other_model), checks="noise", device="cpu")
    predicted = {r["instance_id"]: r["prediction"] for r in table(first, "instances").to_pylist()}
    assert {one.instance_id: one.own_target for one in open_check(options).given} == predicted


def test_the_rule_of_another_run(first: Path, tmp_path: Path, tiny: LoadTiny) -> None:
    """Whatever rule a run was begun with, what it explains is read off its instances."""
    instances = table(first, "instances").to_pylist()
    logits = {row["instance_id"]: np.array(row["logits"]) for row in instances}
    expected: dict[str | int, dict[str, int]] = {
        "runner_up": {name: int(own.argsort()[-2]) for name, own in logits.items()},
        "gold": {row["instance_id"]: row["label"] for row in instances},
        2: dict.fromkeys(logits, 2),
    }
    manifest = json.loads((first / "run.json").read_text())
    for rule, targets in expected.items():
        folder = tmp_path / str(rule)
        shutil.copytree(first, folder)
        manifest["identity"]["settings"]["target"] = rule
        (folder / "run.json").write_text(json.dumps(manifest))
        found = read_targets(str(folder), tiny("bert"))
        assert {n: t for own in found.by_row.values() for n, t in own.items()} == targets


def test_what_failed_there_fails_here(first: Path, run: Run, tmp_path: Path) -> None:
    """A row that the other run has no class for is a failure that says so, and no guess."""
    copy = tmp_path / "first"
    shutil.copytree(first, copy)
    lines = rows(COUNT)
    lines[2]["text"] = ""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)
    assert run(tmp_path / "lacking", "--corpus", corpus).status == FAILED
    outcome = run(tmp_path / "out", "--target-from", tmp_path / "lacking")
    assert outcome.status == FAILED
    (failed,) = table(tmp_path / "out", "failures").to_pylist()
    assert (failed["instance_id"], failed["stage"]) == ("r2", "encode")
    assert "explains no class" in failed["message"]
    assert len(table(tmp_path / "out", "attributions", "saliency")) == COUNT - 1


def test_refusals(first: Path, run: Run, tmp_path: Path, tiny_folder: Callable[..., Path]) -> None:
    """Before any work, with the remedy; nothing is left behind."""
    named = tmp_path / "named"
    shutil.copytree(tiny_folder("bert"), named)
    config = json.loads((named / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b", "2": "c"}
    config["label2id"] = {"a": 0, "b": 1, "c": 2}
    (named / "config.json").write_text(json.dumps(config))
    several = tmp_path / "several"
    shutil.copytree(tiny_folder("bert"), several)
    asked = json.loads((several / "config.json").read_text())
    asked["problem_type"] = "multi_label_classification"
    (several / "config.json").write_text(json.dumps(asked))
    longer = write_jsonl(tmp_path / "longer.jsonl", rows(COUNT + 2))
    from_first = ("--target-from", first)
    for more, said in (
        ((*from_first, "--target", "gold"), "leave out one of them"),
        (("--target-from", tmp_path / "nowhere"), "there is no such folder"),
        (("--target-from", named), "is no run folder"),
        ((*from_first, "--model", named), "they must be the same, in the same order"),
        ((*from_first, "--model", tiny_folder("bert", "masked_lm")), "of the same task"),
        ((*from_first, "--model", several), "leave --target-from out"),
        ((*from_first, "--corpus", longer), "it has none of 2 of the 8 rows of the corpus"),
    ):
        outcome = run(tmp_path / "out", *more)
        assert outcome.status == USAGE, (more, outcome.out, outcome.err)
        assert said in outcome.err, outcome.err
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
