"""``run.json``: continued, added to, refused, damaged."""

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from attribeam.pipeline.running.manifest import (
    merged,
    other_versions,
    read_manifest,
    write_manifest,
)
from attribeam.schemas import UsageError
from attribeam.schemas.layout import FORMAT
from tests.support.tiny import files

IDENTITY = {
    "model": {
        **{"source": "tiny", "architecture": "Tiny", "task": "classification"},
        **{"labels": ["a"], "num_layers": 1, "num_heads": 1, "weights_sha256": "0a"},
    },
    "tokenizer": None,
    "corpus": {
        **{"source": "tiny", "rows": 3, "limit": None, "split": None},
        "columns": {"text": "text"},
    },
    "settings": {"seed": 0, "target": "predicted", "dtype": "float32", "num_shards": 1},
}
EVALUATION = {"fractions": [0.5], "protocol": "token"}


def manifest(
    *methods: str, evaluation: dict[str, Any] | None = None, tables: Sequence[str] = ()
) -> dict[str, Any]:
    record = {
        "params": {"steps": 20},
        "tables": [*tables, *([] if evaluation is None else ["curves"])],
    }
    return {
        "identity": deepcopy(IDENTITY),
        "methods": {name: deepcopy(record) for name in methods},
        "evaluation": deepcopy(evaluation),
        "executions": [{"methods": list(methods)}],
    }


def changed(value: Any, *keys: str, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """A manifest with one value changed."""
    new = manifest("a", "b", evaluation=EVALUATION) if base is None else base
    inner = new
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return new


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(str(tmp_path)) is None
    written = manifest("a", "b", evaluation=EVALUATION)
    written["identity"]["model"]["source"] = "ü"
    write_manifest(str(tmp_path), written)
    assert read_manifest(str(tmp_path)) == {"format": FORMAT, **written}
    assert files(tmp_path) == {"run.json"}
    assert "ü" in (tmp_path / "run.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '"run"', "\ud83d"])
def test_a_damaged_one_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(UsageError, match=f"{path} is damaged .*; put a copy of it back, or use"):
        read_manifest(str(tmp_path))


def test_one_that_lacks_what_is_relied_on_is_refused(tmp_path: Path) -> None:
    broken = manifest("a")
    del broken["identity"]["settings"]
    write_manifest(str(tmp_path), broken)
    with pytest.raises(UsageError, match=r"is damaged \(identity.settings is None\); put a copy"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("content", [{}, {"format": 3}, {"format": "1"}])
def test_one_of_another_version_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"has format .*, this version writes {FORMAT}"):
        read_manifest(str(tmp_path))


def test_the_first_is_as_it_is() -> None:
    new = manifest("a")
    assert merged("out", None, new) == new


def test_what_a_later_version_has_added_stays(tmp_path: Path) -> None:
    """But in what numbers depend on: this version could not do the same."""
    old = manifest("a", evaluation=EVALUATION) | {"format": FORMAT, "more": 1}
    old["methods"]["a"]["more"] = 2
    old["executions"][0]["more"] = 3
    write_manifest(str(tmp_path), merged("out", old, manifest("a", "b", evaluation=EVALUATION)))
    read = read_manifest(str(tmp_path))
    assert read is not None
    assert (read["more"], read["methods"]["a"]["more"], read["executions"][0]["more"]) == (1, 2, 3)
    for part in (old["identity"]["settings"], old["evaluation"]):
        part["more"] = 4
        with pytest.raises(UsageError, match="more was 4, now null"):
            merged("out", old, manifest("a", evaluation=EVALUATION))
        del part["more"]


def test_methods_and_executions_are_added() -> None:
    both = merged("out", manifest("a", "b"), manifest("b", "c"))
    assert list(both["methods"]) == ["a", "b", "c"]
    assert both["identity"] == IDENTITY
    assert [execution["methods"] for execution in both["executions"]] == [["a", "b"], ["b", "c"]]


def test_an_evaluation_may_come_later_and_then_stays() -> None:
    plain, evaluated = manifest("a"), manifest("a", evaluation=EVALUATION)
    later = merged("out", plain, evaluated)
    assert (later["evaluation"], later["methods"]["a"]["tables"]) == (EVALUATION, ["curves"])
    again = merged("out", later, plain)
    assert (again["evaluation"], again["methods"]["a"]["tables"]) == (EVALUATION, ["curves"])
    other = merged("out", later, manifest("b"))
    assert (other["methods"]["a"]["tables"], other["methods"]["b"]["tables"]) == (["curves"], [])


def test_layers_may_come_later_and_then_stay() -> None:
    later = merged("out", manifest("a"), manifest("a", tables=["layers"]))
    assert later["methods"]["a"]["tables"] == ["layers"]
    assert merged("out", later, manifest("a"))["methods"]["a"]["tables"] == ["layers"]
    other = merged("out", later, manifest("b"))["methods"]
    assert (other["a"]["tables"], other["b"]["tables"]) == (["layers"], [])


@pytest.mark.parametrize(
    ("new", "difference"),
    [
        (changed(7, "identity", "settings", "seed"), "settings.seed was 0, now 7"),
        (changed("0b", "identity", "model", "weights_sha256"),
         'model.weights_sha256 was "0a", now "0b"'),
        (changed({"sha256": "1"}, "identity", "tokenizer"),
         'tokenizer was null, now {"sha256": "1"}'),
        (changed({"text": "body"}, "identity", "corpus", "columns"),
         'corpus.columns.text was "text", now "body"'),
        (changed({"text": "text", "id": "id"}, "identity", "corpus", "columns"),
         'corpus.columns.id was null, now "id"'),
        (changed(30, "methods", "b", "params", "steps"), "methods.b.steps was 20, now 30"),
        (changed([0.1], "evaluation", "fractions"), "evaluation.fractions was [0.5], now [0.1]"),
        (changed(["x" * 99], "evaluation", "fractions"), "xxx..."),
    ],
)  # fmt: skip
def test_other_settings_are_refused_and_named(new: dict[str, Any], difference: str) -> None:
    old = manifest("a", "b", evaluation=EVALUATION)
    with pytest.raises(UsageError, match=r"^out holds a run with other settings: ") as raised:
        merged("out", old, new)
    assert difference in str(raised.value)
    assert str(raised.value).endswith(". Use another --output, or the settings of that run")


HASHES = ("config_sha256", "config_content_sha256", "weights_sha256", "weights_read_sha256")


def hashed(section: str, **hashes: str | None) -> dict[str, Any]:
    new = manifest("a")
    new["identity"][section] = {**(new["identity"][section] or {}), **hashes}
    return new


@pytest.mark.parametrize(
    ("section", "old", "new", "different"),
    [
        # Bytes or content: either will do.
        ("model", ("1", "x"), ("1", "y"), ""),
        ("model", ("1", "x"), ("2", "x"), ""),
        ("model", ("1", "x"), ("2", "y"), "model.config_sha256"),
        ("tokenizer", ("1", "x"), ("2", "x"), ""),
        ("tokenizer", ("1", "x"), ("1", "y"), ""),
        ("tokenizer", ("1", "x"), ("2", "y"), "tokenizer.files_sha256"),
        # A tokenizer that isn't loaded has no content.
        ("tokenizer", ("1", "x"), ("1", None), ""),
        ("tokenizer", ("1", "x"), ("2", None), "tokenizer.files_sha256"),
    ],
)
def test_what_is_the_same_in_other_files(
    section: str, old: Sequence[str], new: Sequence[str | None], different: str
) -> None:
    names = HASHES[:2] if section == "model" else ("files_sha256", "content_sha256")
    both = [hashed(section, **dict(zip(names, each, strict=True))) for each in (old, new)]
    if different:
        with pytest.raises(UsageError, match=rf"settings: {different} was "):
            merged("out", *both)
    else:
        assert merged("out", *both)["identity"] == both[0]["identity"]


def test_runs_from_before_are_known_by_what_they_have() -> None:
    old = hashed("tokenizer", sha256="a")
    new = hashed("tokenizer", sha256="a", files_sha256="1", content_sha256="x")
    later = merged("out", old, new)
    assert later["identity"]["tokenizer"] == new["identity"]["tokenizer"]
    # What has been added since is what counts from then on.
    assert merged("out", later, hashed("tokenizer", sha256="b", files_sha256="1"))
    with pytest.raises(UsageError, match=r"tokenizer.sha256 was \"a\", now \"b\""):
        merged("out", old, hashed("tokenizer", sha256="b", files_sha256="1", content_sha256="x"))


def test_the_order_of_an_evaluation_is_no_difference() -> None:
    old = manifest("a", evaluation={"orders": ["morf", "lerf"], "fractions": [0.5]})
    new = manifest("a", evaluation={"orders": ["lerf", "morf"], "fractions": [0.5]})
    assert merged("out", old, new)["evaluation"] == old["evaluation"]


def versions(**each: str) -> dict[str, Any]:
    return {**manifest("a"), "executions": [{"methods": ["a"], "versions": each}]}


def test_other_versions_are_told() -> None:
    new = versions(attribeam="2", torch="3", transformers="5", tokenizers="1", numpy="9")
    assert list(other_versions(None, new)) == []
    assert list(other_versions(merged("out", manifest("b"), new), new)) == []
    old = versions(attribeam="2", torch="1", transformers="4", numpy="8")
    (sentence,) = other_versions(old, new)
    assert sentence.startswith(
        "the run was made with other versions (torch 1, now 3; transformers 4, now 5): "
    )


def test_no_more_than_three_differences_are_named() -> None:
    new = manifest("a")
    new["identity"]["settings"] |= {"seed": 1, "target": "gold", "dtype": "float64"}
    new["identity"]["model"] |= {"source": "other", "weights_sha256": "0b"}
    with pytest.raises(UsageError) as raised:
        merged("out", manifest("a"), new)
    assert str(raised.value).count(" was ") == 3


def test_another_name_for_the_same_thing_is_no_difference() -> None:
    new = changed("elsewhere", "identity", "model", "source")
    assert merged("out", manifest("a", evaluation=EVALUATION), new)["identity"] == IDENTITY


def test_parameters_of_a_method_that_is_new_are_no_difference() -> None:
    new = changed(99, "methods", "b", "params", "steps", base=manifest("b"))
    assert merged("out", manifest("a"), new)["methods"]["b"]["params"] == {"steps": 99}


def test_parameters_of_a_later_version_were_something_before() -> None:
    """A product of layers had all of them before it could begin at a later one."""
    old, same = manifest("attention_rollout"), manifest("attention_rollout")
    same["methods"]["attention_rollout"]["params"] |= {"start_layer": 0, "first": "kept"}
    found = merged("out", old, same)["methods"]["attention_rollout"]
    assert found["params"] == {"steps": 20, "start_layer": 0, "first": "kept"}
    other = changed(1, "methods", "attention_rollout", "params", "start_layer", base=same)
    with pytest.raises(UsageError, match=r"attention_rollout\.start_layer was 0, now 1"):
        merged("out", old, other)


def test_what_is_merged_is_a_copy() -> None:
    old, new = manifest("a", evaluation=EVALUATION), manifest("a")
    before = deepcopy((old, new))
    merged("out", old, new)
    assert (old, new) == before


@pytest.mark.parametrize(
    ("columns", "types", "refused"),
    [
        ({"text": "text"}, "zeros", False),
        ({"text": "a", "pair": "b"}, "tokenizer", False),
        ({"text": "a", "pair": "b"}, None, False),
        ({"text": "a", "pair": "b"}, "zeros", True),
    ],
)
def test_a_run_from_before_token_types_were_recorded(
    columns: dict[str, str], types: str | None, refused: bool
) -> None:
    old = manifest()
    old["identity"]["corpus"] = {"columns": columns}
    new = deepcopy(old)
    new["identity"]["settings"]["token_types"] = types
    if refused:
        with pytest.raises(UsageError, match=r'settings.token_types was "tokenizer", now "zeros"'):
            merged("out", old, new)
    else:
        assert merged("out", old, new)["identity"]["settings"]["token_types"] == types


def test_another_version_of_a_method_is_refused() -> None:
    """What was written before there were versions is of the first."""
    old, same, other = manifest("a", "b"), manifest("b"), manifest("b")
    same["methods"]["b"]["version"], other["methods"]["b"]["version"] = 1, 2
    assert merged("out", old, same)["methods"]["b"]["version"] == 1
    with pytest.raises(UsageError, match=r"b gives other results now \(its version was 1, now 2\)"):
        merged("out", old, other)
    added = manifest("c")
    added["methods"]["c"]["version"] = 2
    assert merged("out", old, added)["methods"].keys() == {"a", "b", "c"}
