"""``run.json`` as such: its types, what older formats become, what a later version has added."""

import json
from copy import deepcopy
from typing import Any

import pytest

from attribeam.schemas.layout import FORMAT, FORMATS
from attribeam.schemas.manifest import (
    FormatError,
    ShapeError,
    encode,
    is_double,
    is_published,
    misshapen,
    parse,
)
from tests.support.synthetic_run import synthetic_run


@pytest.fixture
def manifest() -> dict[str, Any]:
    return deepcopy(synthetic_run(rows=1).manifest)


def written(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, ensure_ascii=False).encode()


def test_what_is_written_is_read(manifest: dict[str, Any]) -> None:
    manifest["identity"]["model"]["source"] = "ü"
    assert parse(encode(parse(written(manifest)))) == manifest
    assert "ü" in encode(parse(written(manifest))).decode()
    assert next(iter(json.loads(encode(parse(written(manifest)))))) == "format"


def test_what_a_later_version_has_added_is_kept(manifest: dict[str, Any]) -> None:
    more = {"new": {"deep": [1, None]}}
    for part in (
        manifest,
        manifest["identity"],
        *manifest["identity"].values(),
        *manifest["methods"].values(),
        manifest["evaluation"],
        *manifest["executions"],
    ):
        part.update(more)
    assert parse(encode(parse(written(manifest)))) == manifest


def test_format_4_becomes_this_one(manifest: dict[str, Any]) -> None:
    old = manifest | {"format": 4}
    assert parse(written(old)) == manifest
    del old["evaluation"]
    assert parse(written(old)) == manifest | {"evaluation": None}
    # How it was begun, and what it was made with, stays as it is.
    del old["methods"]["paths"]["word_score"]
    assert "word_score" not in parse(written(old))["methods"]["paths"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'"run"', b"\xff", b"null"])
def test_what_is_no_object(content: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        parse(content)
    assert not isinstance(caught.value, (FormatError, ShapeError))


@pytest.mark.parametrize("number", [None, 3, FORMATS[0] - 1, "4", 4.0, True, [4], FORMAT + 1])
def test_other_formats(number: object, manifest: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        parse(written(manifest | {"format": number}))
    assert caught.value.newer == (number == FORMAT + 1)
    assert caught.value.found == number
    assert f"has format {number}" in str(caught.value)


@pytest.mark.parametrize(
    "calls", [None, 3, [], [3], [{}], [{"versions": 3}], [{"versions": {"attribeam": [1]}}]]
)
def test_a_newer_one_of_whatever_shape(calls: object, manifest: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"which a newer attribeam wrote.*: install the newest$"):
        parse(written({"format": FORMAT + 1, "executions": calls}))


def test_the_version_of_the_last_call_is_named(manifest: dict[str, Any]) -> None:
    manifest["executions"] = [{"versions": {"attribeam": each}} for each in ("1.0", "2.1.dev3")]
    with pytest.raises(FormatError, match=r"attribeam 2\.1\.dev3 wrote.*>=2\.1\.dev3'$"):
        parse(written(manifest | {"format": FORMAT + 1}))


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        ("identity.model", None, "identity.model is None"),
        ("identity.model.num_heads", True, "identity.model.num_heads is True"),
        ("identity.model.num_heads", 1.0, "identity.model.num_heads is 1.0"),
        ("identity.model.labels", ["a", 5], "identity.model.labels.1 is 5"),
        ("identity.tokenizer", [], "identity.tokenizer is []"),
        ("identity.corpus.columns", {"text": 1}, "identity.corpus.columns.text is 1"),
        ("identity.corpus.columns", {"a\nb": 1}, r"identity.corpus.columns.'a\nb' is 1"),
        ("identity.settings.target", 1.5, "identity.settings.target is 1.5"),
        ("identity.settings.overflow", "wrap", "identity.settings.overflow is 'wrap'"),
        ("identity.settings.num_shards", -1, "identity.settings.num_shards is -1"),
        ("methods.paths.tables", ["curves", "x"], "methods.paths.tables has 'x'"),
        ("methods.paths.passes", [["forward"]], "methods.paths.passes.0 is ['forward']"),
        ("methods.paths.version", "1", "methods.paths.version is '1'"),
        ("evaluation.fractions", [0.5, "x"], "evaluation.fractions.1 is 'x'"),
        ("executions", [{}, {"versions": {"torch": 2}}], "executions.1.versions.torch is 2"),
        ("executions", "x" * 99, f"executions is '{'x' * 56}..."),
    ],
)
def test_what_has_another_type_is_named(
    where: str, value: object, problem: str, manifest: dict[str, Any]
) -> None:
    part: Any = manifest
    *names, last = where.split(".")
    for name in names:
        part = part[name]
    part[last] = value
    assert misshapen(manifest) == problem
    with pytest.raises(ShapeError) as caught:
        parse(written(manifest))
    assert str(caught.value) == problem


def test_what_may_be_lacking_may_be_null(manifest: dict[str, Any]) -> None:
    for part, key in (
        (manifest["identity"], "tokenizer"),
        (manifest["identity"]["model"], "labels"),
        (manifest["identity"]["corpus"], "fingerprint"),
        (manifest["identity"]["settings"], "stride"),
        (manifest["methods"]["paths"], "paper"),
        (manifest, "evaluation"),
    ):
        part[key] = None
        assert misshapen(manifest) is None
    # But not the other way round: of these it must be said that there is none.
    for part, key in (
        (manifest["identity"]["corpus"], "limit"),
        (manifest["identity"], "tokenizer"),
    ):
        del part[key]
        assert misshapen(manifest) is not None
        part[key] = None


def test_numbers_of_fractions_may_be_whole_and_targets_names_or_numbers(
    manifest: dict[str, Any],
) -> None:
    manifest["evaluation"]["fractions"] = [0, 0.5, 1]
    for target in ("gold", 2):
        manifest["identity"]["settings"]["target"] = target
        assert misshapen(manifest) is None


def test_what_is_asked_of_them(manifest: dict[str, Any]) -> None:
    read = parse(written(manifest))
    assert (is_double(read), is_published(read)) == (False, False)
    manifest["identity"]["settings"]["dtype"] = "float64"
    read = parse(written(manifest | {"layout": "data"}))
    assert (is_double(read), is_published(read)) == (True, True)
