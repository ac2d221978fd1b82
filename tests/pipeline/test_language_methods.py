"""Methods on the network of language models, through the command line, against peers' own code."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pipeline.test_language_models import CORPUS, LIMITS, WITH_GOLDENS, by_token, ran
from tests.support.authors import golden_numbers
from tests.support.models import relative_error
from tests.support.tiny import command, table

# By model what is run beside relevance by rules.
MORE = {"gpt2": ["alti", "alti_logit"], "llama": ["ifr", "value_zeroing"], "qwen3": ["ifr"]}
CODE = ["--set", "alti.preset=code", "--set", "alti_logit.preset=code"]
Run = Callable[[str, str, str], Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a model's methods, explained by a scalar, in a type; once."""

    @cache
    def done(model: str, explain: str, dtype: str) -> Path:
        methods = ",".join(["attnlrp", "cp_lrp", *MORE.get(model, [])])
        presets = CODE if model == "gpt2" else []
        layers = ["--layers"] if model in ("gpt2", "llama") else []
        out = tmp_path_factory.mktemp("out") / f"{model}-{explain}-{dtype}"
        more = ("--explain", explain, "--dtype", dtype, "--methods", methods, *layers, *presets)
        return ran(out, model, CORPUS, *more)

    return done


@pytest.mark.parametrize(
    ("model", "explain", "dtype"),
    [
        *((model, "contrast", "float64") for model in ("gpt2", "llama", "qwen3", "gemma3")),
        ("gpt2", "logit", "float64"),
        ("llama", "log_prob", "float64"),
        ("llama", "logit", "float32"),
    ],
)
def test_relevance_by_rules(run: Run, model: str, explain: str, dtype: str) -> None:
    golden = golden_numbers(f"decoders/lxt_{model}")
    for method, theirs in (("attnlrp", "attnlrp"), ("cp_lrp", "cp")):
        found = by_token(run(model, explain, dtype), "attributions", method)
        assert len(found) > 10
        for (row, number), one in found.items():
            expected = golden[f"{theirs}/{explain}/{row}"][number][: len(one["scores"])]
            assert relative_error(one["scores"], expected) < LIMITS[dtype], (row, number)
            gap = method == "cp_lrp" and model != "gpt2" and explain != "log_prob"
            assert (one["delta"] is not None) == gap
            if gap:
                assert abs(one["delta"]) < LIMITS[dtype]


def test_relevance_of_capped_logits_adds_up(run: Run) -> None:
    out = run("gemma2", "logit", "float64")
    said = by_token(out, "instances")
    for key, one in by_token(out, "attributions", "cp_lrp").items():
        assert abs(one["delta"]) < 1e-9
        assert sum(one["scores"]) == pytest.approx(said[key]["logit"], abs=1e-9)
    # What relevance by attention's rule misses the logit by is told.
    for key, one in by_token(out, "attributions", "attnlrp").items():
        total = sum(one["scores"]) + one["unattributed"]
        assert one["delta"] is None and total == pytest.approx(said[key]["logit"], abs=1e-9)


@pytest.mark.parametrize("model", ["llama", "qwen3"])
def test_information_flow_routes(run: Run, model: str) -> None:
    golden = golden_numbers(f"decoders/ifr_{model}")
    found = by_token(run(model, "contrast", "float64"), "attributions", "ifr")
    for (row, number), one in found.items():
        length = len(one["scores"])
        expected = golden[f"ifr_all/{row}"][length - 1][:length]
        assert relative_error(one["scores"], expected) < 1e-9, (row, number)
    spans = table(run(model, "contrast", "float64"), "attributions", "ifr").to_pylist()
    for row, name in ((row, f"golden-{row}#all") for row in WITH_GOLDENS):
        (scores,) = (one["scores"] for one in spans if one["instance_id"] == name)
        # Theirs are of the whole row, the last token of which nothing is read from.
        assert relative_error(scores, golden[f"ifr_span/{row}"][: len(scores)]) < 1e-9, row


@pytest.mark.parametrize("explain", ["logit", "contrast"])
def test_alti_logit(run: Run, explain: str) -> None:
    golden, out = golden_numbers("decoders/alti_logit_gpt2"), run("gpt2", explain, "float64")
    said = by_token(out, "instances")
    rest_of = [f"{part}/{{}}/{{}}" for part in ("mlp_logit", "b_o_logit", "lnf_bias")]
    for (row, number), one in by_token(out, "attributions", "alti_logit").items():
        # Theirs are of the target and of the foil, and without what the last embedding adds.
        both = golden[f"logit_aff_x_j_alti/{row}/{number}"].sum(1)
        both[:, -1] += golden[f"init_logit/{row}/{number}"].reshape(2, -1).sum(-1)
        rest = sum(golden[key.format(row, number)].reshape(-1, 2).sum(0) for key in rest_of)
        signs = np.array([1, -1 if explain == "contrast" else 0])
        assert relative_error(one["scores"], signs @ both) < 1e-9, (row, number)
        assert one["unattributed"] == pytest.approx(float(signs @ rest), abs=1e-9)
        logits = np.array([said[row, number][name] for name in ("logit", "foil_logit")])
        total = sum(one["scores"]) + one["unattributed"]
        assert total == pytest.approx(float(signs @ logits), abs=1e-9)
        assert abs(one["delta"]) < 1e-9


def of_layers(out: Path, method: str, column: str) -> dict[tuple[int, int], dict[int, Any]]:
    """A column of ``layers``, by instance and number of the token, and by layer."""
    found: dict[tuple[int, int], dict[int, Any]] = {}
    for row in table(out, "layers", method).to_pylist():
        row_id, number = row["instance_id"].removeprefix("golden-").split("#")
        if number == "all":
            continue
        found.setdefault((int(row_id), int(number)), {})[row["layer"]] = row[column]
    return found


def test_alti_of_each_layer(run: Run) -> None:
    """Theirs is of the whole row but its last token: the last question about it is."""
    golden, out = golden_numbers("decoders/alti_logit_gpt2"), run("gpt2", "logit", "float64")
    questions = by_token(out, "instances")
    last = {row: max(n for r, n in questions if r == row) for row, _ in questions}
    for ours, theirs in (("local", "alti_layers"), ("rollout", "alti_rollout")):
        found = of_layers(out, "alti", ours)
        for row, number in last.items():
            for layer, scores in found[row, number].items():
                expected = golden[f"{theirs}/{row}"][layer][-1]
                assert relative_error(scores, expected) < 1e-9, (row, layer)


def test_value_zeroing(run: Run) -> None:
    golden, out = golden_numbers("decoders/inseq_llama"), run("llama", "contrast", "float64")
    layers = of_layers(out, "value_zeroing", "local")
    for (row, number), one in by_token(out, "attributions", "value_zeroing").items():
        expected = golden[f"value_zeroing/{row}"][: len(one["scores"]), number]
        for layer, scores in layers[row, number].items():
            assert relative_error(scores, expected[:, layer]) < 1e-9, (row, number, layer)
        assert relative_error(one["scores"], expected.sum(1)) < 1e-9


@pytest.mark.parametrize("model", ["gpt2", "llama"])
@pytest.mark.parametrize("peer", ["inseq", "captum"])
def test_integrated_gradients_as_peers_have_them(tmp_path: Path, model: str, peer: str) -> None:
    explain = {"inseq": "logit", "captum": "log_prob"}[peer]
    more = ("--methods", "integrated_gradients", "--set", f"integrated_gradients.preset={peer}")
    more += ("--set", "integrated_gradients.steps=20", "--explain", explain, "--dtype", "float64")
    out = ran(tmp_path / "out", model, CORPUS, *more)
    golden, said = golden_numbers(f"decoders/{peer}_{model}"), by_token(out, "instances")
    for (row, number), one in by_token(out, "attributions", "integrated_gradients").items():
        scores, prompt = np.array(one["scores"]), said[row, number]["prompt_length"]
        if peer == "inseq":
            theirs = golden[f"integrated_gradients/logit/sum/{row}"][: len(scores), number]
            assert relative_error(scores, theirs) < 1e-9, (row, number)
        else:
            theirs = golden[f"lig20_logprob/{row}"][number]
            assert relative_error(scores[:prompt], theirs) < 1e-9, (row, number)
            assert not scores[prompt:].any()


def test_runs_are_sound(run: Run) -> None:
    for model in ("gpt2", "llama"):
        verified = command("verify", run(model, "contrast", "float64"))
        assert "sound: everything adds up" in verified.out, verified.out
