"""Operation `impute`: a masked LM fills what is removed, as by hand, and is known to the run."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attribeam.analysis import verify
from attribeam.analysis.publish.reproduce import options_of, reproduction
from attribeam.pipeline import Options
from attribeam.pipeline.commands.status import DONE, USAGE
from attribeam.pipeline.planning.estimate import estimate_run
from attribeam.schemas import UsageError
from attribeam.transforms import Instance, Model, attribute, encode, load_model
from attribeam.transforms.evaluate import CurvePoint, Evaluation, Ranking, curves
from tests.conftest import LoadTiny
from tests.support.models import save_tiny
from tests.support.tiny import Outcome, command, rows, table, texts, write_jsonl

DRAWS = 3
EVALUATION = Evaluation(
    fractions=(0.5,), orders=("morf", "random"), operations=("mask", "impute"), draws=DRAWS
)


@pytest.fixture(scope="module")
def imputer(tiny_folder: Callable[..., Path]) -> Model:
    """A masked LM that looks around itself, as those of runs in double precision."""
    return load_model(tiny_folder("bert", "masked_lm"), dtype="float64")


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A masked LM that says the same of every place: its words' shares are its biases'."""
    folder = save_tiny(tmp_path_factory.mktemp("deaf"), "bert", "masked_lm")
    model = load_model(folder, dtype="float64")
    head = model.network.cls.predictions
    with torch.no_grad():
        for weight in head.transform.parameters():
            weight.zero_()
    return model


def ranked(model: Model, instances: Sequence[Instance]) -> list[Ranking]:
    """Each instance with the scores of its tokens' numbers, the last the highest."""
    found = attribute(model, instances, []).predictions
    pairs = zip(instances, found, strict=True)
    return [Ranking(i, "m", np.arange(len(i), dtype=float), p.target) for i, p in pairs if p]


def run_curves(
    model: Model, rankings: Sequence[Ranking], by: Model, **more: int
) -> list[list[CurvePoint]]:
    given = {"token_budget": 4096, **more}
    found, failures = curves(model, rankings, EVALUATION.checked(model), imputer=by, **given)
    assert not failures
    return [curve for curve in found if curve is not None]


def test_by_hand(tiny: LoadTiny, deaf: Model) -> None:
    """Where the masked LM's shares are known, so is every fill, and the mean of what is said."""
    model = tiny("bert", dtype="float64")
    instances = encode(model, texts(5)[2:])
    rankings = ranked(model, instances)
    assert deaf.tokenizer is not None
    # What its head says of nothing: the words' biases, since all that comes before them is zero.
    shares = deaf.network.cls.predictions.decoder.bias.detach().double().softmax(-1).numpy().copy()
    shares[deaf.tokenizer.all_special_ids] = 0
    bounds = shares.cumsum()
    for ranking, curve in zip(rankings, run_curves(model, rankings, deaf), strict=True):
        one = ranking.instance
        random = one.generator(0, "impute").random((len(one), DRAWS))
        ends = {p.order: p for p in curve if p.operation == "impute" and p.fraction == 1}
        assert ends["morf"]._replace(order="random") == ends["random"]
        filled = []
        for draw in range(DRAWS):
            ids = one.input_ids.copy()
            for at in np.flatnonzero(one.removable):
                ids[at] = np.flatnonzero(bounds > random[at, draw] * bounds[-1])[0]
            filled.append(replace(one, input_ids=ids))
        assert any(not np.array_equal(a.input_ids, filled[0].input_ids) for a in filled[1:])
        said = [p for p in attribute(model, filled, []).predictions if p is not None]
        own = [p.probabilities[ranking.target] for p in said]
        logit = np.mean([p.logits[ranking.target] for p in said])
        point = ends["morf"]
        assert point.probability == pytest.approx(np.mean(own), abs=1e-12)
        assert point.logit == pytest.approx(logit, abs=1e-12)
        assert point.spread == pytest.approx(np.std(own, ddof=1), abs=1e-12)
        assert point.prediction == np.mean([p.probabilities for p in said], axis=0).argmax()
        # Nothing is filled where nothing is removed, and other operations have no spread.
        (whole,) = {p.probability for p in curve if p.fraction == 0}
        assert {p.spread for p in curve if p.fraction == 0 or p.operation == "mask"} == {None}
        assert whole != point.probability


@pytest.mark.usefixtures("padding_at_will")
def test_fills_depend_on_nobody_else(tiny: LoadTiny, imputer: Model) -> None:
    """Not on batch mates, padding, budgets or order; on the seed and the instance alone."""
    model = tiny("bert", dtype="float64")
    rankings = ranked(model, encode(model, texts(7)[2:]))
    together = run_curves(model, rankings, imputer)
    for found in (
        [run_curves(model, [ranking], imputer)[0] for ranking in rankings],
        run_curves(model, rankings[::-1], imputer, token_budget=30)[::-1],
    ):
        for one, other in zip(together, found, strict=True):
            for a, b in zip(one, other, strict=True):
                assert a[:5] == b[:5]
                values = ((p.probability, p.logit, p.spread or 0) for p in (a, b))
                np.testing.assert_allclose(*values, rtol=0, atol=1e-9)
    seeded = run_curves(model, rankings, imputer, seed=1)
    for first, second in zip(together, seeded, strict=True):
        spread = [[p.spread for p in curve if p.spread is not None] for curve in (first, second)]
        assert spread[0] and spread[0] != spread[1]


def test_refused_models(tiny: LoadTiny, imputer: Model) -> None:
    with pytest.raises(UsageError, match="this is a language model"):
        EVALUATION.checked(tiny("gpt2", "causal_lm"))
    model = tiny("bert", dtype="float64")
    rankings = ranked(model, encode(model, ["the film"]))
    with pytest.raises(ValueError, match="takes a masked LM"):
        curves(model, rankings, EVALUATION.checked(model), token_budget=99)


# Runs --------------------------------------------------------------------------------------------

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    corpus = write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows(5)[2:])

    def into(output: Path, *more: object) -> Outcome:
        given = ("--model", tiny_folder("bert"), "--corpus", corpus, "--output", output)
        quick = ("--device", "cpu", "--fractions", "0.5", "--orders", "morf", "--shard-size", 2)
        return command("run", *given, *quick, *more)

    return into


def test_a_run_knows_what_filled_it(
    run: Run, tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder, output = tiny_folder("bert", "masked_lm"), tmp_path / "out"
    impute = ("--operations", "impute,mask", "--imputer", folder, "--fills", DRAWS)
    outcome = run(output, "--methods", "saliency", *impute)
    assert outcome.status == DONE, outcome.err
    found = table(output, "curves", "saliency").to_pylist()
    spreads = {(r["operation"], r["fraction"]): r["spread"] for r in found}
    assert set(spreads) == {(o, f) for o in ("mask", "impute") for f in (0, 0.5, 1)}
    assert all((s is not None) == (key[0] == "impute" and key[1] > 0) for key, s in spreads.items())
    assert verify(output).problems == []
    manifest = json.loads((output / "run.json").read_text())
    record, again = manifest["evaluation"], options_of(manifest)
    assert (record["draws"], record["imputer"]["source"]) == (DRAWS, folder.name)
    assert (again["fills"], again["imputer"]) == (DRAWS, folder.name)
    assert "--imputer: it was a folder" in reproduction(manifest)
    # A lost file is made again to the last bit, and what the run was begun with is needed for it.
    path = next(output.glob("curves/method=saliency/shard-00001*"))
    before = path.read_bytes()
    path.unlink()
    refused = run(output, "--methods", "saliency", "--operations", "impute,mask")
    assert refused.status == USAGE and "name it with --imputer" in refused.err
    repair = ("--methods", "raw_attention", "--no-evaluate", "--repair")
    refused = run(output, *repair)
    assert refused.status == USAGE and "name that masked LM with --imputer" in refused.err
    assert run(output, *repair, "--imputer", folder).status == DONE
    assert path.read_bytes() == before
    other = tmp_path / "other"
    save_tiny(other, "bert", "masked_lm", seed=7)
    refused = run(output, "--methods", "saliency", *impute[:3], other, *impute[4:])
    assert refused.status == USAGE and "evaluation.imputer.weights_sha256 was" in refused.err
    refused = run(output, "--methods", "saliency", *impute[:-1], DRAWS + 1)
    assert refused.status == USAGE and "evaluation.draws (--fills) was 3, now 4" in refused.err


def test_refusals(run: Run, tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Before any work, with the remedy."""
    folder = tiny_folder("bert", "masked_lm")
    renamed = tmp_path / "renamed"
    shutil.copytree(folder, renamed)
    content = json.loads((renamed / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    words["film"], words["plot"] = words["plot"], words["film"]
    (renamed / "tokenizer.json").write_text(json.dumps(content))
    bare = save_tiny(tmp_path / "bare", "bert", "masked_lm", tokenizer=False)
    impute = ("--operations", "impute")
    for more, said in (
        (impute, "name it with --imputer"),
        (("--imputer", folder), "goes with --operations impute"),
        ((*impute, "--imputer", tiny_folder("bert")), "is filled by a masked LM"),
        ((*impute, "--imputer", renamed), "the first that isn't the same is 'film'"),
        ((*impute, "--imputer", bare), "has no tokenizer"),
        ((*impute, "--imputer", tmp_path / "nowhere"), "--imputer"),
        ((*impute, "--imputer", folder, "--fills", 1), "--fills is at least 2"),
        (("--fills", 3), "--fills goes with --operations impute"),
    ):
        outcome = run(tmp_path / "out", "--methods", "saliency", *more)
        assert outcome.status == USAGE and said in outcome.err, (more, outcome.err)
        assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_plan_counts_the_fills(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows(6)[2:])
    options = Options(
        str(tiny_folder("bert")),
        str(corpus),
        str(tmp_path / "out"),
        methods="raw_attention",
        evaluation=EVALUATION,
        imputer=str(tiny_folder("bert", "masked_lm")),
        device="cpu",
    )
    found = estimate_run(options, "cpu", sample=4)
    assert found.curves > 0 and found.output["curves"] > 0
    assert not (tmp_path / "out").exists()
