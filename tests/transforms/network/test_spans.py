"""All that follows a prompt is read from some positions of the last layer, and these alone."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attribeam.transforms import Attribution, Instance, Model, Row, attribute, choose, encode
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.network.rules import RULES
from tests.conftest import LoadTiny
from tests.support.models import GOLDENS, relative_error


def spans(model: Model) -> list[Instance]:
    """All that follows two prompts, of lengths of their own."""
    rows = pq.read_table(GOLDENS / "corpus_lm.parquet").to_pylist()[1:3]
    names = ("input_ids", "continuation_ids")
    found = encode(model, [Row(row["id"], **{name: row[name] for name in names}) for row in rows])
    return [one for one in found if one.of_all]


@pytest.mark.parametrize("rules", [None, "cp_lrp"])
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_nothing_else_leaves_the_last_layer(golden: LoadTiny, name: str, rules: str | None) -> None:
    speaks = golden(f"{name}-golden", "float64")
    model = speaks.of_all
    rows = collate(model, spans(speaks)).rows
    assert rows.spoken is not None
    given = None if rules is None else RULES[rules]  # type: ignore[index]
    enter = model.embed(rows).requires_grad_()
    found = []
    for whole in (False, True):
        logits, recorder = model.run(rows, watch=Watch(whole=whole), enter=enter, rules=given)
        assert recorder.left is not None
        assert recorder.left.shape[1] == (rows.length if whole else rows.spoken.at.shape[1])
        found.append((logits.detach(), *torch.autograd.grad(logits.sum(), enter)))
    for apart, whole_row in zip(*found, strict=True):
        assert relative_error(apart, whole_row) < 1e-12


def test_hidden_token_attribution_is_of_their_mean(golden: LoadTiny) -> None:
    model = golden("gpt2-golden", "float64")
    (span, _), chosen = spans(model), choose("hta_x_input")
    found = attribute(model, [span], chosen)
    assert found.failures == [] and span.continuation is not None
    (row,) = found.rows["hta_x_input"]
    assert isinstance(row, Attribution)
    rows = collate(model.of_all, [span]).rows
    enter = model.embed(rows).requires_grad_()
    left = model.of_all.run(rows, watch=Watch(whole=True), enter=enter)[1].left
    assert left is not None
    squares = np.zeros(len(span))
    for hidden in left[0, span.continuation.read].mean(0):
        (gradient,) = torch.autograd.grad(hidden, enter, retain_graph=True)
        squares += (gradient * enter.detach())[0].square().sum(-1).numpy()
    assert relative_error(row.scores, np.sqrt(squares)) < 1e-12
