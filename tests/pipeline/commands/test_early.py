"""What is told before anything that is slow to import: each in a process of its own."""

import subprocess
import sys

import pytest

from attribeam.transforms import methods

# Runs a command, and says what it has imported of what is slow.
_CALL = """
import sys
from attribeam.pipeline.commands.cli import main
status = main(sys.argv[1:])
slow = {"torch", "transformers", "apache_beam", "datasets"} & sys.modules.keys()
print("status", status, "slow", sorted(slow))
"""


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _CALL, *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--methods", "saliensy"), "there is no method 'saliensy'; did you mean saliency?"),
        (("--set", "limes.samples=3"), "there is no method 'limes'; did you mean lime?"),
        (("--set", "lime=3"), "--set lime=3: it is METHOD.PARAM=VALUE"),
        (("--model", "./nowhere"), "there is no model folder ./nowhere"),
        (("--corpus", "./nowhere.csv"), "there is no corpus at ./nowhere.csv"),
    ],
)
def test_mistakes_are_told_at_once(words: tuple[str, ...], says: str) -> None:
    usual = {"--model": "somebody/model", "--corpus": "somebody/corpus", "--output": "out"}
    given = {**usual, **{words[0]: words[1]}}
    for command in ("run", "plan"):
        done = call(command, *(each for pair in given.items() for each in pair))
        assert says in done.stderr
        assert done.stdout == "status 2 slow []\n"


def test_methods_are_listed_without_torch() -> None:
    done = call("methods")
    lines = done.stdout.splitlines()
    assert lines[-1] == "status 0 slow []"
    listed = [line.split()[0] for line in lines[: len(methods())]]
    assert listed == [
        name if method.opt_in is None else f"{name}*" for name, method in sorted(methods().items())
    ]
    assert max(map(len, lines)) <= 80


def test_a_method_is_described() -> None:
    done = call("methods", "bt_head", "attention_flow")
    assert "--set bt_head.steps=20" in done.stdout
    assert "not among `all`: " in done.stdout
    assert "did you mean lime?" in call("methods", "limes").stderr
