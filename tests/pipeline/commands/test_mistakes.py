"""Typical mistakes: each is told in a sentence that says what to do, and nobody waits for torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.synthetic_run import synthetic_run, write_run

# Makes one mistake after the other; says how each ended, and what slow things were imported.
_ALL = """
import contextlib, io, json, sys
from attribeam.pipeline.commands.cli import main
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    slow = {"torch", "transformers", "apache_beam", "datasets"} & sys.modules.keys()
    print(json.dumps([status, out.getvalue(), err.getvalue(), sorted(slow)]))
"""
_RUN = {"--model": "somebody/model", "--corpus": "a.csv", "--output": "new"}


def running(*words: str) -> list[str]:
    """A run with an option more, or another value of one."""
    given = {**_RUN, **dict(zip(words[::2], words[1::2], strict=True))}
    return ["run", *(each for pair in given.items() for each in pair)]


def lacking(name: str) -> list[str]:
    """A run without an option that it needs."""
    return ["run", *(each for pair in _RUN.items() if pair[0] != name for each in pair)]


def asking(sql: str, *more: str) -> list[str]:
    return ["query", "out", sql, *more]


# What is typed, and what of the answer tells what to do.
MISTAKES = [
    (running("--methods", "saliensy"), "did you mean saliency?"),
    (running("--metods", "saliency"), "no option --metods; did you mean --methods?"),
    (running("--set", "limes.samples=3"), "did you mean lime?"),
    (running("--set", "lime=3"), "it is METHOD.PARAM=VALUE"),
    (running("--model", "./nowhere"), "there is no model folder ./nowhere"),
    (running("--corpus", "./nowhere.csv"), "there is no corpus at ./nowhere.csv"),
    (running("--limit", "many"), "argument --limit: invalid int value: 'many'"),
    (running("--limit", "0"), "--limit is at least 1, not 0"),
    (running("--seed", "x"), "argument --seed: invalid int value"),
    (running("--workers", "0"), "--workers is at least 1, not 0"),
    (running("--overflow", "strid"), "--overflow is one of truncate, fail, stride"),
    (running("--words", "word"), "--words is whitespace or tokenizer, not word"),
    (running("--dtype", "float16"), "--dtype is one of float32, float64, bfloat16, mixed"),
    (running("--config", "none.yaml"), "--config none.yaml can't be read"),
    (lacking("--model"), "--model is needed"),
    (lacking("--corpus"), "--corpus is needed"),
    (lacking("--output"), "--output is needed"),
    ([], "required: COMMAND"),
    (["runn"], "did you mean run?"),
    (["query", "out"], "required: SQL"),
    (["query", "from cost", "out"], "the folder comes first: attribeam query DIR SQL"),
    (["query", "nowhere", "from cost"], "Give the folder that `attribeam run --output` wrote."),
    (["query", "empty", "from cost"], "it has no run.json"),
    (asking("from costs"), "Did you mean cost?"),
    (asking("select metod from cost"), "Did you mean method?"),
    (asking("form cost"), 'syntax error at or near "form"'),
    (asking(""), "give one, such as 'from cost'"),
    (asking("nothing.sql"), "Give SQL, or the path of a .sql file."),
    (asking("from cost", "--format", "xlsx"), "choose from 'table', 'csv'"),
    (asking("from cost", "--format", "cvs"), "did you mean csv?"),
    (asking("from cost", "-o", "table.xls"), "end it with one of .csv"),
    (asking("from cost", "-o", "nowhere/table.csv"), "can't be written"),
    (asking("copy cost to 'x.csv'"), "choose a format"),
    (asking("from 'a.csv'"), "Another run is named beforehand: --with NAME=DIR"),
    (asking("from cost", "--with", "other"), "--with takes NAME=DIR"),
    (["show", "out", "nobody"], "the run has no instance 'nobody': there are"),
    (["show", "out", "--methods", "gradeint"], "did you mean gradient?"),
    (["show", "nowhere"], "it has no run.json"),
    (["plot", "out", "degradatoin"], "did you mean degradation?"),
    (["plot", "out", "pruning"], "run `attribeam prune` on it first"),
    (["verify", "nowhere"], "it has no run.json"),
    (["verify", "out", "more"], "unrecognized arguments: more"),
    (["report", "empty"], "it has no run.json"),
    (["report", "out", "--limit", "-1"], "--limit is at least 0, not -1"),
    (["open", "nowhere"], "it has no run.json"),
    (["methods", "limes"], "did you mean lime?"),
    (["publish", "out", "no name"], "it is user/name"),
    (["publish", "out"], "required: USER/NAME"),
    (["triggers", "out"], "add them with `attribeam run"),
    (["completion", "fish"], "choose from 'bash', 'zsh', 'tcsh'"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, str, list[str]]]:
    place = tmp_path_factory.mktemp("mistakes")
    (place / "empty").mkdir()
    (place / "a.csv").write_text("text,label\na,1\n")
    write_run(synthetic_run(rows=2), place / "out")
    done = subprocess.run(
        [sys.executable, "-c", _ALL],
        input=json.dumps([words for words, _ in MISTAKES]),
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
        env={**_environment()},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _environment() -> dict[str, str]:

    # Relative paths would be those of another folder.
    paths = [str(Path(each).absolute()) for each in sys.path if each]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[" ".join(w) for w, _ in MISTAKES])
def test_each_is_told_with_its_remedy(
    number: int, outcomes: list[tuple[int, str, str, list[str]]]
) -> None:
    status, out, err, slow = outcomes[number]
    assert status == 2
    assert out == ""
    assert err.startswith("attribeam")
    assert MISTAKES[number][1] in err
    assert len(err.splitlines()) <= 4  # A query's error shows the query.
    assert slow == []
