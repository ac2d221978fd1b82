"""Norm-based methods and attention flow against the authors' code and against their definitions."""

from functools import cache
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms import Attribution, Instance, Model, attribute, choose, encode
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.methods.attention import flow_row
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.passes.norms import LEVELS, NORMED, Level, norm_maps
from benchmarks.norms import formed, formed_vectors
from tests.conftest import LoadTiny
from tests.support.authors import (
    ALL_AT_ONCE,
    BUDGETS,
    DTYPES,
    IN_FLOAT32,
    VARIANTS,
    WITH_GOLDENS,
    golden_numbers,
    golden_rows,
)
from tests.support.conditioning import tolerances
from tests.support.models import (
    FAMILIES,
    OTHERS,
    random_instances,
    relative_error,
    tasks_of,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")

# Our names, and those in the authors' code.
FAMILY = {
    "w": "W",
    "w_fixed_res": "W_FixedRes",
    "attention_rollout": "W_FixedRes",
    "w_res": "W_Res",
    "norm_n": "N",
    "norm_n_fixed_res": "N_FixedRes",
    "norm_n_res": "N_Res",
    "norm_n_resln": "N_ResLN",
    "globenc": "N_Enc",
}
WHOLE = Watch(attention=True, layers=True, whole=True)
FORMED = dict(zip(LEVELS, ("N", "N_Res", "N_ResLN", "N_Enc"), strict=True))
OTHER_GOLDENS = ("electra-golden", "roberta-golden", "distilbert-golden")
# ``formed`` knows no norms after branches, and no two branches of one step.
KINDS = [
    (family, task)
    for family in (*FAMILIES, *OTHERS)
    for task in tasks_of(family)
    if family not in ("gemma2", "gemma3_text", "gpt_neox")
]


def results(
    model: Model, method: str, budget: int = ALL_AT_ONCE, **params: Any
) -> list[Attribution]:
    """A method's results for the eight instances of the corpus, with their layers."""
    chosen = choose(method, {method: params})
    instances = encode(model, golden_rows())
    found = attribute(model, instances, chosen, token_budget=budget, layers=True)
    assert found.failures == []
    return [row for row in found.rows[method] if row is not None]


def numbers_of(row: Attribution) -> list[NDArray[np.floating]]:
    """Scores, and those of each layer, and its mixing ratios where there are any."""
    layers = [(layer.rollout, layer.local, layer.mixing) for layer in row.layers or []]
    return [row.scores, *(x for layer in layers for x in layer if x is not None)]


@cache
def allowed(model: Model, method: str, **params: str) -> float:
    """The most that rounding may come to."""

    def compute() -> list[NDArray[np.floating]]:
        return [part for row in results(model, method, **params) for part in numbers_of(row)]

    return max(tolerances(model, compute))


def check_family(model: Model, name: str, method: str, budget: int, own: float) -> int:
    """Compares all that the goldens have of a method; returns how many things that is.

    They are off by rounding of their own.
    """
    compared, tolerance = 0, own + allowed(model, method)
    for number, row in enumerate(results(model, method, budget)):
        assert row.layers is not None and len(row.layers) == 4

        def expected(what: str, number: int = number) -> NDArray[np.floating] | None:
            return golden_numbers("norms").get(f"{name}/{what}/{FAMILY[method]}/{number}")

        rollout, local, mixing = (expected(what) for what in ("rollout", "local", "ratio"))
        if rollout is None or local is None:
            continue
        assert relative_error(row.scores, rollout[-1] / rollout[-1].sum()) < tolerance
        assert row.scale == pytest.approx(np.log(rollout[-1].sum()), abs=4 * tolerance)
        for at, layer in enumerate(row.layers):
            raw = layer.rollout * np.exp(layer.scale)
            assert relative_error(raw, rollout[at]) < tolerance
            assert relative_error(layer.local, local[at]) < tolerance
            if mixing is not None:
                assert layer.mixing is not None
                assert relative_error(layer.mixing, mixing[at]) < tolerance
            compared += 1
    return compared


@VARIANTS
@pytest.mark.parametrize("method", FAMILY)
def test_norm_family_on_bert(golden: LoadTiny, method: str, dtype: str, budget: int) -> None:
    model = golden("bert-golden", dtype)
    assert check_family(model, "bert-golden", method, budget, 0) == 4 * len(WITH_GOLDENS)


@pytest.mark.parametrize("method", [*FAMILY, "alti"])
def test_products_may_begin_at_a_layer(golden: LoadTiny, method: str) -> None:
    model = golden("bert-golden", "float64")
    for row in results(model, method, start_layer=3):
        *below, last = row.layers or []
        assert relative_error(row.scores, last.local / last.local.sum()) < 1e-12
        assert row.scale == pytest.approx(np.log(last.local.sum()), abs=1e-12)
        for layer in below:
            assert (layer.rollout == np.eye(len(row.scores))[0]).all() and layer.scale == 0


@pytest.mark.parametrize(("method", "level"), [("norm_n", "values"), ("globenc", "output_norm")])
def test_the_product_of_the_last_layers(golden: LoadTiny, method: str, level: Level) -> None:
    model = golden("bert-golden", "float64")
    rows = collate(model, encode(model, golden_rows())).rows
    _, recorder = model.run(rows, watch=WHOLE)
    maps = norm_maps(model.layers, recorder.attention, recorder.layers, [level], None)[level].maps
    expected = np.linalg.multi_dot([maps[3][0].numpy(), maps[2][0].numpy()])[0]
    for budget in (ALL_AT_ONCE, 1):
        row = results(model, method, budget, start_layer=2)[0]
        found, length = row.scores * np.exp(row.scale or 0), len(row.scores)
        assert relative_error(found, expected[:length]) < 1e-12
        assert (expected[length:] == 0).all()


@BUDGETS
@pytest.mark.parametrize("method", ["norm_n", "norm_n_res", "norm_n_resln", "globenc"])
@pytest.mark.parametrize("name", OTHER_GOLDENS)
def test_norm_family_on_others(golden: LoadTiny, name: str, method: str, budget: int) -> None:
    # ALTI's code knows the last two alone.
    compared = check_family(golden(name), name, method, budget, IN_FLOAT32)
    has_it = name == "electra-golden" or method in ("norm_n_resln", "globenc")
    assert (compared > 0) == has_it


@pytest.mark.parametrize(("family", "task"), KINDS)
@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("level", ["residual", *NORMED])
def test_alti_from_the_vectors(
    tiny: LoadTiny, family: str, task: str, layered: bool, level: Level
) -> None:
    """Against forming every vector, in double precision, which the goldens aren't in."""
    model = tiny(family, task, "float64")
    instances = random_instances(model, [6, 13])
    if level in NORMED and "post_ln" not in model.traits:
        with pytest.raises(UsageError, match=f"alti.level={level} is defined by layers that norm"):
            attribute(model, instances, choose("alti", {"alti": {"level": level}}))
        return
    chosen = choose("alti", {"alti": {"level": level}})
    found = attribute(model, instances, chosen, layers=layered)
    for row, instance in zip(found.rows["alti"], instances, strict=True):
        rows = collate(model, [instance]).rows
        _, recorder = model.run(rows, watch=WHOLE)
        product = torch.eye(len(instance), dtype=torch.float64)
        for number, vectors in enumerate(formed_vectors(model, instance)):
            part, state = model.layers[number], recorder.layers[number]
            output = state.sums[0][0]
            if level in NORMED:
                step = NORMED.index(level)
                output = part.steps[step].leave(state.sums[step][0])
            far = (output[:, None] - vectors[FORMED[level]]).abs().sum(-1)
            near = (output.abs().sum(-1)[:, None] - far).clamp(min=0)
            product = near / near.sum(-1, keepdim=True) @ product
        assert row is not None
        read = product.mean(0) if instance.readout is None else product[instance.readout]
        assert relative_error(row.scores, read) < 1e-10


@VARIANTS
@pytest.mark.parametrize("name", ["bert-golden", "roberta-golden", "distilbert-golden"])
def test_alti(golden: LoadTiny, name: str, dtype: str, budget: int) -> None:
    # The goldens are in float32, and differences of l1 norms lose digits: they are off by 4e-5.
    for level, key in (("attention_norm", "ALTI"), ("output_norm", "ALTI_LN2")):
        found = results(golden(name, dtype), "alti", budget, level=level)
        limit = allowed(golden(name, dtype), "alti", level=level)
        for number in WITH_GOLDENS:
            expected = golden_numbers("norms")[f"{name}/local/{key}/{number}"]
            layers = found[number].layers or []
            for layer, local in zip(layers, expected, strict=True):
                assert relative_error(layer.local, local) < limit + 4e-5
            if level == "attention_norm":
                final = golden_numbers("norms")[f"{name}/final/ALTI/{number}"]
                assert relative_error(found[number].scores, final) < limit + IN_FLOAT32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("matrix", "keys"),
    [("w", ["W"]), ("w_fixed_res", ["W_FixedRes", "abnar"]), ("globenc_raw", ["N_Enc"])],
)
def test_attention_flow(golden: LoadTiny, matrix: str, keys: list[str], dtype: str) -> None:
    found = results(golden("bert-golden", dtype), "attention_flow", matrix=matrix)
    for number in range(4):
        for key in keys:
            expected = golden_numbers("norms")[f"bert-golden/flow/{key}/{number}"]
            # There, capacities are rounded to 1e-7.
            error = relative_error(found[number].scores, expected / expected.sum())
            assert error < 1e-6


def test_flow_by_hand() -> None:
    # One layer: what flows to a token is its edge. Two layers: over each token in between flows
    # the narrower of two edges.
    first = np.array([[0.5, 0.5], [0.2, 0.8]])
    second = np.array([[0.9, 0.1], [0.4, 0.6]])
    np.testing.assert_allclose(flow_row(first[None], 1), [0.2, 0.8], atol=1e-6)
    to_both = np.array([min(0.4, 0.5) + min(0.6, 0.2), min(0.4, 0.5) + min(0.6, 0.8)])
    flow = flow_row(np.stack([first, second]), 1)
    np.testing.assert_allclose(flow, to_both / to_both.sum(), atol=1e-6)


def naive_flow(matrices: NDArray[np.floating], readout: int) -> NDArray[np.floating]:
    """Flows by another library, in floats."""
    depth, length, _ = matrices.shape
    graph = nx.DiGraph()
    for layer, target, source in np.ndindex(matrices.shape):
        capacity = float(matrices[layer, target, source])
        graph.add_edge((layer + 1, target), (layer, source), capacity=capacity)
    flows = [nx.maximum_flow_value(graph, (depth, readout), (0, sink)) for sink in range(length)]
    return np.array(flows) / sum(flows)


@pytest.mark.parametrize(
    "magnitude",
    [
        *(1e-300, 1e-9, 1.0, 214.8, 1e9, 1e300),
        np.array([1e-12, 1.0, 1e12])[:, None, None],  # Layers that are far apart.
        np.array([1e9, 1e-9, 1.0])[:, None, None],
        10.0 ** np.random.default_rng(1).integers(-4, 5, (3, 5, 5)),  # Edges that are.
        np.random.default_rng(2).integers(0, 2, (3, 5, 5)),  # Edges that carry nothing.
    ],
)
def test_flow_against_another_library(magnitude: Any) -> None:
    """No capacity is too large, and none so small that it is nothing."""
    matrices = np.random.default_rng(0).dirichlet(np.full(5, 0.5), size=(3, 5)) * magnitude
    expected = naive_flow(matrices / matrices.max(), 2)
    np.testing.assert_allclose(flow_row(matrices, 2), expected, rtol=1e-5)


def test_flow_of_nothing_and_of_what_is_no_number() -> None:
    matrices = np.random.default_rng(0).dirichlet(np.full(4, 0.5), size=(3, 4))
    assert (flow_row(np.zeros((3, 4, 4)), 1) == 0).all()
    assert flow_row(np.full((1, 1, 1), 1e-310), 0).tolist() == [1]
    matrices[1, 2, 3] = np.inf
    assert np.isnan(flow_row(matrices, 1)).all()


def test_flow_of_norms_gives_every_token_the_same(tiny: LoadTiny) -> None:
    """Each row of the norms is divided by its sum, as rows of attention are by nature."""
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [4, 6])
    for matrix in ("globenc", "globenc_raw"):
        chosen = choose("attention_flow", {"attention_flow": {"matrix": matrix}})
        found = attribute(model, instances, chosen).rows["attention_flow"]
        for row, instance in zip(found, instances, strict=True):
            maps = formed(model, instance)["N_Enc"].numpy()
            shares = maps / maps.sum(-1, keepdims=True)
            raw, normalised = (naive_flow(of, instance.readout) for of in (maps, shares))
            assert relative_error(raw, normalised) > 1e-2
            assert row is not None
            expected = normalised if matrix == "globenc" else raw
            assert relative_error(row.scores, expected) < 1e-6


@pytest.mark.parametrize(("family", "task"), KINDS)
def test_norms_are_those_of_the_vectors(tiny: LoadTiny, family: str, task: str) -> None:
    """Against forming every vector, instance by instance."""
    model = tiny(family, task, "float64")
    instances = random_instances(model, [6, 13, 9])
    batch = collate(model, instances)
    rows = batch.rows
    _, recorder = model.run(rows, watch=WHOLE)
    levels = LEVELS if "post_ln" in model.traits else LEVELS[:2]
    found = norm_maps(model.layers, recorder.attention, recorder.layers, levels, rows.read.at)
    for row, instance in enumerate(instances):
        expected = formed(model, instance)
        own = slice(len(instance))
        assert [FORMED[level] for level in levels] == [*expected]
        for level in levels:
            maps = torch.stack(found[level].maps)[:, row]
            assert relative_error(maps[:, own, own], expected[FORMED[level]]) < 1e-12
            assert (maps[:, own, len(instance) :] == 0).all()
            if model.causal:
                assert (maps[:, own].triu(1) == 0).all()


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_alone_is_as_among_all(tiny: LoadTiny, level: Any) -> None:
    model = tiny("bert", "classification", "float64")
    rows = collate(model, random_instances(model, [6, 13])).rows
    _, recorder = model.run(rows, watch=WHOLE)
    alone = norm_maps(model.layers, recorder.attention, recorder.layers, [level], rows.readout)
    among = norm_maps(model.layers, recorder.attention, recorder.layers, LEVELS, rows.readout)
    assert list(alone) == [level]
    torch.testing.assert_close(alone[level].maps, among[level].maps)
    torch.testing.assert_close(alone[level].ratios, among[level].ratios)


@pytest.mark.parametrize("at_once", [1, 1 << 11, 1 << 13])
def test_sources_some_at_a_time(
    tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    model = tiny("roberta", "classification", "float64")
    instances = random_instances(model, [6, 13, 11])
    names = "globenc,norm_n,norm_n_res,w_res,alti"
    whole = attribute(model, instances, names, layers=True)
    monkeypatch.setattr("attribeam.transforms.passes.norms._AT_ONCE", at_once)
    parts = attribute(model, instances, names, layers=True)
    for name, rows in whole.rows.items():
        for row, other in zip(rows, parts.rows[name], strict=True):
            assert row is not None and other is not None
            assert relative_error(other.scores, row.scores) < 1e-12


def test_heads_that_cancel_keep_their_digits(tiny: LoadTiny) -> None:
    """In float32, vectors of heads that nearly cancel have the norm that is left of them."""
    model = tiny("bert", "classification", "float32")
    instances = random_instances(model, [9])
    rows = collate(model, instances).rows
    _, recorder = model.run(rows, watch=WHOLE)
    part, state = model.layers[0], recorder.layers[0]
    heads = state.values.shape[1]
    # Equal attention to values that sum to a thousandth of what they are, through one projection.
    attention = torch.full((1, heads, 9, 9), 1 / 9)
    values = torch.randn(
        1, 1, 9, state.values.shape[-1], generator=torch.Generator().manual_seed(0)
    )
    signs = torch.tensor([1.0, -1.0, 1.0, -0.999])[None, :, None, None]
    output = part.attention.output.module
    weight = output.weight.data.clone()
    block = weight[:, : values.shape[-1]]
    state = state._replace(values=values * signs)
    output.weight.data = block.repeat(1, heads)
    try:
        found = norm_maps([part], [attention], [state], ["values"], rows.readout)["values"].maps[0]
    finally:
        output.weight.data = weight
    left = (values[0, 0].double() * (signs.double().sum() / 9)) @ block.double().T
    expected = torch.linalg.vector_norm(left, dim=-1).expand(9, 9)
    assert relative_error(found[0], expected) < 1e-4


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_shortest_sequences(tiny: LoadTiny, family: str, length: int) -> None:
    model = tiny(family)
    instance = shortened(random_instances(model, [5])[0], length)
    names = [*FAMILY, "alti", "attention_flow"]
    found = attribute(model, [instance], names, layers=True)
    assert found.failures == []
    for name in names:
        row = found.rows[name][0]
        assert row is not None and row.finite
        assert row.scores.sum() == pytest.approx(1, abs=1e-5)


def shortened(instance: Instance, length: int) -> Instance:
    """The first tokens of an instance."""
    cut = {
        name: getattr(instance, name)[:length]
        for name in (
            "input_ids",
            "segment",
            "special",
            "word_ids",
            "char_start",
            "char_end",
            "tokens",
        )
    }
    return Instance(**{**vars(instance), **cut})


def test_two_dozen_layers_do_not_overflow(tiny: LoadTiny) -> None:
    """Layers that each multiply by 1e4 give scores all the same, and their scale."""
    from attribeam.transforms.methods.rollout import carry

    layers = [torch.full((1, 3, 3), 1e4) for _ in range(24)]
    rows, scale = carry(torch.tensor([[[1.0, 0.0, 0.0]]]), layers)
    torch.testing.assert_close(rows, torch.full((1, 1, 3), 1 / 3))
    assert scale.item() == pytest.approx(24 * np.log(3e4), rel=1e-6)
