"""Whole runs of models that are asked several questions about a row, and of decoders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertForQuestionAnswering, PreTrainedTokenizerFast

from attribeam.analysis import open_run
from attribeam.analysis.opening.runs import load_manifest
from tests.support.models import relative_error, tiny_config, tiny_network, tokenizer_for
from tests.support.tiny import command, texts, write_jsonl

LABELS = {0: "toxic", 1: "rude", 2: "kind"}


@pytest.fixture(scope="module")
def of_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    network = tiny_network("bert", problem_type="multi_label_classification", id2label=LABELS)
    network.save_pretrained(folder)
    tokenizer_for("bert").save_pretrained(folder)
    return folder


def ran(tmp_path: Path, model: Path, lines: list[dict[str, Any]], *more: str) -> Any:
    """A run's folder, opened, once all of it adds up."""
    out, corpus = tmp_path / "out", write_jsonl(tmp_path / "corpus.jsonl", lines)
    run = command(
        *("run", "--model", model, "--corpus", corpus, "--output", out),
        *("--methods", "saliency,decompx", "--fractions", "0.5", *more),
    )
    assert run.status == int(any(not line["text"].strip() for line in lines)), run.err
    verified = command("verify", out)
    assert (verified.status, verified.err) == (0, ""), verified.out
    assert "sound: everything adds up" in verified.out
    return open_run(out, commented=False)


def test_labels_of_windows(tmp_path: Path, of_labels: Path) -> None:
    lines = [{"id": f"r{n}", "text": text} for n, text in enumerate(texts(3))]
    lines.append({"id": "long", "text": "the film is good " * 8})
    lines.append({"id": "empty", "text": " "})
    windows = ("--overflow", "stride", "--max-length", "20")
    run = ran(tmp_path, of_labels, lines, *windows)
    found = run.sql("from instances where row_id in ('r1', 'long')").fetchdf()
    ids = [f"r1#{n}" for n in range(3)] + [f"long/{w}#{n}" for w in range(2) for n in range(3)]
    assert sorted(found["instance_id"]) == sorted(ids)
    assert set(found["question_kind"]) == {"label"}
    for number, name in enumerate(("toxic", "rude", "kind")):
        of_label = found[found["question"] == number]
        assert {tuple(outputs) for outputs in of_label["outputs"]} == {(name,)}
        assert all(logits[0] == 0 for logits in of_label["logits"])
    documents = run.sql("from documents where row_id = 'long' order by question").fetchall()
    assert [row[3] for row in documents] == [2, 2, 2]
    assert [row[-2:] for row in documents] == [(0, ["toxic"]), (1, ["rude"]), (2, ["kind"])]
    places = run.sql("select question, count(*) from document_tokens where row_id = 'long' and "
                     "method = 'decompx' group by 1 order by 1")  # fmt: skip
    assert places.fetchall() == [(0, 32), (1, 32), (2, 32)]
    targets = run.sql("select distinct target from attributions").fetchall()
    assert targets == [(1,)]


def test_one_label_alone(tmp_path: Path, of_labels: Path) -> None:
    lines = [{"id": "r0", "text": "good"}, {"id": "r0#1", "text": "bad film"}]
    run = ran(tmp_path, of_labels, lines, "--target", "rude", "--id-column", "none")
    assert run.sql("select distinct outputs, question from instances").fetchall() == [
        (["rude"], None)
    ]


def test_ids_that_a_question_could_have(tmp_path: Path, of_labels: Path) -> None:
    lines = [{"id": "r0", "text": "good"}, {"id": "r0/2#1", "text": "bad film"}]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)
    done = command(
        *("run", "--model", of_labels, "--corpus", corpus, "--output", tmp_path / "out"),
        *("--methods", "saliency"),
    )
    assert done.status == 2
    assert "the second could be a question of the first" in done.err


def test_values_stand_for_probabilities(tmp_path: Path) -> None:
    tiny_network("roberta", num_labels=1).save_pretrained(tmp_path / "model")
    tokenizer_for("roberta").save_pretrained(tmp_path / "model")
    lines = [{"id": f"r{n}", "text": text, "label": 1} for n, text in enumerate(texts(4))]
    run = ran(tmp_path, tmp_path / "model", lines)
    rows = run.sql("select logits, probabilities, label, question_kind from instances").fetchall()
    assert all(logits == shares and label is None for logits, shares, label, _ in rows)
    assert {kind for *_, kind in rows} == {"value"}
    assert run.sql("select bool_and(probability = logit) from curves").fetchall() == [(True,)]


def test_a_decoder_without_special_tokens(tmp_path: Path) -> None:
    """As GPT-2 comes: no padding, no mask, nothing around texts."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary = {"<|endoftext|>": 0}
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    pieces.model = models.BPE(vocabulary, [])
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    network = tiny_network("gpt2", pad_token_id=None, bos_token_id=0, eos_token_id=0)
    network.save_pretrained(tmp_path / "model")
    PreTrainedTokenizerFast(tokenizer_object=pieces, **ends).save_pretrained(tmp_path / "model")
    lines = [{"id": f"r{n}", "text": text, "label": 0} for n, text in enumerate(texts(3))]
    run = ran(tmp_path, tmp_path / "model", lines, "--target", "runner_up", "--explain", "margin",
              "--methods", "all", "--set", "kernel_shap.samples=20")  # fmt: skip
    wrong = run.sql("select count(*) from instances where readout <> len(tokens) - 1").fetchall()
    assert wrong == [(0,)]
    assert run.sql("select count(*) from instances where list_bool_or(special)").fetchall() == [
        (0,)
    ]
    manifest = load_manifest(tmp_path / "out")
    left_out = manifest["executions"][-1]["left_out"]
    assert "is defined by layers that normalise" in left_out["globenc"]
    assert "needs the model's padding token" in left_out["integrated_gradients"]
    assert "sums of logits" in left_out["decompx"]
    assert manifest["identity"]["settings"]["output"] == "margin"


def test_held_out_evaluations_are_of_classes(tmp_path: Path, of_labels: Path) -> None:
    lines = [{"id": f"r{n}", "text": text} for n, text in enumerate(texts(2))]
    ran(
        tmp_path,
        of_labels,
        lines,
        "--methods",
        "attattr",
        "--set",
        "attattr.steps=2",
        "--set",
        "attattr.most=2",
    )
    for name in ("prune", "attack"):
        done = command(
            *(name, tmp_path / "out", "--model", of_labels),
            *("--corpus", tmp_path / "corpus.jsonl"),
        )
        assert done.status == 2
        assert "is a multi_label model" in done.err


def test_answers_of_windows_and_batch_mates(tmp_path: Path) -> None:
    network = BertForQuestionAnswering(tiny_config("bert", num_labels=2))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.manual_seed(1)), alpha=0.2)
    network.save_pretrained(tmp_path / "model")
    tokenizer_for("bert").save_pretrained(tmp_path / "model")
    lines = [{"id": f"r{n}", "text": "the film", "pair": text} for n, text in enumerate(texts(4))]
    lines.append({"id": "long", "text": "the film", "pair": "the film is good " * 8})
    options = ("--pair-column", "pair", "--overflow", "stride", "--max-length", "20",
               "--dtype", "float64")  # fmt: skip
    for size in ("5", "1"):
        (tmp_path / size).mkdir()
    together, alone = (
        ran(tmp_path / size, tmp_path / "model", lines, *options, "--shard-size", size)
        for size in ("5", "1")
    )
    facts = "select instance_id, question_kind, outputs, readout from instances order by 1"
    found = together.sql(facts).fetchall()
    assert found == alone.sql(facts).fetchall()
    of_windows = {of for of, *_ in found if of.startswith("long/")}
    assert len(of_windows) > 2 and of_windows >= {"long/0#0", "long/0#1", "long/1#0", "long/1#1"}
    for of, kind, outputs, _ in found:
        assert (kind, outputs) == (("start", ["start"]), ("end", ["end"]))[int(of[-1])]
    # No place is special or of the question: [CLS] the film [SEP].
    assert all(readout > 3 for *_, readout in found)
    assert together.sql("select bool_and(probability = logit) from curves").fetchall() == [(True,)]
    scores = "select method, scores from attributions order by instance_id, method"
    for ours, theirs in zip(
        together.sql(scores).fetchall(), alone.sql(scores).fetchall(), strict=True
    ):
        assert ours[0] == theirs[0]
        assert relative_error(np.array(ours[1], float), np.array(theirs[1], float)) < 1e-6
