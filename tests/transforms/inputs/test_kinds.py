"""Another kind of input than text, made here: no method and no pass knows what a position is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from attribeam.schemas import UsageError
from attribeam.transforms import EncodeOptions, Instance, Model, Row, RowError, attribute, collect
from attribeam.transforms.evaluate import Evaluation, Ranking, curves
from attribeam.transforms.inputs.batch import Batch
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.kinds import KINDS, inputs_of
from attribeam.transforms.inputs.seam import (
    Copy,
    Enter,
    EvaluationProtocol,
    Operation,
    Space,
    SpaceName,
    Unit,
)
from attribeam.transforms.network.rows import Read, Rows
from attribeam.transforms.registry import choose, fit_all
from tests.conftest import LoadTiny
from tests.support.models import USUAL_METHODS, random_instances


@dataclass(frozen=True)
class Vector(Instance):
    """A row of vectors, [T, E]; it has no ids, whatever its fields of texts are."""

    vectors: Any = None
    name: bytes = b""
    modality: ClassVar[str] = "vectors"

    @property
    def content(self) -> bytes:
        return self.name


class Vectors:
    """Rows of vectors, which the network is fed in place of those that it looks up."""

    operations: tuple[Operation, ...] = ("mask", "delete")
    units: tuple[Unit, ...] = ("token",)
    starts: tuple[str, ...] = ("mask", "mask_words", "zero")
    protocols: tuple[EvaluationProtocol, ...] = ("token",)

    def encode(self, model: Model, row: Row, options: EncodeOptions) -> list[Instance]:
        if row.text is None:
            raise RowError("the row has no vectors")
        vectors = np.array([float(x) for x in row.text.split()]).reshape(-1, model.hidden_size)
        return [vector_of(vectors, row.instance_id, row.text.encode())]

    def check(self, instance: Instance) -> None:
        if instance.special.all():
            raise RowError("there is no vector to explain")

    def fault(self, model: Model, instance: Instance) -> str | None:
        return "more vectors than positions" if len(instance) > model.capacity else None

    def rows(self, model: Model, instances: Sequence[Instance]) -> Rows:
        nothing = [np.zeros(len(instance), bool) for instance in instances]
        return self.perturbed(
            model, [(i, "mask", none) for i, none in zip(instances, nothing, strict=True)]
        )

    def perturbed(self, model: Model, copies: Sequence[Copy]) -> Rows:
        lengths = [self.length(model, copy) for copy in copies]
        fed = torch.zeros(len(copies), max(lengths), model.hidden_size, dtype=model.dtype)
        mask = torch.zeros(fed.shape[:2], dtype=torch.int64)
        for row, (instance, operation, removed) in enumerate(copies):
            assert isinstance(instance, Vector)
            own = torch.tensor(instance.vectors)
            own = own[~torch.tensor(removed)] if operation == "delete" else own.clone()
            if operation == "mask":
                own[torch.tensor(removed)] = self.at_mask(model)
            fed[row, : lengths[row]], mask[row, : lengths[row]] = own, 1
        read = Read(torch.zeros(len(copies), dtype=torch.int64))
        types = {"token_type_ids": torch.zeros_like(mask)}
        return Rows({"inputs_embeds": fed, **types}, mask, read)

    def length(self, model: Model, copy: Copy) -> int:
        instance, operation, removed = copy
        return len(instance) - int(removed.sum()) * (operation == "delete")

    def units_of(self, instance: Instance, unit: Unit) -> NDArray[np.int64]:
        return np.where(instance.removable, np.cumsum(instance.removable) - 1, -1)

    def usual_operation(self, model: Model) -> Operation:
        return "mask"

    def check_operation(self, model: Model, operation: Operation, wish: str, remedy: str) -> None:
        if operation == "pad":
            raise UsageError(f"{wish} is not for vectors: {remedy}")

    def check_start(self, model: Model, start: str, wish: str, remedy: str) -> None:
        pass

    def same_start(self, start: str) -> bool:
        return False

    @torch.no_grad()
    def summed(self, model: Model, rows: Rows) -> torch.Tensor:
        tables = model.network.get_submodule("bert.embeddings")
        others = (tables.position_embeddings, tables.token_type_embeddings)
        at, kind = (cast_table(table) for table in others)
        return rows.inputs["inputs_embeds"].double() + at[: rows.length] + kind[0]

    def leaf(self, model: Model, rows: Rows) -> tuple[torch.Tensor, Enter]:
        return model.embed(rows), lambda _, entered: entered

    def there(self, model: Model, rows: Rows) -> torch.Tensor:
        return rows.attention_mask[..., None].bool()

    def vectors(self, model: Model, values: torch.Tensor) -> torch.Tensor:
        return values

    @torch.no_grad()
    def space(self, model: Model, batch: Batch, name: SpaceName, start: str) -> Space:
        end = batch.rows.inputs["inputs_embeds"]
        everywhere = name == "words" and start == "mask"
        replaced = torch.ones_like(batch.removable) if everywhere else batch.removable
        begin = torch.where(replaced[..., None], self.at_mask(model), end)

        def enter(rows: Rows, vectors: torch.Tensor) -> torch.Tensor:
            return model.embed(replace(rows, inputs={**rows.inputs, "inputs_embeds": vectors}))

        if name == "words":
            return Space(torch.zeros_like(end) if start == "zero" else begin, end, enter)
        entered = enter(batch.rows, end)
        nothing = torch.zeros_like(entered)
        begin = nothing if start == "zero" else enter(batch.rows, begin)
        return Space(begin, entered, lambda _, points: points)

    def at_mask(self, model: Model) -> torch.Tensor:
        """What stands in a vector's place: what a model of tokens looks up for [MASK] or [PAD]."""
        return model.embedding.words.weight[model.mask_id].detach()


def cast_table(table: Any) -> torch.Tensor:
    assert isinstance(table, nn.Embedding)
    return table.weight.detach().double()


def vector_of(vectors: NDArray[Any], name: str, content: bytes) -> Vector:
    count = len(vectors)
    special = np.zeros(count, bool)
    special[[0, -1]] = True
    nowhere = np.full(count, -1, np.int32)
    return Vector(
        instance_id=name,
        input_ids=np.full(count, 10**6, np.int32),
        segment=np.zeros(count, np.int32),
        special=special,
        word_ids=nowhere,
        char_start=nowhere,
        char_end=nowhere,
        tokens=("",) * count,
        vectors=vectors,
        name=content,
    )


@pytest.fixture
def of_tokens(tiny: LoadTiny) -> Model:
    return replace(tiny("bert", "classification", "float64"))


@pytest.fixture
def of_vectors(of_tokens: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setitem(KINDS, "vectors", Vectors())
    return replace(of_tokens, anatomy=replace(of_tokens.anatomy, modality="vectors"))


def same_in_both(model: Model) -> tuple[list[Instance], list[Instance]]:
    """Instances of tokens, and of the vectors that they look up."""
    tokens = [
        replace(instance, segment=np.zeros_like(instance.segment), types=None)
        for instance in random_instances(model, [9, 6])
    ]
    table = model.embedding.words.weight.detach().numpy()
    vectors = [
        replace(
            vector_of(table[i.input_ids], i.instance_id, i.content),
            segment=i.segment,
            rationale=i.rationale,
        )
        for i in tokens
    ]
    assert all((v.special == t.special).all() for v, t in zip(vectors, tokens, strict=True))
    return tokens, list(vectors)


def test_all_methods_give_what_they_give_for_tokens(of_tokens: Model, of_vectors: Model) -> None:
    tokens, vectors = same_in_both(of_tokens)
    few = {"integrated_gradients", "bt_token", "bt_head", "attattr", "attattr_colsum"}
    given: dict[str, dict[str, Any]] = {
        name: {"steps": 3} | ({"baseline": "mask"} if name == "integrated_gradients" else {})
        for name in few
    }
    removing = ("occlusion", "lime", "kernel_shap", "context_cite", "random_masks")
    given |= {name: {"operation": "mask"} for name in removing}
    given["lime"]["unit"] = given["context_cite"]["unit"] = "token"
    given |= {name: {"steps": 2, "copies": 2} for name in ("iba", "iba_released")}
    given["smoothgrad"] = {"samples": 3}
    chosen, _ = fit_all(choose(list(USUAL_METHODS), given), of_tokens, "logit")
    found = [
        attribute(model, rows, chosen, statistics=collect(model, rows, 1000))
        for model, rows in ((of_tokens, tokens), (of_vectors, vectors))
    ]
    assert found[0].failures == found[1].failures == []
    for name, rows in found[0].rows.items():
        for expected, ours in zip(rows, found[1].rows[name], strict=True):
            assert expected is not None and ours is not None
            # The released bottleneck divides by deviations that are nearly zero here.
            limit = 1e-6 * max(np.abs(expected.scores).max(), 1e-300)
            np.testing.assert_allclose(
                ours.scores, expected.scores, rtol=0, atol=limit, err_msg=name
            )


def test_curves_are_those_of_tokens(of_tokens: Model, of_vectors: Model) -> None:
    tokens, vectors = same_in_both(of_tokens)
    evaluation = Evaluation(operations=("mask",)).checked(of_vectors)
    found = [
        curves(
            model,
            [Ranking(instance, "any", np.arange(len(instance)) % 4.0, 1) for instance in rows],
            evaluation,
            token_budget=1000,
        )
        for model, rows in ((of_tokens, tokens), (of_vectors, vectors))
    ]
    for expected, ours in zip(found[0][0], found[1][0], strict=True):
        for theirs, own in zip(expected, ours, strict=True):
            assert own.probability == pytest.approx(theirs.probability, abs=1e-12)


def test_what_a_kind_has_not_is_refused(of_vectors: Model) -> None:
    with pytest.raises(UsageError, match="there is no 'pad'; there are mask, delete"):
        Evaluation(operations=("pad",)).checked(of_vectors)
    with pytest.raises(UsageError, match="is mask or delete for a model of vectors, not pad"):
        attribute(of_vectors, [], choose("occlusion", {"occlusion": {"operation": "pad"}}))


def test_rows_of_it_are_encoded(of_vectors: Model) -> None:
    text = " ".join(str(x) for x in range(3 * of_vectors.hidden_size))
    rows = [Row("a", text), Row("b")]
    (instance,), (failure,) = encode_rows(of_vectors, rows, EncodeOptions(20))
    assert len(instance) == 3 and inputs_of(instance) is KINDS["vectors"]
    assert (failure.instance_id, failure.message) == ("b", "the row has no vectors")
