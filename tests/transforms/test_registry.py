"""The registry of methods, and how methods and their parameters are named."""

import re
from dataclasses import replace
from typing import Any

import pytest

from attribeam import transforms
from attribeam.schemas import UsageError, UsageTypeError
from attribeam.transforms import choose, methods
from attribeam.transforms.passes.base import Pass
from attribeam.transforms.passes.path import Path
from attribeam.transforms.registry import Choice, LastLayers, Method, Scores, fit_all, register
from tests.conftest import LoadTiny

ROLES = ("signed", "class_dependent", "additive", "stochastic")


def refused(*args: Any, **more: Any) -> str:
    with pytest.raises(UsageError) as caught:
        choose(*args, **more)
    return str(caught.value)


def method(**changes: Any) -> Method:
    """A method that isn't registered, with parameters of every kind."""
    base = Method(
        name="mine",
        compute=lambda captured, params: Scores(captured.logits),
        needs=lambda params: (),
        defaults={
            "steps": 5,
            "layer": 0,
            "scale": 0.5,
            "bias": True,
            "kind": Choice("soft", "hard"),
            "label": "none",
        },
        signed=True,
        class_dependent=True,
        additive=False,
        cost="1 F",
        paper="none",
        equation="none",
    )
    return replace(base, **changes)


# The rows -------------------------------------------------------------------------------------


def test_names_are_in_order_and_are_those_of_the_rows() -> None:
    names = list(methods())
    assert names == sorted(names)
    assert all(name == row.name for name, row in methods().items())
    assert {"random", "raw_attention", "integrated_gradients"} <= set(names)


def test_a_family_is_a_file() -> None:
    families = {name: row.family for name, row in methods().items()}
    assert families["bt_token"] == families["bt_head"] == "beyond_intuition"
    assert families["globenc"] == families["alti"] == "norms"
    assert (families["random"], families["saliency"]) == ("control", "gradient")


@pytest.mark.parametrize("row", methods().values(), ids=methods())
def test_every_row_is_filled_in(row: Method) -> None:
    assert row.name.isidentifier() and row.name == row.name.lower()
    assert row.cost and row.paper and row.equation
    assert row.compute.__doc__
    assert all(isinstance(getattr(row, role), bool) for role in ROLES)
    needs = row.needs(row.params({}))
    assert all(isinstance(need, Pass) for need in needs)
    assert row.opt_in is None or row.opt_in
    assert len({hash(need) for need in needs}) == len(needs)


def test_two_methods_can_not_have_one_name() -> None:
    before = methods()
    with pytest.raises(ValueError, match="two methods are called random"):
        register(before["random"])
    assert methods() == before


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    ["saliency,random", " saliency , random,", ["saliency", "random"], "saliency,random,saliency"],
)
def test_methods_are_named(names: Any) -> None:
    assert [choice.name for choice in choose(names)] == ["saliency", "random"]


def test_all_methods() -> None:
    everything = [choice.name for choice in choose("all")]
    assert everything == [name for name, row in methods().items() if row.opt_in is None]
    assert choose(["all"]) == choose("all")
    assert "attention_flow" not in everything
    named = [choice.name for choice in choose("attention_flow,all,random")]
    assert named == ["attention_flow", *everything]


def test_what_a_model_is_not_made_for(tiny: LoadTiny) -> None:
    model, post_ln = tiny("xlm-roberta-xl"), tiny("bert")
    wanted = {
        name
        for name, row in methods().items()
        if not model.traits.issuperset(row.requires) and row.opt_in is None
    }
    assert wanted >= {"globenc", "norm_n_resln", "w_res"}
    assert not wanted & {"alti", "lrp", "partial_lrp", "transformer_attribution", "norm_n_res"}
    chosen = choose("all,attention_flow")
    fitted, left_out = fit_all(chosen, model)
    assert set(left_out) == wanted
    assert [c.name for c in fitted] == [c.name for c in chosen if c.name not in wanted]
    assert left_out["globenc"] == (
        "is defined by layers that normalise after their residuals, and xlm-roberta-xl has none"
    )
    assert set(fit_all(chosen, post_ln)[1]) == {"alti_logit"}
    # What somebody has named, or set a parameter of, is not left out in silence.
    with pytest.raises(UsageError, match=r"^globenc is defined by layers that normalise"):
        fit_all(choose("all,globenc"), model)
    with pytest.raises(UsageError, match=r"^lrp is defined by feed-forward parts without a gate"):
        fit_all(choose("all", {"lrp": {"rules": "orig"}}), tiny("modernbert"))
    flow = choose("attention_flow", {"attention_flow": {"matrix": "globenc"}})
    with pytest.raises(UsageError, match="norms of what leaves a layer norm are defined by"):
        fit_all(flow, model)
    assert transforms.attribute(model, [], "all").left_out == left_out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "methods are given by their names, and not as 3"),
        ((["lime", None],), "methods are given by their names"),
        (("lime", {"lime": 50}), "parameters are given by method, as {"),
        (("lime", "samples=50"), "parameters are given by method, as {"),
    ],
)
def test_what_is_no_choice(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageTypeError, match=re.escape(message)):
        choose(*arguments)


def test_an_unknown_method() -> None:
    assert "no method 'salliency'; did you mean saliency?" in refused("random,salliency")
    assert "did you mean" not in refused("zzz")
    assert "attribeam methods" in refused("zzz")


@pytest.mark.parametrize("names", ["", ",", []])
def test_no_method(names: Any) -> None:
    assert "no method was named" in refused(names)


# Parameters -----------------------------------------------------------------------------------


def test_defaults() -> None:
    (choice,) = choose("integrated_gradients")
    assert choice.params == {
        "baseline": "pad",
        "steps": 97,
        "rule": "auto",
        "tolerance": 0.005,
        "output": "logit",
        "moves": "text",
    }
    assert choice.needs == (Path("pad", 97, "nested", tolerance=0.005),)


def test_given_parameters() -> None:
    given = {"integrated_gradients": {"steps": "7", "rule": "left"}}
    ours, other = choose("integrated_gradients,saliency", given)
    expected = {"baseline": "pad", "steps": 7, "rule": "left", "output": "logit", "moves": "text"}
    assert ours.params == expected | {"tolerance": 0.005}
    assert ours.needs == (Path("pad", 7, "left"),)
    assert other.params == {"norm": "l2"}


def test_whether_scores_have_a_sign_may_depend_on_parameters() -> None:
    for name in ("smoothgrad", "grad_x_input"):
        assert choose(name)[0].signed == methods()[name].signed
        other = {"smoothgrad": "sum", "grad_x_input": "norm"}[name]
        assert choose(name, {name: {"reduce": other}})[0].signed == (other == "sum")
    assert choose("decompx")[0].signed


def test_noise_is_more_than_none(tiny: LoadTiny) -> None:
    for noise in (0, -0.1):
        (choice,) = choose("smoothgrad", {"smoothgrad": {"noise": noise}})
        with pytest.raises(UsageError, match=r"smoothgrad.noise is more than 0, not"):
            choice.fitted(tiny("bert"))


def test_a_preset_stands_for_its_parameters() -> None:
    given = {"integrated_gradients": {"preset": "iba", "steps": "20"}}
    (choice,) = choose("integrated_gradients", given)
    expected = {
        "baseline": "pad",
        "steps": 20,
        "rule": "gauss_legendre",
        "tolerance": 0.005,
        "output": "probability",
        "moves": "text",
    }
    assert choice.params == expected
    wrong = {"integrated_gradients": {"preset": "lime"}}
    assert "preset is one of fixed, iba, inseq, captum, not 'lime'" in refused(
        "integrated_gradients", wrong
    )
    assert "saliency has no parameter 'preset'" in refused(
        "saliency", {"saliency": {"preset": "iba"}}
    )


def test_presets_are_of_parameters_that_there_are() -> None:
    for known in methods().values():
        for name, preset in known.presets.items():
            found = known.params({"preset": name})
            assert {key: found[key] for key in preset} == preset


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("steps", 20, 20),
        ("steps", "20", 20),
        ("steps", 20.0, 20),
        ("layer", "0", 0),
        ("scale", "2", 2.0),
        ("scale", 1, 1.0),
        ("scale", "1e-3", 0.001),
        ("bias", False, False),
        ("bias", "false", False),
        ("bias", "True", True),
        ("kind", "hard", "hard"),
        ("label", "some", "some"),
    ],
)
def test_values_are_of_the_type_of_the_default(name: str, given: Any, value: Any) -> None:
    found = method().params({name: given})[name]
    assert found == value
    assert type(found) is type(value)
    assert method().params({name: given}) == method().params({}) | {name: value}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("steps", "many", "mine.steps is a number such as 5, not 'many'"),
        ("steps", 2.5, "mine.steps is a number such as 5, not 2.5"),
        ("steps", "2.5", "mine.steps is a number"),
        ("steps", True, "mine.steps is a number"),
        ("steps", None, "mine.steps is a number"),
        ("steps", [1], "mine.steps is a number"),
        ("steps", float("inf"), "mine.steps is a number"),
        ("steps", float("nan"), "mine.steps is a number"),
        ("steps", 0, "mine.steps is at least 1, not 0"),
        ("steps", "-3", "mine.steps is at least 1"),
        ("layer", -1, "mine.layer is at least 0"),
        ("scale", "wide", "mine.scale is a number such as 0.5"),
        ("scale", True, "mine.scale is a number"),
        ("scale", "nan", "mine.scale is a number"),
        ("bias", "yes", "mine.bias is true or false, not 'yes'"),
        ("bias", 1, "mine.bias is true or false, not 1"),
        ("kind", "loud", "mine.kind is one of soft, hard, not 'loud'"),
        ("colour", 1, "mine has no parameter 'colour'; it has: bias, kind, label, layer"),
    ],
)
def test_values_that_are_refused(name: str, given: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        method().params({name: given})
    assert message in str(caught.value)


def test_a_method_without_parameters() -> None:
    assert "raw_attention has no parameter 'steps'; it has: none" in refused(
        "raw_attention", {"raw_attention": {"steps": 1}}
    )


def test_parameters_of_a_method_that_is_not_run() -> None:
    given = {"saliency": {"norm": "l1"}}
    assert "parameters were set for saliency" in refused("random", given)
    assert "no method 'salency'" in refused("random", {"salency": {}})


def test_the_function_is_not_replaced_by_the_folder() -> None:
    assert transforms.methods() == transforms.methods() == methods()


# Parameters that depend on the model ----------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "depth", "start"),
    [
        (1 / 12, 12, 11),
        (4 / 12, 12, 8),
        (1 / 12, 24, 22),
        (4 / 12, 24, 16),
        (1 / 12, 4, 3),
        (4 / 12, 6, 4),
        (1, 6, 0),
        (1 / 12, 1, 0),
    ],
)
def test_last_layers_are_a_share_of_the_depth(share: float, depth: int, start: int) -> None:
    assert LastLayers(share).start(depth) == start


@pytest.mark.parametrize(("depth", "start"), [(12, 8), (6, 4), (4, 2), (3, 1), (2, 0), (1, 0)])
def test_last_layers_may_be_two_at_least(depth: int, start: int) -> None:
    assert LastLayers(4 / 12, least=2).start(depth) == start


def test_a_name_is_filled_in_that_the_model_has_a_meaning_for(tiny: LoadTiny) -> None:
    post_ln, pre_ln = tiny("bert"), tiny("xlm-roberta-xl")
    for choice in choose("alti") + choose("alti", {"alti": {"level": "auto"}}):
        assert choice.params["level"] == "auto"
        assert choice.fitted(post_ln).params["level"] == "attention_norm"
        assert choice.fitted(pre_ln).params["level"] == "residual"
    (given,) = choose("alti", {"alti": {"level": "output_norm"}})
    assert given.fitted(post_ln).params["level"] == "output_norm"
    message = r"alti.level=output_norm is defined by layers that normalise .*roberta-xl has none"
    with pytest.raises(UsageError, match=message):
        given.fitted(pre_ln)
    (given,) = choose("alti", {"alti": {"level": "residual"}})
    assert given.fitted(post_ln).params["level"] == "residual"
    assert "alti.level is one of auto, attention_norm, output_norm, residual, not 'values'" in (
        refused("alti", {"alti": {"level": "values"}})
    )


def test_start_layer_is_filled_in_for_a_model(tiny: LoadTiny) -> None:
    model = tiny("bert")
    (choice,) = choose("bt_token")
    assert choice.params["start_layer"] == "auto"
    assert choice.fitted(model).params["start_layer"] == 2
    (choice,) = choose("bt_token", {"bt_token": {"start_layer": "1"}})
    assert choice.params["start_layer"] == choice.fitted(model).params["start_layer"] == 1
    (choice,) = choose("generic_attribution")
    assert choice.fitted(model).params == {"start_layer": 0}


def test_a_layer_that_the_model_has_not(tiny: LoadTiny) -> None:
    (choice,) = choose("bt_token", {"bt_token": {"start_layer": 3}})
    with pytest.raises(UsageError, match="start_layer is 3, but the model's layers are 0 to 2"):
        choice.fitted(tiny("bert"))
    for wrong in ("-1", "last", 0.5):
        assert "start_layer" in refused("bt_token", {"bt_token": {"start_layer": wrong}})


@pytest.mark.parametrize("name", ["occlusion", "lime", "kernel_shap", "integrated_gradients"])
def test_a_mask_that_is_not_known(tiny: LoadTiny, name: str) -> None:
    model = replace(tiny("bert"), mask_id=None)
    key = "baseline" if name == "integrated_gradients" else "operation"
    (choice,) = choose(name, {name: {key: "mask"}})
    with pytest.raises(UsageError, match="--mask-token-id"):
        choice.fitted(model)
