"""Information bottlenecks: the authors' numbers, the definition, statistics, and what may fail."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms import Attributions, Instance, Model, attribute, choose, encode
from attribeam.transforms.details import InformationRow
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.methods import iba as methods
from attribeam.transforms.methods.iba import iba, iba_released
from attribeam.transforms.passes.bottleneck import (
    Bottleneck,
    Statistics,
    collect,
    layer_outputs,
    moments,
    optimise,
)
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.registry import LastLayers
from tests.conftest import LoadTiny
from tests.support.authors import DTYPES, golden_numbers, golden_rows
from tests.support.conditioning import tolerances
from tests.support.models import FAMILIES, TASKS, plain, random_instances, relative_error
from tests.transforms.passes.test_norms import shortened

pytestmark = pytest.mark.usefixtures("padding_at_will")

# The texts of which the goldens have noise, of 5 and 9 tokens.
REPLAYED = (0, 2)
CASES = [("asis", "1e-05"), ("corpus", "1e-05"), ("corpus", "10")]
AT_ONCE = 1_000_000
DEFAULTS = {"layer": 1, "beta": 1e-5, "steps": 10, "lr": 1.0, "copies": 10, "alpha": 5.0}


def capture(
    model: Model,
    instances: list[Instance],
    *,
    target: str | int = "predicted",
    budget: int = AT_ONCE,
    seed: int = 0,
) -> Captured:
    batch = collate(model, instances)
    return Captured(model, batch, target, budget, seed, frozenset({Forward(outputs=True)}))


def scores(captured: Captured, statistics: Statistics | None, **params: Any) -> list[Any]:
    """Scores of the instances, by the statistics or else as released; [T] each."""
    params = {**DEFAULTS, **params}
    captured.statistics = statistics
    found = iba_released(captured, params) if statistics is None else iba(captured, params)
    pairs = zip(found.values.double().numpy(), captured.batch.lengths, strict=True)
    return [row[:length] for row, length in pairs]


def golden_part(key: str) -> NDArray[np.floating]:
    return golden_numbers("iba")[f"bert-golden/{key}"]


def golden_statistics() -> Statistics:
    mean, std = (
        np.stack([golden_part(f"statistics/{layer}/{name}") for layer in range(4)])
        for name in ("mean", "std")
    )
    return Statistics(mean, std, 105)


def bottleneck(captured: Captured, statistics: Statistics | None, **params: Any) -> Bottleneck:
    """The bottleneck that a method would optimise."""
    found: list[Bottleneck] = []

    def keep(made: Bottleneck, *_: Any) -> torch.Tensor:
        found.append(made)
        return made.states

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "optimise", keep)
        scores(captured, statistics, **params)
    return found[0]


# The authors' numbers -------------------------------------------------------------------------


class Replayed:
    """A generator that gives the noise of a step of the goldens."""

    def __init__(self, noise: NDArray[np.float32]) -> None:
        self.noise = noise

    def standard_normal(self, shape: tuple[int, ...], dtype: type) -> NDArray[np.float32]:
        assert self.noise.shape == shape
        return self.noise.astype(dtype)


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> None:
    def generator(instance: Instance, seed: int, purpose: str) -> Replayed:
        step = int(purpose.removeprefix("iba ").split()[1])
        return Replayed(golden_part(f"noise/{instance.instance_id.removeprefix('golden-')}")[step])

    monkeypatch.setattr(Instance, "generator", generator)


def replayed_instances(model: Model) -> list[Instance]:
    instances = encode(model, golden_rows())
    return [instances[number] for number in REPLAYED]


@pytest.mark.usefixtures("replay")
@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize(("variant", "beta"), CASES)
def test_loss_and_gradient_of_a_given_mask(
    golden: LoadTiny, variant: str, beta: str, layer: int
) -> None:
    model = golden("bert-golden", "float64")
    captured = capture(model, replayed_instances(model))
    statistics = golden_statistics() if variant == "corpus" else None
    made = bottleneck(captured, statistics, layer=layer, beta=float(beta))
    alpha = torch.zeros_like(made.states)
    for row, number in enumerate(REPLAYED):
        given = torch.from_numpy(golden_part(f"fixed/alpha/{layer}/{number}"))
        alpha[row, : len(given)] = given
    capacity = made.capacity(alpha)
    for at_once in (1, 3, 10):
        loss, gradient = made.descend(alpha, made.noise(0), at_once)
        for row, number in enumerate(REPLAYED):
            key, length = (
                f"fixed/{variant}/beta{beta}/{layer}/{number}",
                captured.batch.lengths[row],
            )
            expected = golden_part(f"{key}/capacity")
            assert relative_error(capacity[row, :length], expected) < 1e-10
            assert loss[row].item() == pytest.approx(float(golden_part(f"{key}/total")), rel=1e-10)
            expected = golden_part(f"{key}/grad_alpha")
            assert relative_error(gradient[row, :length], expected) < 1e-10
            assert (gradient[row, length:] == 0).all()
            assert (capacity[row, length:] == 0).all()


def heat(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.usefixtures("replay")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize(("variant", "beta"), CASES)
def test_replayed(golden: LoadTiny, variant: str, beta: str, layer: int, dtype: str) -> None:
    model = golden("bert-golden", dtype)
    instances = replayed_instances(model)
    statistics = golden_statistics() if variant == "corpus" else None
    for batch in [instances], [[one] for one in instances]:
        found = [
            row
            for part in batch
            for row in scores(capture(model, part), statistics, layer=layer, beta=float(beta))
        ]
        for row, number in zip(found, REPLAYED, strict=True):
            key = f"{variant}/beta{beta}/{layer}/{number}"
            if dtype == "float64":
                assert relative_error(row, golden_part(f"{key}/token_sum")) < 1e-9
            assert np.abs(heat(row) - golden_part(f"{key}/heatmap")).max() < 1e-3


@pytest.mark.usefixtures("replay")
def test_replayed_as_a_method(golden: LoadTiny) -> None:
    model = golden("bert-golden", "float64")
    choice = choose("iba_released", {"iba_released": {"layer": 1}})
    found = attribute(model, replayed_instances(model), choice)
    assert found.failures == []
    for row, number in zip(found.rows["iba_released"], REPLAYED, strict=True):
        assert row is not None
        expected = golden_part(f"asis/beta1e-05/1/{number}/token_sum")
        assert relative_error(row.scores, expected) < 1e-9


def test_distribution_over_seeds(golden: LoadTiny) -> None:
    model = golden("bert-golden")
    instance = encode(model, golden_rows())[0]
    theirs = golden_part("seeds/corpus/beta1e-05/1/0/token_sum").astype(np.float64)
    ours = np.concatenate(
        [scores(capture(model, [instance], seed=at), golden_statistics()) for at in range(20)]
    )
    error = np.sqrt((ours.var(0, ddof=1) + theirs.var(0, ddof=1)) / 20)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 3 * error).all()
    spread = ours.std(0) / theirs.std(0)
    assert (spread > 0.5).all() and (spread < 2).all()


# By definition --------------------------------------------------------------------------------


def plainly(model: Model, instance: Instance, statistics: Statistics, **params: Any) -> Any:
    """The scores as they are defined: one copy at a time through the whole of a plain model."""
    params = {**DEFAULTS, **params}
    layer, network = params["layer"], plain(model)
    mean, std = (torch.from_numpy(of[layer]) for of in (statistics.mean, statistics.std))
    module = model.anatomy.layers_of(network, model.num_heads)[layer].module
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
    extra = {}
    if model.token_types > 1:
        extra["token_type_ids"] = torch.tensor(instance.segment[None], dtype=torch.long)

    def run(change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        hook = module.register_forward_hook(lambda _, __, output: change(output))
        logits: torch.Tensor = network(ids, **extra).logits[0]
        hook.remove()
        return logits if instance.contrast is None else logits[instance.readout, instance.contrast]

    kept: list[torch.Tensor] = []
    run(lambda output: kept.append(output.detach()) or output)
    z = (kept[0][0] - mean) / std
    alpha = torch.full_like(z, params["alpha"], requires_grad=True)
    optimiser = torch.optim.Adam([alpha], lr=params["lr"])

    def capacity() -> torch.Tensor:
        share = alpha.sigmoid()
        return -0.5 * (1 + (1 - share).square().log() - (share * z) ** 2 - (1 - share) ** 2)

    for step in range(params["steps"] - 1):
        noise = torch.from_numpy(
            instance.generator(0, f"iba {layer} {step}").standard_normal(
                (params["copies"], *z.shape), np.float32
            )
        ).double()
        loss = params["beta"] * capacity().mean()
        for one in noise:
            share = alpha.sigmoid()
            spread = (0.5 * (1 - share).square().log().clamp(-10, 10)).exp()
            mixed = (share * z + spread * one) * std + mean
            logits = run(lambda _, mixed=mixed: mixed[None])
            loss = loss - logits.log_softmax(-1)[0] / params["copies"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return capacity().sum(-1).detach()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", TASKS)
def test_definition(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [9, 6])
    statistics = collect(model, random_instances(model, [20, 14, 5], seed=3), 30)
    params = {"layer": 1, "beta": 0.1, "steps": 5, "copies": 2}
    found = scores(capture(model, instances, target=0), statistics, **params)
    for row, instance in zip(found, instances, strict=True):
        assert relative_error(row, plainly(model, instance, statistics, **params)) < 1e-9


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", TASKS)
def test_at_the_last_layer_nothing_but_the_readout_knows_the_class(
    tiny: LoadTiny, family: str, task: str
) -> None:
    model = tiny(family, task)
    instances = random_instances(model, [8, 5])
    statistics = collect(model, instances, 100)
    by_class = [
        scores(capture(model, instances, target=target), statistics, layer=2, beta=0.1)
        for target in (0, 1)
    ]
    for instance, first, second in zip(instances, *by_class, strict=True):
        same = np.isclose(first, second, rtol=1e-6)
        assert same.sum() == len(instance) - 1 and not same[instance.readout]


# What must make no difference -----------------------------------------------------------------


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_padding_is_of_no_consequence(tiny: LoadTiny, task: str, released: bool) -> None:
    model = tiny("roberta", task, "float64")
    instances = random_instances(model, [5, 23, 11])
    statistics = None if released else collect(model, instances, 50)
    together = scores(capture(model, instances), statistics, beta=0.1)
    for instance, row in zip(instances, together, strict=True):
        (alone,) = scores(capture(model, [instance]), statistics, beta=0.1)
        assert relative_error(row, alone) < 1e-10


def test_copies_one_after_the_other(tiny: LoadTiny, most_rows: list[int]) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 9])
    statistics = collect(model, instances, 100)
    params = {"beta": 0.1, "copies": 5, "steps": 4}
    expected = scores(capture(model, instances), statistics, **params)
    assert most_rows[-4:] == [2, 10, 10, 10]
    for budget, rows in ((1, [2] * 15), (50, [4, 4, 2] * 3)):
        found = scores(capture(model, instances, budget=budget), statistics, **params)
        assert most_rows[-len(rows) :] == rows
        for row, other in zip(found, expected, strict=True):
            assert relative_error(row, other) < 1e-10
    # Without the memory for ten rows, from there on half as many copies at once.
    most_rows[0] = 9
    found = scores(capture(model, instances), statistics, **params)
    assert most_rows[-10:] == [10, *[4, 4, 2] * 3]
    for row, other in zip(found, expected, strict=True):
        assert relative_error(row, other) < 1e-10
    most_rows[0] = AT_ONCE
    made = bottleneck(capture(model, instances), statistics, **params)
    most_rows[0] = 1
    with pytest.raises(torch.OutOfMemoryError):
        optimise(made, 5.0, 4, 1.0, AT_ONCE)


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_what_enters_a_layer_leaves_the_same_logits(tiny: LoadTiny, start: int) -> None:
    model = tiny("distilbert", "classification", "float64")
    instances = random_instances(model, [7])
    before = capture(model, instances).logits
    rows = collate(model, instances).rows
    state = layer_outputs(model, rows)[start - 1] if start else model.embed(rows)
    logits, seen = model.run(rows, enter=state, start=start)
    torch.testing.assert_close(logits, before)
    assert seen.number == (model.num_layers if start < model.num_layers else 0)
    torch.testing.assert_close(capture(model, instances).logits, before, rtol=0, atol=0)


# By layer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iba", "iba_released"])
def test_information_by_layer_is_what_each_layer_alone_gives(tiny: LoadTiny, name: str) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 9])
    statistics = collect(model, instances, 100)

    def run(layers: bool = False, **params: Any) -> Attributions:
        chosen = choose(name, {name: {"steps": 4, "copies": 2, **params}})
        return attribute(model, instances, chosen, layers=layers, statistics=statistics)

    whole = run(layers=True)
    for number, prediction in enumerate(whole.predictions):
        row = whole.rows[name][number]
        assert row is not None and prediction is not None
        found = cast(Sequence[InformationRow], row.details["information"])
        assert [of.layer for of in found] == [0, 1, 2]
        assert {of.target for of in found} == {prediction.target}
        for layer, of in enumerate(found):
            alone = run(layer=layer).rows[name][number]
            assert alone is not None and not alone.details
            assert relative_error(of.bits * np.log(2), alone.scores) < 1e-10
        # The default is two layers from the top.
        assert relative_error(row.scores, found[1].bits * np.log(2)) < 1e-15


# What may fail --------------------------------------------------------------------------------


@pytest.mark.parametrize("released", [True, False])
def test_many_steps_stay_finite(golden: LoadTiny, released: bool) -> None:
    """The logarithm of one minus a share that rounds to 1 is the original's first infinity."""
    model = golden("bert-golden")
    instances = encode(model, golden_rows())[:3]
    statistics = None if released else golden_statistics()
    found = scores(capture(model, instances), statistics, steps=60, copies=2)
    assert all(np.isfinite(row).all() for row in found)
    (row, *_) = scores(capture(model, instances), statistics, alpha=90.0, copies=1)
    assert np.isfinite(row).all()


def test_half_precision_is_left_for_the_mask(tiny: LoadTiny) -> None:
    half, single = (tiny("bert", "classification", dtype) for dtype in ("bfloat16", "float32"))
    statistics = collect(single, random_instances(single, [20, 14]), 100)
    for given in (None, statistics):
        for row in scores(capture(half, random_instances(half, [6, 9])), given):
            assert np.isfinite(row).all() and row.dtype == np.float64


def test_a_loss_that_is_not_finite_is_named(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 9])
    found = collect(model, instances, 100)
    captured = capture(model, instances)
    broken = Statistics(found.mean, np.full_like(found.std, 1e-300), found.count)
    with pytest.raises(ArithmeticError, match="the loss of random-0 is not finite: inf"):
        scores(captured, broken, steps=2)


def test_a_failure_is_the_instances_own(tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 9, 7])
    expected = attribute(model, instances, "iba_released").rows["iba_released"]

    def breaking(made: Bottleneck, *given: Any) -> torch.Tensor:
        for row, length in zip(made.states, made.batch.lengths, strict=True):
            if length == 9:
                row[0, 0] = np.inf
        return optimise(made, *given)

    monkeypatch.setattr(methods, "optimise", breaking)
    found = attribute(model, instances, "iba_released")
    (failure,) = found.failures
    assert (failure.instance_id, failure.method) == ("random-1", "iba_released")
    assert failure.error == "ArithmeticError"
    for number in (0, 2):
        row, other = found.rows["iba_released"][number], expected[number]
        assert row is not None and other is not None
        assert relative_error(row.scores, other.scores) < 1e-10


def test_parameters(tiny: LoadTiny) -> None:
    model = tiny("bert")

    def fitted(**params: Any) -> dict[str, Any]:
        (choice,) = choose("iba_released", {"iba_released": params})
        return dict(choice.fitted(model).params)

    # The authors': layer 8 of twelve; of three, the one below the last.
    assert LastLayers(4 / 12).start(12) == 8
    assert fitted() == {**DEFAULTS, "layer": 1}
    assert fitted(layer=0)["layer"] == 0
    for wrong in ({"layer": 3}, {"layer": -1}, {"steps": 0}, {"copies": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            fitted(**wrong)
    for wrong in ({"beta": -1}, {"lr": 0}):
        with pytest.raises(UsageError, match="beta is at least 0"):
            fitted(**wrong)


# Statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("budget", [1, 40, AT_ONCE])
def test_statistics_of_the_goldens(golden: LoadTiny, dtype: str, budget: int) -> None:
    model = golden("bert-golden", dtype)
    instances, expected = encode(model, golden_rows()), golden_statistics()

    def statistics() -> list[NDArray[np.float64]]:
        found = collect(model, instances, budget)
        assert found.count == expected.count
        return [found.mean, found.std]

    theirs = [expected.mean, expected.std]
    for ours, other, limit in zip(statistics(), theirs, tolerances(model, statistics), strict=True):
        assert ours.dtype == np.float64
        assert relative_error(ours, other) < limit


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", TASKS)
def test_statistics_of_parts_are_merged(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [5, 12, 7, 30])
    together = collect(model, instances, AT_ONCE)
    assert together.count == 54
    parts = [moments(model, part, 30) for part in (instances[:1], [], instances[1:])]
    merged = parts[2].merged(parts[1]).merged(parts[0]).statistics()
    for one, other in ((together.mean, merged.mean), (together.std, merged.std)):
        assert one.shape == (3, 32)
        assert relative_error(one, other) < 1e-12
    assert moments(model, [], 30).merged(parts[1]).count == 0
    every = torch.cat([layer_outputs(model, collate(model, [one]).rows)[2][0] for one in instances])
    assert relative_error(together.mean[2], every.mean(0)) < 1e-12
    assert relative_error(together.std[2], every.std(0, correction=0)) < 1e-12


def test_too_little_for_statistics(tiny: LoadTiny) -> None:
    model = tiny("bert")
    one = shortened(random_instances(model, [5])[0], 1)
    for few in ([], [one]):
        with pytest.raises(UsageError, match=f"at least 2 tokens, and there are {len(few)}"):
            collect(model, few, 100)
    with pytest.raises(UsageError, match="feature 0 of what leaves layer 0 is the same for all 3"):
        collect(model, [one] * 3, 100)
