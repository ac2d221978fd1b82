"""What differs between the settings of two runs, and what is the same in another form."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Hashes of one thing, by section of the identity: of bytes and of content. It is the same if one of
# them is: bytes, since a library of another version may read the same file into other objects;
# content, since a file that is saved again, or another form of it, says the same.
_HASHES: Mapping[str, Sequence[Sequence[str]]] = {
    "model": (
        ("config_sha256", "config_content_sha256"),
        ("weights_sha256", "weights_read_sha256"),
    ),
    "tokenizer": (("files_sha256", "content_sha256"),),
}
# What runs of before have in place of the first of these.
_BEFORE = {"files_sha256": "sha256"}
# Options that aren't called as what they set.
_OPTIONS = {"evaluation.draws": "--fills"}


def identity_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yields each entry that differs between two identities, by its path, with both values."""
    for section in sorted({*old, *new}):
        both: list[Any] = [old.get(section), new.get(section)]
        if all(isinstance(side, Mapping) for side in both):
            groups = _HASHES.get(section, ())
            for group in groups:
                yield from _hash_differences(f"{section}.", group, *both)
            hashes = {*(name for group in groups for name in group), *_BEFORE.values()}
            both = [{k: v for k, v in side.items() if k not in hashes} for side in both]
        yield from settings_differences(f"{section}.", *both)


def _hash_differences(
    prefix: str, group: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[str]:
    known = [name for name in group if old.get(name) and new.get(name)]
    known = known or [_BEFORE.get(group[0], group[0])]
    if all(old.get(name) != new.get(name) for name in known):
        yield from settings_differences(
            prefix, *({known[0]: side.get(known[0])} for side in (old, new))
        )


def evaluation_differences(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> Iterator[str]:
    """Yields what differs between two evaluations, if there are two: not the order of lists."""
    if old is not None and new is not None:
        sides = (
            {k: sorted(v) if isinstance(v, list) else v for k, v in side.items()}
            for side in (old, new)
        )
        yield from settings_differences("evaluation.", *sides)


def settings_differences(prefix: str, old: Any, new: Any) -> Iterator[str]:
    """Yields each setting that differs, by its path after the prefix, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        # The same content may lie under another name.
        for key in sorted({*old, *new} - {"source"}):
            yield from settings_differences(f"{prefix}{key}.", old.get(key), new.get(key))
    elif old != new:
        path = prefix.rstrip(".")
        option = f" ({_OPTIONS[path]})" if path in _OPTIONS else ""
        yield f"{path}{option} was {_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
