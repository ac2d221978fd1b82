"""Self-attention attribution: the authors' numbers, the definition, completeness, pruning."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attribeam.transforms import Instance, Model, encode
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.inputs.targets import Explained, parse_explain, runner_up
from attribeam.transforms.network.parts import Affine
from attribeam.transforms.passes.attention_path import (
    AttentionStates,
    LayerAttribution,
    Output,
    attention_attributions,
    attention_path,
    observe,
    pruned,
    taylor_importance,
)
from attribeam.transforms.passes.base import Rule, quadrature
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from tests.conftest import LoadTiny
from tests.support.authors import DTYPES, TOGETHER, WITH_GOLDENS, golden_numbers, golden_rows
from tests.support.conditioning import tolerances
from tests.support.models import FAMILIES, TASKS, plain, random_instances, relative_error
from tests.transforms.passes.test_norms import shortened

pytestmark = pytest.mark.usefixtures("padding_at_will")

AT_ONCE = 1_000_000
OUTPUTS: tuple[Output, ...] = ("probability", "logit")


def golden_part(key: str) -> NDArray[np.floating]:
    return golden_numbers("attattr")[key]


def states_of(model: Model, instances: Sequence[Instance]) -> AttentionStates:
    return observe(model, collate(model, instances).rows)


def explained(states: AttentionStates, targets: torch.Tensor | None = None) -> Explained:
    """What is explained of a class, the predicted one by default."""
    targets = states.logits.argmax(-1) if targets is None else targets
    scalar = parse_explain("auto", states.model)
    foils = runner_up(states.logits, targets) if scalar == "contrast" else None
    return Explained(scalar, targets, foils)


def layers_of(
    states: AttentionStates,
    targets: torch.Tensor | None = None,
    *,
    rule: Rule = "midpoint",
    steps: int = 10,
    most: int | None = None,
    tolerance: float = 0.01,
    output: Output = "probability",
    budget: float = AT_ONCE,
) -> list[LayerAttribution]:
    """Attributions of all layers, of the predicted class; by default nothing is doubled."""
    found = attention_attributions(
        states,
        explained(states, targets),
        rule=rule,
        steps=steps,
        tolerance=tolerance,
        most=most or steps,
        output=output,
        budget=budget,
    )
    return list(found)


def stacked(layers: Sequence[LayerAttribution]) -> torch.Tensor:
    """Scores of all layers, [B, L, H, T, T]."""
    return torch.stack([layer.scores for layer in layers], 1)


# The authors' numbers -------------------------------------------------------------------------


def golden_batches(model: Model, together: bool) -> Iterator[tuple[list[int], list[Instance]]]:
    """The numbers of the golden texts and the texts, alone or in one padded batch."""
    instances = encode(model, golden_rows())
    numbers = list(range(len(instances)))
    for batch in [numbers] if together else [[number] for number in numbers]:
        yield batch, [instances[number] for number in batch]


def golden_scores(model: Model, steps: int, together: bool) -> list[torch.Tensor]:
    """Attributions of the golden texts by the authors' rule, [L, H, T, T] each."""
    found = []
    for _, instances in golden_batches(model, together):
        states = states_of(model, instances)
        rows = stacked(layers_of(states, rule="left", steps=steps))
        for instance, row in zip(instances, rows, strict=True):
            length = len(instance)
            assert (row[..., length:, :] == 0).all() and (row[..., length:] == 0).all()
            found.append(row[..., :length, :length])
    return found


def golden_paths(model: Model, steps: int, together: bool) -> list[NDArray[np.floating]]:
    """Outputs of the golden texts along the path, without attention, and with it, [L, n + 2]."""
    points, _ = quadrature("left", steps)
    found: list[NDArray[np.floating]] = []
    for _, instances in golden_batches(model, together):
        states = states_of(model, instances)
        targets = states.logits.argmax(-1)
        rows = []
        for layer, one in enumerate(layers_of(states, rule="left", steps=1)):
            along = attention_path(states, layer, explained(states, targets)).outputs(points)
            rows.append(torch.cat([along, one.none[:, None], one.whole[:, None]], 1))
        found.extend(torch.stack(rows, 1).numpy())
    return found


def golden_taylor(model: Model, together: bool) -> list[torch.Tensor]:
    """Importance of heads for each of the golden texts, the authors' kind, [L, H] each."""
    found: list[torch.Tensor] = []
    for _, instances in golden_batches(model, together):
        rows = collate(model, instances).rows
        targets = torch.zeros(len(rows.readout), dtype=torch.long)
        found.extend(taylor_importance(model, rows, targets).logits)
    return found


def normal(importance: torch.Tensor) -> torch.Tensor:
    """Importance as the authors norm it, layer by layer."""
    return torch.nn.functional.normalize(importance, dim=-1)


def golden_logits(model: Model, kind: str, together: bool) -> list[NDArray[np.floating]]:
    """Logits of the golden texts, of the model pruned at each rate, [rates, C] each."""
    found = []
    for _, instances in golden_batches(model, together):
        rows = collate(model, instances).rows
        rates = []
        for mask in torch.from_numpy(golden_part(f"prune_mask_{kind}")):
            with pruned(model, mask):
                rates.append(model.run(rows)[0].numpy())
        found.extend(np.stack(rates, 1))
    return found


@cache
def allowed(model: Model, compute: Callable[..., Any], *settings: object) -> list[float]:
    """What rounding may come to for each of the golden texts."""
    return tolerances(model, partial(compute, model, *settings, True))


@TOGETHER
@pytest.mark.parametrize("steps", [20, 64])
def test_attributions(golden: LoadTiny, steps: int, dtype: str, together: bool) -> None:
    model = golden("bert-golden", dtype)
    limits = allowed(model, golden_scores, 20)
    scores = golden_scores(model, steps, together)
    for number in WITH_GOLDENS:
        expected = golden_part(f"attr{steps}/{number}")
        assert relative_error(scores[number], expected) < limits[number]
    if steps == 20:
        most = sum(row.amax((-2, -1)) for row in scores)
        expected = golden_part("head_importance_attr_sum8")
        largest = sum(
            limit * float(row.abs().max()) for limit, row in zip(limits, scores, strict=True)
        )
        assert np.abs(np.asarray(most) - expected).max() < largest


@TOGETHER
@pytest.mark.parametrize("steps", [20, 64])
def test_outputs_along_the_path(golden: LoadTiny, steps: int, dtype: str, together: bool) -> None:
    model = golden("bert-golden", dtype)
    limits = allowed(model, golden_paths, 20)
    found = golden_paths(model, steps, together)
    for number in WITH_GOLDENS:
        path = golden_part(f"path_prob{steps}/{number}")
        whole = torch.from_numpy(golden_part(f"logits/{number}")).softmax(-1).max().expand(4, 1)
        expected = np.concatenate([path, path[:, :1], whole], 1)
        assert relative_error(found[number], expected) < limits[number]


@TOGETHER
def test_taylor_importance(golden: LoadTiny, dtype: str, together: bool) -> None:
    model = golden("bert-golden", dtype)
    found, limits = golden_taylor(model, together), allowed(model, golden_taylor)
    for number in WITH_GOLDENS:
        expected = golden_part(f"taylor_one/{number}")
        assert relative_error(normal(found[number]), expected) < limits[number]
    total = normal(torch.stack(found).sum(0))
    assert relative_error(total, golden_part("head_importance_taylor8")) < max(limits)


@TOGETHER
@pytest.mark.parametrize("kind", ["attr", "taylor"])
def test_logits_of_a_pruned_model(golden: LoadTiny, kind: str, dtype: str, together: bool) -> None:
    model = golden("bert-golden", dtype)
    found, limits = golden_logits(model, kind, together), allowed(model, golden_logits, kind)
    padded = golden_part(f"prune_logits_{kind}_padded")
    for number, (logits, limit) in enumerate(zip(found, limits, strict=True)):
        assert relative_error(logits, padded[:, number]) < limit
        if number in WITH_GOLDENS:
            assert relative_error(logits, golden_part(f"prune_logits_{kind}/{number}")) < limit


# By definition --------------------------------------------------------------------------------


class Plain:
    """One instance in a plain model, into which attention can be put by hooks."""

    def __init__(
        self, model: Model, instance: Instance, target: int = 0, output: Output = "logit"
    ) -> None:
        self.model, self.instance = model, instance
        self.target, self.output = target, output
        self.network = plain(model)
        self.parts = model.anatomy.layers_of(self.network, model.num_heads)
        with torch.no_grad():
            self.attention = self.run({})[1]

    def run(
        self, replaced: dict[int, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Logits [C] with some layers' attention, [1, H, T, T] each, replaced.

        And the attention of each layer as it would be.
        """
        ids = torch.tensor(self.instance.input_ids[None], dtype=torch.long)
        more = {}
        if self.model.token_types > 1:
            more["token_type_ids"] = torch.tensor(self.instance.segment[None], dtype=torch.long)
        with ExitStack() as hooks:
            for layer, attention in replaced.items():
                self._replace(hooks, layer, attention)
            found = self.network(ids, output_attentions=True, **more)
        logits = found.logits[0]
        if self.instance.contrast is not None:
            logits = logits[self.instance.readout, self.instance.contrast]
        return logits, found.attentions

    def _replace(self, hooks: ExitStack, layer: int, attention: torch.Tensor) -> None:
        kept: list[torch.Tensor] = []

        def keep(_: Any, __: Any, values: torch.Tensor) -> None:
            kept.append(values.unflatten(-1, (attention.shape[1], -1)).transpose(1, 2))

        def mix(_: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            return ((attention @ kept[0]).transpose(1, 2).flatten(2),)

        hooks.callback(self.parts[layer].attention.value.module.register_forward_hook(keep).remove)
        hooks.callback(
            self.parts[layer].attention.output.module.register_forward_pre_hook(mix).remove
        )

    def explained(self, replaced: dict[int, torch.Tensor]) -> torch.Tensor:
        logits = self.run(replaced)[0]
        if self.output == "probability":
            return logits.softmax(-1)[self.target]
        sign = -1 if self.model.task == "masked_lm" else 0
        return logits[self.target] + sign * logits[1 - self.target]

    def attributions(self, rule: Rule, steps: int) -> torch.Tensor:
        """Attributions of all layers, [L, H, T, T], point by point."""
        found = []
        for layer, attention in enumerate(self.attention):
            total = torch.zeros_like(attention)
            for point, weight in zip(*quadrature(rule, steps), strict=True):
                scaled = (point * attention).requires_grad_()
                (gradient,) = torch.autograd.grad(self.explained({layer: scaled}), scaled)
                total += weight * gradient
            found.append((attention * total)[0])
        return torch.stack(found)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", TASKS)
def test_definition(tiny: LoadTiny, family: str, task: str, output: Output) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [9, 6])
    states = states_of(model, instances)
    targets = torch.tensor([0, 1])
    rule: Rule = "midpoint" if task == "classification" else "trapezoid"
    layers = layers_of(states, targets, rule=rule, steps=3, output=output)
    for row, instance in enumerate(instances):
        one = Plain(model, instance, int(targets[row]), output)
        expected = one.attributions(rule, 3)
        length = len(instance)
        found = stacked(layers)[row, ..., :length, :length]
        assert relative_error(found, expected) < 1e-10
        for layer, attribution in enumerate(layers):
            nothing = torch.zeros_like(one.attention[layer])
            whole, none = one.explained({}).detach(), one.explained({layer: nothing}).detach()
            gap = abs(expected[layer].sum() - (whole - none))
            for ours, theirs in (
                (attribution.whole, whole),
                (attribution.none, none),
                (attribution.gap, gap),
            ):
                assert float(ours[row]) == pytest.approx(float(theirs), abs=1e-10)


@pytest.mark.parametrize("name", ["electra-golden", "roberta-golden", "distilbert-golden"])
def test_other_families_of_four_layers(golden: LoadTiny, name: str) -> None:
    model = golden(name, "float64")
    instances = encode(model, golden_rows())[:3]
    states = states_of(model, instances)
    scores = stacked(layers_of(states, rule="left", steps=4))
    for row, instance in enumerate(instances):
        one = Plain(model, instance, int(states.logits[row].argmax()), "probability")
        length = len(instance)
        found = scores[row, ..., :length, :length]
        assert relative_error(found, one.attributions("left", 4)) < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", TASKS)
def test_pruning_multiplies_the_attention(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [8, 5])
    mask = torch.tensor(np.random.default_rng(0).integers(0, 2, (3, 4)))
    assert 0 < mask.sum() < 12
    rows = collate(model, instances).rows
    before = model.run(rows)[0]
    with pruned(model, mask):
        logits = model.run(rows)[0]
    for row, instance in enumerate(instances):
        one = Plain(model, instance)
        kept: dict[int, torch.Tensor] = {}
        for layer, factors in enumerate(mask):
            # What a layer attends to depends on what was pruned below it.
            kept[layer] = one.run(kept)[1][layer].detach() * factors[:, None, None]
        assert relative_error(logits[row], one.run(kept)[0].detach()) < 1e-10
    torch.testing.assert_close(model.run(rows)[0], before, rtol=0, atol=0)
    with pytest.raises(ValueError, match="on purpose"), pruned(model, mask):
        raise ValueError("on purpose")
    torch.testing.assert_close(model.run(rows)[0], before, rtol=0, atol=0)


def test_a_mask_is_of_layers_and_heads(tiny: LoadTiny) -> None:
    with (
        pytest.raises(ValueError, match=r"\(3, 4\), not \(4, 3\)"),
        pruned(tiny("bert"), torch.ones(4, 3)),
    ):
        pass


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", TASKS)
def test_taylor_importance_by_definition(tiny: LoadTiny, family: str, task: str) -> None:
    """A context's share in the loss, by the plain model's attention times its gradient."""
    model = tiny(family, task, "float64")
    instances, targets = random_instances(model, [8, 5]), torch.tensor([1, 0])
    rows = collate(model, instances).rows
    found = taylor_importance(model, rows, targets)
    for row, instance in enumerate(instances):
        one = Plain(model, instance)
        expected = torch.zeros(2, 3, 4, dtype=torch.float64)
        for layer, attention in enumerate(one.attention):
            leaf = attention.clone().requires_grad_()
            logits = one.run({layer: leaf})[0]
            loss = -logits.log_softmax(-1)[targets[row]]
            for number, scalar in enumerate((loss, logits.sum())):
                (gradient,) = torch.autograd.grad(scalar, leaf, retain_graph=True)
                # sum_j A_ij dL / dA_ij = sum_j A_ij <V_j, G_i> = <context_i, G_i>
                by_query = (attention * gradient)[0].sum(-1)
                expected[number, layer] = by_query.abs().sum(-1)
        assert relative_error(found.loss[row], expected[0]) < 1e-10
        assert relative_error(found.logits[row], expected[1]) < 1e-10


# Completeness and steps -----------------------------------------------------------------------


@pytest.mark.parametrize("output", OUTPUTS)
def test_completeness(golden: LoadTiny, output: Output) -> None:
    model = golden("bert-golden", "float64")
    states = states_of(model, encode(model, golden_rows()))
    exact = layers_of(states, rule="gauss_legendre", steps=64, output=output)
    for layer in exact:
        sums = layer.scores.sum((1, 2, 3))
        assert relative_error(sums, layer.whole - layer.none) < 1e-7
        assert layer.gap.max() < 1e-7
    gaps = {
        steps: torch.stack([layer.gap for layer in layers_of(states, steps=steps, output=output)])
        for steps in (10, 40)
    }
    assert gaps[40].max() < gaps[10].max() / 10


def test_steps_are_doubled_where_they_must_be(golden: LoadTiny) -> None:
    model = golden("bert-golden", "float64")
    instances = encode(model, golden_rows())
    states = states_of(model, instances)
    fixed = {steps: layers_of(states, steps=steps) for steps in (5, 10, 20)}
    gaps = torch.stack([layer.gap for layer in fixed[5]])
    # Between two gaps.
    below, above = gaps.flatten().sort().values[[15, 16]].tolist()
    tolerance = (below + above) / 2
    layers = layers_of(states, steps=5, most=39, tolerance=tolerance)
    used = torch.stack([layer.steps for layer in layers])
    assert {5, 10} <= set(used.flatten().tolist()) <= {5, 10, 20}
    assert (used[gaps <= tolerance] == 5).all() and (used[gaps > tolerance] > 5).all()
    for number, layer in enumerate(layers):
        assert (layer.gap <= tolerance).all() or (layer.steps[layer.gap > tolerance] == 20).all()
        for row, steps in enumerate(layer.steps.tolist()):
            expected = fixed[steps][number]
            torch.testing.assert_close(layer.scores[row], expected.scores[row])
            torch.testing.assert_close(layer.gap[row], expected.gap[row], rtol=1e-8, atol=1e-12)
    for row, instance in enumerate(instances):
        alone = layers_of(states_of(model, [instance]), steps=5, most=39, tolerance=tolerance)
        assert [int(layer.steps[0]) for layer in alone] == used[:, row].tolist()
    # No tolerance at all leads to the most that doubling may lead to, and not beyond.
    for most, last in ((39, 20), (40, 40)):
        for layer in layers_of(states, steps=5, most=most, tolerance=0):
            assert (layer.steps == last).all()
    torch.testing.assert_close(
        stacked(layers_of(states, steps=5, most=20, tolerance=0)), stacked(fixed[20])
    )


@pytest.mark.parametrize(
    ("dtype", "output"),
    [("float64", "logit"), *(("float32", output) for output in OUTPUTS), ("bfloat16", "logit")],
)
def test_on_the_edge_an_instance_is_computed_alone(
    tiny: LoadTiny, dtype: str, output: Output
) -> None:
    """Where rounding could decide whether steps are doubled, batch mates change no digit."""
    model, decisions = tiny("bert", "classification", dtype), set()
    instances = random_instances(model, [9, 6, 12])
    states = states_of(model, instances)
    for layer, coarse in enumerate(layers_of(states, steps=3, output=output)):
        for row, instance in enumerate(instances):
            # The gap as it is in this batch; in another one it is on either side.
            how: dict[str, Any] = {"steps": 3, "most": 6, "tolerance": float(coarse.gap[row])}
            (alone, *_) = found = [
                layers_of(states_of(model, batch), output=output, budget=budget, **how)[layer]
                for batch, budget in (([instance], 1), (instances, AT_ONCE), (instances, 40))
            ]
            decisions.add(int(alone.steps[0]))
            length = len(instance)
            for one, at in zip(found, (0, row, row), strict=True):
                assert torch.equal(one.scores[at, :, :length, :length], alone.scores[0])
                for name in ("steps", "gap", "none"):
                    assert torch.equal(getattr(one, name)[at], getattr(alone, name)[0])
    assert decisions == {3, 6} or dtype == "bfloat16"


# What must make no difference -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_padding_is_of_no_consequence(tiny: LoadTiny, task: str, dtype: str) -> None:
    model = tiny("roberta", task, dtype)
    instances = random_instances(model, [5, 23, 11])
    states = states_of(model, instances)
    together = layers_of(states, most=20)
    rows = collate(model, instances).rows
    targets = states.logits.argmax(-1)
    taylor = taylor_importance(model, rows, targets).loss
    limit = {"float64": 1e-10, "float32": 1e-5}[dtype]
    for row, instance in enumerate(instances):
        length = len(instance)
        own = states_of(model, [instance])
        for ours, alone in zip(together, layers_of(own, most=20), strict=True):
            assert ours.steps[row] == alone.steps[0]
            scores = ours.scores[row]
            assert relative_error(scores[:, :length, :length], alone.scores[0]) < limit
            assert (scores[:, length:] == 0).all() and (scores[:, :, length:] == 0).all()
        alone = taylor_importance(model, own.rows, targets[row : row + 1]).loss
        assert relative_error(taylor[row], alone[0]) < limit


def test_only_what_is_read_out_counts_in_the_last_layer(tiny: LoadTiny) -> None:
    for task in TASKS:
        model = tiny("bert", task, "float64")
        instances = random_instances(model, [8, 5])
        *below, last = layers_of(states_of(model, instances))
        for row, instance in enumerate(instances):
            others = np.arange(8) != instance.readout
            assert (last.scores[row][:, others] == 0).all()
            assert (last.scores[row][:, instance.readout] != 0).any()
            assert all((layer.scores[row][:, others] != 0).any() for layer in below)


@pytest.mark.parametrize("layered", [False, True])
def test_states_of_a_pass_will_do(tiny: LoadTiny, layered: bool) -> None:
    model = tiny("electra", "classification", "float64")
    batch = collate(model, random_instances(model, [8, 5]))
    needs = frozenset({Forward(layers=True)})
    captured = Captured(model, batch, "predicted", AT_ONCE, 0, needs, layered)
    states = AttentionStates(
        model, batch.rows, captured.logits, captured.attention, captured.layers
    )
    expected = stacked(layers_of(observe(model, batch.rows)))
    torch.testing.assert_close(stacked(layers_of(states)), expected)


def test_points_one_after_the_other(tiny: LoadTiny, most_rows: list[int]) -> None:
    model = tiny("bert", "classification", "float64")
    states = states_of(model, random_instances(model, [6, 9]))
    expected = stacked(layers_of(states, steps=5))
    # The output without attention, then the points; of the last layer a token is left of each row.
    assert most_rows[-6:] == [2, 10] * 3
    for budget, rows in ((1, [2] * 18), (50, [2, 4, 4, 2] * 2 + [2, 10])):
        found = stacked(layers_of(states, steps=5, budget=budget))
        assert most_rows[-len(rows) :] == rows
        assert relative_error(found, expected) < 1e-10
    # Without the memory for ten rows, from there on half as many points at once.
    most_rows[0] = 9
    found = stacked(layers_of(states, steps=5))
    assert most_rows[-14:] == [2, 10, 4, 4, 2, *[2, 4, 4, 2], *[2, 10, 4, 4, 2]]
    assert relative_error(found, expected) < 1e-10
    most_rows[0] = 1
    with pytest.raises(torch.OutOfMemoryError):
        layers_of(states, steps=5)


def test_the_model_is_whole_again(tiny: LoadTiny) -> None:
    model = tiny("distilbert", "classification", "float64")
    rows = collate(model, random_instances(model, [7, 4])).rows
    before = model.run(rows)[0]
    states = observe(model, rows)
    layers_of(states)
    taylor_importance(model, rows, torch.tensor([0, 1]))
    torch.testing.assert_close(model.run(rows)[0], before, rtol=0, atol=0)


# What is out of the ordinary ------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2])
def test_hardly_any_tokens(tiny: LoadTiny, length: int) -> None:
    model = tiny("bert", "classification", "float64")
    short = shortened(random_instances(model, [5])[0], length)
    expected = Plain(model, short, 0, "probability").attributions("midpoint", 10)
    for others in ([], random_instances(model, [9])):
        states = states_of(model, [short, *others])
        found = stacked(layers_of(states, torch.zeros(1 + len(others), dtype=torch.long)))
        assert relative_error(found[0, ..., :length, :length], expected) < 1e-10
        assert (found[0, ..., length:, :] == 0).all() and (found[0, ..., length:] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_a_certain_model_scores_are_tiny(
    tiny: LoadTiny, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("bert", "classification", dtype)
    head = model.head[-1]
    assert isinstance(head, Affine) and head.bias is not None
    monkeypatch.setattr(head.bias, "data", head.bias.new_tensor([30.0, 0, -1e4]))
    states = states_of(model, random_instances(model, [8, 5]))
    for target in range(3):
        targets = torch.full((2,), target)
        for layer in layers_of(states, targets, most=40):
            assert layer.scores.isfinite().all() and layer.scores.abs().max() < 1e-6
            assert (layer.steps == 10).all() and layer.gap.max() < 1e-6
        for layer in layers_of(states, targets, output="logit"):
            assert layer.scores.isfinite().all() and layer.scores.abs().max() > 1e-3
        taylor = taylor_importance(model, states.rows, targets)
        assert taylor.loss.isfinite().all() and taylor.logits.isfinite().all()


def test_half_precision_is_left_for_the_integral(tiny: LoadTiny) -> None:
    half, single = (tiny("bert", "classification", dtype) for dtype in ("bfloat16", "float32"))
    instances, targets = random_instances(half, [6, 9]), torch.tensor([0, 1])
    pairs = zip(
        *(layers_of(states_of(model, instances), targets) for model in (half, single)),
        strict=True,
    )
    for ours, expected in pairs:
        assert ours.scores.dtype == ours.gap.dtype == torch.float32
        assert relative_error(ours.scores, expected.scores) < 0.2
