"""Language models through the command line: each token that follows is explained."""

from functools import cache
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import entropy, spearmanr
from transformers import Gemma2ForCausalLM, GPT2LMHeadModel, PreTrainedTokenizerFast

from attribeam.analysis import open_run
from tests.support.authors import golden_numbers
from tests.support.models import GOLDENS, relative_error
from tests.support.tiny import command, table, write_jsonl

MODELS = ("gpt2", "llama", "qwen3", "gemma2", "gemma3")
# Of the largest number of a row of scores.
LIMITS = {"float64": 1e-9, "float32": 1e-5}
CORPUS = GOLDENS / "corpus_lm.parquet"
WITH_GOLDENS = range(5)


def ran(out: Path, model: str, corpus: Path, *more: object) -> Path:
    run = command(
        *("run", "--model", GOLDENS / f"{model}-golden", "--corpus", corpus, "--output", out),
        *("--no-evaluate", "--methods", "grad_x_input", *more),
    )
    assert run.status == 0, run.err
    return out


def by_token(out: Path, name: str, method: str | None = None) -> dict[tuple[int, int], Any]:
    """Rows of a table, of the instances with goldens, by instance and number of the token."""
    rows = {}
    for row in table(out, name, method).to_pylist():
        row_id, number = row["instance_id"].removeprefix("golden-").split("#")
        if int(row_id) in WITH_GOLDENS and number != "all":
            rows[int(row_id), int(number)] = row
    return rows


@cache
def expected(model: str, key: str) -> NDArray[np.floating]:
    return golden_numbers(f"decoders/forward_{model}")[key]


@pytest.mark.parametrize(
    ("model", "explain", "dtype"),
    [
        *((model, "contrast", "float64") for model in MODELS),
        ("llama", "logit", "float64"),
        ("gemma2", "log_prob", "float64"),
        ("gpt2", "log_prob", "float32"),
        ("gemma3", "logit", "float32"),
    ],
)
def test_gradients_of_peers(tmp_path: Path, model: str, explain: str, dtype: str) -> None:
    more = ("--explain", explain, "--dtype", dtype, "--methods", "grad_x_input,saliency")
    out = ran(tmp_path / "out", model, CORPUS, *more)
    found = by_token(out, "attributions", "grad_x_input")
    assert len(found) == sum(len(expected(model, f"logits/{n}")) for n in WITH_GOLDENS)
    for (row, number), one in found.items():
        golden = expected(model, f"grad_x_input/{explain}/{row}")[number]
        assert not golden[len(one["scores"]) :].any()
        error = relative_error(one["scores"], golden[: len(one["scores"])])
        assert error < LIMITS[dtype], (row, number)
    for (row, number), one in by_token(out, "attributions", "saliency").items():
        if explain == "logit":
            golden = expected(model, f"grad_l2/logit/{row}")[number][: len(one["scores"])]
            assert relative_error(one["scores"], golden) < LIMITS[dtype], (row, number)


@pytest.mark.parametrize(
    ("model", "explain", "dtype"),
    [
        ("gpt2", "probability", "float64"),
        ("llama", "contrast", "float64"),
        ("llama", "logit", "float64"),
        ("gpt2", "logit", "float32"),
    ],
)
def test_inseq(tmp_path: Path, model: str, explain: str, dtype: str) -> None:
    """Its rows are inputs. It moves the first token too, and gives the size of what is lost."""
    more = ("--methods", "grad_x_input,saliency,occlusion", "--explain", explain)
    unknown = ("--mask-token-id", "3", "--set", "occlusion.operation=mask", "--dtype", dtype)
    out = ran(tmp_path / "out", model, CORPUS, *more, *unknown)
    golden = golden_numbers(f"decoders/inseq_{model}")
    theirs = {"contrast": "contrast_logits_diff"}.get(explain, explain)
    keys = {
        "grad_x_input": f"input_x_gradient/{theirs}/sum",
        "saliency": f"saliency/{theirs}/l2",
        "occlusion": f"occlusion/{theirs}",
    }
    special = {key: one["special"] for key, one in by_token(out, "instances").items()}
    compared = 0
    for method, key in keys.items():
        for (row, number), one in by_token(out, "attributions", method).items():
            if f"{key}/{row}" not in golden or number >= golden[f"{key}/{row}"].shape[1]:
                continue  # Of contrasts it has the first token alone, of occlusion logits.
            expected = golden[f"{key}/{row}"][: len(one["scores"]), number]
            found = np.array(one["scores"])
            if method == "occlusion":
                kept = ~np.array(special[row, number])
                kept[-1] = False
                found, expected = np.abs(found[kept]), expected[kept]
            assert relative_error(found, expected) < LIMITS[dtype], (method, row, number)
            compared += 1
    assert compared >= 2 * len(WITH_GOLDENS)


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_captum(tmp_path: Path, model: str) -> None:
    """It ablates in float32, and skips the first token; what is read is not removed here."""
    more = ("--methods", "occlusion", "--explain", "log_prob", "--dtype", "float64")
    zero = ("--mask-token-id", "0", "--set", "occlusion.operation=mask")
    out = ran(tmp_path / "out", model, CORPUS, *more, *zero)
    instances = by_token(out, "instances")
    for (row, number), one in by_token(out, "attributions", "occlusion").items():
        expected = golden_numbers(f"decoders/captum_{model}")[f"feature_ablation_logprob/{row}"]
        prompt = instances[row, number]["prompt_length"]
        last = prompt - (number == 0)
        found = np.array(one["scores"])[1:last]
        wanted = expected[number][: last - 1]
        assert np.abs(found - wanted).max() < 1e-6 * np.abs(expected[number]).max()


def test_a_contrast_is_the_difference_of_two_logits(tmp_path: Path) -> None:
    rows = pq.read_table(CORPUS).to_pylist()[:4]
    lines = []
    for row in rows:
        own = {"input_ids": row["input_ids"], "continuation_ids": row["continuation_ids"][:1]}
        foils = {"foil_ids": row["foil_ids"][:1]}
        lines.append({"id": f"own-{row['id']}", **own, **foils})
        other = {**own, "continuation_ids": foils["foil_ids"]}
        lines.append({"id": f"foil-{row['id']}", **other, "foil_ids": None})
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)
    more = ("--dtype", "float64", "--target", "tokens", "--methods", "grad_x_input,decompx")
    found = {
        (explain, method, one["instance_id"]): np.array(one["scores"])
        for explain in ("logit", "contrast")
        for out in [ran(tmp_path / explain, "qwen3", corpus, *more, "--explain", explain)]
        for method in ("grad_x_input", "decompx")
        for one in table(out, "attributions", method).to_pylist()
    }
    for row in rows:
        for method in ("grad_x_input", "decompx"):
            own, foil = (found["logit", method, f"{of}-{row['id']}#0"] for of in ("own", "foil"))
            both = found["contrast", method, f"own-{row['id']}#0"]
            assert relative_error(both, own - foil) < LIMITS["float64"]


def test_what_a_model_says_of_each_token(tmp_path: Path) -> None:
    out = ran(tmp_path / "out", "llama", CORPUS, "--dtype", "float64")
    for (row, number), one in by_token(out, "instances").items():
        logits = expected("llama", f"logits/{row}")[number]
        log_probs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        own, foil = one["token_id"], one["foil_id"]
        others = np.delete(logits, own)
        assert one["question"] == number and one["question_kind"] == "next" and one["given"]
        assert one["prompt_length"] + number == len(one["tokens"]) == one["readout"] + 1
        assert one["segment"] == [0] * one["prompt_length"] + [1] * number
        assert one["logit"] == pytest.approx(logits[own], abs=1e-12)
        assert one["foil_logit"] == pytest.approx(logits[foil], abs=1e-12)
        assert one["log_prob"] == pytest.approx(log_probs[own], abs=1e-12)
        entropy = -(np.exp(log_probs) * log_probs).sum()
        assert one["entropy"] == pytest.approx(entropy, abs=1e-12)
        assert one["rank"] == 1 + (logits > logits[own]).sum()
        assert one["runner_up_id"] == np.flatnonzero(logits == others.max())[0]
        assert one["outputs"] == [f"w{own}", f"w{foil}"] == [one["token"], one["foil"]]
        kept = [logits[own], logits[foil], np.delete(logits, [own, foil]).max()]
        assert one["logits"][:3] == pytest.approx(kept, abs=1e-12)
        shares = np.exp([log_probs[own], log_probs[foil]])
        assert one["probabilities"][:2] == pytest.approx(shares, rel=1e-12)
        assert sum(one["probabilities"]) == pytest.approx(1, rel=1e-12)
    verified = command("verify", out)
    assert "sound: everything adds up" in verified.out, verified.out


def test_rows_that_cannot_be_explained_fail_with_a_reason(tmp_path: Path) -> None:
    good = {"input_ids": [1, 9, 8, 7], "continuation_ids": [6, 2], "foil_ids": [None, 5]}
    bad = {
        "the prompt is empty": {"input_ids": [1]},
        "input_ids is empty": {"input_ids": []},
        "the continuation is empty": {"continuation_ids": []},
        "goes on after its end token": {"continuation_ids": [2, 6]},
        "ends in padding": {"continuation_ids": [6, 0]},
        "outside the model's vocabulary": {"continuation_ids": [6, 200]},
        "the foil has 1 tokens, and the continuation 2": {"foil_ids": [5]},
        "the foil can't be read": {"foil_ids": [5, 200]},
        "leaves nothing of the prompt": {"continuation_ids": [6] * 64, "foil_ids": None},
    }
    lines = [{"id": f"r{n}", **good, **change} for n, change in enumerate(bad.values())]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [*lines, {"id": "good", **good}])
    run = command(
        *("run", "--model", GOLDENS / "llama-golden", "--corpus", corpus),
        *("--output", tmp_path / "out", "--methods", "saliency", "--no-evaluate"),
    )
    assert run.status == 1, run.err
    failures = {row["instance_id"]: row for row in table(tmp_path / "out", "failures").to_pylist()}
    assert {row["stage"] for row in failures.values()} == {"encode"}
    for number, message in enumerate(bad):
        assert message in failures[f"r{number}"]["message"]
    there = table(tmp_path / "out", "instances").to_pylist()
    assert [one["instance_id"] for one in there] == ["good#0", "good#1", "good#all"]
    assert [(one["foil_id"], one["is_eos"]) for one in there[:2]] == [(None, False), (5, True)]
    assert there[0]["outputs"][1] == f"w{there[0]['runner_up_id']}"


@torch.no_grad()
def log_prob_of_all(network: Any, ids: list[int], prompt: int, removed: int | None) -> float:
    """How likely is what follows a prompt, by transformers alone, with one token gone."""
    kept = [at for at in range(len(ids) - 1) if at != removed]
    rows, places = (torch.tensor([x]) for x in ([ids[at] for at in kept], kept))
    logits = network(rows, position_ids=places).logits[0].log_softmax(-1)
    read = [kept.index(at) for at in range(prompt - 1, len(ids) - 1)]
    return float(logits[read, ids[prompt:]].sum())


@torch.no_grad()
def next_of(network: Any, ids: list[int], removed: set[int]) -> NDArray[np.float64]:
    """What transformers alone expects after some ids, with some of them gone: [V]."""
    kept = [at for at in range(len(ids)) if at not in removed]
    rows, places = (torch.tensor([x]) for x in ([ids[at] for at in kept], kept))
    shares: NDArray[np.float64] = (
        network(rows, position_ids=places).logits[0, -1].softmax(-1).numpy()
    )
    return shares


def check_distributions(network: Any, ids: list[int], points: list[Any], best: list[int]) -> None:
    """Entropies and divergences of a MoRF curve over the whole vocabulary, as ERASER's code does.

    ``best`` are the positions that can be removed, the most relevant first.
    """
    whole = next_of(network, ids, set())
    for point in points:
        left = next_of(network, ids, set(best[: point["removed"]]))
        assert point["entropy"] == pytest.approx(entropy(left), abs=1e-9)
        assert point["kl"] == pytest.approx(entropy(left, whole), abs=1e-9)
    assert points[0]["kl"] == 0 < points[-1]["kl"]


def test_all_that_follows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = "grad_x_input,saliency,occlusion,raw_attention,decompx"
    run = command(
        *("run", "--model", GOLDENS / "gpt2-golden", "--corpus", CORPUS, "--output", out),
        *("--dtype", "float64", "--explain", "log_prob", "--limit", "3", "--fractions", "0.5"),
        *("--methods", methods.removesuffix(",decompx")),
    )
    assert run.status == 0, run.err
    linear = tmp_path / "linear"
    run = command(
        *("run", "--model", GOLDENS / "gpt2-golden", "--corpus", CORPUS, "--output", linear),
        *("--limit", "3", "--methods", "saliency,decompx", "--no-evaluate"),
    )
    assert run.status == 0, run.err
    for folder in (out, linear):
        verified = command("verify", folder)
        assert "sound: everything adds up" in verified.out, verified.out
    why = table(linear, "instances").to_pylist()
    of_tokens = [one["instance_id"] for one in why if one["question"] is not None]
    assert table(linear, "attributions", "decompx")["instance_id"].to_pylist() == of_tokens

    network = GPT2LMHeadModel.from_pretrained(GOLDENS / "gpt2-golden").double()
    instances = {one["instance_id"]: one for one in table(out, "instances").to_pylist()}
    scores = {
        (method, one["instance_id"]): np.array(one["scores"])
        for method in ("grad_x_input", "occlusion", "raw_attention")
        for one in table(out, "attributions", method).to_pylist()
    }
    points = table(out, "curves", "occlusion").to_pylist()
    for number, row in enumerate(pq.read_table(CORPUS).to_pylist()[:3]):
        name, prompt = f"golden-{number}", len(row["input_ids"])
        ids = row["input_ids"] + row["continuation_ids"]
        every = instances[f"{name}#all"]
        tokens = [instances[f"{name}#{t}"] for t in range(len(row["continuation_ids"]))]
        assert (every["question"], every["question_kind"], every["readout"]) == (None, "all", None)
        assert every["input_ids"] == ids[:-1]
        whole = log_prob_of_all(network, ids, prompt, None)
        assert every["log_prob"] == pytest.approx(whole, abs=1e-9)
        assert every["log_prob"] == pytest.approx(sum(one["log_prob"] for one in tokens))
        assert every["logits"] == pytest.approx([whole])
        assert every["probabilities"] == pytest.approx([np.exp(whole)])
        # A sum of log-probabilities has the sum of their gradients; of what is no gradient, which
        # is of no class, it is the mean.
        for method, join in (("grad_x_input", np.sum), ("raw_attention", np.mean)):
            own = [scores[method, one["instance_id"]] for one in tokens]
            padded = [np.pad(one, (0, len(ids) - 1 - len(one))) for one in own]
            error = relative_error(scores[method, f"{name}#all"], join(padded, axis=0))
            assert error < LIMITS["float64"]
        removable = [at for at in range(prompt - 1) if not every["special"][at]]
        lost = np.zeros(len(ids) - 1)
        lost[removable] = [whole - log_prob_of_all(network, ids, prompt, a) for a in removable]
        assert scores["occlusion", f"{name}#all"] == pytest.approx(lost, abs=1e-9)
        of_all = [p for p in points if p["instance_id"] == f"{name}#all" and p["order"] == "morf"]
        assert [p["removed"] for p in of_all] == [0, (len(removable) + 1) // 2, len(removable)]
        assert of_all[0]["logit"] == pytest.approx(whole, abs=1e-9)
        assert of_all[0]["probability"] == pytest.approx(np.exp(whole), rel=1e-9)
        assert {p["entropy"] for p in of_all} == {p["kl"] for p in of_all} == {None}
        for t, one in enumerate(tokens):
            mine = [p for p in points if p["instance_id"] == f"{name}#{t}" and p["order"] == "morf"]
            assert mine[0]["entropy"] == pytest.approx(one["entropy"], abs=1e-9)
            free = [at for at in range(prompt + t - 1) if not one["special"][at]]
            found = scores["occlusion", one["instance_id"]]
            best = sorted(free, key=lambda at: -found[at])
            check_distributions(network, ids[: prompt + t], mine, best)


def test_what_a_model_says_itself_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [row["input_ids"] for row in pq.read_table(CORPUS).to_pylist()[:4]]
    lines = [{"id": f"r{n}", "input_ids": ids} for n, ids in enumerate(prompts)]
    lines.append({"id": "given", "input_ids": prompts[0], "continuation_ids": [9, 8]})
    lines.append({"id": "long", "input_ids": [1, *[9] * 20]})
    corpus, out = write_jsonl(tmp_path / "corpus.jsonl", lines), tmp_path / "out"
    arguments = (
        *("run", "--model", GOLDENS / "gemma2-golden", "--corpus", corpus, "--output", out),
        *("--max-new-tokens", "4", "--shard-size", "4", "--no-evaluate", "--max-length", "20"),
    )
    assert command(*arguments, "--methods", "saliency").status == 1
    (failed,) = table(out, "failures").to_pylist()
    assert failed["instance_id"] == "long" and "make it shorter, or give what" in failed["message"]
    network = Gemma2ForCausalLM.from_pretrained(GOLDENS / "gemma2-golden")
    instances = table(out, "instances").to_pylist()
    for number, ids in enumerate(prompts):
        said = network.generate(
            torch.tensor([ids]), max_new_tokens=4, do_sample=False, pad_token_id=0
        )[0, len(ids) :].tolist()
        own = [one for one in instances if one["row_id"] == f"r{number}"]
        assert [one["token_id"] for one in own[:-1]] == said
        assert all(one["given"] is False and one["rank"] in (1, None) for one in own)
    assert {one["given"] for one in instances if one["row_id"] == "given"} == {True}

    def again(*_: object) -> None:
        raise AssertionError("it is said already")

    monkeypatch.setattr("attribeam.transforms.inputs.generating.greedy", again)
    assert command(*arguments, "--methods", "saliency,random").status == 1
    assert len(table(out, "attributions", "random")) == len(instances)
    verified = command("verify", out)
    assert "sound: everything adds up" in verified.out, verified.out
    other = command(*arguments, "--methods", "saliency", "--max-new-tokens", "5")
    assert other.status == 2 and "max_new_tokens was 4, now 5" in other.err


TEMPLATE = (
    "<s>{% for m in messages %} w4 {{ m.content }} </s>{% endfor %}"
    "{% if add_generation_prompt %} w5{% endif %}"
)


def test_messages_and_segments(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    copytree(GOLDENS / "llama-golden", folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    chat = [
        {"role": "system", "content": "w10 w11"},
        {"role": "user", "content": "w12 w13 w14"},
        {"role": "assistant", "content": "w15 w16"},
    ]
    corpus = write_jsonl(
        tmp_path / "corpus.jsonl", [{"id": "a", "messages": chat}, {"id": "b", "messages": []}]
    )
    out = tmp_path / "out"
    run = command(
        *("run", "--model", folder, "--corpus", corpus, "--output", out),
        *("--methods", "occlusion", "--no-evaluate"),
    )
    assert run.status == 1, run.err
    (failed,) = table(out, "failures").to_pylist()
    assert failed["message"] == "the prompt is empty: it has no messages"
    first, second, every = table(out, "instances").to_pylist()
    prompt = ["<s>", "w4", "w10", "w11", "</s>", "w4", "w12", "w13", "w14", "</s>", "w5"]
    assert (first["tokens"], first["token"]) == (prompt, "w15")
    assert (second["tokens"], second["token"]) == ([*prompt, "w15"], "w16")
    inside = [name in ("w10", "w11", "w12", "w13", "w14") for name in prompt]
    assert first["special"] == [not each for each in inside]
    assert every["segments"] == [
        {"kind": "system", "first": 2, "last": 3, "removable": True},
        {"kind": "user", "first": 6, "last": 8, "removable": True},
    ]
    assert (first["text_pair"], second["text_pair"]) == ("w15 w16", None)


def test_parts_of_prompts(tmp_path: Path) -> None:
    text = "w9 w8. w7 w6 w5? w4 w10"
    given = [{"kind": "fact", "start": 3, "end": 12}, {"kind": "query", "start": 12, "end": 23}]
    lines = [
        {"id": "rule", "prompt": text, "completion": "w11"},
        {"id": "given", "prompt": text, "completion": "w11", "segments": given},
        {
            "id": "beyond",
            "prompt": text,
            "completion": "w11",
            "segments": [{**given[1], "end": 99}],
        },
        {"id": "documents", "prompt": "w9. w8\n\nw7 w6\n \nw5", "completion": "w11"},
    ]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)

    def found(rule: str) -> dict[str, list[tuple[str, list[str]]]]:
        out = tmp_path / rule
        options = ("--segments", rule, "--methods", "random", "--no-evaluate", "--target", "all")
        model = GOLDENS / "llama-golden"
        command("run", "--model", model, "--corpus", corpus, "--output", out, *options)
        return {
            one["row_id"]: [
                (each["kind"], one["tokens"][each["first"] : each["last"] + 1])
                for each in one["segments"] or []
            ]
            for one in table(out, "instances").to_pylist()
        }

    auto = found("auto")
    assert auto.keys() == {"rule", "given", "documents"}
    assert [kind for kind, _ in auto["rule"]] == ["sentence"] * 3
    assert auto["given"][0][0] == "fact" and auto["given"][1][0] == "query"
    assert auto["given"][1][1][-1] == "w10"
    documents = found("document")["documents"]
    assert [(kind, tokens[-1]) for kind, tokens in documents] == [
        *(("document", "w8"), ("document", "w6"), ("document", "w5")),
    ]
    assert found("none")["rule"] == []


def test_scores_of_parts_of_prompts(tmp_path: Path) -> None:
    texts = ["w9 w8. w7 w6 w5? w4 w10", "w12 w13. w14"]
    follows = "w11 w12 w13 w14 w15"
    rows = [{"id": str(n), "prompt": t, "completion": follows} for n, t in enumerate(texts)]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows)

    def ran_by(sources: str) -> Path:
        out = tmp_path / sources
        methods = ("grad_x_input", "cp_lrp")
        ways = [part for name in methods for part in ("--set", f"{name}.sources={sources}")]
        options = ("--methods", ",".join(methods), *ways, "--dtype", "float64", "--no-evaluate")
        return ran(out, "llama", corpus, "--explain", "logit", "--segments", "sentence", *options)

    by_part, by_token = ran_by("segments"), ran_by("tokens")
    said = {one["instance_id"]: one for one in table(by_part, "instances").to_pylist()}
    for method in ("grad_x_input", "cp_lrp"):
        every = zip(
            *(table(out, "attributions", method).to_pylist() for out in (by_part, by_token)),
            strict=True,
        )
        for one, other in every:
            instance, expected, total = said[one["instance_id"]], np.zeros(len(one["scores"])), 0.0
            for part in instance["segments"]:
                own = slice(part["first"], part["last"] + 1)
                expected[own] = sum(other["scores"][own])
                total += sum(other["scores"][own])
            assert relative_error(one["scores"], expected) < 1e-9
            if method == "cp_lrp" and instance["question"] is not None:
                left = instance["logit"] - total
                assert one["unattributed"] == pytest.approx(left, abs=1e-9)
    assert "sound: everything adds up" in command("verify", by_part).out
    # A part has its score once, however long it is.
    found = {
        out: open_run(out, commented=False).sql(
            "select instance_id, method, segment, tokens, score, rank from continuation_sources "
            "where segment is not null order by all"
        )
        for out in (by_part, by_token)
    }
    ours, theirs = (one.fetchall() for one in found.values())
    assert max(row[3] for row in ours) > 2
    for one, other in zip(ours, theirs, strict=True):
        assert one[:4] == other[:4] and one[4] == pytest.approx(other[4], abs=1e-9)


def test_what_is_asked_of_faithfulness(tmp_path: Path) -> None:
    """The views, held against numbers that are computed of the tables one by one."""
    texts = ("w9 w8 w7 w6. w5", "w20 w21 w22 w23 w24 w25")
    lines = [
        {
            "id": f"r{n}",
            "prompt": text,
            "response": " w30 w31",
            "foil": "w40 w41",
            "rationale": marks,
        }
        for n, (text, marks) in enumerate(zip(texts, ([0, 1, 0, 1, 0], [1] + [0] * 5), strict=True))
    ]
    out, corpus = tmp_path / "out", write_jsonl(tmp_path / "corpus.jsonl", lines)
    run = command(
        *("run", "--model", GOLDENS / "llama-golden", "--corpus", corpus, "--output", out),
        *("--dtype", "float64", "--methods", "occlusion,grad_x_input", "--fractions", "each"),
    )
    assert run.status == 0, run.err
    verified = command("verify", out)
    assert "sound: everything adds up" in verified.out, verified.out
    opened = open_run(out, commented=False)

    def rows(sql: str) -> list[dict[str, Any]]:
        found = opened.sql(sql).to_arrow_table()
        return found.to_pylist()

    curves = {}
    for point in rows("from curves"):
        key = point["instance_id"], point["method"], point["order"]
        curves.setdefault(key, []).append(point)
    instances = {one["instance_id"]: one for one in rows("from instances")}
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in rows("from continuations order by position"):
        cells.setdefault((cell["instance_id"], cell["method"]), []).append(cell)
    scores = {(r["instance_id"], r["method"]): r["scores"] for r in rows("from attributions")}
    found = rows("from continuation_faithfulness_by_instance")
    assert len(found) == len(instances) * 2 == 12
    for one in found:
        key = one["instance_id"], one["method"]
        instance, own = instances[key[0]], cells[key]
        assert [cell["score"] for cell in own] == scores[key]
        assert [cell["source"] == "continuation" for cell in own] == [
            bool(s) for s in instance["segment"]
        ]
        free = [cell["score"] for cell in own if cell["removable"]]
        morf, lerf = (
            sorted(curves[(*key, order)], key=lambda p: p["removed"]) for order in ("morf", "lerf")
        )
        assert one["units"] == len(free) == morf[-1]["removed"]
        lp, kept = ([p["log_prob"] for p in points] for points in (morf, lerf))
        assert lp[0] == pytest.approx(instance["log_prob"], abs=1e-9)
        assert one["aopc_log_prob"] == pytest.approx(lp[0] - np.mean(lp[1:-1]))
        assert one["sufficiency"] == pytest.approx(lp[0] - np.mean(kept[1:-1]))
        assert one["top1_drop"] == pytest.approx(lp[0] - lp[1])
        assert one["top3_drop"] == pytest.approx(lp[0] - lp[3])
        shares = np.arange(len(lp)) / (len(lp) - 1)
        probabilities = [p["probability"] for p in morf]
        assert one["deletion"] == pytest.approx(np.trapezoid(probabilities, shares), abs=1e-9)
        lost = lp[0] - lp[-1]
        assert one["lost"] == pytest.approx(lost)
        if lost < 0.1:
            assert one["rise"] is one["mas"] is one["aopc_normalised"] is None
        else:
            fallen = np.minimum.accumulate(np.clip((np.array(lp) - lp[-1]) / lost, 0, 1))
            assert one["rise"] == pytest.approx(np.trapezoid(fallen, shares))
            weights = np.sort(np.maximum(free, 0))[::-1]
            if weights.sum() > 0:
                left = np.array([weights[k:].sum() for k in range(len(lp))]) / weights.sum()
                far = fallen + np.abs(fallen - left)
                far = (far - far.min()) / (far.max() - far.min())
                assert one["mas"] == pytest.approx(np.trapezoid(far, shares))
        if one["question_kind"] == "all":
            assert one["contrastive_flip"] is None
        else:
            flips = [
                s for s, p in zip(shares, morf, strict=True) if p["foil_log_prob"] > p["log_prob"]
            ]
            assert one["contrastive_flip"] == pytest.approx(flips[0] if flips else 1)
    for one in rows("from evidence_by_instance"):
        own = cells[one["instance_id"], one["method"]]
        marks = instances[one["instance_id"]]["rationale"]
        ranked = [(c["score"], marks[c["position"]]) for c in own if c["removable"]]
        places = [1 + sum(s > mine for s, _ in ranked) for mine, marked in ranked if marked]
        assert one["reciprocal_rank"] == pytest.approx(1 / min(places))
        count = len(places)
        assert one["recall"] == pytest.approx(sum(p <= count for p in places) / count)
    parts = rows("from continuation_sources where row_id = 'r0' and question = 0")
    assert {(p["kind"], p["tokens"]) for p in parts} == {
        ("sentence", 4),
        ("sentence", 1),
        ("prompt", 1),
    }
    for part in parts:
        own = cells["r0#0", part["method"]]
        total = sum(c["score"] for c in own if c["segment"] == part["segment"])
        if part["method"] == "occlusion":  # What a word has stands at each of its tokens.
            words = instances["r0#0"]["word_ids"]
            inside = {
                words[c["position"]]: c["score"] for c in own if c["segment"] == part["segment"]
            }
            total = sum(inside.values())
        assert part["score"] == pytest.approx(total)


def test_scores_of_what_is_left(tmp_path: Path) -> None:
    """The linear datamodeling score, held against scipy on the tables."""
    out = tmp_path / "out"
    run = command(
        *("run", "--model", GOLDENS / "gpt2-golden", "--corpus", CORPUS, "--output", out),
        *("--limit", "3", "--methods", "occlusion,random_masks", "--no-evaluate"),
        *("--dtype", "float64", "--set", "random_masks.samples=16"),
    )
    assert run.status == 0, run.err
    verified = command("verify", out)
    assert "sound: everything adds up" in verified.out, verified.out
    instances = {one["instance_id"]: one for one in table(out, "instances").to_pylist()}
    scores = {
        one["instance_id"]: np.array(one["scores"])
        for one in table(out, "attributions", "occlusion").to_pylist()
    }
    masks: dict[str, list[dict[str, Any]]] = {}
    for one in table(out, "masks", "random_masks").to_pylist():
        masks.setdefault(one["instance_id"], []).append(one)
    opened = open_run(out, commented=False)
    found = dict(opened.sql("select instance_id, lds from datamodeling_by_instance").fetchall())
    assert found.keys() == instances.keys() == masks.keys()
    network = GPT2LMHeadModel.from_pretrained(GOLDENS / "gpt2-golden").double()
    for name, rows in masks.items():
        one = instances[name]
        fixed = np.array(one["special"]) | (
            np.arange(len(one["tokens"])) >= one["prompt_length"] - 1
        )
        kept = np.array([row["kept"] for row in rows])
        assert len(kept) == 16 and kept[:, 0].all() and 0.2 < kept[:, ~fixed].mean() < 0.8
        said = [row["logit" if one["question"] is None else "probability"] for row in rows]
        assert found[name] == pytest.approx(spearmanr(kept @ scores[name], said).statistic)
    # What it says is what the network says of what is left, where that was.
    every = instances["golden-0#all"]
    ids = [*every["input_ids"], instances["golden-0#1"]["token_id"]]
    row = masks["golden-0#all"][0]
    places = np.flatnonzero(row["kept"]).tolist()
    with torch.no_grad():
        given = torch.tensor([[ids[at] for at in places]])
        said = network(given, position_ids=torch.tensor([places])).logits[0].log_softmax(-1)
    read = [places.index(at) for at in range(every["prompt_length"] - 1, len(ids) - 1)]
    total = said[read, ids[every["prompt_length"] :]].sum()
    assert row["logit"] == pytest.approx(float(total), abs=1e-9)


def test_prompts_that_are_too_long(tmp_path: Path) -> None:
    """Their start is left out, after the tokens that open them; or they fail, or are refused."""
    text = " ".join(f"w{number}" for number in range(10, 40))
    segments = [{"kind": "old", "start": 0, "end": 59}, {"kind": "new", "start": 60, "end": 119}]
    line = {"id": "long", "prompt": text, "completion": "w50 w51", "segments": segments}
    much = {"id": "much", "prompt": "w9", "completion": text}
    lines = [line, {**line, "id": "short", "prompt": "w9"}, much]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)
    model = GOLDENS / "llama-golden"

    def run(*more: object) -> Any:
        own = ("--methods", "saliency", "--no-evaluate", "--max-length", "12", *more)
        return command("run", "--model", model, "--corpus", corpus, *own)

    assert run("--output", tmp_path / "cut").status == 1  # The segments of the short one.
    first, second, every = table(tmp_path / "cut", "instances").to_pylist()
    assert every["tokens"] == ["<s>", *(f"w{number}" for number in range(30, 40)), "w50"]
    assert first["tokens"] == every["tokens"][:11] and first["truncated"]
    assert (first["token"], second["token"], every["prompt_length"]) == ("w50", "w51", 11)
    kinds = [(each["kind"], each["first"], each["last"]) for each in every["segments"]]
    assert kinds == [("new", 1, 10)]
    assert run("--output", tmp_path / "fail", "--overflow", "fail").status == 1
    messages = table(tmp_path / "fail", "failures")["message"].to_pylist()
    assert any("32 tokens of a prompt and what follows, but the limit is 12" in m for m in messages)
    # No remedy is named that would not help.
    (much_message,) = [m for m in messages if "31 tokens" in m]
    assert "nothing of the prompt" in much_message and "truncate" not in much_message
    refused = run("--output", tmp_path / "out", "--overflow", "stride")
    assert refused.status == 2 and "windows of a prompt would be other prompts" in refused.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--target", "gold"), "of a language model there is each"),
        (("--explain", "margin"), "is explained by contrast, logit, log_prob, probability"),
        (("--label-column", "id"), "have no class that a label could be"),
        (("--pair-column", "prompt"), "a language model has one prompt"),
        (("--units", "patch"), "there is no 'patch'"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: tuple[str, str], says: str) -> None:
    lines = [{"id": "a", "prompt": "w9 w8", "completion": "w7"}]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)
    found = command(
        *("run", "--model", GOLDENS / "llama-golden", "--corpus", corpus),
        *("--output", tmp_path / "out", "--methods", "saliency", *options),
    )
    assert found.status == 2 and says in found.err, found.err
