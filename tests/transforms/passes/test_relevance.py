"""Relevance propagation against its authors' numbers, and with every contribution written out."""

from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from attribeam.transforms import Instance, Model, attribute, choose, encode, methods
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.parts import (
    Affine,
    HeadStep,
    Layer,
    Norm,
)
from attribeam.transforms.network.rows import Read
from attribeam.transforms.passes import relevance as passes
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.relevance import Linear, RelevanceMaps, Rules, forward, walk
from tests.conftest import LoadTiny
from tests.support.authors import (
    ALL_AT_ONCE,
    DTYPES,
    VARIANTS,
    WITH_GOLDENS,
    golden_numbers,
    golden_rows,
)
from tests.support.conditioning import tolerances
from tests.support.models import (
    FAMILIES,
    PRE_LN,
    random_instances,
    relative_error,
    tasks_of,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")

Array = NDArray[np.float64]

# Those that the rules are defined for: norms after sums, and before; and a decoder.
OF_RELEVANCE = (*FAMILIES, *PRE_LN, "albert", "gpt2")
BOTH_RULES: tuple[Rules, ...] = ("cvpr21", "orig")
TARGETS = ("auto", 0, 1, 2)


def by_layer(maps: RelevanceMaps) -> list[torch.Tensor]:
    """The relevance at the attention of every layer, first layer first."""
    return [maps.attention[number] for number in range(len(maps.attention))]


def scores_of(
    model: Model, instances: list[Instance], method: str, params: dict[str, Any], **more: Any
) -> list[NDArray[np.floating]]:
    found = attribute(model, instances, choose(method, {method: params}), **more)
    assert found.failures == []
    return [cast(Any, row).scores for row in found.rows[method]]


def one_hot(targets: torch.Tensor, model: Model) -> torch.Tensor:
    """Weights of the explained scalar."""
    chosen = torch.nn.functional.one_hot(targets, model.num_outputs).to(model.dtype)
    return 2 * chosen - 1 if model.task == "masked_lm" else chosen


# Goldens --------------------------------------------------------------------------------------


def golden_instances(model: Model) -> list[Instance]:
    return encode(model, golden_rows())


QUANTITIES: dict[str, tuple[str, dict[str, Any]]] = {
    "partial_lrp": ("partial_lrp", {}),
    "partial_lrp_chefer_rules": ("partial_lrp", {"rules": "cvpr21"}),
    "full_lrp": ("lrp", {}),
    "full_lrp_chefer_rules": ("lrp", {"rules": "cvpr21"}),
}
for _name, _params in (("", {}), ("cls0_", {}), ("origlrp_", {"rules": "orig"})):
    for _start in (0, 3):
        QUANTITIES[f"transformer_attribution_{_name}sl{_start}"] = (
            "transformer_attribution",
            {**_params, "start_layer": _start},
        )
# Relevance is in float64 whatever the model is in, but the gradients of attention that this method
# multiplies it by are in the model's type. In float32 rounding of the weights moves them by 1e-5.
OF_GRADIENTS = 1e-4


def golden_scores(
    model: Model, quantity: str, target: str | int, **more: Any
) -> list[NDArray[np.floating]]:
    """Scores of the texts with goldens, without that of [CLS].

    The authors put something else, each time, in its place.
    """
    method, params = QUANTITIES[quantity]
    found = scores_of(model, golden_instances(model), method, params, target=target, **more)
    return [found[number][1:] for number in WITH_GOLDENS]


all_at_once = cache(golden_scores)


@cache
def allowed(model: Model, quantity: str, target: str | int) -> list[float]:
    """What rounding of a model in float64 may come to, for each text."""
    compute = partial(golden_scores, model, quantity, target)
    return tolerances(model, compute, base=all_at_once(model, quantity, target))


@VARIANTS
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_authors_scores(golden: LoadTiny, quantity: str, dtype: str, budget: int) -> None:
    model, double = golden("bert-golden", dtype), golden("bert-golden", "float64")
    more = OF_GRADIENTS if dtype == "float32" and "transformer" in quantity else 0
    for target in TARGETS:
        if budget == ALL_AT_ONCE:
            found = all_at_once(model, quantity, target)
        else:
            found = golden_scores(model, quantity, target, token_budget=budget)
        of_class = "" if target == "auto" else f"/class{target}"
        for number, limit in zip(WITH_GOLDENS, allowed(double, quantity, target), strict=True):
            expected = golden_numbers("lrp")[f"bert-golden/{quantity}/{number}{of_class}"]
            assert relative_error(found[number], expected[1:]) < limit + more


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_authors_cut_off_at_cls(golden: LoadTiny, target: str | int) -> None:
    model = golden("bert-golden", "float64")
    instances = golden_instances(model)
    for start in (0, 3):
        params = {"start_layer": start}
        rows = scores_of(model, instances, "transformer_attribution", params, target=target)
        for number in WITH_GOLDENS:
            assert rows[number].sum() == pytest.approx(1, abs=1e-12)
            of_class = "" if target == "auto" else f"/class{target}"
            key = f"bert-golden/transformer_attribution_sl{start}/{number}{of_class}"
            limit = allowed(model, f"transformer_attribution_sl{start}", target)[number]
            least = golden_numbers("lrp")[key][0]
            assert least == pytest.approx(rows[number].min(), abs=limit * rows[number][1:].max())
    if target == "auto":
        rows = scores_of(model, instances, "partial_lrp", {})
        for number, limit in zip(WITH_GOLDENS, allowed(model, "partial_lrp", "auto"), strict=True):
            last = golden_numbers("lrp")[f"bert-golden/lrp_attn_relevance_orig/{number}"][-1]
            assert relative_error(rows[number][1:], last.clip(min=0).mean(0)[0, 1:]) < limit
        for row in scores_of(model, instances, "lrp", {"rules": "cvpr21"}):
            assert row.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("rules", "called"), [("cvpr21", "chefer"), ("orig", "orig")])
def test_the_authors_relevance_of_attention(golden: LoadTiny, rules: Rules, called: str) -> None:
    double = golden("bert-golden", "float64")

    def relevance(model: Model) -> list[torch.Tensor]:
        rows = collate(model, golden_instances(model)).rows
        targets = forward(model, rows).logits.argmax(-1)
        for number in WITH_GOLDENS:
            assert targets[number] == golden_numbers("lrp")[f"bert-golden/target/{number}"]
        maps = walk(model, rows, one_hot(targets, model), rules)
        return [layer[number] for number in WITH_GOLDENS for layer in by_layer(maps)]

    allowed = tolerances(double, partial(relevance, double))
    expected = [
        layer
        for number in WITH_GOLDENS
        for layer in golden_numbers("lrp")[f"bert-golden/lrp_attn_relevance_{called}/{number}"]
    ]
    for dtype in DTYPES:
        found = relevance(golden("bert-golden", dtype))
        for ours, theirs, limit in zip(found, expected, allowed, strict=True):
            length = theirs.shape[-1]
            assert relative_error(ours[:, :length, :length], theirs) < limit


# Every contribution written out ---------------------------------------------------------------


def numbers(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def over(shared: Array, among: Array) -> Array:
    """A quotient as the authors stabilise it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(among == 0, 0, shared / (among + 1e-9))


def share(relevance: Array, contributions: Array) -> Array:
    """Relevance of sums, [..., m], to what was added up in them, [..., n, m]."""
    return contributions * over(relevance, contributions.sum(-2))[..., None, :]


def rescaled(terms: list[Array], relevance: Array) -> list[Array]:
    """Terms with totals of the same sizes to each other, and that of the relevance together."""
    totals = np.array([term.sum() for term in terms])
    factors = over(over(abs(totals), abs(totals).sum()) * relevance.sum(), totals)
    return [factor * term for factor, term in zip(factors, terms, strict=True)]


class Written:
    """The walk for one instance, all positions of all layers, with contributions one by one.

    What passed through the model is taken from its modules as they ran, in float64.
    """

    def __init__(self, model: Model, instance: Instance, rules: Rules) -> None:
        self.model, self.rules, self.readout = model, rules, instance.readout
        self.words = None if instance.contrast is None else list(instance.contrast)
        self.entered: dict[HeadStep, Array] = {}
        self.left: dict[HeadStep, Array] = {}

        def keep(step: HeadStep, _: nn.Module, args: Any, left: torch.Tensor) -> None:
            if isinstance(step, Affine) and step.outputs is not None:
                left = left[..., step.outputs]
            self.entered[step], self.left[step] = numbers(args[0][0]), numbers(left[0])

        steps = [*model.head]
        for layer in model.layers:
            before = [branch.before for step in layer.steps for branch in step.branches]
            steps += [*layer.linears, *(norm for norm in before if norm is not None)]
        handles = [
            step.module.register_forward_hook(partial(keep, step))
            for step in steps
            if isinstance(step, Affine | Norm)
        ]
        rows = collate(model, [instance]).rows
        extra = {"token_type_ids": rows.inputs["token_type_ids"]} if model.token_types > 1 else {}
        model.network(rows.inputs["input_ids"], attention_mask=rows.attention_mask, **extra)
        for handle in handles:
            handle.remove()

    def linear(
        self, module: Affine, relevance: Array, x: Array, words: list[int] | None = None
    ) -> Array:
        """[T, m] to [T, n]."""
        weight = numbers(module.weight) if words is None else numbers(module.weight)[words]
        helping = (x[:, :, None] * weight.T).clip(min=0)
        if self.rules == "cvpr21":
            found: Array = share(relevance, helping).sum(-1)
            return found
        above, below = helping * (x > 0)[:, :, None], helping * (x < 0)[:, :, None]
        found = share(relevance, above).sum(-1) + share(relevance, below).sum(-1)
        return found

    def copied(self, x: Array, *relevances: Array) -> Array:
        quotients: Array = np.sum([over(relevance, x) for relevance in relevances], axis=0)
        return x * quotients

    def added(self, relevance: Array, *terms: Array) -> list[Array]:
        found = [term * over(relevance, np.sum(terms, axis=0)) for term in terms]
        return rescaled(found, relevance) if self.rules == "cvpr21" else found

    def layer(self, layer: Layer, relevance: Array) -> tuple[Array, Array]:
        """[T, d] to relevance at attention, [H, T, T], and at what entered, [T, d]."""
        mixing, wide = layer.attention, layer.feed_forward
        # What passes branches by enters the norms that are before them, if there are any.
        passing, beside = (
            self.entered[step.branches[0].before or part]
            for step, part in zip(layer.steps, (mixing.query, wide.expand), strict=True)
        )
        widened, kept = self.added(relevance, self.left[wide.contract], beside)
        widened = self.linear(wide.contract, widened, self.entered[wide.contract])
        widened = self.linear(wide.expand, widened, self.entered[wide.expand])
        relevance = self.copied(beside, widened, kept)
        mixed, own = self.added(relevance, self.left[mixing.output], passing)
        mixed = self.linear(mixing.output, mixed, self.entered[mixing.output])

        def split(x: Array) -> Array:
            return x.reshape(len(x), mixing.heads, -1).transpose(1, 0, 2)

        entered = self.entered[mixing.query]
        q, k, v = (split(self.left[part]) for part in (mixing.query, mixing.key, mixing.value))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        weights = np.exp(scores)
        if self.model.causal:
            weights = np.tril(weights)
        attention = weights / weights.sum(-1, keepdims=True)
        # [H, q, t, e]: what the value of t gives to what is mixed at q.
        of_values = share(split(mixed), attention[..., None] * v[:, None]) / 2
        reached = of_values.sum(3)
        masked = self.added(reached, scores)[0]
        # [H, q, e, t]: what unit e gives to the score of q and t.
        of_units = share(masked, q[..., None] * k.transpose(0, 2, 1)[:, None]) / 2

        ends = [
            self.linear(part, end.transpose(1, 0, 2).reshape(entered.shape), entered)
            for part, end in (
                (mixing.query, of_units.sum(3)),
                (mixing.key, of_units.sum(1).transpose(0, 2, 1)),
                (mixing.value, of_values.sum(1)),
            )
        ]
        return reached, self.copied(passing, self.copied(entered, *ends), own)

    def walk(self, start: Array) -> tuple[list[Array], Array]:
        """From logits, [C], to relevance at each layer's attention and at what entered."""
        relevance = start[None]
        linears = [step for step in self.model.head if isinstance(step, Affine)]
        for module in reversed(linears):
            x = self.entered[module]
            x = x[None] if x.ndim == 1 else x[[self.readout]]
            words = self.words if module is linears[-1] else None
            relevance = self.linear(module, relevance, x, words)
        below = np.zeros_like(self.entered[self.model.layers[-1].attention.query])
        below[self.readout] = self.copied(x[0], relevance[0])
        attention = []
        for parts in reversed(self.model.layers):
            reached, below = self.layer(parts, below)
            attention.append(reached)
        return attention[::-1], below


@pytest.mark.parametrize("rules", BOTH_RULES)
@pytest.mark.parametrize(
    ("family", "task"),
    # Modules that several layers share run more than once, and are looked at once.
    [(family, task) for family in OF_RELEVANCE for task in tasks_of(family) if family != "albert"],
)
def test_walk_with_contributions_written_out(
    tiny: LoadTiny, family: str, task: str, rules: Rules
) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [6, 13, 4])
    rows = collate(model, instances).rows
    weights = one_hot(torch.tensor([1, 0, 1]), model)
    maps = walk(model, rows, weights, rules)
    for number, instance in enumerate(instances):
        written = Written(model, instance, rules)
        length = len(instance)
        starts = numbers(weights[number])
        if rules == "cvpr21" and task == "masked_lm":
            # A walk from both words at once would begin with a total of zero.
            good, bad = (written.walk(word) for word in np.eye(2))
            sign = starts[0]
            attention = [sign * (a - b) for a, b in zip(good[0], bad[0], strict=True)]
            entered = sign * (good[1] - bad[1])
        else:
            attention, entered = written.walk(starts)
        assert relative_error(maps.entered[number, :length], entered) < 1e-9
        assert (maps.entered[number, length:] == 0).all()
        for found, expected in zip(by_layer(maps), attention, strict=True):
            assert relative_error(found[number, :, :length, :length], expected) < 1e-9
            assert (found[number, :, length:] == 0).all()
            assert (found[number, :, :, length:] == 0).all()


# By hand --------------------------------------------------------------------------------------


def test_a_linear_map_by_hand() -> None:
    # Contributions of x = (2, -1) to the outputs: (2, -1) * (3, -2) = (6, 2) and
    # (2, -1) * (-1, -4) = (-2, 4). Bias takes no part.
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[3.0, -2.0], [-1.0, -4.0]]))
        passed = Linear.through(Affine(module), torch.tensor([[[2.0, -1.0]]], dtype=torch.float64))
    relevance = torch.tensor([[[[1.0, 10.0]]]], dtype=torch.float64)
    # 6/8 of the first, and nothing of the second; 2/8 of the first, and the whole of the second.
    expected = torch.tensor([[[[0.75, 10.25]]]], dtype=torch.float64)
    torch.testing.assert_close(passed.back(relevance, "cvpr21"), expected, rtol=1e-7, atol=0)
    # The positive input alone has all of the first, and so has the negative one of both.
    expected = torch.tensor([[[[1.0, 11.0]]]], dtype=torch.float64)
    torch.testing.assert_close(passed.back(relevance, "orig"), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("rules", BOTH_RULES)
def test_what_got_nothing_gives_nothing(rules: Rules) -> None:
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-1.0, -2.0, 3.0], [0.0, 0.0, 0.0]]))
        x = torch.tensor([[[0.3, 0.1, -0.7], [0.0, 0.0, 0.0]]], dtype=torch.float64)
        passed = Linear.through(Affine(module), x)
    assert (passed.back(torch.ones(1, 1, 2, 2, dtype=torch.float64), rules) == 0).all()


def capture(gradients: list[torch.Tensor], relevance: list[torch.Tensor], readout: int) -> Captured:
    """As much of a capture as transformer attribution reads."""
    maps = RelevanceMaps(dict(enumerate(relevance)), relevance[0][:, 0])
    length = relevance[0].shape[-1]
    rows = SimpleNamespace(read=Read(torch.tensor([readout])), length=length, device="cpu")
    captured: Any = MagicMock(return_value=maps, logits=relevance[0], attention_gradient=gradients)
    captured.model.num_layers, captured.batch.rows = len(relevance), rows
    captured.model.traits = {"tokens"}
    return cast(Captured, captured)


def test_transformer_attribution_by_hand() -> None:
    ones = torch.ones(1, 2, 2, 2, dtype=torch.float64)
    # Means over the two heads of what is positive: ((1, 0), (0, 3)) and ((0, 1), (1, 0)).
    first = torch.tensor([[[[2.0, -1.0], [-5.0, 6.0]], [[-1.0, 0.0], [0.0, -2.0]]]]).double()
    last = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]], [[-9.0, 1.0], [1.0, -9.0]]]]).double()
    captured = capture([ones, ones], [first, last], readout=0)
    compute = methods()["transformer_attribution"].compute
    # Row 0 of the last factor: (1, 1) / 2. Rows of the first: (2, 0) / 2 and (0, 4) / 4.
    found = compute(captured, {"rules": "cvpr21", "start_layer": 1}).values
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5]]).double())
    first[0, 0, 1, 0] = 2.0  # And now the second of them is (1, 4) / 5.
    found = compute(captured, {"rules": "cvpr21", "start_layer": 0}).values
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.4]]).double())
    # Without gradients there is nothing but the identity.
    captured = capture([0 * ones, 0 * ones], [first, last], readout=1)
    found = compute(captured, {"rules": "cvpr21", "start_layer": 0}).values
    assert found.tolist() == [[0, 1]]


# What holds for every model -------------------------------------------------------------------

WHOLE = pytest.mark.parametrize(
    ("family", "task"), [(family, task) for family in OF_RELEVANCE for task in tasks_of(family)]
)


@WHOLE
def test_logits_are_the_models(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    rows = collate(model, random_instances(model, [6, 13, 4])).rows
    logits = forward(model, rows).logits
    with torch.no_grad():
        assert relative_error(logits, model.run(rows)[0]) < 1e-12


@pytest.mark.parametrize("rules", BOTH_RULES)
@WHOLE
def test_single_precision_makes_no_difference(
    tiny: LoadTiny, family: str, task: str, rules: Rules
) -> None:
    single, double = tiny(family, task, "float32"), tiny(family, task, "float64")
    rows = collate(single, random_instances(single, [6, 13])).rows
    weights = one_hot(torch.tensor([0, 1]), single)
    found = walk(single, rows, weights, rules)
    assert all(weight.dtype == torch.float32 for weight in single.network.parameters())
    expected = walk(double, rows, weights.double(), rules)
    assert (found.entered == expected.entered).all()
    for ours, theirs in zip(by_layer(found), by_layer(expected), strict=True):
        assert (ours == theirs).all()


@WHOLE
def test_cvpr21_rules_keep_what_they_are_given(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task)
    rows = collate(model, random_instances(model, [6, 13, 4])).rows
    for target in range(model.num_outputs):
        weights = one_hot(torch.full((3,), target), model)
        found = walk(model, rows, weights, "cvpr21").entered.sum((1, 2))
        # The stabiliser takes a little.
        torch.testing.assert_close(found, weights.double().sum(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rules", BOTH_RULES)
@pytest.mark.parametrize("family", ["bert", "roberta-prelayernorm", "gpt2"])
def test_heads_that_share_keys_are_as_heads_with_equal_keys(
    tiny: LoadTiny, family: str, rules: Rules
) -> None:
    plain = tiny(family, "classification", "float64")
    rows = collate(plain, random_instances(plain, [6, 13])).rows
    models = replace(plain), replace(plain)
    for shared, model in enumerate(models):
        model.layers[:] = [with_two_groups(layer, shared=bool(shared)) for layer in plain.layers]
    weights = one_hot(torch.tensor([0, 1]), plain)
    expected, found = (walk(model, rows, weights, rules) for model in models)
    assert relative_error(expected.entered, walk(plain, rows, weights, rules).entered) > 1e-2
    for ours, theirs in zip(by_layer(found), by_layer(expected), strict=True):
        assert relative_error(ours, theirs) < 1e-9
    assert relative_error(found.entered, expected.entered) < 1e-9


def with_two_groups(layer: Layer, *, shared: bool) -> Layer:
    """A layer whose four heads have two different keys and values, shared or one for each head."""
    parts = layer.attention
    numbers = torch.arange(len(parts.query.weight)).view(parts.heads, -1)
    chosen = numbers[:2] if shared else numbers[[0, 0, 1, 1]]

    def some(of: Affine) -> Affine:
        outputs = chosen.flatten()
        if isinstance(of.outputs, slice):
            outputs = outputs + of.outputs.start
        return Affine(of.module, outputs)

    inside = replace(parts, key=some(parts.key), value=some(parts.value), groups=len(chosen))
    first, *others = layer.steps
    branch = replace(layer.attending, inside=inside)
    return Layer((replace(first, branches=(branch,)), *others), layer.module)


@pytest.mark.parametrize("rules", BOTH_RULES)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_contrast_of_classes_is_a_difference_of_walks(
    tiny: LoadTiny, family: str, rules: Rules
) -> None:
    model = tiny(family, "classification", "float64")
    rows = collate(model, random_instances(model, [6, 13])).rows
    classes, foils = torch.eye(3).double()[[0, 2]], torch.eye(3).double()[[1, 0]]
    found = walk(model, rows, classes - foils, rules)
    good, bad = (walk(model, rows, weights, rules) for weights in (classes, foils))
    assert relative_error(found.entered, good.entered - bad.entered) < 1e-9
    for ours, plus, minus in zip(by_layer(found), by_layer(good), by_layer(bad), strict=True):
        assert relative_error(ours, plus - minus) < 1e-9
    # A row that is explained by one class alone is as without the other one.
    mixed = walk(model, rows, torch.stack([classes[0], classes[1] - foils[1]]), rules)
    assert relative_error(mixed.entered[0], good.entered[0]) < 1e-12


@pytest.mark.parametrize("rules", BOTH_RULES)
def test_a_contrast_the_other_way_round(tiny: LoadTiny, rules: Rules) -> None:
    model = tiny("bert", "masked_lm")
    rows = collate(model, random_instances(model, [6, 13])).rows
    right, wrong = (
        walk(model, rows, one_hot(torch.full((2,), word), model), rules) for word in (0, 1)
    )
    assert relative_error(-right.entered, wrong.entered) < 1e-10
    assert right.entered.abs().sum() > 1e-3


@pytest.mark.parametrize("rules", BOTH_RULES)
@pytest.mark.parametrize("family", OF_RELEVANCE)
def test_rows_of_one_and_two_tokens(tiny: LoadTiny, family: str, rules: Rules) -> None:
    model = tiny(family)
    whole = random_instances(model, [6, 6, 6])
    instances = [whole[0], cut(whole[1], 1), cut(whole[2], 2)]
    for method in ("partial_lrp", "lrp", "transformer_attribution"):
        found = scores_of(model, instances, method, {"rules": rules})
        for instance, scores in zip(instances, found, strict=True):
            assert scores.shape == (len(instance),)
            assert np.isfinite(scores).all()
            if method == "transformer_attribution":
                assert scores.sum() == pytest.approx(1)
            if method == "lrp" and rules == "cvpr21":
                assert scores.sum() == pytest.approx(1, abs=1e-6)


def cut(instance: Instance, length: int) -> Instance:
    """The first tokens of an instance."""
    arrays: dict[str, Any] = {
        name: value[:length]
        for name, value in vars(instance).items()
        if isinstance(value, np.ndarray | tuple) and name not in ("contrast", "contrast_words")
    }
    return replace(instance, readout=min(instance.readout, length - 1), **arrays)


def test_a_masked_lm_needs_words(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm")
    rows = collate(model, random_instances(model, [6])).rows
    wordless = replace(rows, outputs=None)
    with pytest.raises(ValueError, match="which two outputs are asked for"):
        walk(model, wordless, torch.tensor([[1.0, -1.0]]), "orig")


@pytest.mark.parametrize("rules", ["cvpr21", "orig"])
@pytest.mark.parametrize("lowest", [1, 2])
def test_a_walk_that_ends_early(tiny: LoadTiny, rules: Rules, lowest: int) -> None:
    model = tiny("bert", "classification", "float64")
    rows = collate(model, random_instances(model, [6, 11])).rows
    weights = one_hot(torch.tensor([0, 1]), model)
    whole, part = walk(model, rows, weights, rules), walk(model, rows, weights, rules, lowest)
    assert sorted(part.attention) == list(range(lowest, 3))
    for number, reached in part.attention.items():
        assert torch.equal(reached, whole.attention[number])
    assert not torch.equal(part.entered, whole.entered)


@pytest.mark.parametrize("rules", ["cvpr21", "orig"])
def test_a_walk_of_long_rows(tiny: LoadTiny, rules: Rules) -> None:
    """Where not all can be held, layers are passed again, and nothing changes."""
    model = tiny("bert", "classification", "float64")
    rows = collate(model, random_instances(model, [6, 11])).rows
    weights = one_hot(torch.tensor([0, 1]), model)
    held = walk(model, rows, weights, rules)
    with (
        patch.object(passes, "_HELD", 0),
        patch.object(passes, "_through_layer", wraps=passes._through_layer) as through,
    ):
        again = walk(model, rows, weights, rules)
    assert through.call_count == 2 * model.num_layers
    assert torch.equal(again.entered, held.entered)
    for number, reached in held.attention.items():
        assert torch.equal(again.attention[number], reached)


def test_methods_share_a_walk(tiny: LoadTiny) -> None:
    """A walk goes as far as the method that needs it furthest, whoever asks first."""
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 11])
    names = ("partial_lrp", "transformer_attribution", "lrp")
    params = {name: {"rules": "orig"} for name in names}
    together = attribute(model, instances, choose(names, params))
    assert together.failures == []
    for name in names:
        alone = attribute(model, instances, choose(name, {name: params[name]}))
        for row, other in zip(together.rows[name], alone.rows[name], strict=True):
            assert row is not None and other is not None
            assert (row.scores == other.scores).all()
