"""What is explained: scalars, targets, and the questions that a row is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from attribeam.schemas import UsageError
from attribeam.transforms import EncodeOptions, Model, Row, RowError, attribute, choose, encode
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.targets import Explained, parse_explain, parse_target
from attribeam.transforms.inputs.variants import Variants
from attribeam.transforms.network import model as network_model
from attribeam.transforms.network.loading import load_model
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.passes.captured import Captured, Share
from tests.conftest import LoadTiny
from tests.support.models import (
    CLASSES,
    random_questions,
    relative_error,
    tiny_config,
    tiny_network,
    tokenizer_for,
)

TEXTS = ["the film is good", "a bad plot , not good but dull"]


def saved(folder: Path, network: Any, family: str = "bert") -> Model:
    network.save_pretrained(folder)
    tokenizer_for(family).save_pretrained(folder)
    return load_model(folder, dtype="float64")


def plain_logits(folder: Path, network: Any, text: str, family: str = "bert") -> torch.Tensor:
    """What transformers' own code gives, [1, C] or [1, T, C]."""
    inputs = tokenizer_for(family)(text, return_tensors="pt")
    with torch.no_grad():
        logits: torch.Tensor = type(network).from_pretrained(folder).double()(**inputs).logits
    return logits


# Scalars --------------------------------------------------------------------------------------


def test_scalars_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 4.0]], dtype=torch.float64)
    targets, foils = torch.tensor([1, 0]), torch.tensor([2, 2])
    shares = torch.tensor(
        [np.exp(3) / np.exp([1, 3, 2]).sum(), 1 / np.exp([0, -1, 4]).sum()], dtype=torch.float64
    )
    expected = {
        "logit": torch.tensor([3.0, 0.0]),
        "contrast": torch.tensor([1.0, -4.0]),
        "margin": torch.tensor([1.0, -4.0]),
        "probability": shares,
        "log_prob": shares.log(),
    }
    for scalar, values in expected.items():
        question = Explained(scalar, targets, foils if scalar == "contrast" else None)  # type: ignore[arg-type]
        torch.testing.assert_close(question(logits), values.double())
        torch.testing.assert_close(question.probability(logits), shares)
    # What a contrast is with stays the same, what a margin is from does not.
    moved = torch.tensor([[5.0, 3.0, 2.0]], dtype=torch.float64)
    one = torch.tensor([1])
    assert Explained("contrast", one, torch.tensor([2]))(moved).item() == 1
    assert Explained("margin", one)(moved).item() == -2
    with pytest.raises(ValueError, match="the margin is no weighted sum of logits"):
        Explained("margin", one).weights(moved)


@pytest.mark.parametrize("scalar", ["logit", "log_prob", "probability", "contrast", "margin"])
def test_methods_explain_the_scalar(tiny: LoadTiny, scalar: str) -> None:
    model = tiny("bert", "classification", "float64")
    instance = encode(model, TEXTS[1:])[0]
    chosen = choose("occlusion,integrated_gradients", {"occlusion": {"operation": "mask"}})
    found = attribute(model, [instance], chosen, explain=scalar)
    prediction = found.predictions[0]
    assert prediction is not None
    target = prediction.target
    foil = int(np.argsort(prediction.logits)[-2])

    def f(logits: Any) -> float:
        others = np.delete(logits, target).max()
        chances = np.exp(logits) / np.exp(logits).sum()
        values = {
            "logit": logits[target],
            "contrast": logits[target] - logits[foil],
            "margin": logits[target] - others,
            "probability": chances[target],
            "log_prob": np.log(chances[target]),
        }
        return float(values[scalar])

    ids = instance.input_ids.tolist()
    for at in np.flatnonzero(instance.removable):
        masked = [model.mask_id if at == place else token for place, token in enumerate(ids)]
        row = Row("masked", input_ids=masked)
        without = attribute(model, encode(model, [row]), []).predictions[0]
        assert without is not None
        score = found.rows["occlusion"][0].scores[at]  # type: ignore[union-attr]
        assert score == pytest.approx(f(prediction.logits) - f(without.logits), abs=1e-10)
    gradients = found.rows["integrated_gradients"][0]
    assert gradients is not None and gradients.delta is not None
    assert abs(gradients.delta) < 0.02 * np.abs(gradients.scores).sum()


def test_scalars_that_a_method_is_not_defined_for(tiny: LoadTiny) -> None:
    model = tiny("bert")
    instances = encode(model, TEXTS)
    with pytest.raises(UsageError, match="decompx is defined for sums of logits, and the margin"):
        attribute(model, instances, "decompx", explain="margin")
    assert set(attribute(model, [], "all", explain="probability").left_out) == {
        *("alti_logit", "decompx", "lrp", "partial_lrp", "transformer_attribution"),
    }
    assert set(attribute(model, [], "all", explain="contrast").left_out) == {"alti_logit"}


@pytest.mark.parametrize(
    ("task", "explain", "says"),
    [
        ("classification", "value", "a classification model is explained by logit, log_prob"),
        ("masked_lm", "margin", "a masked_lm model is explained by contrast, logit"),
        ("classification", "score", "is neither auto nor one of logit"),
    ],
)
def test_scalars_that_there_are_not(tiny: LoadTiny, task: str, explain: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_explain(explain, tiny("bert", task))


# Targets --------------------------------------------------------------------------------------


def test_targets_by_rule_and_by_name(tiny: LoadTiny, tmp_path: Path) -> None:
    names = {0: "bad", 1: "Bad", 2: "1"}
    model = saved(tmp_path, tiny_network("bert", id2label=names))
    assert [parse_target(t, model) for t in ("bad", "Bad", "1", "0", "2")] == [0, 1, 2, 0, 2]
    with pytest.raises(UsageError, match=r"--target good is neither auto, .* \(bad, Bad, 1\)"):
        parse_target("good", model)
    with pytest.raises(UsageError, match="of a classification model there is predicted, gold"):
        parse_target("each", model)
    instances = encode(model, TEXTS)
    found = attribute(model, instances, "saliency", target="runner_up")
    for row, prediction in zip(found.rows["saliency"], found.predictions, strict=True):
        assert row is not None and prediction is not None
        assert row.target == np.argsort(prediction.logits)[-2]


# Several questions ----------------------------------------------------------------------------


def test_a_regression(tmp_path: Path) -> None:
    network = tiny_network("bert", num_labels=1)
    model = saved(tmp_path, network)
    instances = encode(model, TEXTS)
    assert [(i.instance_id, i.question) for i in instances] == [("text-0", None), ("text-1", None)]
    found = attribute(model, instances, "all")
    assert found.failures == [] and {"iba", "attattr"} <= set(found.left_out)
    for text, prediction in zip(TEXTS, found.predictions, strict=True):
        value = plain_logits(tmp_path, network, text)[0]
        assert prediction is not None
        assert relative_error(prediction.logits, value) < 1e-10
        assert relative_error(prediction.probabilities, value) < 1e-10
    decompx = found.rows["decompx"][0]
    assert decompx is not None and decompx.bias is not None
    total = decompx.scores.sum() + decompx.bias
    assert total == pytest.approx(found.predictions[0].logits[0])  # type: ignore[union-attr]


def test_values_of_a_regression(tmp_path: Path) -> None:
    network = tiny_network("bert", num_labels=2, problem_type="regression")
    model = saved(tmp_path, network)
    instances = encode(model, TEXTS)
    assert [i.instance_id for i in instances] == ["text-0#0", "text-0#1", "text-1#0", "text-1#1"]
    found = attribute(model, instances, "saliency")
    values = [float(prediction.logits[0]) for prediction in found.predictions if prediction]
    expected = [plain_logits(tmp_path, network, text)[0].tolist() for text in TEXTS]
    assert relative_error(np.reshape(values, (2, 2)), expected) < 1e-10


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "modernbert"])
def test_each_label(tmp_path: Path, family: str) -> None:
    names = {0: "toxic", 1: "rude", 2: "kind"}
    network = tiny_network(family, problem_type="multi_label_classification", id2label=names)
    model = saved(tmp_path, network, family)
    instances = encode(model, TEXTS)
    assert [i.instance_id for i in instances[2:5]] == ["text-0#2", "text-1#0", "text-1#1"]
    assert instances[1].asked_names == ("rude",) and instances[1].row_id == "text-0"
    found = attribute(model, instances, ["grad_x_input", "decompx", "occlusion"])
    assert found.failures == []
    for number, prediction in enumerate(found.predictions):
        logit = plain_logits(tmp_path, network, TEXTS[number // 3], family)[0, number % 3]
        assert prediction is not None and prediction.target == 1
        assert relative_error(prediction.logits, [0, logit]) < 1e-10
        assert prediction.probabilities[1] == pytest.approx(float(logit.sigmoid()))
        decompx = found.rows["decompx"][number]
        assert decompx is not None and decompx.bias is not None
        assert decompx.scores.sum() + decompx.bias == pytest.approx(float(logit))
    alone, _ = encode_rows(
        model, [Row("r", "the film")], EncodeOptions(20, target=int(parse_target("kind", model)))
    )
    assert [(i.instance_id, i.asked_names) for i in alone] == [("r", ("kind",))]
    with pytest.raises(UsageError, match="of a multi_label model there is each, a number or a"):
        parse_target("predicted", model)


@pytest.mark.parametrize("family", ["bert", "llama", "deberta-v2"])
def test_each_word(tmp_path: Path, family: str) -> None:
    kind = {"bert": "Bert", "llama": "Llama", "deberta-v2": "DebertaV2"}[family]
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}ForTokenClassification")(tiny_config(family))
    model = saved(tmp_path, network, family)
    text = "the film interesting , not good"
    instances = encode(model, [text])
    words = text.split()
    assert [i.instance_id for i in instances] == [f"text-0#{n}" for n in range(len(words))]
    found = attribute(model, instances, ["saliency", "occlusion"])
    assert found.failures == []
    logits = plain_logits(tmp_path, network, text, family)[0]
    for word, instance, prediction in zip(words, instances, found.predictions, strict=True):
        assert text[instance.char_start[instance.readout] :].lstrip().startswith(word[:1])
        assert prediction is not None
        # transformers computes root mean squares in float32.
        limit = 1e-5 if family == "llama" else 1e-10
        assert relative_error(prediction.logits, logits[instance.readout]) < limit
        assert not instance.removable[instance.readout]


def test_words_have_no_gold_class(tmp_path: Path) -> None:
    network = transformers.BertForTokenClassification(tiny_config("bert"))
    model = saved(tmp_path, network)
    with pytest.raises(UsageError, match="--target gold: words have no labels here"):
        parse_target("gold", model)


def test_rows_of_such_models_have_no_class(tmp_path: Path) -> None:
    model = saved(tmp_path, tiny_network("bert", num_labels=1))
    _, failures = encode_rows(model, [Row("r", "good", label=1)], EncodeOptions(20))
    assert [f.message for f in failures] == ["label 1: rows of a regression model have no class"]


# Decoders -------------------------------------------------------------------------------------


def test_decoders_are_read_where_transformers_reads_them(tmp_path: Path) -> None:
    network = tiny_network("gpt2")
    model = saved(tmp_path, network, "gpt2")
    pad = network.config.pad_token_id
    for ids in ([7, 8, 9, 10], [7, 8, pad, 9, pad, pad], [pad, 7, 8, 9], [11]):
        row = Row("r", input_ids=ids, attention_mask=[1] * len(ids))
        instance = encode(model, [row])[0]
        prediction = attribute(model, [instance], []).predictions[0]
        with torch.no_grad():
            own = network.double()(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)))
        assert prediction is not None
        assert relative_error(prediction.logits, own.logits[0]) < 1e-10


def test_left_padding_of_a_decoder_is_no_part_of_it(tmp_path: Path) -> None:
    model = saved(tmp_path, tiny_network("llama"), "llama")
    padded = Row("r", input_ids=[1, 1, 7, 8, 9], attention_mask=[0, 0, 1, 1, 1])
    plain = Row("r", input_ids=[7, 8, 9])
    scores = [
        attribute(model, encode(model, [row]), "saliency").rows["saliency"][0]
        for row in (padded, plain)
    ]
    assert scores[0] is not None and scores[1] is not None
    assert scores[0].scores.tolist() == scores[1].scores.tolist()


def test_what_comes_later_has_no_part_in_a_decoder(tmp_path: Path) -> None:
    """A token classifier's word is explained by the tokens up to it."""
    torch.manual_seed(0)
    network = transformers.GPT2ForTokenClassification(tiny_config("gpt2"))
    model = saved(tmp_path, network, "gpt2")
    instances = encode(model, ["the film is good"])
    found = attribute(model, instances, ["saliency", "decompx", "occlusion", "attention_rollout"])
    assert found.failures == []
    for rows in found.rows.values():
        for instance, row in zip(instances, rows, strict=True):
            assert row is not None
            assert np.abs(row.scores[instance.readout + 1 :]).max(initial=0) < 1e-12


def test_inputs_of_one_name_are_several(tmp_path: Path) -> None:
    model = saved(tmp_path, tiny_network("bert"))
    same = [Row("same", text) for text in TEXTS]
    other = [Row(f"{n}", text) for n, text in enumerate(TEXTS)]
    found = [attribute(model, encode(model, rows), "saliency") for rows in (same, other)]
    for ours, theirs in zip(found[0].rows["saliency"], found[1].rows["saliency"], strict=True):
        assert ours is not None and theirs is not None
        assert ours.scores.tolist() == theirs.scores.tolist()


def test_copies_are_run_once_for_all_questions(tmp_path: Path, most_rows: list[int]) -> None:
    network = tiny_network("bert", problem_type="multi_label_classification")
    model = saved(tmp_path, network)
    instances = encode(model, TEXTS)
    del most_rows[1:]  # Those of checking it.
    together = attribute(model, instances, "occlusion").rows["occlusion"]
    of_all = sum(most_rows[1:])
    alone = [attribute(model, [one], "occlusion").rows["occlusion"][0] for one in instances]
    of_each = sum(most_rows[1:]) - of_all
    for ours, theirs in zip(together, alone, strict=True):
        assert ours is not None and theirs is not None
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-12)
    removable = sum(int(instance.removable.sum()) for instance in instances[::3])
    # A run for each text, and a copy for each token of each text.
    assert (of_all, of_each) == (2 + removable, 6 + 3 * removable)


_OF_INPUTS = (
    *("saliency", "decompx", "generic_attribution", "attention_gradcam", "attention_rollout"),
    *("alti", "globenc", "norm_n_res", "bt_head", "lrp", "attattr_colsum", "hta_x_input"),
    *("integrated_gradients", "smoothgrad"),
)


@pytest.mark.usefixtures("padding_at_will")
@pytest.mark.parametrize(
    ("family", "asked"),
    [
        *[("bert", "labels"), ("llama", "labels"), ("modernbert-mean", "labels")],
        *[("bert", "words"), ("gpt2", "words"), ("deberta-v2", "words"), ("bert", "answers")],
    ],
)
def test_an_input_is_run_once_for_all_questions(
    tmp_path: Path, most_rows: list[int], family: str, asked: str
) -> None:
    if asked == "labels":
        network = tiny_network(family, problem_type="multi_label_classification")
    else:
        torch.manual_seed(0)
        kind = {"words": "ForTokenClassification", "answers": "ForQuestionAnswering"}[asked]
        labels = {"num_labels": 2} if asked == "answers" else {}
        network = getattr(transformers, CLASSES[family] + kind)(tiny_config(family, **labels))
    model = saved(tmp_path, network, family)
    instances = encode(model, TEXTS)
    del most_rows[1:]
    attribute(model, instances, ["random", "saliency", "attention_rollout"])
    assert most_rows[1:] == [len(TEXTS)]
    chosen = [c for c in choose(_OF_INPUTS) if c.unfit(model, parse_explain("auto", model)) is None]
    assert len(chosen) > 5
    together = attribute(model, instances, chosen, layers=True)
    assert together.failures == []
    for number, instance in enumerate(instances):
        alone = attribute(model, [instance], chosen, layers=True)
        for name, rows in alone.rows.items():
            ours, theirs = together.rows[name][number], rows[0]
            assert ours is not None and theirs is not None
            pairs = [(ours.scores, theirs.scores)]
            for own, other in zip(ours.layers or [], theirs.layers or [], strict=True):
                pairs.append((own.local, other.local))
            for found, expected in pairs:
                limit = 1e-8 * np.abs(expected).max()
                np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=name)


@pytest.mark.usefixtures("padding_at_will")
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_row_is_run_once_for_all_that_follows(
    tiny: LoadTiny, most_rows: list[int], family: str
) -> None:
    """Tokens that follow a prompt are asked of one row, whole or perturbed, and of one path."""
    model = tiny(family, "causal_lm", "float64")
    instances = random_questions(model, [(7, 3), (9, 4)])
    asked = [one for one in instances if not one.of_all]
    assert len(asked) == 7
    rules = {"integrated_gradients": "gauss_legendre", "bt_head": "endpoints"}
    steps = {name: {"steps": 4, "rule": rule} for name, rule in rules.items()}
    chosen = choose(["saliency", "occlusion", *steps], steps)
    rows = []
    for choice in chosen:
        del most_rows[1:]
        attribute(model, asked, [choice])
        rows.append(sum(most_rows[1:]))
    # Each token of the rows that is before one that is read, and that is no special one; and a
    # run of each row, its points, and where the path starts; it ends where the row was run.
    copies = sum(int((~one.special[:-1]).sum()) for one in (asked[2], asked[6]))
    assert rows == [2, 2 + copies, 2 * (1 + 4 + 1), 2 * (1 + 3)]
    together = attribute(model, asked, chosen)
    assert together.failures == []
    for number, instance in enumerate(asked):
        alone = attribute(model, [instance], chosen)
        for name, (row,) in alone.rows.items():
            ours = together.rows[name][number]
            assert ours is not None and row is not None
            assert len(ours.scores) == len(instance)
            limit = 1e-9 * np.abs(row.scores).max()
            np.testing.assert_allclose(ours.scores, row.scores, rtol=0, atol=limit, err_msg=name)


def test_few_logits_of_all_words_are_held_at_a_time(
    tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama", "causal_lm", "float64")
    asked = [one for one in random_questions(model, [(7, 5)]) if not one.of_all]
    expected = attribute(model, asked, "grad_x_input").rows["grad_x_input"]
    sizes: list[int] = []
    told = network_model.next_tokens

    def counted(logits: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(logits))
        return told(logits, outputs)

    monkeypatch.setattr(network_model, "next_tokens", counted)
    monkeypatch.setattr(network_model, "_MOST_LOGITS", 2 * model.vocabulary)
    found = attribute(model, asked, "grad_x_input").rows["grad_x_input"]
    assert sizes == [2, 2, 1]
    for ours, whole in zip(found, expected, strict=True):
        assert ours is not None and whole is not None
        assert relative_error(ours.scores, whole.scores) < 1e-12


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3", "phi3"])
@pytest.mark.parametrize("operation", ["pad", "delete"])
def test_copies_go_on_from_what_their_row_begins_with(
    tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch, family: str, operation: str
) -> None:
    """Windows are counted in the row, so that theirs are run whole."""
    model = tiny(family, "causal_lm", "float64")
    asked = [one for one in random_questions(model, [(24, 4)]) if not one.of_all]
    chosen = choose("occlusion", {"occlusion": {"operation": operation}})
    held: list[int] = []
    run = Model.run

    def counted(self: Model, rows: Rows, **more: Any) -> Any:
        past = more.get("past") or [(torch.zeros(1, 1, 0, 1),) * 2]
        held.append(past[0][0].shape[2])
        return run(self, rows, **more)

    monkeypatch.setattr(Model, "run", counted)
    found = attribute(model, asked, chosen, token_budget=300).rows["occlusion"]
    assert (max(held) > 12) == (not model.anatomy.indexed)
    monkeypatch.setattr(Variants, "_starts", lambda self: [])
    held.clear()
    for ours, whole in zip(
        found, attribute(model, asked, chosen, token_budget=300).rows["occlusion"], strict=True
    ):
        assert ours is not None and whole is not None
        assert relative_error(ours.scores, whole.scores) < 1e-9
    assert max(held) == 0


def test_a_row_that_the_model_fails_on_while_an_answer_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = transformers.BertForQuestionAnswering(tiny_config("bert", num_labels=2))
    model = saved(tmp_path, network)
    rows = [Row(name, "the film", "a bad plot") for name in ("full", "broken", "lost", "good")]
    whole, asked = Model.logits_of_tokens, iter(["full", "broken", "lost", "good", "full"])

    def logits(model: Model, given: Any) -> torch.Tensor:
        name = next(asked)
        if name == "full":
            raise torch.OutOfMemoryError("no\nroom")
        if name == "lost":
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        found = whole(model, given)
        return found * torch.nan if name == "broken" else found

    monkeypatch.setattr(Model, "logits_of_tokens", logits)
    _, failures = encode_rows(model, rows[:2], EncodeOptions(20))
    assert [(f.instance_id, f.stage, f.method, f.error, f.message) for f in failures] == [
        ("full", "forward", None, "OutOfMemoryError", "no room"),
        ("broken", "forward", None, "ArithmeticError", "the model's logits are not finite"),
    ]
    # What has nothing to do with the row ends the work.
    with pytest.raises(torch.AcceleratorError):
        encode_rows(model, rows[2:3], EncodeOptions(20))
    instances, failures = encode_rows(model, rows[3:], EncodeOptions(20))
    assert len(instances) == 2 and not failures
    with pytest.raises(RowError, match="the model failed on the row") as caught:
        encode(model, [rows[0]])
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "modernbert", "gpt2"])
def test_where_an_answer_starts_and_ends(tmp_path: Path, family: str) -> None:
    kind = CLASSES[family]
    torch.manual_seed(1)
    network = getattr(transformers, f"{kind}ForQuestionAnswering")(
        tiny_config(family, num_labels=2)
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    model = saved(tmp_path, network.eval(), family)
    pair = ("the film", "a bad plot is not good but the actor is very good and the play dull")
    instances = encode(model, [pair])
    assert [(i.instance_id, i.question_kind) for i in instances] == [
        ("text-0#0", "start"),
        ("text-0#1", "end"),
    ]
    inputs = tokenizer_for(family)(*pair, return_tensors="pt")
    with torch.no_grad():
        found = type(network).from_pretrained(tmp_path).double()(**inputs)
    start, end = found.start_logits[0], found.end_logits[0]
    inside = [at for at, text in enumerate(inputs.encodings[0].sequence_ids) if text == 1]
    best = max(
        ((a, b) for a in inside for b in inside if 0 <= b - a < 15),
        key=lambda ends: float(start[ends[0]] + end[ends[1]]),
    )
    assert tuple(instance.readout for instance in instances) == best
    together = attribute(model, instances, ["saliency", "decompx", "occlusion"])
    assert together.failures == []
    for number, (place, logits) in enumerate(zip(best, (start, end), strict=True)):
        prediction = together.predictions[number]
        assert prediction is not None
        assert relative_error(prediction.logits, logits[place : place + 1]) < 1e-9
        alone = attribute(model, instances[number : number + 1], "occlusion")
        for ours, theirs in ((together.rows["occlusion"][number], alone.rows["occlusion"][0]),):
            assert ours is not None and theirs is not None
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-10)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_no_answer_is_looked_for_in_the_question(tmp_path: Path, family: str) -> None:
    kind = getattr(transformers, f"{CLASSES[family]}ForQuestionAnswering")
    model = saved(tmp_path, kind(tiny_config(family, num_labels=2)).eval(), family)
    rows = [
        Row("blank", "the film", " "),
        Row("alone", "the film"),
        Row("pair", "the film", "good"),
    ]
    instances, failures = encode_rows(model, rows, EncodeOptions(48))
    assert [(f.instance_id, f.stage, f.message) for f in failures] == [
        ("blank", "encode", "the passage has no tokens to find an answer in")
    ]
    assert [i.instance_id for i in instances] == ["alone#0", "alone#1", "pair#0", "pair#1"]


@pytest.mark.usefixtures("padding_at_will")
@pytest.mark.parametrize("budget", [1, 10_000])
def test_questions_for_whose_gradients_there_is_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    """Then they are asked of fewer inputs at a time, and where one is too many they fail."""
    network = tiny_network("bert", problem_type="multi_label_classification")
    model = saved(tmp_path, network)
    instances = encode(model, TEXTS)
    expected = attribute(model, instances, "saliency,occlusion", token_budget=budget)
    part = Captured.part

    def run_out(self: Captured, rank: int) -> Captured:
        if rank == 1:
            raise torch.OutOfMemoryError("too many")
        return part(self, rank)

    monkeypatch.setattr(Captured, "part", run_out)
    found = attribute(model, instances, "saliency,occlusion", token_budget=budget)
    assert found.failures == []
    for name, rows in expected.rows.items():
        for ours, row in zip(found.rows[name], rows, strict=True):
            assert ours is not None and row is not None and ours.seconds > 0
            assert relative_error(ours.scores, row.scores) < 1e-12
    take = Captured._take

    def fail(self: Captured, share: Share) -> None:
        if share.rank == 1:
            raise ValueError("not this one")
        take(self, share)

    monkeypatch.undo()
    monkeypatch.setattr(Captured, "_take", fail)
    base = Captured._run_base

    def run_base(self: Captured) -> None:
        if [one.question for one in self.batch.instances] == [1]:
            raise ValueError("nor alone")
        base(self)

    monkeypatch.setattr(Captured, "_run_base", run_base)
    found = attribute(model, instances, "saliency,occlusion", token_budget=budget)
    failed = [(one.instance_id, one.stage, one.method, one.message) for one in found.failures]
    assert sorted(failed) == [
        (f"text-{n}#1", "attribute", "saliency", "nor alone") for n in range(2)
    ]
    assert [row is None for row in found.rows["saliency"]] == [n % 3 == 1 for n in range(6)]
    assert all(prediction is not None for prediction in found.predictions)
    assert all(row is not None for row in found.rows["occlusion"])
