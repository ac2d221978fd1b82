"""``run.json``: what a run's numbers depend on, and who has added to it when.

A folder holds one run. Running again with the same settings continues it, other methods are added
to it, and anything else is refused, with the difference named.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from attribeam.analysis.opening.manifest import misshapen
from attribeam.pipeline.running.differences import (
    evaluation_differences,
    identity_differences,
    settings_differences,
)
from attribeam.pipeline.store.files import exists, join, open_read, write_atomic
from attribeam.schemas import UsageError
from attribeam.schemas.layout import FORMAT, FORMATS, MANIFEST
from attribeam.schemas.manifest import newer

# What numbers are made by; other libraries only read and write them.
_DECISIVE = ("attribeam", "torch", "transformers", "tokenizers")


def read_manifest(root: str) -> dict[str, Any] | None:
    """The manifest of a run's folder; None if it has none.

    Raises:
        UsageError: If it can't be read, or another version of attribeam wrote it.
    """
    path = join(root, MANIFEST)
    if not exists(path):
        return None
    try:
        with open_read(path) as handle:
            manifest: dict[str, Any] = json.loads(handle.read())
        if not isinstance(manifest, dict):
            raise ValueError("it is no object")
        found = manifest.get("format")
    except ValueError as error:
        raise UsageError(
            f"{path} is damaged ({error}); put a copy of it back, or use another --output"
        ) from error
    if sentence := newer(manifest):
        raise UsageError(f"{path} {sentence}")
    if found not in FORMATS:
        raise UsageError(f"{path} has format {found}, this version writes {FORMAT}")
    if wrong := misshapen(manifest):
        raise UsageError(
            f"{path} is damaged ({wrong}); put a copy of it back, or use another --output"
        )
    return manifest


def check_is_own(root: str, manifest: Mapping[str, Any]) -> None:
    """Checks that a folder with a manifest is laid out as runs are, so that they can write there.

    Raises:
        UsageError: If it was published: nobody would find what is written between its files.
    """
    if "layout" in manifest:
        raise UsageError(
            f"{root} is a published data set, which nothing can be added to: give the folder of "
            "the run that it was made of, or a new one, and publish that"
        )


def write_manifest(root: str, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, whole or not at all."""
    content = json.dumps({"format": FORMAT, **manifest}, indent=2, ensure_ascii=False) + "\n"
    write_atomic(join(root, MANIFEST), lambda handle: handle.write(content.encode()))


def merged(root: str, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run that continues: the old one with what is added.

    Args:
        root: The run's folder, for messages.
        old: The manifest that is there, if any.
        new: What this call was told: ``identity``, ``methods``, ``evaluation``, ``executions``.

    Raises:
        UsageError: If a setting that numbers depend on differs; names the first few.
    """
    if old is None:
        return dict(new)
    old = _completed(old, new["identity"]["settings"])
    shared = [name for name in new["methods"] if name in old["methods"]]
    differences = [
        *identity_differences(old["identity"], new["identity"]),
        *_other_params(old["methods"], new["methods"]),
        *evaluation_differences(old["evaluation"], new["evaluation"]),
        *_other_methods(old["methods"], new["methods"]),
    ]
    if differences:
        raise UsageError(
            f"{root} holds a run with other settings: {'; '.join(differences[:3])}. "
            "Use another --output, or the settings of that run"
        )
    methods = {**old["methods"], **new["methods"]}
    for name in shared:
        # What a call leaves out stays in the run.
        both = old["methods"][name], new["methods"][name]
        tables = dict.fromkeys(table for method in both for table in method["tables"])
        methods[name] = {**methods[name], "tables": list(tables)}
        if "word_score" not in old["methods"][name]:
            # Words were ranked by their largest token before there was a choice, and still are.
            methods[name].pop("word_score", None)
    return {
        "identity": _with_hashes(old["identity"], new["identity"]),
        "methods": methods,
        "evaluation": old["evaluation"] or new["evaluation"],
        "executions": [*old["executions"], *new["executions"]],
    }


def _with_hashes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """An identity with the hashes that runs of before don't have, of what is the same."""
    sections = {}
    for section in ("model", "tokenizer"):
        if old[section] and new[section]:
            added = {key: new[section][key] for key in new[section] if key not in old[section]}
            sections[section] = {**old[section], **added}
    return {**old, **sections}


def other_versions(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> Iterator[str]:
    """Yields a sentence on the versions that a run was made with, where this call has others.

    Args:
        old: The manifest that is there, if any.
        new: What this call was told.
    """
    calls = [] if old is None else old["executions"]
    now = new["executions"][-1]["versions"]
    others = []
    for name in _DECISIVE:
        had = dict.fromkeys((call.get("versions") or {}).get(name) for call in calls)
        before = [version for version in had if version not in (None, now[name])]
        if before:
            others.append(f"{name} {' and '.join(map(str, before))}, now {now[name]}")
    if others:
        yield (
            f"the run was made with other versions ({'; '.join(others)}): what is added may differ "
            "by more than rounding; run.json and the report name all of them"
        )


def _completed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """A manifest with the settings that it was written without."""
    identity = old["identity"]
    settings = identity["settings"]
    if "token_types" in settings or "token_types" not in new:
        return old
    types = new["token_types"]
    if types == "zeros" and "pair" in identity["corpus"]["columns"]:
        # The first text had 0 and the second 1, as most tokenizers say.
        types = "tokenizer"
    settings = {**settings, "token_types": types}
    return {**old, "identity": {**identity, "settings": settings}}


def _other_params(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yields what differs of the parameters of the methods that both have."""
    for name in (name for name in new if name in old):
        both = old[name]["params"], new[name]["params"]
        yield from settings_differences(f"methods.{name}.", *both)


def _other_methods(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yields what of the methods that both have gives other results now, parameters being equal."""
    for name in (name for name in new if name in old):
        before, now = old[name], new[name]
        first, second = before.get("version", 1), now.get("version", 1)
        if first != second:
            yield f"{name} gives other results now (its version was {first}, now {second})"
        begun = "curves" in before["tables"] and "curves" in now["tables"]
        if begun and now.get("target") is not None and "word_score" not in before:
            yield (
                f"the curves of {name} follow the class of the run, now the {now['target']} one "
                "that it explains"
            )
