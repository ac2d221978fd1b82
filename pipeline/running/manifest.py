"""``run.json``: what a run's numbers depend on, and who has added to it when.

A folder holds one run. Running again with the same settings continues it, other methods are added
to it, and anything else is refused, with the difference named.
"""

from collections.abc import Iterator, Mapping
from typing import cast

from attribeam.pipeline.running.differences import (
    evaluation_differences,
    identity_differences,
    settings_differences,
)
from attribeam.pipeline.store.files import exists, join, open_read, write_atomic
from attribeam.schemas import UsageError
from attribeam.schemas.layout import FORMAT, MANIFEST
from attribeam.schemas.manifest import (
    NO_MODEL,
    FormatError,
    Identity,
    Manifest,
    MethodRecord,
    ModelIdentity,
    SettingsIdentity,
    encode,
    is_imported,
    parse,
)
from attribeam.transforms import methods

# What numbers are made by; other libraries only read and write them.
_DECISIVE = ("attribeam", "torch", "transformers", "tokenizers")

_Methods = Mapping[str, MethodRecord]


def read_manifest(root: str) -> Manifest | None:
    """The manifest of a run's folder; None if it has none.

    Raises:
        UsageError: If it can't be read, or another version of attribeam wrote it.
    """
    path = join(root, MANIFEST)
    if not exists(path):
        return None
    try:
        with open_read(path) as handle:
            return parse(handle.read())
    except FormatError as error:
        older = f"has format {error.found}, this version writes {FORMAT}"
        raise UsageError(f"{path} {error if error.newer else older}") from error
    except ValueError as error:
        raise UsageError(
            f"{path} is damaged ({error}); put a copy of it back, or use another --output"
        ) from error


def check_is_own(root: str, manifest: Manifest) -> None:
    """Checks that a folder with a manifest is laid out as runs are, so that they can write there.

    Raises:
        UsageError: If it was published: nobody would find what is written between its files.
    """
    if "layout" in manifest:
        raise UsageError(
            f"{root} is a published data set, which nothing can be added to: give the folder of "
            "the run that it was made of, or a new one, and publish that"
        )


def check_asks_model(root: str, manifest: Manifest) -> None:
    """Checks that a run is of a model, which can be asked again.

    Raises:
        UsageError: If its scores were imported without one.
    """
    if is_imported(manifest):
        raise UsageError(f"{root} {NO_MODEL}")


def write_manifest(root: str, manifest: Manifest) -> None:
    """Writes the manifest, whole or not at all."""
    content = encode(manifest)
    write_atomic(join(root, MANIFEST), lambda handle: handle.write(content))


def merged(root: str, old: Manifest | None, new: Manifest) -> Manifest:
    """The manifest of a run that continues: the old one with what is added.

    Args:
        root: The run's folder, for messages.
        old: The manifest that is there, if any.
        new: What this call was told: ``identity``, ``methods``, ``evaluation``, ``executions``.

    Raises:
        UsageError: If a setting that numbers depend on differs; names the first few.
    """
    if old is None:
        return new
    old = _completed(old, new["identity"]["settings"])
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
    methods = {
        name: _with_method(old["methods"].get(name), new["methods"][name])
        for name in new["methods"]
    }
    # What only a published folder has.
    own = {key: value for key, value in old.items() if key not in ("layout", "files", "versions")}
    return {
        **cast(Manifest, own),
        "identity": _with_hashes(old["identity"], new["identity"]),
        "methods": {**old["methods"], **methods},
        "evaluation": old["evaluation"] or new["evaluation"],
        "executions": [*old["executions"], *new["executions"]],
    }


def _with_method(old: MethodRecord | None, new: MethodRecord) -> MethodRecord:
    """A method's record with what a call adds to it: what that leaves out stays in the run."""
    if old is None:
        return new
    both: MethodRecord = {
        **old,
        **new,
        "tables": list(dict.fromkeys([*old["tables"], *new["tables"]])),
    }
    if "word_score" not in old:
        # Words were ranked by their largest token before there was a choice, and still are.
        both.pop("word_score", None)
    return both


def _with_hashes(old: Identity, new: Identity) -> Identity:
    """An identity with the hashes that runs of before don't have, of what is the same."""
    tokenizer = old["tokenizer"]
    if tokenizer and new["tokenizer"]:
        tokenizer = {**tokenizer, **new["tokenizer"], **tokenizer}
    model: ModelIdentity = {**old["model"], **new["model"], **old["model"]}
    return {**old, "model": model, "tokenizer": tokenizer}


def other_versions(old: Manifest | None, new: Manifest) -> Iterator[str]:
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


def _completed(old: Manifest, new: SettingsIdentity) -> Manifest:
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


def _other_params(old: _Methods, new: _Methods) -> Iterator[str]:
    """Yields what differs of the parameters of the methods that both have."""
    known = methods()
    for name in (name for name in new if name in old):
        former = known[name].former if name in known else {}
        both = {**former, **old[name]["params"]}, new[name]["params"]
        yield from settings_differences(f"methods.{name}.", *both)


def _other_methods(old: _Methods, new: _Methods) -> Iterator[str]:
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
