"""Failures stay where they belong, and memory that runs out changes no result."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from attribeam.schemas import Failure, UsageError
from attribeam.transforms import (
    Attribution,
    Attributions,
    Instance,
    Model,
    attribute,
    choose,
    load_model,
    methods,
)
from attribeam.transforms.attribute import failure
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Backward, Forward
from attribeam.transforms.passes.path import Path
from attribeam.transforms.recovery import halving, is_out_of_memory
from attribeam.transforms.registry import _METHODS, Method, Params, Scores
from tests.conftest import LoadTiny
from tests.support.models import TASKS, random_instances, relative_error

pytestmark = pytest.mark.usefixtures("padding_at_will")


LENGTHS = [9, 5, 14, 9, 7]
SICK = 2  # The instance that things happen to.
EVERYTHING = [
    *choose("random,raw_attention,attention_rollout,saliency,grad_x_input"),
    *choose("integrated_gradients", {"integrated_gradients": {"steps": 4}}),
]
# One batch for all, and for all the steps of a path.
ONE_BATCH = 1_000_000


@pytest.fixture
def model(tiny: LoadTiny) -> Model:
    return tiny("bert", "classification", "float64")


@pytest.fixture
def instances(model: Model) -> list[Instance]:
    return random_instances(model, LENGTHS)


@pytest.fixture
def register_temporary(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Method]:
    """Registers a method for the length of a test."""

    def register(compute: Callable[[Captured, Params], Scores], *needs: Any) -> Method:
        method = Method(
            name="temporary",
            compute=compute,
            needs=lambda params: needs,
            defaults={},
            signed=True,
            class_dependent=True,
            additive=False,
            cost="?",
            paper="none",
            equation="none",
        )
        methods()
        monkeypatch.setitem(_METHODS, "temporary", method)
        return method

    return register


Run = Callable[..., tuple[torch.Tensor, Any]]


@pytest.fixture
def instead_of_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Puts a function around ``Model.run``; it is given the real one, the rows and the rest."""
    original = Model.run

    def put(around: Callable[..., Any]) -> None:
        def run(self: Model, rows: Any, **more: Any) -> Any:
            return around(lambda: original(self, rows, **more), rows)

        monkeypatch.setattr(Model, "run", run)

    return put


def check_complete(found: Attributions, instances: Sequence[Instance], only: set[str]) -> None:
    """Every instance has a row or a failure under every method, and never both."""
    general = [f.instance_id for f in found.failures if f.method is None]
    assert max(Counter((f.instance_id, f.method) for f in found.failures).values(), default=1) == 1
    predicted = [p is not None for p in found.predictions]
    assert [i.instance_id not in general for i in instances] == predicted
    assert set(found.rows) == only
    for method, rows in found.rows.items():
        failed = general + [f.instance_id for f in found.failures if f.method == method]
        assert len(rows) == len(instances)
        assert sorted(
            failed + [i.instance_id for i, r in zip(instances, rows, strict=True) if r]
        ) == (sorted(i.instance_id for i in instances))


def check_same_where_present(found: Attributions, expected: Attributions) -> None:
    for method, rows in found.rows.items():
        for row, other in zip(rows, expected.rows[method], strict=True):
            if row is not None:
                assert relative_error(row.scores, cast(Attribution, other).scores) < 1e-11
                assert row.target == cast(Attribution, other).target
                assert row.seconds >= 0


def is_sick(rows_of: Any, instances: Sequence[Instance]) -> list[bool]:
    """For each row of a batch whether it is the sick instance's."""
    ids = instances[SICK].input_ids.tolist()
    return [row[: len(ids)] == ids and set(row[len(ids) :]) <= {0} for row in rows_of.tolist()]


# Methods that fail ----------------------------------------------------------------------------


def lengths_as_scores(captured: Captured) -> torch.Tensor:
    """Scores by which an instance can be told: its own length at every token."""
    rows = captured.batch.rows
    lengths = rows.attention_mask.sum(1, keepdim=True).to(captured.logits.dtype)
    return lengths.expand(rows.inputs["input_ids"].shape)


def test_a_method_that_raises_for_one_instance(
    model: Model, instances: list[Instance], register_temporary: Callable[..., Method]
) -> None:
    def compute(captured: Captured, params: Params) -> Scores:
        if instances[SICK].instance_id in [i.instance_id for i in captured.batch.instances]:
            raise KeyError("no\nsuch   thing")
        return Scores(lengths_as_scores(captured))

    register_temporary(compute)
    wanted = [*choose("temporary"), *EVERYTHING]
    found = attribute(model, instances, wanted, token_budget=ONE_BATCH)
    check_complete(found, instances, {choice.name for choice in wanted})
    check_same_where_present(
        replace(found, rows={k: v for k, v in found.rows.items() if k != "temporary"}),
        attribute(model, instances, EVERYTHING),
    )
    assert found.failures == [
        Failure("random-2", "attribute", "temporary", "KeyError", "'no\\nsuch thing'")
    ]
    scores = [row and row.scores.tolist() for row in found.rows["temporary"]]
    assert scores == [None if n == SICK else [length] * length for n, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers(
    model: Model, instances: list[Instance], register_temporary: Callable[..., Method], bad: float
) -> None:
    def compute(captured: Captured, params: Params) -> Scores:
        values = lengths_as_scores(captured).clone()
        # What stands at padding doesn't matter.
        values[captured.batch.rows.attention_mask == 0] = bad
        for row, instance in enumerate(captured.batch.instances):
            if instance is instances[SICK]:
                values[row, 3] = bad
        return Scores(values)

    register_temporary(compute)
    found = attribute(model, instances, "temporary", token_budget=ONE_BATCH)
    check_complete(found, instances, {"temporary"})
    assert found.failures == [
        Failure(
            "random-2", "attribute", "temporary", "ArithmeticError", "the scores are not finite"
        )
    ]


def test_a_delta_that_is_no_number(
    model: Model, instances: list[Instance], register_temporary: Callable[..., Method]
) -> None:
    def compute(captured: Captured, params: Params) -> Scores:
        delta = torch.tensor(
            [float("nan") if i is instances[SICK] else 0.5 for i in captured.batch.instances]
        )
        return Scores(lengths_as_scores(captured), delta)

    register_temporary(compute)
    found = attribute(model, instances, "temporary", token_budget=ONE_BATCH)
    check_complete(found, instances, {"temporary"})
    assert [f.instance_id for f in found.failures] == ["random-2"]
    assert {row.delta for row in found.rows["temporary"] if row} == {0.5}


def test_a_method_that_never_works(
    model: Model, instances: list[Instance], register_temporary: Callable[..., Method]
) -> None:
    def compute(captured: Captured, params: Params) -> Scores:
        raise ZeroDivisionError

    register_temporary(compute)
    found = attribute(model, instances, [*choose("temporary"), *EVERYTHING])
    check_complete(found, instances, {"temporary", *(choice.name for choice in EVERYTHING)})
    assert len(found.failures) == len(instances)
    assert {(f.method, f.error, f.message) for f in found.failures} == {
        ("temporary", "ZeroDivisionError", "ZeroDivisionError()")
    }


# Memory ---------------------------------------------------------------------------------------

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]
Errors = pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)


def test_what_out_of_memory_is() -> None:
    assert all(map(is_out_of_memory, OUT_OF_MEMORY))
    assert not is_out_of_memory(RuntimeError("shapes don't match"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


@Errors
@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_a_method_that_runs_out_of_memory(
    model: Model,
    instances: list[Instance],
    register_temporary: Callable[..., Method],
    most: int,
    error: Exception,
) -> None:
    sizes = []

    def compute(captured: Captured, params: Params) -> Scores:
        sizes.append(len(captured.batch))
        if len(captured.batch) > most:
            raise error
        return Scores(lengths_as_scores(captured))

    register_temporary(compute)
    found = attribute(model, instances, "temporary", token_budget=ONE_BATCH)
    assert found.failures == []
    assert [cast(Attribution, row).scores.tolist() for row in found.rows["temporary"]] == [
        [length] * length for length in LENGTHS
    ]
    assert sizes[0] == len(instances)


@Errors
@pytest.mark.parametrize("most", [1, 2, 3, 4])
@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_runs_out_of_memory(
    tiny: LoadTiny,
    instead_of_run: Callable[[Any], None],
    task: str,
    most: int,
    error: Exception,
) -> None:
    """Neither the batch nor the steps of a path may be larger than memory allows."""
    model = tiny("bert", task, "float64")
    instances = random_instances(model, LENGTHS)
    expected = attribute(model, instances, EVERYTHING, token_budget=ONE_BATCH)

    def run(real: Run, rows: Any) -> Any:
        if len(rows) > most:
            raise error
        return real()

    instead_of_run(run)
    found = attribute(model, instances, EVERYTHING, token_budget=ONE_BATCH)
    assert found.failures == []
    check_complete(found, instances, {choice.name for choice in EVERYTHING})
    check_same_where_present(found, expected)


def test_an_instance_too_large_for_memory(
    model: Model, instances: list[Instance], instead_of_run: Callable[[Any], None]
) -> None:
    def run(real: Run, rows: Any) -> Any:
        if rows.length > 9:
            raise torch.OutOfMemoryError("too long")
        return real()

    expected = attribute(model, instances, EVERYTHING)
    instead_of_run(run)
    found = attribute(model, instances, EVERYTHING, token_budget=ONE_BATCH)
    check_complete(found, instances, {choice.name for choice in EVERYTHING})
    check_same_where_present(found, expected)
    assert found.failures == [Failure("random-2", "forward", None, "OutOfMemoryError", "too long")]


# Models that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers(
    model: Model, instances: list[Instance], instead_of_run: Callable[[Any], None], bad: float
) -> None:
    def run(real: Run, rows: Any) -> Any:
        logits, recorder = real()
        sick = torch.tensor(is_sick(rows.inputs["input_ids"], instances))
        return logits.masked_fill(sick[:, None], bad), recorder

    expected = attribute(model, instances, EVERYTHING)
    instead_of_run(run)
    found = attribute(model, instances, EVERYTHING, token_budget=ONE_BATCH)
    check_complete(found, instances, {choice.name for choice in EVERYTHING})
    check_same_where_present(found, expected)
    (only,) = found.failures
    assert only[:4] == ("random-2", "forward", None, "ArithmeticError")
    assert only.message.startswith("the model's logits are not finite: [")


def test_an_instance_that_failed_does_not_fail_again(
    model: Model,
    instances: list[Instance],
    instead_of_run: Callable[[Any], None],
    register_temporary: Callable[..., Method],
) -> None:
    def run(real: Run, rows: Any) -> Any:
        logits, recorder = real()
        sick = torch.tensor(is_sick(rows.inputs["input_ids"], instances))
        return logits.masked_fill(sick[:, None], torch.nan), recorder

    def compute(captured: Captured, params: Params) -> Scores:
        if not captured.logits.isfinite().all():
            raise ValueError("can't work with these")
        return Scores(lengths_as_scores(captured))

    instead_of_run(run)
    register_temporary(compute)
    found = attribute(model, instances, "temporary", token_budget=ONE_BATCH)
    check_complete(found, instances, {"temporary"})
    assert [f[:3] for f in found.failures] == [("random-2", "forward", None)]


def test_weights_that_are_no_numbers(tiny_folder: Any) -> None:
    # A token whose embedding is broken spoils the instances it is in, and no others.
    model = load_model(tiny_folder("bert", "classification"))
    instances = random_instances(model, LENGTHS)
    used = [set(instance.input_ids.tolist()) for instance in instances]
    broken = max(used[SICK] - set().union(*(ids for n, ids in enumerate(used) if n != SICK)))
    with torch.no_grad():
        model.network.get_submodule("bert.embeddings.word_embeddings").weight[broken] = torch.nan
    found = attribute(model, instances, EVERYTHING, token_budget=ONE_BATCH)
    check_complete(found, instances, {choice.name for choice in EVERYTHING})
    assert [f[:3] for f in found.failures] == [("random-2", "forward", None)]


def test_an_instance_that_breaks_the_model(
    model: Model, instances: list[Instance], instead_of_run: Callable[[Any], None]
) -> None:
    def run(real: Run, rows: Any) -> Any:
        if any(is_sick(rows.inputs["input_ids"], instances)):
            raise IndexError("index out of range in self")
        return real()

    expected = attribute(model, instances, EVERYTHING)
    instead_of_run(run)
    found = attribute(model, instances, EVERYTHING, token_budget=ONE_BATCH)
    check_complete(found, instances, {choice.name for choice in EVERYTHING})
    check_same_where_present(found, expected)
    assert found.failures == [
        Failure("random-2", "forward", None, "IndexError", "index out of range in self")
    ]


def test_a_missing_gold_label_is_one_failure(model: Model, instances: list[Instance]) -> None:
    instances[SICK] = replace(instances[SICK], label=None)
    found = attribute(model, instances, EVERYTHING, target="gold", token_budget=ONE_BATCH)
    check_complete(found, instances, {choice.name for choice in EVERYTHING})
    assert [f.instance_id for f in found.failures] == ["random-2"]


# Targets --------------------------------------------------------------------------------------


def explained(found: Attributions, method: str = "saliency") -> list[int | None]:
    assert found.failures == []
    return [cast(Attribution, row).target for row in found.rows[method]]


def test_targets_of_a_classifier(model: Model, instances: list[Instance]) -> None:
    automatic = attribute(model, instances, "saliency,raw_attention")
    predicted = [cast(Any, p).logits.argmax() for p in automatic.predictions]
    assert explained(automatic) == predicted
    assert explained(automatic, "raw_attention") == [None] * 5
    assert explained(attribute(model, instances, "saliency", target="predicted")) == predicted
    gold = [instance.label for instance in instances]
    assert gold != predicted
    assert explained(attribute(model, instances, "saliency", target="gold")) == gold
    assert explained(attribute(model, instances, "saliency", target=2)) == [2] * 5
    assert explained(attribute(model, instances, "saliency", target="1")) == [1] * 5
    assert [p.target for p in automatic.predictions if p] == predicted
    shares = [p.probabilities.sum() for p in automatic.predictions if p]
    assert shares == pytest.approx([1] * 5)


def test_targets_of_a_masked_lm(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm", "float64")
    instances = random_instances(model, LENGTHS)
    automatic = attribute(model, instances, "grad_x_input")
    assert explained(automatic, "grad_x_input") == [0] * 5
    predicted = attribute(model, instances, "grad_x_input", target="predicted")
    assert set(explained(predicted, "grad_x_input")) == {0, 1}
    # Explaining the wrong word explains the contrast the other way round.
    wrong = attribute(model, instances, "grad_x_input", target=1)
    for ours, theirs in zip(
        automatic.rows["grad_x_input"], wrong.rows["grad_x_input"], strict=True
    ):
        np.testing.assert_allclose(
            cast(Attribution, ours).scores, -cast(Attribution, theirs).scores, atol=1e-13
        )


@pytest.mark.parametrize("target", ["best", "-1", "3", 3, "1.0"])
def test_targets_that_are_refused(
    model: Model, instances: list[Instance], target: str | int
) -> None:
    with pytest.raises(UsageError, match="--target"):
        attribute(model, instances, "saliency", target=target)


# The rest -------------------------------------------------------------------------------------


def test_progress_counts_every_instance(model: Model, instances: list[Instance]) -> None:
    counts: list[float] = []
    attribute(model, instances, "random", token_budget=20, progress=counts.append)
    assert sum(counts) == pytest.approx(len(instances))
    assert len(counts) > 1


def test_progress_of_a_batch_goes_with_the_cost_of_its_methods(
    model: Model, instances: list[Instance]
) -> None:
    counts: list[float] = []
    attribute(model, instances, ["saliency", "occlusion"], progress=counts.append)
    chosen = {choice.name: choice.passes for choice in choose("saliency,occlusion")}
    cheap, dear = counts[:2]
    assert dear / cheap == pytest.approx(chosen["occlusion"] / chosen["saliency"])
    assert sum(counts) == pytest.approx(len(instances))


def test_nothing_to_do(model: Model, instances: list[Instance]) -> None:
    assert attribute(model, [], "saliency") == Attributions([], {"saliency": []}, [])
    bare = attribute(model, instances, [])
    assert bare.rows == {}
    assert all(prediction is not None for prediction in bare.predictions)


def test_methods_by_any_name(model: Model, instances: list[Instance]) -> None:
    mixed = attribute(model, instances, ["saliency", *choose("random")])
    assert list(mixed.rows) == ["saliency", "random"]
    with pytest.raises(UsageError, match="did you mean saliency"):
        attribute(model, instances, "salience")


def test_halving_keeps_the_order_and_finds_the_culprit() -> None:
    calls: list[list[int]] = []

    def work(part: Sequence[int]) -> int:
        calls.append(list(part))
        if 7 in part:
            raise ValueError("seven")
        return sum(part)

    outcome = halving(work, [4, 5, 6, 7, 8, 9])
    assert [list(part) for part, _ in outcome] == [[4, 5, 6], [7], [8, 9]]
    assert [result for _, result in outcome if isinstance(result, int)] == [15, 17]
    assert isinstance(outcome[1][1], ValueError)
    assert calls == [[4, 5, 6, 7, 8, 9], [4, 5, 6], [7, 8, 9], [7], [8, 9]]


def test_halving_does_not_hide_an_interruption() -> None:
    def work(part: Sequence[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        halving(work, [1, 2])


def test_messages_are_cut_and_put_on_one_line(model: Model) -> None:
    instance = replace(random_instances(model, [5])[0], instance_id="id")
    row = failure(instance, "attribute", "random", ValueError("two\n  lines " + "x" * 9990))
    assert row.message.startswith("two lines xxx")
    assert "xx [... cut: 10,000 characters ...] xx" in row.message
    assert len(row.message) == 1000
    assert (row.instance_id, row.stage, row.method, row.error) == (
        "id",
        "attribute",
        "random",
        "ValueError",
    )


def test_seconds_are_shared_by_tokens(model: Model, instances: list[Instance]) -> None:
    found = attribute(model, instances, "saliency,random", token_budget=ONE_BATCH)
    seconds = [cast(Attribution, row).seconds for row in found.rows["saliency"]]
    per_token = np.array(seconds) / np.array(LENGTHS)
    np.testing.assert_allclose(per_token, per_token[0])
    assert all(cast(Attribution, row).seconds > 0 for row in found.rows["random"])


def test_cost_counts_shared_passes_in_full(model: Model, instances: list[Instance]) -> None:
    path = Path("zero", 2, "left")
    needs = frozenset({Forward(attention=True), Backward(), path})
    captured = Captured(model, collate(model, instances), 0, 1000, 0, needs)
    captured(path)
    forward, backward = captured.cost([Forward(True)]), captured.cost([Backward()])
    # A backward pass includes the forward pass that it goes back over.
    assert 0 < forward < backward
    assert captured.cost([Forward(False)]) == forward
    assert captured.cost([Backward(), path]) == backward + captured.seconds[path]
    assert captured.cost([]) == 0
