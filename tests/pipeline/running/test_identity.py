"""What may change results is in a run's identity, and what can't is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from attribeam.pipeline.running.fingerprint import model_hashes, tokenizer_identity
from attribeam.transforms import load_model
from attribeam.transforms.network.tokenizer import load_tokenizer
from tests.support.models import save_tiny, wordpiece_tokenizer
from tests.support.tiny import Outcome, command, rows, write_jsonl

SPECIAL = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model", "bert")


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Callable[..., Outcome]:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows(3))

    def run(*arguments: object, folder: Path = model) -> Outcome:
        usual = ("--model", folder, "--corpus", corpus, "--output", tmp_path / "out")
        return command("run", *usual, "--methods", "random", "--device", "cpu", *arguments)

    return run


def edited(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))


def vocabulary_alone(folder: Path) -> Path:
    """A tokenizer of before there was tokenizer.json."""
    vocabulary = wordpiece_tokenizer().get_vocab()
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def swap_special(folder: Path) -> None:
    edited(folder / "special_tokens_map.json", cls_token="[SEP]", sep_token="[CLS]", **SPECIAL)


def add_token(folder: Path) -> None:
    edited(folder / "added_tokens.json", film=len(wordpiece_tokenizer()) - 1)


def other_inputs(folder: Path) -> None:
    edited(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])


def other_case(folder: Path) -> None:
    edited(folder / "tokenizer_config.json", do_lower_case=False)


@pytest.mark.parametrize("change", [swap_special, add_token, other_inputs, other_case])
def test_a_tokenizer_that_does_something_else_is_another(
    change: Callable[[Path], None], model: Path, run: Callable[..., Outcome]
) -> None:
    vocabulary_alone(model)
    assert run().status == 0
    change(model)
    outcome = run()
    assert outcome.status == 2
    assert "holds a run with other settings: " in outcome.err
    assert "tokenizer.files_sha256 was " in outcome.err


def test_a_sentencepiece_model_beside_a_tokenizer(tmp_path: Path) -> None:
    """Its bytes count only where nothing better is known."""
    save_tiny(tmp_path, "xlm-roberta")
    tokenizer = load_tokenizer(tmp_path, trust_remote_code=False)
    before = tokenizer_identity(tmp_path, tokenizer) or {}
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"pieces")
    after = tokenizer_identity(tmp_path, tokenizer) or {}
    assert {key for key in before if before[key] != after[key]} == {"files_sha256"}
    (tmp_path / "tokenizer.json").unlink()
    alone = tokenizer_identity(tmp_path, None) or {}
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"others")
    other = tokenizer_identity(tmp_path, None) or {}
    assert alone["files_sha256"] != other["files_sha256"] and alone["content_sha256"] is None


def test_the_same_tokenizer_in_another_form(tmp_path: Path) -> None:
    old = vocabulary_alone(save_tiny(tmp_path / "old", "bert"))
    new = shutil.copytree(old, tmp_path / "new")
    AutoTokenizer.from_pretrained(old).save_pretrained(new)
    assert (new / "tokenizer.json").exists()
    both = [
        tokenizer_identity(folder, load_tokenizer(folder, trust_remote_code=False)) or {}
        for folder in (old, new)
    ]
    assert both[0]["content_sha256"] == both[1]["content_sha256"]
    assert both[0]["files_sha256"] != both[1]["files_sha256"]


def test_what_changes_nothing_is_no_difference(
    model: Path, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Files that are written anew or beside, the order of lists, a limit that is none."""
    assert run("--orders", "morf,random", "--limit", 99).status == 0
    identity = json.loads((tmp_path / "out" / "run.json").read_text())["identity"]
    assert identity["corpus"]["limit"] is None
    copy = shutil.copytree(model, tmp_path / "other name")
    config = json.loads((model / "config.json").read_text())
    config = dict(reversed(config.items())) | {"transformers_version": "4.0.0"}
    (copy / "config.json").write_text(json.dumps(config, indent=7))
    (copy / "tokenizer.json").write_text(
        json.dumps(json.loads((model / "tokenizer.json").read_text()), indent=7)
    )
    for name in ("README.md", "optimizer.pt", "adapter_model.safetensors", "vocabulary.txt"):
        (copy / name).write_bytes(b"of no use")
    for arguments in (("--limit", 3), ("--limit", 1000), ()):
        outcome = run("--orders", "random,morf", *arguments, folder=copy)
        assert (outcome.status, outcome.err) == (0, "")
        assert outcome.out.startswith("nothing left to do")
    refused = run("--orders", "random,morf", "--limit", 2)
    assert "corpus.limit was null, now 2" in refused.err


def test_a_limit_that_comes_to_be_the_whole_corpus(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Whether there is more is found out where it matters."""
    assert run("--limit", 2, "--no-evaluate").status == 0
    for limit, difference in ((3, "was 2, now 3"), (None, "was 2, now null")):
        arguments = ("--limit", limit) if limit else ()
        assert f"corpus.limit {difference}" in run("--no-evaluate", *arguments).err
    shutil.rmtree(tmp_path / "out")
    assert run("--limit", 3, "--no-evaluate").status == 0
    for arguments in ((), ("--limit", 4)):
        assert run("--no-evaluate", *arguments).out.startswith("nothing left to do")


def test_weights_that_are_not_read_are_of_no_consequence(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "bert")
    config = load_model(folder).network.config
    before = model_hashes(folder, config)
    assert before["weights_read_sha256"] == before["weights_sha256"]
    (folder / "a.safetensors").write_bytes(b"of something else")
    after = model_hashes(folder, config)
    assert after["weights_read_sha256"] == before["weights_read_sha256"]
    assert after["weights_sha256"] != before["weights_sha256"]
    (folder / "model.safetensors").write_bytes(b"another")
    assert model_hashes(folder, config)["weights_read_sha256"] != before["weights_read_sha256"]


def test_a_run_that_other_versions_began_goes_on_and_says_so(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert run("--no-evaluate").status == 0
    edit_versions(tmp_path / "out" / "run.json", attribeam="0.0.1", torch="2.4.0")
    assert run("--no-evaluate").err == ""  # There is nothing to do.
    outcome = run("--methods", "random,saliency", "--no-evaluate")
    assert outcome.status == 0
    assert outcome.err.startswith(
        "attribeam: the run was made with other versions (attribeam 0.0.1, now "
    )
    page = tmp_path / "report.html"
    assert command("report", tmp_path / "out", "-o", page).status == 0
    assert "torch 2.4.0, " in page.read_text()


def edit_versions(path: Path, **versions: str) -> None:
    manifest = json.loads(path.read_text())
    manifest["executions"][0]["versions"] |= versions
    path.write_text(json.dumps(manifest))


def test_rows_of_another_version_of_a_method_are_not_continued(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert run("--no-evaluate").status == 0
    path = tmp_path / "out" / "run.json"
    manifest = json.loads(path.read_text())
    assert manifest["methods"]["random"]["version"] == 1
    manifest["methods"]["random"]["version"] = 0
    path.write_text(json.dumps(manifest))
    outcome = run("--no-evaluate")
    assert outcome.status == 2
    assert "random gives other results now (its version was 0, now 1)" in outcome.err
    # Other methods may be added.
    assert run("--methods", "saliency", "--no-evaluate").status == 0
