"""What ``run.json`` says, for people."""

from attribeam.schemas.manifest import CorpusIdentity, Manifest


def versions(manifest: Manifest) -> dict[str, str]:
    """The versions of each library that a run was made with, in the order of its calls."""
    found: dict[str, dict[str, None]] = {}
    for call in manifest["executions"]:
        for name, version in (call.get("versions") or {}).items():
            found.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(each) for name, each in found.items()}


def devices(manifest: Manifest) -> list[str]:
    """The devices that a run was made on, in the order of its calls."""
    names = (call.get("device_name") for call in manifest["executions"])
    return list(dict.fromkeys(str(name) for name in names if name))


def of_pictures(manifest: Manifest) -> bool:
    """Whether a run is of pictures."""
    model = manifest["identity"]["model"]
    known = any(key in model for key in ("processor", "prompts", "patches"))
    return known or "ForImage" in (model.get("architecture") or "")


def stretched(manifest: Manifest) -> bool:
    """Whether a run's pictures are shown in stretched colours, since theirs aren't known."""
    return of_pictures(manifest) and "processor" not in manifest["identity"]["model"]


def rows_of(corpus: CorpusIdentity) -> str:
    """How much of its corpus a run is of, for people.

    Reading ends at ``--limit``, so that how many rows there are beyond it is unknown.

    Args:
        corpus: What identifies it in ``run.json``.
    """
    rows = corpus["rows"]
    counted = f"{rows:,} rows" if rows != 1 else "1 row"
    if corpus["limit"] is None or corpus["limit"] > rows:
        return counted
    return f"the first {counted} (--limit {corpus['limit']})"
