"""The work of a shard: every row accounted for, and the same whenever it is done."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from attribeam.pipeline.running.graph import write_unit
from attribeam.pipeline.running.missing import Task, units_of_run
from attribeam.pipeline.running.shard import Attributor, Shard, UnitResult
from attribeam.pipeline.running.weighing import weigher
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import Written
from attribeam.schemas import Failure, Unit, failures_path, table_schema, unit_path
from attribeam.schemas.index import Entry
from attribeam.transforms import EncodeOptions, Instance, Model, Row, registry
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.inputs.targets import parse_explain
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.registry import LayerScores, Method, Params, Scores
from tests.support.conditioning import SINGLE
from tests.support.models import MAX_LENGTH
from tests.support.tiny import assert_alike, content, files, rows, table, texts

METHODS = ("saliency", "integrated_gradients", "random")
EVALUATION = Evaluation(fractions=(0.25, 0.5), operations=("mask", "delete"))
INSTANCES = Unit("instances")
COUNT = 8

Compute = Callable[[Captured, Params], Scores]
AddMethod = Callable[..., str]


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Model]) -> Model:
    return tiny("bert")


@pytest.fixture(scope="module")
def corpus() -> list[Row]:
    return [Row(row["id"], row["text"], label=row["label"]) for row in rows(COUNT)]


def attributor(
    model: Model, out: Path, methods: Sequence[str] = METHODS, **changes: Any
) -> Attributor:
    params = {c.name: dict(c.params) for c in registry.choose(list(methods))}
    if "integrated_gradients" in params:
        params["integrated_gradients"]["steps"] = 3
    settings = Settings(
        model="unused",
        model_name="tiny",
        output=str(out),
        num_shards=1,
        target="predicted",
        scalar=parse_explain("auto", model),
        seed=0,
        dtype=str(model.dtype).removeprefix("torch."),
        encoding=EncodeOptions(MAX_LENGTH),
        methods=params,
        evaluation=EVALUATION,
    )
    return Attributor(replace(settings, **changes), model)


def process(
    worker: Attributor, rows: Sequence[Row], units: Sequence[Unit] | None = None
) -> dict[Unit, UnitResult]:
    """Does units of a shard (all of them by default) and commits them."""
    evaluate = worker.settings.evaluation is not None
    settings = worker.settings
    everything = units_of_run(
        {c.name: c.tables(layers=settings.layers, evaluate=evaluate) for c in settings.chosen}
    )
    todo = everything if units is None else units
    results = worker.process(Shard(Task(0, 1, tuple(todo)), rows))
    assert [result.unit for result in results] == list(todo)
    for result in results:
        write_unit(result, worker.settings.output)
    return {result.unit: result for result in results}


def ids(result: UnitResult) -> list[str]:
    return [str(name) for name in result.table["instance_id"].to_pylist()]


def failed(result: UnitResult) -> list[tuple[str, str, str | None, str]]:
    """What failed but for the message."""
    return [failure[:4] for failure in result.failures]


# Everything at once


@pytest.fixture(scope="module")
def whole(
    model: Model, corpus: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[Unit, UnitResult]]:
    """A shard done in one go: its folder and results."""
    out = tmp_path_factory.mktemp("whole")
    return out, process(attributor(model, out), corpus)


def test_every_unit_has_every_instance_in_order(
    whole: tuple[Path, dict[Unit, UnitResult]],
) -> None:
    expected = [f"r{number}" for number in range(COUNT)]
    points = 3 * 2 * (2 + len(EVALUATION.fractions))
    for unit, result in whole[1].items():
        assert not result.failures
        assert result.table.schema.equals(table_schema(unit.table))
        if unit.table == "curves":
            assert Counter(ids(result)) == dict.fromkeys(expected, points)
        else:
            assert ids(result) == expected


def test_there_is_a_score_per_token(whole: tuple[Path, dict[Unit, UnitResult]]) -> None:
    out, _ = whole
    lengths = [len(tokens) for tokens in table(out, "instances")["tokens"].to_pylist()]
    for method in METHODS:
        found = table(out, "attributions", method)
        assert [len(scores) for scores in found["scores"].to_pylist()] == lengths
        assert set(found["method"].to_pylist()) == {method}


def test_special_tokens_belong_to_no_word(whole: tuple[Path, dict[Unit, UnitResult]]) -> None:
    out, _ = whole
    for row in table(out, "instances").to_pylist():
        inner = len(row["tokens"]) - 2
        assert row["word_ids"] == [None, *range(inner), None]
        assert [start is None for start in row["char_start"]] == row["special"]
        assert [end is None for end in row["char_end"]] == row["special"]
        assert row["special"] == [True, *[False] * inner, True]


def test_curves_follow_the_class_explained(whole: tuple[Path, dict[Unit, UnitResult]]) -> None:
    out, _ = whole
    predictions = {row["instance_id"]: row for row in table(out, "instances").to_pylist()}
    for row in table(out, "curves", "saliency").to_pylist():
        if row["fraction"] == 0:
            instance = predictions[row["instance_id"]]
            assert row["probability"] == pytest.approx(max(instance["probabilities"]), abs=1e-6)
            assert row["prediction"] == instance["prediction"]


def test_files_say_what_they_hold(whole: tuple[Path, dict[Unit, UnitResult]]) -> None:
    metadata = table(whole[0], "attributions", "integrated_gradients").schema.metadata
    assert metadata[b"attribeam.unit"] == b"attributions.integrated_gradients"
    assert b'"steps": 3' in metadata[b"attribeam.params"]
    assert metadata[b"attribeam.model"] == b"tiny"


def test_progress_adds_up_to_the_shard(model: Model, corpus: list[Row], tmp_path: Path) -> None:
    steps: list[float] = []
    worker = replace(attributor(model, tmp_path, token_budget=20), progress=steps.append)
    process(worker, corpus)
    assert len(steps) > 2
    units = units_of_run(worker.settings.tables)
    assert sum(steps) == pytest.approx(COUNT * sum(map(weigher(worker.settings), units)))


def test_double_precision_is_kept(
    tiny: Callable[..., Model], corpus: list[Row], tmp_path: Path
) -> None:
    results = process(attributor(tiny("bert", dtype="float64"), tmp_path), corpus[:2])
    for unit, result in results.items():
        assert result.table.schema.equals(table_schema(unit.table, double=True))
    scores = results[Unit("attributions", "saliency")].table["scores"].to_pylist()[1]
    assert any(score != float(np.float32(score)) for score in scores)


# In parts


def test_lost_curves_are_the_same_again(
    model: Model,
    corpus: list[Row],
    whole: tuple[Path, dict[Unit, UnitResult]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are ranked by the committed scores; no method is run."""
    worker = attributor(model, tmp_path)
    process(worker, corpus)
    lost = [unit for unit in whole[1] if unit.table == "curves"]
    for unit in lost:
        (tmp_path / unit_path(unit, 0, 1)).unlink()

    def no(*_: object) -> Scores:
        raise AssertionError("a method was run")

    for name in METHODS:
        method = replace(registry.methods()[name], compute=no)
        monkeypatch.setitem(registry._METHODS, name, method)
    process(worker, corpus, lost)
    assert content(tmp_path) == content(whole[0])


@pytest.mark.parametrize("table_name", ["instances", "attributions", "curves"])
def test_one_lost_file_is_the_same_again(
    table_name: str,
    model: Model,
    corpus: list[Row],
    whole: tuple[Path, dict[Unit, UnitResult]],
    tmp_path: Path,
) -> None:
    worker = attributor(model, tmp_path)
    process(worker, corpus)
    unit = Unit(table_name, None if table_name == "instances" else "integrated_gradients")
    result = process(worker, corpus, [unit])[unit]
    before = whole[1][unit].table
    assert ids(result) == [str(name) for name in before["instance_id"].to_pylist()]
    values = {"instances": "logits", "attributions": "scores", "curves": "logit"}[table_name]
    for new, old in zip(result.table[values].to_pylist(), before[values].to_pylist(), strict=True):
        assert new == pytest.approx(old, rel=SINGLE, abs=SINGLE)


def test_a_method_added_later_is_as_if_it_had_been_there(
    model: Model, corpus: list[Row], whole: tuple[Path, dict[Unit, UnitResult]], tmp_path: Path
) -> None:
    process(attributor(model, tmp_path, METHODS[1:]), corpus)
    later = [Unit("attributions", METHODS[0]), Unit("curves", METHODS[0])]
    process(attributor(model, tmp_path, METHODS), corpus, later)
    assert files(tmp_path) == files(whole[0])
    for unit in later:
        column = "scores" if unit.table == "attributions" else "probability"
        found = table(tmp_path, unit.table, unit.method)[column].to_pylist()
        expected = table(whole[0], unit.table, unit.method)[column].to_pylist()
        for new, old in zip(found, expected, strict=True):
            assert new == pytest.approx(old, rel=SINGLE, abs=SINGLE)


# Failures


def test_rows_that_cannot_be_encoded(model: Model, corpus: list[Row], tmp_path: Path) -> None:
    bad = [
        Row("unread", problem="line 7 is not JSON"),
        Row("empty", ""),
        Row("blank", " \n"),
        Row("label", "the film", label=9),
        Row("long", "the film " * 30),
        Row("rationale", "the film", rationale=[1]),
    ]
    encoding = EncodeOptions(MAX_LENGTH, overflow="fail")
    mixed = [row for pair in zip(bad, corpus, strict=False) for row in pair]
    results = process(attributor(model, tmp_path, encoding=encoding), mixed)
    assert failed(results[INSTANCES]) == [
        ("unread", "read", None, "RowError"),
        *((row.instance_id, "encode", None, "RowError") for row in bad[1:]),
    ]
    good = [row.instance_id for row in corpus[: len(bad)]]
    for unit, result in results.items():
        assert sorted(set(ids(result))) == good
        assert unit == INSTANCES or not result.failures
    messages = {failure.instance_id: failure.message for failure in results[INSTANCES].failures}
    assert messages["unread"] == "line 7 is not JSON"
    assert messages["long"].startswith("62 tokens, but the limit is 48")


def test_a_shard_of_nothing_but_failures(model: Model, tmp_path: Path) -> None:
    results = process(attributor(model, tmp_path), [Row("a", ""), Row("b", problem="no")])
    assert len(results[INSTANCES].failures) == 2
    for unit, result in results.items():
        assert len(result.table) == 0
        assert result.table.schema.equals(table_schema(unit.table))


def poisoned(model: Model, word: str) -> Model:
    """A model that gives nothing but NaN for texts with a word."""
    assert model.tokenizer is not None
    network = deepcopy(model.network)
    number = model.tokenizer.convert_tokens_to_ids(word)
    network.get_input_embeddings().weight.data[number] = float("nan")
    return replace(model, network=network)


def with_word(corpus: Sequence[Row], word: str) -> set[str]:
    found = {row.instance_id for row in corpus if word in (row.text or "").split()}
    assert 0 < len(found) < len(corpus)
    return found


def test_logits_that_are_no_numbers(
    model: Model, corpus: list[Row], whole: tuple[Path, dict[Unit, UnitResult]], tmp_path: Path
) -> None:
    bad = with_word(corpus, "play")
    results = process(attributor(poisoned(model, "play"), tmp_path), corpus)
    assert set(failed(results[INSTANCES])) == {
        (name, "forward", None, "ArithmeticError") for name in bad
    }
    for unit, result in results.items():
        assert set(ids(result)) == {row.instance_id for row in corpus} - bad
        assert unit == INSTANCES or not result.failures
    clean = dict(zip(ids(whole[1][INSTANCES]), whole[1][INSTANCES].table["logits"], strict=True))
    found = results[INSTANCES]
    for name, logits in zip(ids(found), found.table["logits"], strict=True):
        assert logits.as_py() == pytest.approx(clean[name].as_py(), rel=SINGLE, abs=SINGLE)


@pytest.fixture
def failing_network(model: Model) -> Iterator[Callable[[Callable[[torch.Tensor], bool]], Model]]:
    """Gives models that raise for rows of ids with some property."""
    handles = []

    def make(bad: Callable[[torch.Tensor], bool]) -> Model:
        network = deepcopy(model.network)

        def check(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if any(bad(row) for row in kwargs["input_ids"]):
                raise RuntimeError("the machine is on fire")

        inner = network.base_model
        handles.append(inner.register_forward_pre_hook(check, with_kwargs=True))
        return replace(model, network=network)

    yield make
    for handle in handles:
        handle.remove()


def test_a_forward_pass_that_raises(
    model: Model,
    corpus: list[Row],
    failing_network: Callable[[Callable[[torch.Tensor], bool]], Model],
    tmp_path: Path,
) -> None:
    assert model.tokenizer is not None
    play = model.tokenizer.convert_tokens_to_ids("play")
    bad = with_word(corpus, "play")
    results = process(
        attributor(failing_network(lambda row: bool((row == play).any())), tmp_path), corpus
    )
    first = results[INSTANCES]
    assert set(failed(first)) == {(name, "forward", None, "RuntimeError") for name in bad}
    assert {failure.message for failure in first.failures} == {"the machine is on fire"}
    for result in results.values():
        assert set(ids(result)) == {row.instance_id for row in corpus} - bad


@pytest.mark.parametrize("at_first", ["well", "badly"])
def test_a_machine_that_fails_at_times(
    at_first: str,
    model: Model,
    corpus: list[Row],
    failing_network: Callable[[Callable[[torch.Tensor], bool]], Model],
    tmp_path: Path,
) -> None:
    """Whatever a later call can or can't do: what it adds is for the instances of the first."""
    assert model.tokenizer is not None
    play = model.tokenizer.convert_tokens_to_ids("play")
    bad = with_word(corpus, "play")
    broken = failing_network(lambda row: bool((row == play).any()))
    first, second = (model, broken) if at_first == "well" else (broken, model)
    process(attributor(first, tmp_path, ("random", "grad_x_input")), corpus)
    lost = Unit("curves", "random")
    (tmp_path / unit_path(lost, 0, 1)).unlink()
    added = [Unit("attributions", "saliency"), Unit("curves", "saliency"), lost]
    methods = ("random", "grad_x_input", "saliency")
    results = process(attributor(second, tmp_path, methods), corpus, added)
    attributed, perturbed, again = (results[unit] for unit in added)
    for result in (attributed, perturbed, again):
        assert set(ids(result)) == {row.instance_id for row in corpus} - bad
    if at_first == "badly":
        assert not any(result.failures for result in results.values())
    else:
        assert set(failed(attributed)) == {
            (name, "attribute", "saliency", "RuntimeError") for name in bad
        }
        assert not perturbed.failures
        assert set(failed(again)) == {(name, "perturb", "random", "RuntimeError") for name in bad}


def test_a_perturbed_input_that_raises(
    model: Model,
    corpus: list[Row],
    failing_network: Callable[[Callable[[torch.Tensor], bool]], Model],
    tmp_path: Path,
) -> None:
    """Rows are attributed, and lack only the curves."""
    assert model.tokenizer is not None
    play, mask = model.tokenizer.convert_tokens_to_ids("play"), model.mask_id
    bad = with_word(corpus, "play")
    broken = failing_network(lambda row: bool((row == play).any() and (row == mask).any()))
    results = process(attributor(broken, tmp_path, ("saliency", "random")), corpus)
    for unit, result in results.items():
        if unit.table == "curves":
            assert set(failed(result)) == {
                (name, "perturb", unit.method, "RuntimeError") for name in bad
            }
            assert set(ids(result)) == {row.instance_id for row in corpus} - bad
        else:
            assert not result.failures
            assert len(result.table) == COUNT


@pytest.fixture
def add_method(monkeypatch: pytest.MonkeyPatch) -> AddMethod:
    """Adds a method that is computed by the given function to the registry."""

    def add(compute: Compute, *, layered: str | None = None) -> str:
        registry.methods()
        method = Method(
            name="fragile",
            compute=compute,
            needs=lambda params: (Forward(),),
            defaults={},
            signed=True,
            class_dependent=True,
            additive=False,
            cost="1 F",
            paper="none",
            equation="1",
            layered=layered,
        )
        monkeypatch.setitem(registry._METHODS, method.name, method)
        return method.name

    return add


def ones(captured: Captured) -> torch.Tensor:
    return torch.ones(captured.batch.rows.inputs["input_ids"].shape)


def position(instances: Sequence[Instance], name: str) -> int | None:
    return next((n for n, i in enumerate(instances) if i.instance_id == name), None)


def raising(captured: Captured, params: Params) -> Scores:
    if position(captured.batch.instances, "r3") is not None:
        raise ValueError("not\n  this one")
    return Scores(ones(captured))


def not_a_number(captured: Captured, params: Params) -> Scores:
    scores = ones(captured)
    at = position(captured.batch.instances, "r3")
    if at is not None:
        scores[at, 1] = float("inf")
    return Scores(scores)


def too_large(captured: Captured, params: Params) -> Scores:
    """A number that float32, which tables are of, doesn't know."""
    scores = ones(captured).double()
    at = position(captured.batch.instances, "r3")
    if at is not None:
        scores[at, 1] = -1e39
    return Scores(scores)


def too_large_a_gap(captured: Captured, params: Params) -> Scores:
    scores = too_large(captured, params).values
    return Scores(ones(captured), delta=scores.amin(1))


TOO_LARGE = "the scores are too large for float32; --dtype float64 can hold them"


@pytest.mark.parametrize(
    ("compute", "error", "message"),
    [
        (raising, "ValueError", "not this one"),
        (not_a_number, "ArithmeticError", "the scores are not finite"),
        (too_large, "OverflowError", TOO_LARGE),
        (too_large_a_gap, "OverflowError", TOO_LARGE),
    ],
)
def test_a_method_that_fails_on_an_instance(
    compute: Compute,
    error: str,
    message: str,
    model: Model,
    corpus: list[Row],
    add_method: AddMethod,
    tmp_path: Path,
) -> None:
    name = add_method(compute)
    results = process(attributor(model, tmp_path, ("saliency", name)), corpus)
    attributed = results[Unit("attributions", name)]
    assert attributed.failures == [Failure("r3", "attribute", name, error, message)]
    others = [row.instance_id for row in corpus if row.instance_id != "r3"]
    assert ids(attributed) == others
    assert set(ids(results[Unit("curves", name)])) == set(others)
    for unit, result in results.items():
        if unit.method != name:
            assert not result.failures
            assert len(set(ids(result))) == COUNT


def test_double_precision_has_room_for_large_scores(
    tiny: Callable[..., Model], corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    name = add_method(too_large)
    results = process(attributor(tiny("bert", dtype="float64"), tmp_path, (name,)), corpus)
    found = results[Unit("attributions", name)]
    assert not found.failures
    assert found.table["scores"].to_pylist()[3][1] == -1e39


def test_a_method_that_always_fails(
    model: Model, corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    def broken(captured: Captured, params: Params) -> Scores:
        raise KeyError

    name = add_method(broken)
    results = process(attributor(model, tmp_path, (name, "saliency")), corpus)
    broken_one = results[Unit("attributions", name)]
    assert len(broken_one.table) == 0
    assert set(failed(broken_one)) == {
        (row.instance_id, "attribute", name, "KeyError") for row in corpus
    }
    assert len(results[Unit("curves", name)].table) == 0
    assert len(results[Unit("attributions", "saliency")].table) == COUNT


def test_failures_of_before_are_forgotten_when_it_works(
    model: Model, corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    name = add_method(raising)
    unit = Unit("attributions", name)
    process(attributor(model, tmp_path, (name,)), corpus)
    assert failures_path(unit, 0, 1) in files(tmp_path)
    add_method(lambda captured, params: Scores(ones(captured)))
    process(attributor(model, tmp_path, (name,)), corpus, [unit])
    assert failures_path(unit, 0, 1) not in files(tmp_path)
    assert len(table(tmp_path, "attributions", name)) == COUNT


def test_failures_are_committed_before_the_table_that_marks_the_unit_as_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unit, order = Unit("attributions", "a"), []

    def written(path: str, table: pa.Table) -> Written:
        order.append(path)
        return Written(len(table), 12, "0" * 64)

    monkeypatch.setattr("attribeam.pipeline.running.graph.write_parquet", written)
    failure = Failure("x", "attribute", "a", "ValueError", "no")
    empty = table_schema("attributions").empty_table()
    entries = write_unit(UnitResult(unit, 1, 2, empty, [failure]), str(tmp_path))
    paths = [path(unit, 1, 2) for path in (failures_path, unit_path)]
    assert order == [f"{tmp_path}/{path}" for path in paths]
    assert entries == [
        Entry(path, "attributions", "a", 1, 1, rows, 12, "0" * 64)
        for path, rows in zip(paths, (1, 0), strict=True)
    ]


def test_an_added_method_accounts_for_the_instances_of_before(
    model: Model, corpus: list[Row], tmp_path: Path
) -> None:
    """Rows that failed at first are not in its tables, nor do they fail again."""
    mixed = [Row("empty", ""), *corpus]
    broken = poisoned(model, "play")
    process(attributor(broken, tmp_path, ("random",)), mixed)
    unit = Unit("attributions", "saliency")
    result = process(attributor(broken, tmp_path, ("random", "saliency")), mixed, [unit])[unit]
    assert not result.failures
    assert ids(result) == table(tmp_path, "instances")["instance_id"].to_pylist()


# Scores by layer

LAYERED, ATTRIBUTED, EVALUATED = (
    Unit(name, "fragile") for name in ("layers", "attributions", "curves")
)


def by_layer(captured: Captured, params: Params) -> Scores:
    """Scores and two layers that tell tokens and instances from each other."""
    mask = captured.mask.float()
    rollout = mask / mask.sum(1, keepdim=True)
    steps = torch.arange(mask.shape[1]) + mask.sum(1, keepdim=True) / 7
    scores = {"values": steps / 3, "scale": mask.sum(1) / 7, "bias": -mask.sum(1)}
    if not captured.layered:
        return Scores(**scores)
    layers = LayerScores(
        local=torch.stack([steps, 10 * steps], 1),
        rollout=torch.stack([rollout, rollout], 1),
        scale=torch.stack([mask.sum(1), -mask.sum(1)], 1),
        mixing=torch.stack([rollout, 1 - rollout], 1),
    )
    return Scores(**scores, layers=layers)


def raising_by_layer(captured: Captured, params: Params) -> Scores:
    """Fails for one instance, but only where layers are wanted."""
    return raising(captured, params) if captured.layered else by_layer(captured, params)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_are_rows_of_their_own(
    dtype: str,
    tiny: Callable[..., Model],
    corpus: list[Row],
    add_method: AddMethod,
    tmp_path: Path,
) -> None:
    methods = ("saliency", add_method(by_layer, layered="layers"))
    worker = attributor(tiny("bert", dtype=dtype), tmp_path, methods, layers=True)
    results = process(worker, corpus)
    # A method without layers has no such unit.
    assert [unit for unit in results if unit.table == "layers"] == [LAYERED]
    found = results[LAYERED].table
    assert found.schema.equals(table_schema("layers", double=dtype == "float64"))
    lengths = {i: len(t) for i, t in zip(*columns(tmp_path, "instance_id", "tokens"), strict=True)}
    expected = [(row.instance_id, layer) for row in corpus for layer in range(2)]
    assert [(row["instance_id"], row["layer"]) for row in found.to_pylist()] == expected
    for row in found.to_pylist():
        length = lengths[row["instance_id"]]
        share = 1 / length
        steps = (np.arange(length) + length / 7) * (10 if row["layer"] else 1)
        assert row["local"] == pytest.approx(steps.tolist(), rel=1e-6)
        assert row["rollout"] == pytest.approx([share] * length, rel=1e-6)
        assert row["mixing"] == pytest.approx([abs(row["layer"] - share)] * length, rel=1e-6)
        assert row["scale"] == (-length if row["layer"] else length)
        assert row["method"] == "fragile"
    for row in results[ATTRIBUTED].table.to_pylist():
        assert row["scale"] == pytest.approx(lengths[row["instance_id"]] / 7, rel=1e-6)
        assert row["bias"] == -lengths[row["instance_id"]]
    for row in results[Unit("attributions", "saliency")].table.to_pylist():
        assert (row["scale"], row["bias"]) == (None, None)


def columns(out: Path, *names: str) -> list[list[Any]]:
    instances = table(out, "instances")
    return [instances[name].to_pylist() for name in names]


def test_a_method_may_have_no_mixing_ratios(
    model: Model, corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    def bare(captured: Captured, params: Params) -> Scores:
        scores = by_layer(captured, params)
        assert scores.layers is not None
        return replace(scores, layers=replace(scores.layers, mixing=None))

    name = add_method(bare, layered="layers")
    found = process(attributor(model, tmp_path, (name,), layers=True), corpus)[LAYERED].table
    assert found["mixing"].to_pylist() == [None] * 2 * COUNT
    assert None not in found["local"].to_pylist()


def test_layers_added_later_are_as_if_they_had_been_there(
    model: Model, corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    methods = ("saliency", add_method(by_layer, layered="layers"))
    once, later = tmp_path / "once", tmp_path / "later"
    process(attributor(model, once, methods, layers=True), corpus)
    process(attributor(model, later, methods), corpus)
    assert files(once) - files(later) == {unit_path(LAYERED, 0, 1)}
    process(attributor(model, later, methods, layers=True), corpus, [LAYERED])
    found, expected = content(later), content(once)
    assert found.keys() == expected.keys()
    for path, wanted in expected.items():
        # Without layers the last one is computed for one position alone, which rounds otherwise.
        assert_alike(found[path], wanted)


def test_lost_attributions_are_the_same_again_beside_their_layers(
    model: Model, corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    name = add_method(by_layer, layered="layers")
    process(attributor(model, tmp_path, (name,), layers=True), corpus)
    before = content(tmp_path)
    # Layers that nobody lacks aren't computed.
    add_method(raising_by_layer, layered="layers")
    process(attributor(model, tmp_path, (name,), layers=True), corpus, [ATTRIBUTED])
    assert content(tmp_path) == before


def test_curves_follow_the_committed_scores_even_if_layers_are_added_along_with_them(
    model: Model, corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    name = add_method(by_layer, layered="layers")
    process(attributor(model, tmp_path, (name,)), corpus)
    before = content(tmp_path)[unit_path(EVALUATED, 0, 1)]

    def reversed_scores(captured: Captured, params: Params) -> Scores:
        scores = by_layer(captured, params)
        return replace(scores, values=-scores.values)

    add_method(reversed_scores, layered="layers")
    worker = attributor(model, tmp_path, (name,), layers=True)
    process(worker, corpus, [LAYERED, EVALUATED])
    assert content(tmp_path)[unit_path(EVALUATED, 0, 1)] == before


def test_a_failure_of_layers_that_are_added_is_theirs(
    model: Model, corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    """What was attributed before stays so."""
    name = add_method(raising_by_layer, layered="layers")
    process(attributor(model, tmp_path, (name,)), corpus)
    before = content(tmp_path)

    def fine_but_for_one(captured: Captured, params: Params) -> Scores:
        raising(captured, params)
        return by_layer(captured, params)

    add_method(fine_but_for_one, layered="layers")
    worker = attributor(model, tmp_path, (name,), layers=True)
    result = process(worker, corpus, [LAYERED])[LAYERED]
    assert result.failures == [Failure("r3", "attribute", name, "ValueError", "not this one")]
    assert ids(result) == [r.instance_id for r in corpus if r.instance_id != "r3" for _ in range(2)]
    after = content(tmp_path)
    assert {path: after[path] for path in before} == before
    assert after.keys() - before.keys() == {f(LAYERED, 0, 1) for f in (unit_path, failures_path)}


def test_what_is_not_attributed_fails_once(
    model: Model, corpus: list[Row], add_method: AddMethod, tmp_path: Path
) -> None:
    """Layers are of what is attributed, whether that was done just now or before."""

    def endless(captured: Captured, params: Params) -> Scores:
        scores = by_layer(captured, params)
        at = position(captured.batch.instances, "r3")
        if at is not None and scores.layers is not None:
            scores.layers.rollout[at, 1, 0] = float("inf")
        elif at is not None:
            scores.values[at, 0] = float("inf")
        return scores

    name = add_method(endless, layered="layers")
    at_once, later = tmp_path / "once", tmp_path / "later"
    results = process(attributor(model, at_once, (name,), layers=True), corpus)
    process(attributor(model, later, (name,)), corpus)
    added = process(attributor(model, later, (name,), layers=True), corpus, [LAYERED])
    others = [row.instance_id for row in corpus if row.instance_id != "r3"]
    for result in (results[LAYERED], added[LAYERED]):
        assert not result.failures
        assert list(dict.fromkeys(ids(result))) == others
    for folder in (at_once, later):
        (failure,) = table(folder, "failures").to_pylist()
        assert failure["message"] == "the scores are not finite"


def test_the_texts_of_the_tests_are_distinct() -> None:
    assert len(set(texts(100))) == 100
