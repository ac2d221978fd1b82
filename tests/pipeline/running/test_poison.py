"""One bad instance among others: under every method, and through a whole run, it fails alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attribeam.analysis import verify
from attribeam.pipeline import Options, run
from attribeam.schemas import Failure
from attribeam.transforms import Attributions, Instance, Model, attribute, choose, methods
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.inputs.variants import Variants
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.recovery import is_out_of_memory
from attribeam.transforms.registry import _METHODS, Scores
from tests.conftest import LoadTiny
from tests.support.conditioning import SINGLE
from tests.support.models import (
    USUAL_METHODS,
    random_instances,
    relative_error,
    statistics_of,
)
from tests.support.tiny import rows, table, write_jsonl

# The sick one is so long that its attention takes more numbers than anything of the others, or than
# products of weights.
LENGTHS = [9, 7, 46, 9, 8]
SICK = 2
# A few steps are enough to see who is to blame.
FEW: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 3},
    "iba": {"steps": 3, "copies": 2},
    "iba_released": {"steps": 3},
    "influence": {"points": 3},
    "pattern_ablation": {"points": 3},
    "attattr": {"steps": 3, "most": 6},
    "attattr_colsum": {"steps": 3, "most": 6},
    "bt_token": {"steps": 3},
    "bt_head": {"steps": 3},
    "lime": {"samples": 8},
    "kernel_shap": {"samples": 8},
    "context_cite": {"samples": 8, "unit": "token"},
}

pytestmark = pytest.mark.usefixtures("padding_at_will")


@pytest.fixture(scope="module")
def model(tiny: LoadTiny) -> Model:
    return tiny("bert", "classification", "float64")


@pytest.fixture(scope="module")
def instances(model: Model) -> list[Instance]:
    return random_instances(model, LENGTHS)


@pytest.fixture(scope="module")
def undisturbed(model: Model, instances: list[Instance]) -> Callable[[str], Attributions]:
    found: dict[str, Attributions] = {}

    def of(name: str) -> Attributions:
        if name not in found:
            found[name] = under(model, instances, name)
            assert found[name].failures == []
        return found[name]

    return of


def under(
    model: Model, instances: Sequence[Instance], name: str, token_budget: int = 1_000_000
) -> Attributions:
    """What a method says of instances, by default all of them in one batch."""
    known = methods()[name].defaults
    params = {key: value for key, value in FEW.get(name, {}).items() if key in known}
    (choice,) = choose(name, {name: params})
    statistics = statistics_of(model)
    return attribute(model, instances, [choice], token_budget=token_budget, statistics=statistics)


def check_alone(found: Attributions, expected: Attributions, name: str, error: str) -> None:
    """The sick instance has failed, and the others are as they would have been without it."""
    assert [failure[:4] for failure in found.failures] == [
        (f"random-{SICK}", "attribute", name, error)
    ]
    for at, (row, other) in enumerate(zip(found.rows[name], expected.rows[name], strict=True)):
        if at == SICK:
            assert row is None
            continue
        assert row is not None and other is not None
        if other.scores.size and np.abs(other.scores).max() > 0:
            assert relative_error(row.scores, other.scores) < 1e-9
        assert (row.target, sorted(row.details)) == (other.target, sorted(other.details))


Compute = Callable[[], Scores]


def poisoned(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[int, Compute], Scores]
) -> None:
    """Changes what a method does where the sick instance is, at some row of the batch."""
    method = methods()[name]

    def compute(captured: Any, params: Any) -> Scores:
        names = [instance.instance_id for instance in captured.batch.instances]
        if f"random-{SICK}" not in names:
            return method.compute(captured, params)
        row = names.index(f"random-{SICK}")
        return change(row, lambda: method.compute(captured, params))

    monkeypatch.setitem(_METHODS, name, replace(method, compute=compute))


@pytest.mark.parametrize("name", USUAL_METHODS)
def test_it_raises(
    model: Model,
    instances: list[Instance],
    undisturbed: Callable[[str], Attributions],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def raising(row: int, compute: Compute) -> Scores:
        raise ZeroDivisionError("on purpose")

    expected = undisturbed(name)
    poisoned(monkeypatch, name, raising)
    check_alone(under(model, instances, name), expected, name, "ZeroDivisionError")


@pytest.mark.parametrize("name", [name for name in USUAL_METHODS if methods()[name].scored])
def test_it_is_no_number(
    model: Model,
    instances: list[Instance],
    undisturbed: Callable[[str], Attributions],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def unfinite(row: int, compute: Compute) -> Scores:
        scores = compute()
        values = scores.values.clone()
        values[row, 1] = float("nan")
        return replace(scores, values=values)

    expected = undisturbed(name)
    poisoned(monkeypatch, name, unfinite)
    check_alone(under(model, instances, name), expected, name, "ArithmeticError")


class _Allocator(TorchDispatchMode):
    """An allocator with too little memory for tensors of more than some numbers."""

    def __init__(self, most: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = most
        self.largest = 0
        self.refused = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        for tensor in out if isinstance(out, tuple | list) else (out,):
            # Another view of what is there takes no memory.
            new = isinstance(tensor, torch.Tensor)
            if new and tensor.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, tensor.numel())
                if tensor.numel() > self.most:
                    self.refused += 1
                    raise torch.OutOfMemoryError("CUDA out of memory (fake)")
        return out


@pytest.mark.parametrize("name", USUAL_METHODS)
def test_it_is_too_large(
    model: Model,
    instances: list[Instance],
    undisturbed: Callable[[str], Attributions],
    name: str,
) -> None:
    """With memory for each of the others alone, a copy at a time, and not for the longest."""
    others = [instance for at, instance in enumerate(instances) if at != SICK]
    expected = undisturbed(name)
    with _Allocator(float("inf")) as alone:
        assert under(model, others, name, token_budget=1).failures == []
    with _Allocator(alone.largest) as memory:
        found = under(model, instances, name)
    assert memory.refused > 1
    (failure,) = found.failures
    assert (failure.instance_id, failure.error) == (f"random-{SICK}", "OutOfMemoryError")
    check_alone(
        replace(found, failures=[failure._replace(stage="attribute", method=name)]),
        *(expected, name, "OutOfMemoryError"),
    )


def test_what_the_allocators_say() -> None:
    for text in (
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 8000000000000 bytes. Error code 12 (Cannot allocate memory)",
        "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: "
        "you tried to allocate 8000000000000 bytes.",
    ):
        assert is_out_of_memory(RuntimeError(text))


def test_the_real_allocator() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.int8)
    assert is_out_of_memory(caught.value)


# Through a run --------------------------------------------------------------------------------

COUNT, LONGEST = 10, 12
EVALUATION = Evaluation(fractions=(0.5,), orders=("morf",))
METHODS = "saliency,occlusion,integrated_gradients"


def run_tiny(model: Path, corpus: Path, out: Path) -> None:
    run(
        Options(
            *(str(model), str(corpus), str(out)),
            methods=METHODS,
            params={"integrated_gradients": {"steps": 3}},
            evaluation=EVALUATION,
            device="cpu",
            shard_size=4,
        )
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "c.jsonl", rows(COUNT))


@pytest.fixture(scope="module")
def healthy(
    tiny_folder: Callable[[str], Path], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("healthy")
    run_tiny(tiny_folder("bert"), corpus, out)
    return out


def values(folder: Path, name: str, column: str, but: str) -> dict[tuple[str, ...], Any]:
    found = {}
    for method in METHODS.split(","):
        for row in table(folder, name, method).to_pylist():
            key = (row["instance_id"], method, *(str(row.get(k)) for k in ("order", "fraction")))
            if row["instance_id"] != but:
                found[key] = row[column]
    return found


@pytest.fixture
def longest_is_sick(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Lets the longest text raise in the model, or have logits that are no numbers."""

    def put(error: Exception | None) -> None:
        def run(self: Model, rows: Rows, **more: Any) -> Any:
            sick = rows.attention_mask.sum(1) == LONGEST
            if error is not None and bool(sick.any()):
                raise error
            logits, recorder = original(self, rows, **more)
            return logits.masked_fill(sick[:, None], float("nan")), recorder

        monkeypatch.setattr(Model, "run", run)

    original = Model.run
    return put


@pytest.mark.parametrize(
    "error",
    [None, KeyError("gone"), torch.OutOfMemoryError("fake"), RuntimeError("can't allocate memory")],
    ids=["NaN", "raises", "memory", "host memory"],
)
def test_it_fails_alone_in_a_run(
    tiny_folder: Callable[[str], Path],
    corpus: Path,
    healthy: Path,
    longest_is_sick: Callable[[Exception | None], None],
    tmp_path: Path,
    error: Exception | None,
) -> None:
    longest_is_sick(error)
    run_tiny(tiny_folder("bert"), corpus, tmp_path)
    report = verify(tmp_path)
    assert report.problems == []
    every = table(healthy, "instances").to_pylist()
    (sick,) = (row["instance_id"] for row in every if len(row["tokens"]) == LONGEST)
    kind = "ArithmeticError" if error is None else type(error).__name__
    failures = [Failure(**row) for row in table(tmp_path, "failures").to_pylist()]
    assert [failure[:4] for failure in failures] == [(sick, "forward", None, kind)]
    for name, column in (("attributions", "scores"), ("curves", "probability")):
        found, wanted = values(tmp_path, name, column, sick), values(healthy, name, column, sick)
        assert set(found) == set(wanted)
        for key, value in wanted.items():
            np.testing.assert_allclose(
                found[key], value, rtol=SINGLE, atol=SINGLE, err_msg=str(key)
            )


def test_a_perturbed_input_fails_its_curves_alone(
    tiny_folder: Callable[[str], Path],
    corpus: Path,
    healthy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory runs out for every copy of one text with tokens removed."""
    original = Variants._forward

    def forward(self: Variants, numbers: Sequence[int]) -> Any:
        lengths = [len(self._runs[number].instance) for number in numbers]
        if LONGEST in lengths:
            raise torch.OutOfMemoryError("fake")
        return original(self, numbers)

    monkeypatch.setattr(Variants, "_forward", forward)
    run_tiny(tiny_folder("bert"), corpus, tmp_path)
    assert verify(tmp_path).problems == []
    failures = table(tmp_path, "failures").to_pylist()
    assert {(row["stage"], row["method"]) for row in failures} == {
        *(("perturb", name) for name in ("saliency", "integrated_gradients")),
        ("attribute", "occlusion"),
    }
    (sick,) = {row["instance_id"] for row in failures}
    found = values(tmp_path, "curves", "probability", sick)
    wanted = values(healthy, "curves", "probability", sick)
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=SINGLE, atol=SINGLE)
