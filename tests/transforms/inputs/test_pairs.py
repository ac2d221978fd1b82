"""Pairs of a picture and a text (CLIP): its authors' numbers, and transformers' own."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import CLIPModel

from attribeam.schemas import UsageError
from attribeam.transforms import EncodeOptions, Instance, Model, Row, attribute, choose, encode
from attribeam.transforms.attribute import Attributions
from attribeam.transforms.evaluate import Evaluation, Ranking, curves
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.row import RowError
from attribeam.transforms.registry import fit_all
from tests.conftest import LoadTiny
from tests.support.authors import golden_numbers
from tests.support.models import GOLDENS, relative_error

WITH_GOLDENS, LENGTH, ENDS = 3, 12, 99
# transformers takes some softmaxes in float32 whatever the type.
TIGHT = 1e-5


@pytest.fixture
def double(golden: LoadTiny) -> Model:
    return golden("clip-golden", "float64")


def rows() -> list[Row]:
    return [
        Row(row["id"], pixel_values=row["pixel_values"], input_ids=row["input_ids"])
        for row in pq.read_table(GOLDENS / "corpus_clip.parquet").to_pylist()
    ]


@cache
def pairs(model: Model) -> list[Instance]:
    return encode(model, rows())


def scores_of(model: Model, method: str, **params: Any) -> dict[str, Any]:
    """Scores by instance."""
    chosen = choose(method, {method: params} if params else {})
    found = attribute(model, pairs(model), chosen)
    assert found.failures == []
    return {
        instance.instance_id: row and row.scores
        for instance, row in zip(pairs(model), found.rows[method], strict=True)
    }


def full(scores: Any) -> Any:
    """Scores of a text over all positions, with nothing after its end; of a picture, of patches."""
    return np.pad(scores, (0, LENGTH - len(scores)))


# The authors' numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_both_sides_explain_one_number(golden: LoadTiny, dtype: str) -> None:
    model, limit = golden("clip-golden", dtype), 1e-12 if dtype == "float64" else 1e-5
    found = attribute(model, pairs(model), []).predictions
    logits = np.array([prediction and prediction.logits for prediction in found])
    expected = golden_numbers("clip")["logits_per_image"].repeat(2).reshape(-1, 1)
    assert relative_error(logits, expected) < limit


@pytest.mark.parametrize(
    ("method", "key", "params"),
    [
        *[
            (name, f"{name}_nl{start - 1}", {"start_layer": start})
            for name in ("bt_head", "bt_token", "generic_attribution")
            for start in (0, 1)
        ],
        ("generic_attribution", "generic_attribution_nl1", {"start_layer": 2}),
        ("raw_attention", "raw_attention", {}),
    ],
)
def test_the_authors_scores(double: Model, method: str, key: str, params: dict[str, Any]) -> None:
    """Of ``bt_head``, of the text that has no padding, which counts in theirs."""
    found = scores_of(double, method, **params)
    for side in ("image", "text"):
        expected = golden_numbers("clip").get(f"{side}/{key}")
        for picture in range(WITH_GOLDENS if expected is not None else 0):
            for text in range(3):
                scores = found[f"clip-{picture}-{text}/{side}"]
                if side == "image":
                    scores = scores[1:]
                elif method == "bt_head" and text < 2:
                    continue
                assert expected is not None
                assert (
                    relative_error(
                        full(scores) if side == "text" else scores, expected[picture, text]
                    )
                    < 1e-12
                )


def test_padding_is_what_the_authors_head_wise_scores_of_texts_count(double: Model) -> None:
    """Gradients of attention to what comes later, and to padding, are not zero there."""
    text_tower = double.towers["text"]
    texts = [one for one in pairs(double) if one.side == "text"]
    chosen = choose("bt_head", {"bt_head": {"start_layer": 0}})
    cut = attribute(text_tower, texts, chosen).rows["bt_head"]
    whole = attribute(text_tower, [padded(one) for one in texts], chosen).rows["bt_head"]
    for instance, ours, theirs in zip(texts, cut, whole, strict=True):
        picture, text = map(int, str(instance.row_id).split("-")[1:])
        if picture < WITH_GOLDENS:
            assert ours is not None and theirs is not None
            expected = golden_numbers("clip")["text/bt_head_nl-1"][picture, text]
            assert relative_error(theirs.scores, expected) < 1e-12
            error = relative_error(full(ours.scores), expected)
            assert (error < 1e-12) == (len(instance) == LENGTH)


def padded(text: Instance) -> Instance:
    """A text as one that has its padding."""
    more = LENGTH - len(text)
    return replace(
        text,
        input_ids=np.pad(text.input_ids, (0, more)),
        segment=np.pad(text.segment, (0, more)),
        special=np.pad(text.special, (0, more), constant_values=True),
        word_ids=np.pad(text.word_ids, (0, more), constant_values=-1),
        tokens=(*text.tokens, *["0"] * more),
    )


def test_the_last_layer_alone_unless_more_are_asked_for(double: Model) -> None:
    for method in ("bt_head", "bt_token"):
        found = scores_of(double, method)
        for side, layers in (("image", 4), ("text", 3)):
            scores = found[f"clip-1-2/{side}"]
            expected = golden_numbers("clip")[f"{side}/{method}_nl{layers - 2}"][1, 2]
            assert relative_error(scores[1:] if side == "image" else scores, expected) < 1e-12


# Independent derivations ------------------------------------------------------------------------


def test_gradients_of_both_sides(double: Model) -> None:
    network: Any = CLIPModel.from_pretrained(GOLDENS / "clip-golden", dtype=torch.float64)
    row = rows()[4]
    pixels = torch.tensor(row.pixel_values, dtype=torch.float64).view(1, 3, 32, 32)
    ids = torch.tensor(row.input_ids)[None]
    entered: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        entered.append(output.detach().requires_grad_())
        return entered[0]

    network.text_model.embeddings.register_forward_hook(keep)
    pixels.requires_grad_()
    value = network(pixel_values=pixels, input_ids=ids).logits_per_image[0, 0]
    of_pixels, of_words = torch.autograd.grad(value, (pixels, entered[0]))
    found = scores_of(double, "grad_x_input")
    patches = (of_pixels * pixels.detach()).unfold(2, 8, 8).unfold(3, 8, 8).sum((1, 4, 5))
    assert relative_error(found["clip-1-1/image"][1:], patches.flatten()) < TIGHT
    words = (of_words * entered[0].detach())[0].sum(-1)
    assert relative_error(full(found["clip-1-1/text"]), words) < TIGHT
    by_pixel = attribute(double, pairs(double), ["grad_x_input"], pixels=True).rows["grad_x_input"]
    for one, own in zip(pairs(double), by_pixel, strict=True):
        assert own is not None and (own.pixels is None) == (one.side == "text")
        if one.instance_id == "clip-1-1/image":
            expected = (of_pixels * pixels.detach()).sum(1).flatten().numpy()
            assert relative_error(own.pixels, expected) < TIGHT


def test_words_without_which_a_text_is_less_like_a_picture(double: Model) -> None:
    """Those that stay keep their places, and none attends to a later one."""
    network: Any = CLIPModel.from_pretrained(GOLDENS / "clip-golden", dtype=torch.float64)
    (row,) = rows()[:1]
    pixels = torch.tensor(row.pixel_values, dtype=torch.float64).view(1, 3, 32, 32)
    ids = torch.tensor(row.input_ids)[None, :6]

    def value(kept: Sequence[int]) -> float:
        found = network(
            pixel_values=pixels, input_ids=ids[:, kept], position_ids=torch.tensor([kept])
        )
        return float(found.logits_per_image.detach())

    lost = [value(range(6)) - value([at for at in range(6) if at != gone]) for gone in range(1, 5)]
    scores = scores_of(double, "occlusion")["clip-0-0/text"]
    assert scores[0] == scores[5] == 0
    assert relative_error(scores[1:5], lost) < TIGHT
    text = pairs(double)[1]
    evaluation = Evaluation(fractions=(0.5,), orders=("morf",)).checked(double)
    assert (evaluation.protocol, evaluation.text_protocol) == ("patch", "token")
    assert evaluation.operations == ("mean", "pad") and evaluation.checked(double) == evaluation
    rankings = [Ranking(pairs(double)[0], "any", np.arange(17.0), 0)]
    rankings.append(Ranking(text, "any", np.arange(6.0), 0))
    (pictures, texts), failures = curves(double, rankings, evaluation, token_budget=100)
    assert failures == [] and pictures is not None and texts is not None
    assert [point.logit for point in texts[1:]] == pytest.approx(
        [value([0, 1, 2, 5]), value([0, 5])], rel=TIGHT
    )
    assert {point.operation for point in pictures} == {"mean"}
    assert pictures[0].logit == pytest.approx(texts[0].logit, rel=1e-12)
    half = pixels.clone()
    half[:, :, 16:] = 0
    expected = network(pixel_values=half, input_ids=ids).logits_per_image
    assert pictures[1].logit == pytest.approx(float(expected.detach()), rel=TIGHT)


# Batches and sharing ----------------------------------------------------------------------------


def all_methods(model: Model, instances: Sequence[Instance], **more: Any) -> Attributions:
    drawn = {name: {"samples": 20} for name in ("lime", "kernel_shap")}
    steps = {name: {"steps": 8} for name in ("bt_head", "bt_token", "integrated_gradients")}
    chosen = choose("all", drawn | steps | {"attattr_colsum": {"steps": 2, "most": 2}})
    found = attribute(model, instances, fit_all(chosen, model)[0], **more)
    assert found.failures == []
    return found


def test_batch_mates_do_not_matter(double: Model) -> None:
    """Alone, or with others that share its picture or its text."""
    few = [pairs(double)[at] for at in (0, 1, 3, 5, 12)]
    together = all_methods(double, few)
    alone = all_methods(double, few[::-1], token_budget=1)
    assert len(together.rows) > 15
    for name, found in together.rows.items():
        for row, other in zip(found, alone.rows[name][::-1], strict=True):
            assert row is not None and other is not None
            limit = 1e-7 * max(np.abs(row.scores).max(), 1e-300)
            np.testing.assert_allclose(other.scores, row.scores, rtol=0, atol=limit, err_msg=name)
    for name in ("decompx", "kernel_shap"):
        for row in together.rows[name]:
            assert row is not None and row.delta is not None and abs(row.delta) < 1e-9


@pytest.mark.usefixtures("padding_at_will")
def test_each_picture_and_each_text_is_run_once(double: Model, most_rows: list[int]) -> None:
    instances = encode(double, rows())
    assert sum(most_rows[1:]) == 4 + 3
    before = len(most_rows)
    attribute(double, instances, ["generic_attribution"], token_budget=10_000)
    assert sum(most_rows[before:]) == 4 + 3
    before = len(most_rows)
    attribute(double, instances, ["occlusion"], token_budget=10_000)
    # And each copy of them, which are without a patch or a word, besides.
    assert sum(most_rows[before:]) == 4 + 3 + 4 * 16 + (4 + 7 + 10)
    before = len(most_rows)
    steps = {name: {"steps": 5} for name in ("integrated_gradients", "bt_token")}
    attribute(double, instances, choose(list(steps), steps), token_budget=10_000)
    # Two paths of other points each, and where the one for the gain starts.
    assert sum(most_rows[before:]) == (4 + 3) * (1 + 5 + 5 + 1)


@pytest.mark.usefixtures("padding_at_will")
def test_a_backward_pass_is_of_a_question_about_each_input(
    double: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 pictures with 3 texts each, and of 3 texts with 4 pictures, there are 12 questions.

    The budget has room for the passes of a tower side by side.
    """
    instances = encode(double, rows())
    graded: list[int] = []
    grad = torch.autograd.grad

    def counted(outputs: Any, *args: Any, **more: Any) -> Any:
        graded.append(outputs.numel())
        return grad(outputs, *args, **more)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    attribute(double, instances, ["saliency", "generic_attribution"], token_budget=10_000)
    assert graded == [12, 12]
    graded.clear()
    # A budget for one picture at a time, or one text: each has its own passes.
    attribute(double, instances, ["saliency"], token_budget=1)
    assert 3 * 4 <= len(graded) <= 12 + 12


# What is no pair, and what is refused -----------------------------------------------------------


PIXELS = [0.5] * 3072


@pytest.mark.parametrize(
    ("row", "stage", "message"),
    [
        ({"pixel_values": PIXELS, "input_ids": [98, 5, 7]}, "encode", "the text has no end token"),
        ({"pixel_values": PIXELS, "input_ids": [98, 99]}, "encode", "the text has no tokens"),
        ({"pixel_values": PIXELS}, "encode", "the text is empty"),
        ({"pixel_values": PIXELS, "text": "a"}, "encode", "the text can't be encoded: the model's"),
        ({"input_ids": [98, 5, 99]}, "encode", "the row has no picture"),
        ({"pixel_values": PIXELS, "input_ids": [98, 5, 99], "label": 1}, "encode", "label 1: rows"),
        ({"pixel_values": [1e300] * 3072, "input_ids": [98, 5, 99]}, "forward", "the model's feat"),
    ],
)
def test_rows_that_are_no_pair(
    double: Model, row: dict[str, Any], stage: str, message: str
) -> None:
    given = [Row("bad", **row), Row("good", pixel_values=PIXELS, input_ids=[98, 5, 99, 7, 99])]
    found, (failure,) = encode_rows(double, given, EncodeOptions(LENGTH))
    assert [one.instance_id for one in found] == ["good/image", "good/text"]
    assert found[1].input_ids.tolist() == [98, 5, 99] and found[1].readout == 2
    assert (failure.instance_id, failure.stage) == ("bad", stage)
    assert failure.message.startswith(message)
    with pytest.raises(RowError):
        encode(double, given)


def test_methods_are_for_both_sides_or_for_none(double: Model) -> None:
    chosen, left_out = fit_all(choose("all"), double)
    params = {choice.name: choice.params for choice in chosen}
    assert params["occlusion"]["operation"] == params["bt_head"]["start_layer"] == "auto"
    assert params["generic_attribution"]["start_layer"] == 0
    assert "by two" in left_out["iba"] and "by their lengths" in left_out["lrp"]
    again = choose("occlusion", {"occlusion": params["occlusion"]})[0].by_tower(double)
    assert {side: fit.params["operation"] for side, fit in again.items()} == {
        "images": "mean",
        "text": "pad",
    }
    deleting = fit_all(choose("occlusion", {"occlusion": {"operation": "delete"}}), double)[0]
    assert deleting[0].params == {"operation": "delete", "unit": "auto", "output": "logit"}
    assert deleting[0].by_tower(double)["images"].params["operation"] == "mean"
    for method, given, says in (
        ("bt_head", {"start_layer": 3}, "start_layer is 3, but the model's layers are 0 to 2"),
        ("attattr", {}, "attattr is of the layers of one network, and pairs are run by two"),
    ):
        with pytest.raises(UsageError, match=says):
            attribute(double, pairs(double), choose(method, {method: given}))


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        (Evaluation(operations=("bag",)), "--operations: there is no 'bag'; there are mean"),  # type: ignore[arg-type]
        (Evaluation(protocol="line"), "--units: there is no 'line'; there are patch"),  # type: ignore[arg-type]
        (Evaluation(operations=("mask",)), "operation mask|--operations mask needs"),
    ],
)
def test_evaluations_that_there_are_not(double: Model, evaluation: Evaluation, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        evaluation.checked(double)


def test_an_evaluation_of_one_side_leaves_the_other_its_usual_one(double: Model) -> None:
    found = Evaluation(protocol="word", operations=("delete",)).checked(double)
    assert (found.protocol, found.text_protocol) == ("patch", "word")
    assert found.operations == ("mean", "delete")
    found = Evaluation(protocol="pixel").checked(double)
    assert (found.protocol, found.text_protocol) == ("pixel", "token")
