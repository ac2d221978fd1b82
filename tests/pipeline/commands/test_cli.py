"""The command line: what it says and how it exits, above all where something is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from attribeam.pipeline.commands import cli
from attribeam.pipeline.commands.run import _report, asked
from attribeam.pipeline.commands.status import DONE, FAILED, INTERRUPTED, USAGE
from attribeam.pipeline.parts import RunPart
from attribeam.pipeline.running.job import Rest, Summary
from attribeam.pipeline.running.outcome import Outcome as Result
from attribeam.schemas import Unit, UsageError, unit_path
from attribeam.transforms import registry
from attribeam.transforms.registry import methods
from tests.support.models import save_tiny
from tests.support.patience import HANG
from tests.support.tiny import (
    Outcome,
    assert_alike,
    command,
    contrasts,
    files,
    rows,
    stamps,
    table,
    unit_files,
    write_jsonl,
)

ROOT = Path(__file__).parents[3]
FolderOf = Callable[..., Path]
Run = partial[Outcome]


@pytest.fixture(scope="module")
def model(tiny_folder: FolderOf) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows(6))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def attribute(model: Path, corpus: Path, out: Path) -> Run:
    """``attribeam run`` on a tiny model and corpus, quickly, unless the arguments say otherwise."""
    usual = ("--model", model, "--corpus", corpus, "--output", out, "--methods", "random")
    return partial(command, "run", *usual, "--device", "cpu", "--no-evaluate")


def refused(outcome: Outcome, *messages: str) -> None:
    """Checks that a command was refused in one line that says so."""
    assert outcome.status == USAGE
    assert outcome.out == ""
    assert outcome.err.startswith("attribeam: ")
    assert outcome.err.count("\n") == 1
    for message in messages:
        assert message in outcome.err


# Good runs


def test_a_run_says_what_it_did_and_what_to_do_next(attribute: Run, out: Path) -> None:
    outcome = attribute("--shard-size", 4)
    assert (outcome.status, outcome.err) == (DONE, "")
    columns, first, tables, following = outcome.out.splitlines()
    assert columns == "text: text, label: label, id: id"
    assert first.startswith("6 rows in 2 shards; 2 worked on in ")
    assert tables == f"tables: {out}"
    assert following == f'next:   attribeam query {out} "from cost"'
    again = attribute("--shard-size", 4)
    assert again.status == DONE
    assert again.out.startswith("nothing left to do: 2 shards complete already\n")
    (out / "instances" / "shard-00001-of-00002.parquet").unlink()
    assert "1 worked on (1 more were there already) in " in attribute("--shard-size", 4).out


def test_a_run_with_curves_ends_with_its_ranking(
    model: Path, corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    given = ("--model", model, "--corpus", corpus, "--output", out, "--device", "cpu")
    done = command("run", *given, "--methods", "random,saliency", ranked=True)
    assert done.status == DONE
    first, ranking, once, last = done.out.split("\n\n")
    assert first.splitlines()[-1] == f"tables: {out}"
    head, rule, *rows = ranking.splitlines()
    assert head.split()[:3] == ["method", "rank", "auc_difference"]
    assert {row.split()[0] for row in rows} == {"random", "saliency"}
    assert [row.split()[1] for row in rows] == ["1", "2"]
    assert once.startswith("in all rows: n 6")
    assert last == f'next:   attribeam query {out} "from faithfulness"\n'
    assert max(map(len, [head, rule, *rows, once])) <= 80
    # What there is nothing new of isn't ranked again.
    assert "─" not in command("run", *given, "--methods", "random,saliency", ranked=True).out


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"rows": 10_001}, "since of 10,001 rows (more than 10,000) it may take a while"),
        ({"output": "s3://bucket/out"}, "since all curves would be fetched for it"),
        ({"output": "hdfs://bucket/out"}, "since all curves would be fetched for it"),
        (
            {"part": RunPart(0, 2), "rest": Rest(3, 9)},
            "since this was a part of the run; once all parts are done",
        ),
        ({"part": RunPart(1, 2), "rest": Rest(0, 0)}, "since this was a part of the run"),
        (
            {"left": ["damaged"], "rows": 10_001},
            "since damaged files or failures were left, as is said",
        ),
    ],
)
def test_a_ranking_that_is_not_shown_is_told(
    about: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that shows it, at stores that queries don't read of a copy."""
    found = Result(0, 0, 0, [], predicted=True, attributed=True, evaluated=True)
    usual = Summary("out", 6, 2, 2, 2, found, 0, [], 1.0)
    summary = replace(usual, **about)
    _report(summary)
    lines = capsys.readouterr().out.splitlines()
    ask = asked(summary.output)
    assert lines[-2] == f'methods are not ranked here, {reason}: {ask} "from ranking"'
    assert lines[-1] == f'next:   {ask} "from faithfulness"'


def test_failures_are_told_and_make_the_status(
    attribute: Run, tmp_path: Path, tiny_folder: FolderOf
) -> None:
    corpus = tmp_path / "corpus.tsv"
    corpus.write_bytes(b"text\tlabel\n" + b"the film\t9\n\t0\n\xff\t1\nthe film is good\t1\n" * 2)
    odd = tmp_path / "it's out"
    outcome = attribute("--corpus", corpus, "--output", odd)
    assert outcome.status == FAILED
    quoted = "'" + str(odd).replace("'", "'\"'\"'") + "'"
    assert f'failures: attribeam query {quoted} "from failure_summary"' in outcome.out
    failures = table(odd, "failures").to_pylist()
    assert [failure["stage"] for failure in failures] == ["encode", "encode", "read"] * 2
    assert [re.split(r" \(|: ", failure["message"])[0] for failure in failures[:3]] == [
        "label 9 is outside the model's classes 0 to 2",
        "the text is empty",
        "text is not valid UTF-8",
    ]
    # They still are there when nothing is left to do.
    assert attribute("--corpus", corpus, "--output", odd).status == FAILED


def test_why_rows_failed_is_told(attribute: Run, out: Path, tmp_path: Path) -> None:
    """All of them: then there is nothing else to ask about. Some: the most frequent reason."""
    ask = f'attribeam query {out} "from'
    empty = write_jsonl(tmp_path / "empty.jsonl", [{"text": ""}, {"text": " "}])
    lines = attribute("--corpus", empty).out.splitlines()
    assert lines[2:] == [
        f"tables: {out}",
        "every row failed: the text is empty",
        f'next:   {ask} failure_summary"',
    ]
    shutil.rmtree(out)
    labels = [{"text": "film", "label": label} for label in ("one", "x" * 9000, "2", 7, 8)]
    lines = attribute("--corpus", write_jsonl(empty, labels)).out.splitlines()
    assert lines[2] == f'4 failures: {ask} failure_summary"'
    names = "is none of the model's (LABEL_0, LABEL_1, LABEL_2)"
    about = "2 of 4, with other numbers or names"
    assert lines[3:] == [
        f"most often ({about}): the label 'one' {names}",
        f"tables: {out}",
        f'next:   {ask} cost"',
    ]
    stored = table(out, "failures").to_pylist()
    (long,) = [row["message"] for row in stored if row["message"].startswith("the label 'xx")]
    assert len(long) <= 1000
    assert re.search(rf"xx \[... cut: 9,0\d\d characters ...\] xx.*{re.escape(names)}$", long)


def test_a_method_that_fails_everywhere_is_told(
    attribute: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(methods()["random"], compute=Mock(side_effect=KeyError("shape")))
    monkeypatch.setitem(registry._METHODS, "random", broken)
    lines = attribute().out.splitlines()
    assert lines[3] == "nothing was attributed: KeyError: 'shape'"
    assert lines[4].endswith('"from failure_summary"')


def test_methods_that_a_model_is_not_made_for(
    tiny_folder: FolderOf, tmp_path: Path, out: Path
) -> None:
    model = tiny_folder("roberta-prelayernorm", "classification")
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows(2))
    call = partial(command, "run", "--model", model, "--corpus", corpus, "--device", "cpu")
    named = call("--output", out, "--methods", "globenc,random")
    assert named.status == USAGE
    why = "is defined by layers that normalise after their residuals, and roberta-prelayernorm"
    assert f"globenc {why} has none" in named.err
    assert not out.exists()

    done = call("--output", out, "--methods", "all", "--no-evaluate", "--set", "iba.sample=2")
    assert done.status == DONE
    manifest = json.loads((out / "run.json").read_text())
    left_out = manifest["executions"][-1]["left_out"]
    assert left_out["globenc"] == f"{why} has none"
    for reason in set(left_out.values()):
        names = [name for name, own in left_out.items() if own == reason]
        assert f"left out: {', '.join(names)}: each {reason}\n" in done.out
    assert not left_out.keys() & manifest["methods"].keys()
    assert command("verify", out).status == DONE


@pytest.mark.parametrize(
    ("arguments", "line", "message"),
    [
        (["--overflow", "fail", "--max-length", 4], {"text": "the film is good"},
         "6 tokens, but the limit is 4 (--overflow truncate cuts them)"),
        (["--target", "gold"], {"text": "the film"},
         "no label, but the gold class is to be explained (--target gold)"),
        ([], {"text": "\u200b \u200b"}, "the text has no tokens"),
        ([], {"text": "the film", "rationale": [1]}, "the rationale has 1 entries for 2 words"),
        (["--words", "tokenizer"], {"text": "a", "rationale": [1]}, "are of whitespace words"),
    ],
)  # fmt: skip
def test_instances_that_fail(
    arguments: list[object],
    line: dict[str, Any],
    message: str,
    attribute: Run,
    out: Path,
    tmp_path: Path,
) -> None:
    good = {"text": "a", "label": 1, "id": "good"}
    if "rationale" in line and not arguments:
        good["rationale"] = [1]
    lines = [good, {"id": "bad", **line}]
    corpus = write_jsonl(tmp_path / "c.jsonl", lines)
    outcome = attribute("--corpus", corpus, *arguments)
    assert outcome.status == FAILED
    (failure,) = table(out, "failures").to_pylist()
    assert failure["instance_id"] == "bad"
    assert message in failure["message"]
    assert table(out, "instances")["instance_id"].to_pylist() == ["good"]


def test_options_reach_the_run(attribute: Run, out: Path) -> None:
    outcome = attribute(
        *("--limit", 3, "--methods", "saliency,random", "--set", "saliency.norm=l1"),
        *("--target", 2, "--seed", 7, "--evaluate", "--fractions", "0.5,1/4,0.5"),
        *("--orders", "morf", "--operations", "pad,delete", "--units", "word"),
        *("--max-length", 9, "--dtype", "float64", "--id-column", "none", "--token-budget", 50),
    )
    assert outcome.status == DONE
    manifest = json.loads((out / "run.json").read_text())
    settings = manifest["identity"]["settings"]
    expected = {"target": 2, "seed": 7, "max_length": 9, "dtype": "float64"}
    assert settings.items() >= expected.items()
    assert manifest["identity"]["corpus"]["columns"] == {"text": "text", "label": "label"}
    assert manifest["identity"]["corpus"]["rows"] == 3
    assert manifest["methods"]["saliency"]["params"] == {"norm": "l1"}
    assert manifest["evaluation"] == {
        "fractions": [0.25, 0.5],
        "orders": ["morf"],
        "operations": ["pad", "delete"],
        "protocol": "word",
    }


def test_a_real_option_of_beam_is_passed_on(attribute: Run) -> None:
    assert attribute("--job_name=x", "--direct_num_workers=1").status == DONE


def test_a_configuration_file(attribute: Run, out: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "methods: [saliency, random]\n"
        "limit: 4\n"
        "shard-size: 2\n"
        "seed: 5\n"
        "evaluate: true\n"
        "fractions: [0.5, 0.25]\n"
        "text-column: text\n"
        "split: null\n"
        "set:\n"
        "  saliency: {norm: l1}\n"
    )
    given = command(
        *("run", "--config", config, "--seed", 6, "--device", "cpu"),
        *("--model", attribute.args[2], "--corpus", attribute.args[4], "--output", out),
    )
    assert given.status == DONE, given.err
    manifest = json.loads((out / "run.json").read_text())
    settings = manifest["identity"]["settings"]
    assert settings.items() >= {"seed": 6, "shard_size": 2, "num_shards": 2}.items()
    assert set(manifest["methods"]) == {"saliency", "random"}
    assert manifest["methods"]["saliency"]["params"] == {"norm": "l1"}
    assert manifest["evaluation"]["fractions"] == [0.25, 0.5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_are_added_to_a_finished_run(
    dtype: str, attribute: Run, out: Path, tmp_path: Path
) -> None:
    usual = ("--methods", "random,attention_rollout", "--dtype", dtype, "--shard-size", 4)
    assert attribute(*usual).status == DONE
    before = stamps(out)
    outcome = attribute(*usual, "--layers")
    assert (outcome.status, outcome.err) == (DONE, "")
    assert "\n6 rows in 2 shards; 2 worked on in " in outcome.out
    added = unit_files([Unit("layers", "attention_rollout")], 2)
    assert files(out) - set(before) == added
    after = stamps(out)
    assert {path for path in before if after[path] != before[path]} == {"run.json"}
    # A run keeps its layers, whatever is asked for next.
    assert attribute(*usual).out.startswith("nothing left to do")
    assert attribute(*usual, "--methods", "saliency,attention_rollout").status == DONE
    records = json.loads((out / "run.json").read_text())["methods"]
    plain = ["attributions"]
    tables = {"random": plain, "attention_rollout": [*plain, "layers"], "saliency": plain}
    assert {name: record["tables"] for name, record in records.items()} == tables
    assert command("verify", out).status == DONE
    # The last layer's rollout is the method's own score.
    rollouts = table(out, "layers", "attention_rollout").to_pylist()
    final = max(row["layer"] for row in rollouts)
    scores = table(out, "attributions", "attention_rollout")["scores"].to_pylist()
    for row, own in zip([r for r in rollouts if r["layer"] == final], scores, strict=True):
        assert row["rollout"] == pytest.approx(own, abs=1e-6)


def test_a_broken_layers_file_is_found_and_made_again(attribute: Run, out: Path) -> None:
    usual = ("--methods", "attention_rollout", "--layers")
    assert attribute(*usual).status == DONE
    path = unit_path(Unit("layers", "attention_rollout"), 0, 1)
    whole = table(out, "layers", "attention_rollout")
    (out / path).write_bytes((out / path).read_bytes()[:-9])
    outcome = command("verify", out)
    assert outcome.status == FAILED
    assert f"{path}: is not what was written (its checksum is another)" in outcome.out
    (out / path).unlink()
    outcome = command("verify", out)
    assert outcome.status == FAILED
    assert "not finished: 2 of 3 files are there" in outcome.out
    assert attribute(*usual).status == DONE
    assert command("verify", out).status == DONE
    assert_alike(table(out, "layers", "attention_rollout"), whole)


def test_layers_can_be_configured(attribute: Run, out: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("layers: true\n")
    assert attribute("--config", config, "--methods", "attention_rollout").status == DONE
    assert len(table(out, "layers", "attention_rollout")) > 0


def test_layers_that_no_method_has_are_refused(
    attribute: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = attribute("--layers", "--methods", "random,saliency")
    refused(outcome, "--layers: none of the methods chosen has scores by layer; name one in")
    layered = ", ".join(name for name, method in methods().items() if method.layered)
    assert outcome.err.endswith(f"that has: {layered}\n")
    some = {"random": methods()["random"]}
    monkeypatch.setattr("attribeam.transforms.registry._METHODS", some)
    refused(attribute("--layers"), "chosen has scores by layer; leave it out")
    assert not out.exists()


def test_a_method_that_all_leaves_out_runs_when_it_is_named(
    attribute: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = replace(methods()["saliency"], opt_in="it takes [years]")
    some = {name: methods()[name] for name in ("random", "grad_x_input")} | {"saliency": slow}
    monkeypatch.setattr("attribeam.transforms.registry._METHODS", some)
    assert attribute("--methods", "all").status == DONE
    assert set(json.loads((out / "run.json").read_text())["methods"]) == {"random", "grad_x_input"}
    assert attribute("--methods", "all,saliency").status == DONE
    assert set(json.loads((out / "run.json").read_text())["methods"]) == set(some)


# Bad usage


@pytest.mark.parametrize("name", ["model", "corpus", "output"])
def test_what_is_needed_is_asked_for(name: str, model: Path, corpus: Path, out: Path) -> None:
    given = {"model": model, "corpus": corpus, "output": out}
    del given[name]
    arguments = [part for key, value in given.items() for part in (f"--{key}", value)]
    refused(command("run", *arguments), f"--{name} is needed (`attribeam run --help`)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--limit 0", "--limit is at least 1, not 0"),
        ("--limit -3", "--limit is at least 1, not -3"),
        ("--workers 0", "--workers is at least 1, not 0"),
        ("--shard-size 0", "--shard-size is at least 1, not 0"),
        ("--token-budget 0", "--token-budget is at least 1, not 0"),
        ("--max-length 0", "--max-length is at least 1, not 0"),
        ("--max-length 2", "--max-length 2 leaves no room beside 2 special tokens"),
        ("--max-length 99", "--max-length 99 is more than the model takes (48)"),
        ("--workers 1025", "--workers is at most 1024, not 1025"),
        ("--overflow stride --stride -1", "--stride -1 is not between 0 and "),
        ("--target 99999999999999999999", "--target 99999999999999999999: the model has classes 0"),
        ("--dtype half", "--dtype is one of float32, float64, bfloat16, mixed, not half"),
        ("--overflow cut", "--overflow is one of truncate, fail, stride, not cut"),
        ("--words none", "--words is whitespace or tokenizer, not none"),
        ("--device tpu", "--device is auto, cpu, cuda or cuda:N, not tpu"),
        ("--target 3", "--target 3: the model has classes 0 to 2 (LABEL_0, LABEL_1, LABEL_2)"),
        ("--target -1", "--target -1: the model has classes 0 to 2"),
        ("--target best", "--target best is neither auto, predicted, gold, runner_up, each, obj"),
        ("--target gold --label-column none",
         "no label column; its columns are id, text, label: name one with --label-column"),
        ("--text-column body", "no column 'body' (--text-column); its columns are id, text, label"),
        ("--text-column none", "no text column that could be guessed; its columns are id, text"),
        ("--methods salience", "there is no method 'salience'; did you mean saliency?"),
        ("--methods ,", "no method was named (`attribeam methods` lists them)"),
        ("--set random", "--set random: it is METHOD.PARAM=VALUE"),
        ("--set random.a", "--set random.a: it is METHOD.PARAM=VALUE"),
        ("--set .a=1", "--set .a=1: it is METHOD.PARAM=VALUE"),
        ("--set random.a=1", "random has no parameter 'a'; it has: none"),
        ("--set randon.a=1", "there is no method 'randon'; did you mean random?"),
        ("--set saliency.norm=l1", "set for saliency, which is not among the methods run"),
        ("--methods saliency --set saliency.norm=l3", "saliency.norm is one of l2, l1, not 'l3'"),
        ("--methods saliency --set saliency.steps=3", "saliency has no parameter 'steps'; it has"),
        ("--methods integrated_gradients --set integrated_gradients.steps=many",
         "integrated_gradients.steps is a number such as 97, not 'many'"),
        ("--methods integrated_gradients --set integrated_gradients.steps=0",
         "integrated_gradients.steps is at least 1, not '0'"),
        ("--methods integrated_gradients --set integrated_gradients.steps=2.5",
         "integrated_gradients.steps is a number such as 97, not '2.5'"),
        ("--methods integrated_gradients --set integrated_gradients.steps=nan",
         "integrated_gradients.steps is a number such as 97, not 'nan'"),
        ("--methods integrated_gradients --set integrated_gradients.steps=100000000000000000000",
         "integrated_gradients.steps is at most 2147483647, not '100000000000000000000'"),
        ("--methods integrated_gradients --set integrated_gradients.steps=1" + "0" * 400,
         "integrated_gradients.steps is a number such as 97, not '10000"),
        ("--methods iba --set iba.beta=inf", "iba.beta is a number such as 1.0, not 'inf'"),
        ("--evaluate --fractions 1e999999999", "numbers such as 0.1 or 1/9, not 1e999999999"),
        ("--evaluate --fractions half", "numbers such as 0.1 or 1/9, not half"),
        ("--evaluate --fractions 1/0", "numbers such as 0.1 or 1/9, not 1/0"),
        ("--evaluate --fractions each,0.5", "numbers such as 0.1 or 1/9, not each,0.5; or eraser"),
        ("--evaluate --fractions each --units compat", "--fractions each: --units compat counts"),
        ("--evaluate --fractions 0.5,1.5", "--fractions are between 0 and 1"),
        ("--evaluate --fractions nan", "numbers such as 0.1 or 1/9, not nan"),
        ("--evaluate --orders best", "--orders: there is no 'best'; there are morf, lerf, random"),
        ("--evaluate --orders ,", "--orders: none was given; there are morf, lerf, random"),
        ("--evaluate --operations blur", "--operations: there is no 'blur'; there are mask, pad"),
        ("--evaluate --units line", "--units: there is no 'line'; there are token, word"),
        ("--mask-token-id 999999", "--mask-token-id 999999 is outside the model's vocabulary"),
        ("--mask-token-id -1", "--mask-token-id -1 is outside the model's vocabulary (0 to"),
        ("--methds saliency", "there is no option --methds; did you mean --methods?"),
        ("--method saliency", "there is no option --method; did you mean --methods?"),
        ("--colour red", "unknown option --colour: neither attribeam nor Beam has it"),
        ("stray", "unknown option stray: neither attribeam nor Beam has it"),
        ("--job_name", "does not accept an option: argument --job_name: expected one argument"),
        ("--direct_num_workers=x", "Beam does not accept an option: argument --direct_num_workers"),
        ("--runner Runner", "--runner Runner: Unexpected pipeline runner: Runner."),
        ("--runner DataflowRunner", "with --sdk_container_image (docs/dataflow.md says how"),
    ],
)  # fmt: skip
def test_a_bad_option_is_named(arguments: str, message: str, attribute: Run, out: Path) -> None:
    refused(attribute(*arguments.split()), message)
    assert not out.exists()


def test_a_refused_run_leaves_nothing_behind(
    attribute: Run, corpus: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the corpus has been copied before it is found out."""
    lines = corpus.read_text().splitlines()
    twice = write_jsonl(tmp_path / "twice.jsonl", [*lines, lines[0]])
    monkeypatch.setattr(
        "attribeam.pipeline.running.statistics.collect", Mock(side_effect=UsageError("too few"))
    )
    for arguments, message in (
        (("--corpus", twice), "has more than one row with the id 'r0'"),
        (("--methods", "iba"), "too few"),
    ):
        refused(attribute(*arguments, "--output", out / "of" / "it"), message)
        assert not out.exists()
        out.mkdir()
        refused(attribute(*arguments), message)
        assert list(out.iterdir()) == []
        out.rmdir()
    # What was there before stays.
    assert attribute().status == DONE
    before = stamps(out)
    shutil.rmtree(out / "corpus")
    refused(attribute("--corpus", twice), "holds a run with other settings")
    assert stamps(out) == {k: v for k, v in before.items() if not k.startswith("corpus/")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--limit", "x"], "argument --limit: invalid int value: 'x'"),
        (["run", "--seed", "1.5"], "argument --seed: invalid int value: '1.5'"),
        (
            ["run", "--limit", "99999999999999999999"],
            "argument --limit: 99999999999999999999 is more than 64 bits hold",
        ),
        (["run", "--seed", "-9223372036854775809"], "775809 is more than 64 bits hold"),
        (["run", "--shard-size", "9" * 5000], "[... cut: 5,0"),
        (["plan", "--price-per-hour", "nan"], "argument --price-per-hour: nan is not a finite"),
        (["attack", "a", "--least", "inf"], "argument --least: inf is not a finite number"),
        (["run", "--model"], "argument --model: expected one argument"),
        ([], "the following arguments are required: COMMAND"),
        (["ran"], "invalid choice: 'ran'"),
        (["query", "a"], "the following arguments are required: SQL"),
        (["query", "a", "b", "--format", "xml"], "invalid choice: 'xml'"),
        (["open", "a", "b"], "unrecognized arguments: b"),
        (["verify", "a", "--runner=x"], "unrecognized arguments: --runner=x"),
        (["methods", "--all"], "unrecognized arguments: --all"),
    ],
)
def test_what_cannot_be_parsed(arguments: list[str], message: str) -> None:
    outcome = command(*arguments)
    assert (outcome.status, outcome.out) == (USAGE, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("attribeam") and line.endswith(" --help`)")
    assert message in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there(device: str, attribute: Run) -> None:
    refused(attribute("--device", device), f"--device {device}, but this machine has no CUDA GPU")


def test_one_gpu_too_many(attribute: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    refused(attribute("--device", "cuda:1"), "--device cuda:1, but torch finds 1 CUDA GPU")


def test_a_mask_that_is_not_known(corpus: Path, tmp_path: Path) -> None:
    bare = save_tiny(tmp_path / "bare", "bert", tokenizer=False)
    ids = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"input_ids": [[2, 5, 3]]}), ids)
    usual = ("run", "--model", bare, "--output", tmp_path / "out", "--methods", "random")
    refused(
        command(*usual, "--corpus", ids, "--operations", "mask"),
        "--operations mask needs the model's mask token",
        "--mask-token-id",
    )
    refused(
        command(*usual[:-1], "integrated_gradients", "--corpus", ids, "--set",
                "integrated_gradients.baseline=mask"),
        "the mask baseline needs the model's mask token",
    )  # fmt: skip
    refused(command(*usual, "--corpus", corpus), "the model's folder has no tokenizer, so the corp")
    assert command(*usual, "--corpus", ids).status == DONE
    assert set(table(tmp_path / "out", "curves", "random")["operation"].to_pylist()) == {"pad"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("limits: 3\n", "there is no option 'limits'"),
        ("config: other.yaml\n", "there is no option 'config'"),
        ("- a\n", "is not a mapping of options to values"),
        ("text", "is not a mapping of options to values"),
        ("set: [a]\n", "is not a mapping of options to values"),
        ("set: {random: 3}\n", "`set` in the configuration: random needs parameters and values"),
        ("set: {random: {a: 3}}\n", "random has no parameter 'a'"),
        ("set: {1: {2: 3}}\n", "there is no method '1'"),
        ("limit: [3]\n", "limit can't be [3]"),
        ("limit: true\n", "limit can't be True"),
        ("evaluate: maybe\n", "evaluate can't be 'maybe'"),
        ("model: {a: b}\n", "model can't be {'a': 'b'}"),
        ("id-column: no\n", "id_column can't be False"),
        ("limit: .nan\n", "argument --limit: invalid int value: 'nan'"),
        ("seed: 99999999999999999999\n", "99999999999999999999 is more than 64 bits hold"),
        ("set: {iba: {beta: 3, beta: 4}}\n", "it has 'beta' twice"),
        ("limit: 3\nlimit: 4\n", "it has 'limit' twice"),
        ("shard-size: 3\nshard_size: 4\n", "has shard_size twice"),
        ("[" * 1500, "can't be read: "),
        ("#" * 2_000_000, "is larger than any configuration"),
        ("a: [", "can't be read: "),
        (b"\xff\xfe\xfa", "can't be read: "),
        (None, "can't be read: "),
    ],
)
def test_a_bad_configuration_is_named(
    content: str | bytes | None, message: str, attribute: Run, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = attribute("--config", config)
    assert outcome.status == USAGE
    assert outcome.out == ""
    assert message in outcome.err
    assert outcome.err.startswith(("attribeam: ", "attribeam run: error: "))


def test_a_configured_number_is_checked_as_on_the_command_line(
    attribute: Run, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("limit: 2.5\n")
    outcome = attribute("--config", config)
    assert outcome.status == USAGE
    assert "argument --limit: invalid int value: '2.5'" in outcome.err


# Models


def edited(old: str, new: str, name: str = "config.json") -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def written(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "has a config.json but no weights",
    ),
    "no config": (
        lambda f: (f / "config.json").unlink(),
        "holds no model: it has no config.json; ",
    ),
    "pickled": (pickled, "has only pickled weights (pytorch_model.bin), which can run code when"),
    "broken config": (written("config.json", b"{"), "can't be loaded: OSError: "),
    "empty config": (written("config.json", b"{}"), "can't be loaded: ValueError: "),
    "broken weights": (written("model.safetensors", b"x"), "can't be loaded: SafetensorError: "),
    "broken tokenizer": (written("tokenizer.json", b"{"), "can't be loaded: JSONDecodeError: "),
    "unknown": (written("config.json", b'{"model_type": "gptj"}'), "'gptj' is not supported"),
    "not fine-tuned": (edited("ForSequenceClassification", "Model"), "is BertModel; only "),
    "other size": (edited('"hidden_size": 32', '"hidden_size": 64'), " parameters of the model ("),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_that_is_no_model_is_named(
    name: str, attribute: Run, model: Path, tmp_path: Path
) -> None:
    spoil, message = MODELS[name]
    folder = tmp_path / name
    shutil.copytree(model, folder)
    spoil(folder)
    refused(attribute("--model", folder), message)


def test_pickled_weights_are_loaded_if_one_insists(
    attribute: Run, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(model, folder)
    pickled(folder)
    assert attribute("--model", folder, "--allow-pickle").status == DONE


@pytest.mark.parametrize("name", ["/lost/model", "./lost", "a/b/c"])
def test_a_model_that_is_not_there(name: str, attribute: Run) -> None:
    refused(attribute("--model", name), f"there is no model folder {name}")


def test_a_model_that_is_a_file(attribute: Run, corpus: Path) -> None:
    refused(attribute("--model", corpus), f"there is no model folder {corpus}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, model: Path) -> list[list[str]]:
    """A hub that has the tiny model under the name who/model; the list fills up with patterns."""
    patterns = []

    def snapshot(name: str, *, allow_patterns: list[str]) -> str:
        if name != "who/model":
            raise ConnectionError("offline")
        patterns.append(allow_patterns)
        return str(model)

    monkeypatch.setattr("attribeam.pipeline.running.prepare.snapshot_download", snapshot)
    return patterns


def test_a_model_of_the_hub(attribute: Run, hub: list[list[str]], out: Path) -> None:
    assert attribute("--model", "who/model").status == DONE
    assert json.loads((out / "run.json").read_text())["identity"]["model"]["source"] == "who/model"
    # Pickles are not even fetched.
    assert hub == [["*.json", "*.txt", "*.model", "*.safetensors"]]
    attribute("--model", "who/model", "--allow-pickle")
    assert "*.bin" in hub[1] and "*.py" not in hub[1]
    attribute("--model", "who/model", "--trust-remote-code")
    assert "*.py" in hub[2] and "*.bin" not in hub[2]
    refused(
        attribute("--model", "who/other"),
        "there is no folder who/other, and the model who/other can't be had from the hub: Conn",
    )


# Corpora


def test_a_corpus_that_is_not_there(attribute: Run, tmp_path: Path) -> None:
    for lost in (tmp_path / "lost.jsonl", tmp_path / "*.parquet", "./lost"):
        refused(attribute("--corpus", lost), f"there is no corpus at {lost}: ")
    refused(attribute("--corpus", tmp_path / ("x" * 300)), "can't be read: ", "name too long")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", b"", "is empty: it has no columns"),
        ("c.csv", b"text,label\n", "has no rows"),
        ("c.parquet", b"", "can't be read: "),
        ("c.json", b"[{}]", "is empty: it has no columns"),
        ("c.json", b'{\n"text": 1\n}', "over several lines; write one object a line"),
        ("c.csv", b"id,text\na,x\na,y\n", "more than one row with the id 'a' (column 'id')"),
        ("c.xlsx", b"x", "is of no known format; a corpus is .parquet, .jsonl, .csv or .tsv"),
    ],
)
def test_a_corpus_that_is_none(
    name: str, content: bytes, message: str, attribute: Run, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(attribute("--corpus", tmp_path / name), str(tmp_path / name), message)


def test_a_masked_lm_needs_words_to_contrast(
    attribute: Run, tiny_folder: FolderOf, tmp_path: Path
) -> None:
    lm = tiny_folder("bert", "masked_lm")
    refused(attribute("--model", lm), "has no column 'good'; its columns are id, text, label")
    corpus = write_jsonl(tmp_path / "c.jsonl", contrasts(2))
    refused(attribute("--model", lm, "--corpus", corpus, "--bad-column", "worse"), "--bad-column")
    assert attribute("--model", lm, "--corpus", corpus).status == DONE


# The output folder


def test_a_folder_that_cannot_be_written_to(attribute: Run, corpus: Path) -> None:
    refused(attribute("--output", corpus), f"--output {corpus} is a file; name a folder")
    below = corpus / "below"
    refused(attribute("--output", below), f"--output {below} can't be written to: ")
    refused(attribute("--output", "/proc/attribeam"), "--output /proc/attribeam can't be written")
    refused(attribute("--output", "ftp://host/out"), "--output ftp://host/out can't be ")
    refused(attribute("--output", corpus.parent / ("x" * 300)), "can't be read: ", "too long")


def test_a_folder_of_something_else_is_left_alone(attribute: Run, out: Path) -> None:
    out.mkdir()
    (out / "thesis.docx").write_bytes(b"precious")
    (out / "draft.tmp").write_bytes(b"too")
    refused(attribute(), "is not empty and holds no run (run.json), but ", "name a new folder")
    assert files(out) == {"thesis.docx", "draft.tmp"}


def test_other_settings_are_refused_and_named(attribute: Run, out: Path) -> None:
    attribute()
    before = {path: (out / path).read_bytes() for path in files(out)}
    for arguments, difference in (
        (("--seed", 3), "settings.seed was 0, now 3"),
        (("--target", 1), 'settings.target was "predicted", now 1'),
        (("--dtype", "float64"), 'settings.dtype was "float32", now "float64"'),
        (("--limit", 2), "corpus.limit was null, now 2"),
        (("--shard-size", 2), "settings.num_shards was 1, now 3; settings.shard_size was 512, now"),
        (("--label-column", "none"), 'corpus.columns.label was "label", now null'),
        (("--max-length", 9), "settings.max_length was 48, now 9"),
    ):
        outcome = attribute(*arguments)
        refused(outcome, f"{out} holds a run with other settings: {difference}")
        assert outcome.err.endswith("Use another --output, or the settings of that run\n")
    assert {path: (out / path).read_bytes() for path in files(out)} == before


def test_a_damaged_manifest_is_refused(attribute: Run, out: Path) -> None:
    attribute()
    (out / "run.json").write_text("{")
    refused(attribute(), "run.json is damaged")


# The other commands


def test_methods_are_described_by_their_full_names() -> None:
    outcome = command("methods", *methods())
    assert (outcome.status, outcome.err) == (DONE, "")
    assert re.findall(r"^(\w+)  cost ", outcome.out, re.MULTILINE) == list(methods())
    assert "--set bt_token.start_layer=auto | LAYER\n" in outcome.out
    assert "--set alti.level=auto | attention_norm | output_norm | residual\n" in outcome.out


def test_methods_are_described_in_lines_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = command("methods", *methods()).out.splitlines()
    assert max(map(len, lines)) <= 100
    # What goes on stays below the name.
    assert all(re.match(r"\w+  cost |    \S", line) for line in lines)
    (facts,) = (line for line in lines if line.startswith("attention_rollout "))
    assert facts.endswith("; class-independent, by layer")
    assert "    needs Forward(attention=True, layers=False, outputs=False)" in lines
    assert "    needs no pass" in lines
    (facts,) = (line for line in lines if line.startswith("random "))
    assert facts.endswith("; class-independent, stochastic")


@pytest.fixture(scope="module")
def finished(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "o[u]t"
    usual = ("--model", model, "--corpus", corpus, "--output", out, "--device", "cpu")
    assert command("run", *usual, "--methods", "random,saliency").status == DONE
    return out


def test_a_run_is_verified(finished: Path, tmp_path: Path) -> None:
    outcome = command("verify", finished)
    assert (outcome.status, outcome.err) == (DONE, "")
    assert "saliency" in outcome.out
    shutil.copytree(finished, tmp_path / "copy")
    lost = tmp_path / "copy" / "attributions" / "method=saliency" / "shard-00000-of-00001.parquet"
    lost.unlink()
    outcome = command("verify", tmp_path / "copy")
    assert (outcome.status, outcome.err) == (FAILED, "")
    refused(command("verify", tmp_path), f"{tmp_path} is no run folder: it has no run.json")


def test_a_run_is_asked_in_sql(finished: Path, tmp_path: Path) -> None:
    sql = "select method, count(*) as n from attributions group by all order by all"
    outcome = command("query", finished, sql, "--format", "json")
    assert (outcome.status, outcome.err) == (DONE, "")
    assert json.loads(outcome.out) == [{"method": m, "n": 6} for m in ("random", "saliency")]
    assert "saliency" in command("query", finished, "from faithfulness").out
    for wrong in ("from nowhere", "select", "copy (select 1) to 'x'"):
        outcome = command("query", finished, wrong)
        assert outcome.status == USAGE
        assert outcome.err.startswith("attribeam: ")
    refused(command("query", tmp_path, sql), f"{tmp_path} is no run folder: it has no run.json")
    refused(command("query", sql, finished), "the folder comes first: attribeam query DIR SQL")
    longer = f"select {'1 + ' * 100}1 as a"  # Than a file's name may be.
    assert command("query", finished, longer, "--format", "csv").out == "a\n101\n"
    written = command("query", finished, sql, "-o", tmp_path / "out.jsonl")
    assert (written.status, written.out) == (DONE, "")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) > 0


def test_an_interrupt_is_no_accident(attribute: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attribeam.pipeline.running.job.prepare", interrupt)
    outcome = attribute()
    assert outcome.status == INTERRUPTED
    assert outcome.err == "attribeam: interrupted; the same command continues\n"


def test_a_usage_error_of_any_command_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: object) -> int:
        raise UsageError("no such thing")

    monkeypatch.setattr(cli, "methods_command", wrong)
    refused(command("methods"), "attribeam: no such thing")


# As a process


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["query", "--help"], ["verify", "/lost"]])
def test_questions_do_not_wait_for_what_they_do_not_need(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from attribeam.pipeline.commands import cli\n"
        "try:\n"
        "    cli.main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'transformers', 'apache_beam', 'datasets'} & set(sys.modules)\n"
        "print('loaded:', sorted(heavy))\n"
    )
    outcome = process("-c", code, *arguments)
    assert outcome.stdout.splitlines()[-1] == "loaded: []", outcome.stderr


def test_a_process_exits_with_the_status_and_says_one_thing(tmp_path: Path, model: Path) -> None:
    outcome = process(
        *("-m", "attribeam.pipeline", "run", "--model", model, "--corpus", tmp_path / "lost.csv"),
        *("--output", tmp_path / "out"),
    )
    assert (outcome.returncode, outcome.stdout) == (USAGE, "")
    assert outcome.stderr == (
        f"attribeam: there is no corpus at {tmp_path}/lost.csv: "
        "no such file, folder or match of a glob\n"
    )


def test_a_reader_that_leaves_is_no_error(finished: Path) -> None:
    """As in ``attribeam query ... | head``."""
    program = [sys.executable, "-m", "attribeam.pipeline", "query", finished, "--format", "csv"]
    sql = "select range, repeat('x', 1000) from range(20000)"
    with subprocess.Popen(
        [*map(str, program), sql], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == DONE
