"""Whole runs of a model of each kind of family that came later, as a folder of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from attribeam.analysis import open_run
from tests.support.models import OTHERS
from tests.support.tiny import command, rows, write_jsonl

# Methods are tested with all families; these differ in their tokenizers, heads or parts of layers.
_ALIKE = ("roberta-prelayernorm", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3")
KINDS = [family for family in OTHERS if family not in _ALIKE]
CHEAP = "saliency,decompx,attention_rollout,occlusion,norm_n"


@pytest.mark.parametrize("family", KINDS)
def test_a_run(tmp_path: Path, tiny_folder: Callable[..., Path], family: str) -> None:
    out, corpus = tmp_path / "out", write_jsonl(tmp_path / "corpus.jsonl", rows(3))
    run = command(
        *("run", "--model", tiny_folder(family), "--corpus", corpus, "--output", out),
        *("--methods", CHEAP, "--fractions", "0.5", "--orders", "morf"),
    )
    assert run.status == 0, run.err
    verified = command("verify", out)
    assert (verified.status, verified.err) == (0, ""), verified.out
    found = open_run(out, commented=False).sql(
        "select method, count(*) from curves group by 1 order by 1"
    )
    assert found.fetchall() == [(method, 9) for method in sorted(CHEAP.split(","))]
