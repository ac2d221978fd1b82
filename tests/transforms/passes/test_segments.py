"""Parts of prompts as sources: forward mode and reverse mode agree, with sums over tokens too."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from attribeam.schemas import UsageError
from attribeam.transforms import Attribution, Instance, Model, Row, attribute, choose, encode
from attribeam.transforms.passes.segments import Segments
from tests.conftest import LoadTiny
from tests.support.models import relative_error

METHODS = ("grad_x_input", "attnlrp", "cp_lrp")
pytestmark = pytest.mark.usefixtures("padding_at_will")


def questions(model: Model) -> list[Instance]:
    """All that is asked about two rows, of three and two parts, some tokens being of none."""
    ends = ([2, 4, 9], [3, 6])
    rows = []
    for name, own, count in zip("ab", ends, (5, 6), strict=True):
        starts = [1, *own[:-1]]
        segments = [{"start": s, "end": e} for s, e in zip(starts, own, strict=True)]
        ids = [1, *range(7, 6 + own[-1]), 30, 31]
        more = list(range(40, 40 + count))
        rows.append(Row(name, input_ids=ids, continuation_ids=more, segments=segments))
    return encode(model, rows)


def scores(
    model: Model, asked: list[Instance], sources: str, methods: tuple[str, ...], budget: int
) -> dict[str, list[Attribution]]:
    chosen = choose(methods, {name: {"sources": sources} for name in methods})
    found = attribute(model, asked, chosen, token_budget=budget)
    assert found.failures == []
    return cast(dict[str, list[Attribution]], found.rows)


def of_parts(instance: Instance, by_token: Attribution) -> list[float]:
    assert instance.sources is not None
    inside = [instance.sources == number for number in instance.sources.tolist()]
    sums = [float(by_token.scores[own].sum()) for own in inside]
    return [s if at >= 0 else 0.0 for s, at in zip(sums, instance.sources, strict=True)]


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_forward_mode_is_reverse_mode_summed(
    golden: LoadTiny, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = golden(f"{name}-golden", "float64")
    asked = questions(model)
    by_token = scores(model, asked, "tokens", METHODS, 10_000)
    ahead: list[bool] = []
    decide = Segments.ahead
    monkeypatch.setattr(Segments, "ahead", lambda *of: ahead.append(decide(*of)) or ahead[-1])
    # Each alone is the base pass; in small batches tangents are carried a few at a time.
    for methods, budget in (((METHODS[0],), 10_000), (METHODS[1:2], 24), (METHODS, 10_000)):
        ahead.clear()
        found = scores(model, asked, "segments", methods, budget)
        assert True in ahead and False in ahead  # Of all that follows there is one question.
        for method in methods:
            for instance, own, row in zip(asked, found[method], by_token[method], strict=True):
                assert relative_error(own.scores, np.array(of_parts(instance, row))) < 1e-9
    monkeypatch.setattr(Segments, "ahead", lambda *_: False)
    behind = scores(model, asked, "segments", METHODS, 10_000)
    for method in METHODS:
        for mine, other in zip(found[method], behind[method], strict=True):
            assert relative_error(mine.scores, other.scores) < 1e-9
            pair = mine.unattributed, other.unattributed
            assert pair[0] == (None if pair[1] is None else pytest.approx(pair[1], abs=1e-9))


def test_what_cannot_be_asked_of_parts(golden: LoadTiny) -> None:
    model = golden("gpt2-golden", "float64")
    none = [replace(one, sources=None) for one in questions(model)]
    chosen = choose("cp_lrp", {"cp_lrp": {"sources": "segments"}})
    # One with parts among others that have none is none the worse for that.
    found = attribute(model, [*none, questions(model)[-1]], chosen, token_budget=10_000)
    assert [row is None for row in found.rows["cp_lrp"]] == [*[True] * len(none), False]
    assert all("has no segments" in failure.message for failure in found.failures)
    with pytest.raises(UsageError, match="only language models have prompts"):
        chosen[0].fitted(golden("bert-golden", "float64"))
    norms = choose("grad_x_input", {"grad_x_input": {"sources": "segments", "reduce": "norm"}})
    with pytest.raises(UsageError, match="is of tokens alone"):
        norms[0].fitted(model)
