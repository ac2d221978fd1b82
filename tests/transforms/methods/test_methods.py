"""Each method against captum, against a formula worked out by hand, and against itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from captum.attr import (
    IntegratedGradients,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    Saliency,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from attribeam import transforms
from attribeam.schemas import UsageError
from attribeam.transforms import (
    Attribution,
    Attributions,
    Instance,
    Model,
    Prediction,
    Row,
    choose,
    encode,
    load_model,
    methods,
)
from attribeam.transforms.inputs.batch import Batch
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.anatomy import Anatomy
from attribeam.transforms.network.parts import Affine, Attention, Branch, Layer, Step
from attribeam.transforms.network.rows import Read, Rows
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.statistics import CorpusStatistics
from attribeam.transforms.registry import Chosen
from tests.conftest import LoadTiny
from tests.support.conditioning import tolerances
from tests.support.models import (
    FAMILIES,
    OTHERS,
    TASKS,
    USUAL_METHODS,
    plain,
    random_instances,
    random_questions,
    relative_error,
    statistics_of,
    tasks_of,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")


DTYPES = ("float32", "float64")
# Three families have RoBERTa's code: it is the same of two of them. What single precision makes of
# padding is in code that all share.
IN_TYPES = [
    *((family, "float64") for family in FAMILIES if family not in ("xlm-roberta", "camembert")),
    *((family, "float32") for family in ("bert", "roberta")),
]
ALL_METHODS = tuple(methods())


def attribute(
    model: Model, instances: Sequence[Instance], wanted: Any, **more: Any
) -> Attributions:
    """As ours, with statistics where a method needs them."""
    choices = choose(wanted) if isinstance(wanted, str) else wanted
    if any(isinstance(need, CorpusStatistics) for choice in choices for need in choice.needs):
        more["statistics"] = statistics_of(model)
    return transforms.attribute(model, instances, choices, **more)


def predictions_of(found: Attributions) -> list[Prediction]:
    """The predictions of instances none of which failed."""
    assert found.failures == []
    return [cast(Prediction, prediction) for prediction in found.predictions]


def scores_of(found: Attributions, method: str) -> list[NDArray[np.floating]]:
    """The scores of a method that has a row for every instance."""
    assert found.failures == []
    return [cast(Attribution, row).scores for row in found.rows[method]]


def chosen(method: str, **params: Any) -> list[Chosen]:
    return choose(method, {method: params})


# Captum ---------------------------------------------------------------------------------------

# The module whose output enters the encoder; ELECTRA's embeddings are projected first.
ENTRANCE = {
    "bert": "bert.embeddings",
    "roberta": "roberta.embeddings",
    "electra": "electra.embeddings_project",
    "distilbert": "distilbert.embeddings",
}
EXPLAINED = [*((family, "classification") for family in ENTRANCE), ("bert", "masked_lm")]


class Reference:
    """One instance on a plain transformers model, with the scalar that is to be explained."""

    def __init__(self, model: Model, family: str, instance: Instance, target: int) -> None:
        self.network = plain(model)
        self.entrance: nn.Module = self.network.get_submodule(ENTRANCE[family])
        self.instance, self.target = instance, target
        self.ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
        start = 2 if family == "roberta" else 0
        self.extra = {"position_ids": torch.arange(start, start + len(instance))[None]}
        if family in ("bert", "electra"):
            self.extra["token_type_ids"] = torch.tensor(instance.segment[None], dtype=torch.long)

    def scalar(self, ids: torch.Tensor) -> torch.Tensor:
        extra = {name: value.expand(len(ids), -1) for name, value in self.extra.items()}
        logits = self.network(ids, attention_mask=torch.ones_like(ids), **extra).logits
        if self.instance.contrast is None:
            return logits[:, self.target]
        good, bad = self.instance.contrast
        return logits[:, self.instance.readout, good] - logits[:, self.instance.readout, bad]

    def scalar_of_embeddings(self, embeddings: torch.Tensor) -> torch.Tensor:
        with self._entering(embeddings):
            return self.scalar(self.ids.expand(len(embeddings), -1))

    @contextmanager
    def _entering(self, embeddings: torch.Tensor) -> Iterator[None]:
        handle = self.entrance.register_forward_hook(lambda *_: embeddings)
        try:
            yield
        finally:
            handle.remove()

    def embeddings(self) -> torch.Tensor:
        kept = []
        handle = self.entrance.register_forward_hook(lambda *args: kept.append(args[2].detach()))
        self.scalar(self.ids)
        handle.remove()
        return kept[0]

    def ids_replaced_by(self, token: int | None) -> torch.Tensor:
        """Every token but the special ones and the [MASK] that is read out, replaced."""
        assert token is not None
        ids = self.ids.clone()
        for position in range(len(self.instance)):
            if not self.instance.special[position] and position != self.instance.readout:
                ids[0, position] = token
        return ids

    # What captum says ---------------------------------------------------------------------

    def saliency(self) -> torch.Tensor:
        embeddings = self.embeddings().requires_grad_()
        return Saliency(self.scalar_of_embeddings).attribute(embeddings).norm(dim=-1)

    def grad_x_input(self) -> torch.Tensor:
        return LayerGradientXActivation(self.scalar, self.entrance).attribute(self.ids).sum(-1)

    def integrated_gradients_from_ids(self, baseline: torch.Tensor) -> torch.Tensor:
        explainer = LayerIntegratedGradients(self.scalar, self.entrance)
        return explainer.attribute(self.ids, baseline, n_steps=50).sum(-1)

    def integrated_gradients_from_zero(self) -> torch.Tensor:
        explainer = IntegratedGradients(self.scalar_of_embeddings)
        return explainer.attribute(self.embeddings(), 0.0, n_steps=50).sum(-1)


CAPTUM: dict[str, tuple[list[Chosen], Callable[[Reference, Model], torch.Tensor]]] = {
    "saliency": (chosen("saliency"), lambda reference, _: reference.saliency()),
    "grad_x_input": (chosen("grad_x_input"), lambda reference, _: reference.grad_x_input()),
    "integrated_gradients-pad": (
        chosen("integrated_gradients", baseline="pad", preset="fixed"),
        lambda reference, model: reference.integrated_gradients_from_ids(
            reference.ids_replaced_by(model.pad_id)
        ),
    ),
    "integrated_gradients-mask": (
        chosen("integrated_gradients", baseline="mask", preset="fixed"),
        lambda reference, model: reference.integrated_gradients_from_ids(
            reference.ids_replaced_by(model.mask_id)
        ),
    ),
    "integrated_gradients-zero": (
        chosen("integrated_gradients", baseline="zero", preset="fixed"),
        lambda reference, _: reference.integrated_gradients_from_zero(),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CAPTUM)
@pytest.mark.parametrize(("family", "task"), EXPLAINED)
def test_equals_captum(tiny: LoadTiny, family: str, task: str, case: str, dtype: str) -> None:
    model = tiny(family, task, dtype)
    instances = random_instances(model, [6, 17, 9])
    choice, captum = CAPTUM[case]
    found = attribute(model, instances, choice)
    for instance, ours, prediction in zip(
        instances, scores_of(found, choice[0].name), predictions_of(found), strict=True
    ):
        reference = Reference(model, family, instance, prediction.predicted)
        expected = captum(reference, model)[0].detach()
        # Captum's points on the path are in float32 even where the model is in float64.
        assert relative_error(ours, expected) < {"float32": 1e-5, "float64": 1e-7}[dtype]


# By hand --------------------------------------------------------------------------------------


class ToyNetwork(nn.Module):
    """logit[c] = sum over tokens j of (w[c] . x[j]) ** power / power, with x the embeddings."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            hidden_size=4,
            num_attention_heads=1,
            num_hidden_layers=1,
            num_labels=2,
            id2label=None,
            pad_token_id=0,
            vocab_size=10,
        )
        self.embeddings = ToyEmbeddings()
        self.layers = nn.ModuleList([ToyLayer(power)])
        self.device, self.dtype = torch.device("cpu"), torch.float64
        self.to(torch.float64)

    @property
    def base_model(self) -> "ToyNetwork":
        return self

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor
    ) -> SimpleNamespace:
        hidden = self.layers[0](self.embeddings(input_ids, position_ids), attention_mask)
        return SimpleNamespace(logits=hidden[:, 0, :2])


class ToyEmbeddings(nn.Module):
    """x[j] = word[id] + 0.125 * position."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(10, 4)
        nn.init.normal_(self.word.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        return self.word(input_ids) + 0.125 * position_ids[:, :, None]


class ToyLayer(nn.Module):
    """Gives logits in the first hidden units of every position."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power
        self.register_buffer("w", torch.tensor([[1.0, -2.0, 0.5, 3.0], [-1.0, 1.0, 2.0, -0.5]]))
        self.unused = nn.Linear(4, 4)

    def forward(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        terms = (hidden @ self.w.T) ** self.power / self.power
        logits = (terms * attention_mask[:, :, None]).sum(1, keepdim=True)
        return nn.functional.pad(logits, (0, 2)).expand(hidden.shape)


def toy_layer(module: Any, heads: int) -> Layer:
    unused = Affine(module.unused)
    # It has no attention that could come by: the last layer is run to its end.
    dropout = nn.Identity()
    attention = Attention(unused, unused, unused, unused, heads, heads, moves=True, dropout=dropout)
    return Layer((Step((Branch(attention),)),), module)


def first_two(hidden: torch.Tensor) -> torch.Tensor:
    return hidden[..., :2]


def toy(power: int) -> Model:
    network = ToyNetwork(power).eval().requires_grad_(False)
    return Model(
        network=cast(Any, network),
        anatomy=Anatomy("layers", toy_layer, {"classification": (first_two,)}, segments=False),
        task="classification",
        tokenizer=None,
        mask_id=9,
        pad_id=0,
        max_length=20,
    )


def toy_projections(model: Model, ids: list[int], target: int) -> NDArray[np.floating]:
    """w[target] . x[j] for each token."""
    word = cast(Any, model.network).embeddings.word.weight.numpy()
    x = word[ids] + 0.125 * np.arange(len(ids))[:, None]
    return x @ cast(Any, model.network).layers[0].w.numpy()[target]


TOY_IDS = [1, 5, 7, 5, 8, 2]
TOY_ROWS = [Row("long", input_ids=TOY_IDS), Row("short", input_ids=[1, 4, 2])]


def toy_scores(model: Model, method: str, target: int, **params: Any) -> Attribution:
    found = attribute(model, encode(model, TOY_ROWS), chosen(method, **params), target=target)
    assert found.failures == []
    return cast(Attribution, found.rows[method][0])


@pytest.mark.parametrize("target", [0, 1])
def test_gradient_methods_on_a_linear_model(target: int) -> None:
    model = toy(power=1)
    projections = toy_projections(model, TOY_IDS, target)
    w = cast(Any, model.network).layers[0].w.numpy()[target]

    l2 = toy_scores(model, "saliency", target).scores
    l1 = toy_scores(model, "saliency", target, norm="l1").scores
    np.testing.assert_allclose(l2, np.full(6, np.sqrt((w**2).sum())), rtol=1e-12)
    np.testing.assert_allclose(l1, np.full(6, np.abs(w).sum()), rtol=1e-12)

    gxi = toy_scores(model, "grad_x_input", target).scores
    np.testing.assert_allclose(gxi, projections, rtol=1e-12)

    padded = toy_projections(model, [1, 0, 0, 0, 0, 2], target)
    masked = toy_projections(model, [1, 9, 9, 9, 9, 2], target)
    for baseline, start in (("zero", 0 * projections), ("pad", padded), ("mask", masked)):
        row = toy_scores(model, "integrated_gradients", target, steps=1, baseline=baseline)
        np.testing.assert_allclose(row.scores, projections - start, rtol=1e-12, atol=1e-12)
        assert row.delta == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "mean_point"),
    [
        ("gauss_legendre", 1 / 2),
        ("trapezoid", 1 / 2),
        ("midpoint", 1 / 2),
        ("left", 3 / 8),
        ("right", 5 / 8),
        ("endpoints", 1 / 2),
    ],
)
def test_integrated_gradients_on_a_quadratic_model(rule: str, mean_point: float) -> None:
    # The gradient at a * x is a * (w . x) w, so the score is (w . x)^2 times the mean of the
    # rule's points; the truth is (w . x)^2 / 2.
    model = toy(power=2)
    squares = toy_projections(model, TOY_IDS, 1) ** 2
    row = toy_scores(model, "integrated_gradients", 1, steps=4, rule=rule, baseline="zero")
    np.testing.assert_allclose(row.scores, squares * mean_point, rtol=1e-12)
    assert row.delta == pytest.approx(squares.sum() * (mean_point - 1 / 2), abs=1e-12)


def test_smoothgrad_of_gradients_that_are_known() -> None:
    w = cast(Any, toy(1).network).layers[0].w.numpy()[1]
    # The same everywhere: noise is of no consequence.
    for reduce, expected in (("abs", np.abs(w).sum()), ("sum", w.sum())):
        scores = toy_scores(toy(1), "smoothgrad", 1, reduce=reduce).scores
        np.testing.assert_allclose(scores, np.full(6, expected), rtol=1e-12)
    # Of a cube it is (w . x)^2 w, whose mean is ((w . x)^2 + sd^2 |w|^2) w.
    model, samples = toy(3), 1000
    word = cast(Any, model.network).embeddings.word.weight.numpy()
    x = word[TOY_IDS] + 0.125 * np.arange(6)[:, None]
    sd, projections = 0.4 * (x.max() - x.min()), x @ w
    variance = sd**2 * (w**2).sum()
    # Of (a + s z)^2 the variance is 4 a^2 s^2 + 2 s^4.
    error = np.sqrt((4 * projections**2 * variance + 2 * variance**2) / samples)
    scores = toy_scores(model, "smoothgrad", 1, reduce="sum", samples=samples, noise=0.4).scores
    assert (np.abs(scores - (projections**2 + variance) * w.sum()) < 4 * error * w.sum()).all()
    assert (np.abs(scores / w.sum() - projections**2) > 8 * error).all()


def test_more_copies_are_more_of_the_same(tiny: LoadTiny) -> None:
    """Noise is by number of the copy, whatever the batch and whatever its budget takes at once."""
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [12, 7])
    sums = [
        [count * scores for scores in scores_of(found, "smoothgrad")]
        for count in (3, 4)
        for found in [
            attribute(
                model,
                instances,
                chosen("smoothgrad", reduce="sum", samples=count),
                token_budget=60,
                target=0,
            )
        ]
    ]
    leaf = model.embed(collate(model, [instances[1]]).rows)
    noise = instances[1].generator(0, "smoothgrad 3").standard_normal((7, model.hidden_size), "f4")
    moved = leaf + 0.15 * (leaf.max() - leaf.min()) * torch.from_numpy(noise)
    reference = Reference(model, "bert", instances[1], 0)
    moved = moved.detach().requires_grad_()
    (expected,) = torch.autograd.grad(reference.scalar_of_embeddings(moved).sum(), moved)
    assert relative_error(sums[1][1] - sums[0][1], expected[0].sum(-1)) < 1e-6


def captured_attention(layers: list[torch.Tensor], readout: list[int]) -> Captured:
    """As much of a capture as attention methods read."""
    size, _, length, _ = layers[0].shape
    read = Read(torch.tensor(readout))
    rows = cast(Rows, SimpleNamespace(read=read, length=length, device="cpu"))
    found = SimpleNamespace(
        attention=layers,
        batch=Batch((), rows, torch.ones(size, length, dtype=torch.bool), rows),
        logits=torch.zeros(size, 2),
        layered=False,
    )
    found.at_readout = partial(Captured.at_readout, found)
    return cast(Captured, found)


def test_attention_methods_by_hand() -> None:
    # One instance of two tokens, one head in the first layer's mean and two in the last's.
    first = torch.tensor([[[[0.5, 0.5], [0.25, 0.75]]]]).expand(1, 2, 2, 2)
    last = torch.tensor([[[[1.0, 0.0], [0.2, 0.8]], [[0.0, 1.0], [0.6, 0.4]]]])
    captured = captured_attention([first, last], readout=[1])
    raw = methods()["raw_attention"].compute(captured, {}).values
    torch.testing.assert_close(raw, torch.tensor([[0.4, 0.6]]))
    # Row 1 of the last factor: (0.4, 0.6) / 2 + (0, 1) / 2 = (0.2, 0.8). The first factor is
    # ((0.75, 0.25), (0.125, 0.875)), so the row of the product is
    # 0.2 * (0.75, 0.25) + 0.8 * (0.125, 0.875) = (0.25, 0.75).
    rollout = methods()["attention_rollout"].compute
    values = rollout(captured, {"start_layer": 0, "first": "kept"}).values
    torch.testing.assert_close(values, torch.tensor([[0.25, 0.75]]))
    # From the second layer on it is the last factor's row.
    values = rollout(captured, {"start_layer": 1, "first": "kept"}).values
    torch.testing.assert_close(values, torch.tensor([[0.2, 0.8]]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", TASKS)
def test_attention_methods_from_full_matrices(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [6, 19, 11])
    found = attribute(model, instances, "raw_attention,attention_rollout")
    raw, rollout = scores_of(found, "raw_attention"), scores_of(found, "attention_rollout")
    for number, instance in enumerate(instances):
        ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
        types = torch.tensor(instance.segment[None], dtype=torch.long)
        extra = {"token_type_ids": types} if model.token_types > 1 else {}
        layers = plain(model)(ids, output_attentions=True, **extra).attentions
        heads = [layer[0].mean(0).detach().numpy() for layer in layers]
        factors = [0.5 * heads[0] + 0.5 * np.eye(len(instance))]
        for head in heads[1:]:
            factors.append((0.5 * head + 0.5 * np.eye(len(instance))) @ factors[-1])
        expected = factors[-1][instance.readout]
        assert (instance.readout == 0) == (task == "classification")
        assert relative_error(raw[number], heads[-1][instance.readout]) < 1e-12
        assert relative_error(rollout[number], expected) < 1e-12
        assert rollout[number].sum() == pytest.approx(1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("baseline", ["pad", "mask"])
def test_tokens_that_do_not_move_get_nothing(tiny: LoadTiny, task: str, baseline: str) -> None:
    model = tiny("electra", task)
    instances = random_instances(model, [6, 14])
    found = attribute(model, instances, chosen("integrated_gradients", baseline=baseline, steps=3))
    for instance, scores in zip(instances, scores_of(found, "integrated_gradients"), strict=True):
        assert (scores[~instance.removable] == 0).all()
        assert (scores[instance.removable] != 0).all()
        assert not instance.removable[instance.readout]


@pytest.mark.parametrize("baseline", ["pad", "zero"])
def test_steps_complete_on_the_bundled_model(baseline: str) -> None:
    """The median gap is below 1 % of the difference that the scores share out."""
    examples = Path(__file__).parents[3] / "examples"
    model = load_model(examples / "models" / "sentiment-bert")
    texts = pq.read_table(examples / "data" / "sentiment.parquet")["text"].to_pylist()[:30]
    params = {"integrated_gradients": {"baseline": baseline}}
    found = attribute(model, encode(model, texts), choose("integrated_gradients", params))
    gaps = []
    for row in found.rows["integrated_gradients"]:
        assert row is not None and row.delta is not None
        gaps.append(abs(row.delta) / abs(row.scores.sum() - row.delta))
    assert np.median(gaps) < 0.01


def test_delta_is_the_completeness_gap(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [8, 15])
    found = attribute(model, instances, chosen("integrated_gradients", steps=2, rule="left"))
    for number, instance in enumerate(instances):
        row = cast(Attribution, found.rows["integrated_gradients"][number])
        reference = Reference(model, "bert", instance, cast(int, row.target))
        gain = reference.scalar(reference.ids)
        gain = gain - reference.scalar(reference.ids_replaced_by(model.pad_id))
        expected = row.scores.sum() - gain.item()
        assert abs(expected) > 1e-3
        assert row.delta == pytest.approx(expected, abs=1e-10)


def test_more_steps_close_the_gap(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [12])

    def gap(steps: int) -> float:
        path = chosen("integrated_gradients", steps=steps, rule="gauss_legendre")
        found = attribute(model, instances, path)
        return abs(cast(Attribution, found.rows["integrated_gradients"][0]).delta or 0)

    assert gap(50) < 1e-6 < gap(4)


def test_random_knows_the_content_and_the_seed_alone(tiny: LoadTiny) -> None:
    model = tiny("bert")
    instances = random_instances(model, [12, 9, 20, 12])
    scores = scores_of(attribute(model, instances, "random"), "random")
    renamed = [replace(instance, instance_id="other", label=None) for instance in instances]
    again = scores_of(attribute(model, renamed[::-1], "random"), "random")[::-1]
    other_seed = scores_of(attribute(model, instances, "random", seed=1), "random")
    for first, same, different in zip(scores, again, other_seed, strict=True):
        assert (first == same).all()
        assert not np.isin(first, different).any()
        assert ((first >= 0) & (first < 1)).all()
    assert len(np.unique(np.concatenate(scores))) == 12 + 9 + 20 + 12
    assert np.concatenate(scores).mean() == pytest.approx(0.5, abs=0.1)


def test_the_mask_itself(tiny: LoadTiny) -> None:
    model = tiny("bert")
    first, second, third = random_instances(model, [12, 9, 12])
    unmarked = replace(second, rationale=None)
    found = attribute(model, [first, unmarked, third], "mask_itself,random")
    (failure,) = found.failures
    assert (failure.instance_id, failure.stage, failure.method) == (
        second.instance_id,
        "attribute",
        "mask_itself",
    )
    assert failure.message == "the row has no rationale (of pictures: no mask)"
    rows = found.rows["mask_itself"]
    assert rows[1] is None and None not in found.rows["random"]
    for row, instance in ((rows[0], first), (rows[2], third)):
        assert row is not None and row.target is None
        assert set(row.scores) == {0, 1}
        assert (row.scores == instance.rationale).all()
    assert "mask_itself" not in [choice.name for choice in choose("all")]


# Batches --------------------------------------------------------------------------------------


DIFFERENCES = ("kernel_shap", "lime", "occlusion")
# In float64 whatever the model is in.
IN_DOUBLE = ("lrp", "partial_lrp")
LOGITS = "logits"


def cheap(method: str) -> list[Chosen]:
    """A method with few steps or samples, where it has them."""
    few = {"steps": 6, "samples": 3 if method == "smoothgrad" else 20, "copies": 2, "points": 5}
    params = methods()[method].defaults
    # Rows have no parts here.
    parts = {"unit": "token"} if method == "context_cite" else {}
    # As many points as an instance needs, where steps alone would be a fixed number of them.
    own = {"rule": "nested"} if method == "integrated_gradients" else {}
    return chosen(method, **parts, **own, **{name: few[name] for name in few if name in params})


class Number(NamedTuple):
    """Numbers of a result that are rounded alike, and the size of what they are sums of."""

    array: NDArray[np.floating]
    size: float


# What rounding may come to in each of the numbers of each method and instance.
Limits = dict[str, list[list[float]]]


def numbers_of(found: Attributions, method: str, number: int) -> list[Number]:
    """All numbers that a method gives for an instance, in one order; or its logits."""
    logits = Number(found.predictions[number].logits, 0)  # type: ignore[union-attr]
    size = float(np.abs(logits.array).max())
    if method == LOGITS:
        return [logits._replace(size=size)]
    row = cast(Attribution, found.rows[method][number])
    largest, total = np.abs(row.scores).max(), np.abs(row.scores).sum()
    # Differences of logits round as logits do, and min-max divides by the largest of all rows.
    least = size if method in DIFFERENCES else 1 if method == "attention_gradcam" else 0
    numbers = [Number(row.scores, largest + least)]
    if row.delta is not None:
        numbers.append(Number(np.array([row.delta]), total + size))
    for name in compared(found, row):
        columns = [
            np.concatenate([np.atleast_1d(value) for value in column])
            for column in zip(*row.details[name], strict=True)
            if all(np.asarray(value).dtype.kind == "f" for value in column)
        ]
        size = max((float(np.abs(column).max(initial=0)) for column in columns), default=0)
        numbers += [Number(column, size) for column in columns]
    return numbers


def in_double(found: Attributions) -> bool:
    """Whether results are of a model in double precision, whatever a method computes in."""
    logits = predictions_of(found)[0].logits
    return bool((logits != logits.astype(np.float32)).any())


def compared(found: Attributions, row: Attribution) -> list[str]:
    """The other tables whose rows are the same in any batch.

    In single precision rounding decides between what is about equally large.
    """
    return [name for name in row.details if in_double(found) or name == "heads"]


def limits_of(
    model: Model, instances: Sequence[Instance], choice: list[Chosen], base: Attributions
) -> Limits:
    """What rounding may come to in the results for some instances."""
    every = range(len(instances))

    def flat(found: Attributions) -> list[Number]:
        return [
            one
            for method in (LOGITS, *base.rows)
            for number in every
            for one in numbers_of(found, method, number)
        ]

    found = iter(
        tolerances(
            model,
            lambda: [one.array for one in flat(attribute(model, instances, choice))],
            base=[one.array for one in flat(base)],
            scales=[one.size for one in flat(base)],
        )
    )
    return {
        method: [[next(found) for _ in numbers_of(base, method, number)] for number in every]
        for method in (LOGITS, *base.rows)
    }


LENGTHS = (5, 11, 4, 23, 11)
# In an order that is not that of their lengths.
SHUFFLED = (3, 1, 4, 0, 2)


@cache
def one_by_one(tiny: LoadTiny, family: str, task: str, dtype: str) -> Attributions:
    """Results of all methods for instances that are each alone in a batch."""
    model = tiny(family, task, dtype)
    instances = random_instances(model, LENGTHS)
    return merged([attribute(model, [instance], every(model)) for instance in instances])


@cache
def batched(tiny: LoadTiny, family: str, task: str, dtype: str, *numbers: int) -> Attributions:
    """Results of all methods for some of the instances in one batch; by default for all."""
    model = tiny(family, task, dtype)
    instances = random_instances(model, LENGTHS)
    some = [instances[n] for n in numbers or range(len(LENGTHS))]
    return attribute(model, some, every(model), token_budget=100_000)


@cache
def limits_on(tiny: LoadTiny, family: str, task: str, dtype: str) -> Limits:
    """What rounding may come to in the results of all methods for the instances."""
    model = tiny(family, task, dtype)
    instances = random_instances(model, LENGTHS)
    base = batched(tiny, family, task, dtype)
    if dtype == "float64":
        return limits_of(model, instances, every(model), base)
    single = [choice for choice in every(model) if choice.name not in IN_DOUBLE]
    rows = {choice.name: base.rows[choice.name] for choice in single}
    found = limits_of(model, instances, single, replace(base, rows=rows))
    double = limits_on(tiny, family, task, "float64")
    return found | {method: double[method] for method in IN_DOUBLE if method in double}


def same(found: Attributions, expected: Attributions, limits: Limits) -> None:
    """Checks that all numbers of two results are equal but for rounding."""
    for ours, theirs in zip(predictions_of(found), predictions_of(expected), strict=True):
        assert ours.target == theirs.target
    assert found.rows.keys() == expected.rows.keys()
    for method, rows in expected.rows.items():
        for row, other in zip(found.rows[method], rows, strict=True):
            assert row is not None and other is not None
            assert row.target == other.target
            assert (row.delta is None) == (other.delta is None)
            same_details(expected, row, other)
    for method in (LOGITS, *expected.rows):
        for number, allowed in enumerate(limits[method]):
            pair = (numbers_of(one, method, number) for one in (found, expected))
            for ours, theirs, limit in zip(*pair, allowed, strict=True):
                assert np.abs(ours.array - theirs.array).max(initial=0) <= limit * theirs.size


def same_details(found: Attributions, ours: Attribution, theirs: Attribution) -> None:
    """Checks that what isn't a float in the rows of other tables is equal."""
    assert ours.details.keys() == theirs.details.keys()
    for table in compared(found, theirs):
        for row, other in zip(ours.details[table], theirs.details[table], strict=True):
            for value, expected in zip(row, other, strict=True):
                if in_double(found) and np.asarray(expected).dtype.kind != "f":
                    np.testing.assert_array_equal(value, expected)


def merged(parts: list[Attributions]) -> Attributions:
    """Results for several instances from those for each alone."""
    rows = {method: [part.rows[method][0] for part in parts] for method in parts[0].rows}
    failures = [failure for part in parts for failure in part.failures]
    return Attributions([part.predictions[0] for part in parts], rows, failures)


def picked(found: Attributions, numbers: Sequence[int]) -> Attributions:
    """Results for some of the instances, in another order."""
    rows = {method: [results[n] for n in numbers] for method, results in found.rows.items()}
    return Attributions([found.predictions[n] for n in numbers], rows, found.failures)


def fits(model: Model, method: str) -> bool:
    """Whether a method is defined for a model."""
    return not set(methods()[method].requires) - model.traits


def every(model: Model) -> list[Chosen]:
    """All methods that are defined for a model, the expensive ones with few steps."""
    return [choice for choice in EVERY if fits(model, choice.name)]


EVERY = [kind for method in ALL_METHODS for kind in cheap(method)]


def only(method: str, found: Attributions) -> Attributions:
    """The part of results that is one method's."""
    return replace(found, rows={method: found.rows[method]})


def of_some(limits: Limits, numbers: Sequence[int]) -> Limits:
    """The limits for some of the instances, in another order."""
    return {method: [of[n] for n in numbers] for method, of in limits.items()}


@pytest.mark.parametrize("method", USUAL_METHODS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("family", "dtype"), IN_TYPES)
def test_batch_mates_do_not_matter(
    tiny: LoadTiny, family: str, task: str, method: str, dtype: str
) -> None:
    model = (tiny, family, task, dtype)
    limits = limits_on(*model)
    alone = only(method, one_by_one(*model))
    same(only(method, batched(*model)), alone, limits)
    # Other mates, and padding up to another length: without the longest.
    fewer = SHUFFLED[1:]
    together = only(method, batched(*model, *fewer))
    same(together, picked(alone, fewer), of_some(limits, fewer))


# One family shows what a method does by itself: with others more of a model is looked at.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", USUAL_METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_batch_mates_do_not_matter_to_a_method_by_itself(
    tiny: LoadTiny, task: str, method: str, dtype: str
) -> None:
    model = tiny("bert", task, dtype)
    instances = random_instances(model, LENGTHS)
    shuffled = [instances[n] for n in SHUFFLED]
    found = attribute(model, shuffled, cheap(method), token_budget=60)
    alone = only(method, one_by_one(tiny, "bert", task, dtype))
    limits = limits_on(tiny, "bert", task, dtype)
    same(found, picked(alone, SHUFFLED), of_some(limits, SHUFFLED))


# In double precision far above what rounding makes of any method, and far below what a batch mate
# would.
_FAR = 1e-6
_FEW = (4, 15, 8)


@cache
def alone_and_together(tiny: LoadTiny, family: str, task: str) -> list[Attributions]:
    """Results of all methods for some instances, each alone and in one batch."""
    model = tiny(family, task, "float64")
    instances, wanted = random_instances(model, _FEW), every(model)
    apart = [attribute(model, [instance], wanted) for instance in instances]
    return [merged(apart), attribute(model, instances, wanted)]


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize(
    ("family", "task"), [(family, task) for family in OTHERS for task in tasks_of(family)]
)
def test_batch_mates_do_not_matter_in_other_families(
    tiny: LoadTiny, family: str, task: str, method: str
) -> None:
    model = tiny(family, task, "float64")
    if not fits(model, method):
        with pytest.raises(UsageError, match=f"{method} is defined by"):
            attribute(model, random_instances(model, [5]), cheap(method))
        return
    alone, together = (only(method, found) for found in alone_and_together(tiny, family, task))
    limits = {
        of: [[_FAR for _ in numbers_of(alone, of, number)] for number in range(len(_FEW))]
        for of in (LOGITS, method)
    }
    same(together, alone, limits)


@pytest.mark.parametrize("family", ["gpt2", "gemma3_text"])
def test_questions_about_what_follows_are_answered_alike_alone(tiny: LoadTiny, family: str) -> None:
    """Together they read one row at their positions; alone each is a row that ends there."""
    model = tiny(family, "causal_lm", "float64")
    instances = random_questions(model, [(4, 2), (7, 1)])
    wanted = [one for one in every(model) if one.unfit(model) is None]
    together = attribute(model, instances, wanted, token_budget=100_000)
    alone = merged([attribute(model, [instance], wanted) for instance in instances])
    assert together.failures == alone.failures == []
    for method in (LOGITS, *together.rows):
        for number, instance in enumerate(instances):
            if method != LOGITS and instance.of_all and together.rows[method][number] is None:
                assert alone.rows[method][number] is None
                continue
            pair = (numbers_of(found, method, number) for found in (together, alone))
            for ours, theirs in zip(*pair, strict=True):
                error = np.abs(ours.array - theirs.array).max(initial=0)
                assert error <= _FAR * theirs.size, (method, instance.instance_id)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=6)
@given(data=st.data())
def test_any_batch_gives_what_instances_give_alone(
    tiny: LoadTiny, task: str, data: st.DataObject
) -> None:
    every_number = st.sampled_from(range(len(LENGTHS)))
    numbers = data.draw(st.lists(every_number, min_size=1, unique=True), "instances")
    budget = data.draw(st.integers(1, 400), "token budget")
    model = tiny("bert", task, "float64")
    instances = random_instances(model, LENGTHS)
    found = attribute(model, [instances[n] for n in numbers], every(model), token_budget=budget)
    alone = one_by_one(tiny, "bert", task, "float64")
    limits = limits_on(tiny, "bert", task, "float64")
    same(found, picked(alone, numbers), of_some(limits, numbers))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_other_methods_do_not_matter(tiny: LoadTiny, task: str, dtype: str) -> None:
    model = tiny("roberta", task, dtype)
    instances = random_instances(model, LENGTHS)
    together = batched(tiny, "roberta", task, dtype)
    limits = limits_on(tiny, "roberta", task, dtype)
    for method in USUAL_METHODS:
        alone = attribute(model, instances, cheap(method))
        same(only(method, together), alone, limits)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_call_gives_the_same_bytes(tiny: LoadTiny, family: str, task: str) -> None:
    def content(found: Attributions) -> list[tuple[bytes, float | None]]:
        logits = [(prediction.logits.tobytes(), None) for prediction in predictions_of(found)]
        rows = [cast(Attribution, row) for rows in found.rows.values() for row in rows]
        return logits + [(row.scores.tobytes(), row.delta) for row in rows]

    before = batched(tiny, family, task, "float64")
    again = batched.__wrapped__(tiny, family, task, "float64")
    assert again is not before
    assert content(again) == content(before)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_what_the_registry_says_is_true(tiny: LoadTiny, method: str) -> None:
    family = "bert" if method in USUAL_METHODS else "gpt2"
    model = tiny(family, "classification", "float64")
    # Too long for Shapley values to be exact, whatever the seed.
    instances = random_instances(model, [11, 15, 12])
    facts = methods()[method]
    wanted = cheap(method) if method == "context_cite" else method
    by_class = [attribute(model, instances, wanted, target=target) for target in (0, 1)]
    reseeded = attribute(model, instances, wanted, target=0, seed=5)
    if facts.scored:
        negative = [(scores < 0).any() for scores in scores_of(by_class[0], method)]
        assert facts.signed == any(negative)
    for number in range(len(instances)):
        first, second, other_seed = (
            cast(Attribution, found.rows[method][number]) for found in (*by_class, reseeded)
        )
        assert first.target == (0 if facts.class_dependent else None)
        assert second.target == (1 if facts.class_dependent else None)
        if facts.scored:
            assert facts.class_dependent != (first.scores == second.scores).all()
        assert set(facts.tables) == first.details.keys()
        if not facts.scored:
            continue
        assert facts.stochastic != (first.scores == other_seed.scores).all()
        assert facts.additive == (first.delta is not None)
        assert first.scores.shape == (len(instances[number]),)
        assert first.seconds > 0 or facts.needs(facts.params({})) == ()
