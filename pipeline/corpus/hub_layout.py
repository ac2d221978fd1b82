"""A data set of the hub in a local folder: its card says which files are which split."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from attribeam.pipeline.corpus.fields import classes_in
from attribeam.pipeline.corpus.listing import DataFile, Listing, data_file, in_folder
from attribeam.pipeline.corpus.picture_folder import pictures_in
from attribeam.pipeline.corpus.pictures import is_picture
from attribeam.pipeline.corpus.readers import format_of
from attribeam.schemas import UsageError

_CARD = "README.md"
# What a configuration may say; anything else would change how its files are read.
_KNOWN = {"config_name", "data_files", "data_dir", "default", "description", "version", "features"}
_DELIMITERS = ("sep", "delimiter")
_MOST_VALUES = 100_000


def _card(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What the card of a data set says to programs, and a sentence if that can't be read."""
    path = folder / _CARD
    if not path.is_file():
        return {}, []
    first, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    ends = [at for at, line in enumerate(lines) if line.strip() == "---"]
    if first.strip() != "---" or not ends:
        return {}, []
    try:
        found = yaml.safe_load("\n".join(lines[: ends[0]]))
        _check_size(found)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return {}, [f"the YAML in {_CARD} can't be read: {' '.join(str(error).split())}"]
    return (found if isinstance(found, dict) else {}), []


def _check_size(content: Any) -> None:
    """Checks that content ends: in YAML, a part may stand for itself, or for much of the rest.

    Raises:
        ValueError: If it doesn't end soon.
    """
    held, seen = [content], 0
    while held:
        value = held.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ValueError("it has too many parts")
        if isinstance(value, Mapping):
            held.extend(value.values())
        elif isinstance(value, list):
            held.extend(value)


def in_dataset(folder: Path, name: str | None) -> tuple[Listing, str | None]:
    """The files of a folder as its card tells them, and the delimiter that it names.

    Args:
        folder: The folder.
        name: Name of a configuration; None for the only one, or the default.

    Raises:
        UsageError: If there is no such configuration, or none was named of several.
    """
    card, notes = _card(folder)
    given = card.get("configs")
    configs = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    chosen = _chosen(folder, configs, name)
    classes = _classes(folder, card, chosen.get("config_name"))
    unknown = sorted(map(str, {*chosen} - _KNOWN - {*_DELIMITERS}))
    if unknown:
        raise UsageError(
            f"{folder}/{_CARD} says of its files what is not read: {', '.join(unknown)}; name the "
            "files instead of the folder"
        )
    below = folder / str(chosen["data_dir"]) if "data_dir" in chosen else folder
    patterns = list(_patterns(chosen.get("data_files")))
    if patterns:
        listing = Listing(list(_files(folder, below, patterns)))
    else:
        listing = pictures_in(below) or in_folder(below)
    delimiter = next((str(chosen[key]) for key in _DELIMITERS if key in chosen), None)
    files = [replace(each, classes=classes) for each in listing.files]
    if name is None and len(configs) > 1:
        every = ", ".join(str(each.get("config_name", "default")) for each in configs)
        said = f"configuration {chosen.get('config_name', 'default')} of {every}"
        return Listing(files, [said, *listing.notes, *notes], f" ({said})"), delimiter
    return Listing(files, [*listing.notes, *notes]), delimiter


def _chosen(folder: Path, configs: Sequence[Mapping[str, Any]], name: str | None) -> dict[str, Any]:
    named = {str(each.get("config_name", "default")): dict(each) for each in configs}
    if name is not None:
        if name not in named:
            listed = ", ".join(named) or "none"
            raise UsageError(f"{folder} has no configuration {name!r}; it has {listed}")
        return named[name]
    defaults = [each for each in named.values() if each.get("default")]
    if "default" in named:
        defaults.append(named["default"])
    if not defaults and len(named) > 1:
        raise UsageError(
            f"{folder} has the configurations {', '.join(named)}: name one after a colon "
            f"({folder}:{next(iter(named))})"
        )
    return (defaults or list(named.values()) or [{}])[0]


def _patterns(given: Any) -> Iterator[tuple[str | None, str]]:
    """Splits and patterns, in any of the ways that a card may write them."""
    if isinstance(given, str):
        yield None, given
    elif isinstance(given, Mapping):
        for split, of in given.items():
            yield from ((str(split), pattern) for _, pattern in _patterns(of))
    elif isinstance(given, list):
        for each in given:
            if isinstance(each, Mapping) and "path" in each:
                split = each.get("split")
                found = _patterns(each["path"])
                yield from ((None if split is None else str(split), path) for _, path in found)
            else:
                yield from _patterns(each)


def _files(
    folder: Path, below: Path, patterns: Sequence[tuple[str | None, str]]
) -> Iterator[DataFile]:
    seen: set[Path] = set()
    for split, pattern in patterns:
        parts = PurePosixPath(pattern)
        if parts.is_absolute() or ".." in parts.parts or "://" in pattern:
            raise UsageError(f"{folder}/{_CARD} names files elsewhere: {pattern}")
        found = [path for path in sorted(below.glob(pattern)) if path.is_file()]
        if (below / pattern).is_dir():
            found = sorted(path for path in (below / pattern).rglob("*") if path.is_file())
        found = [path for path in found if path not in seen]
        # Data goes first: beside it pictures are what its rows are of.
        data = [path for path in found if format_of(path.name)]
        found = data or [path for path in found if is_picture(path.name)]
        if not found:
            raise UsageError(f"{folder}/{_CARD} names files that are not there: {pattern}")
        seen.update(found)
        for path in found:
            file = data_file(str(path), path.relative_to(folder).as_posix())
            yield file if split is None else replace(file, split=split)


# Names of classes -----------------------------------------------------------------------------


def _classes(folder: Path, card: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Names of classes that the card, or a file beside it, tells of columns."""
    infos = card.get("dataset_info")
    infos = infos if isinstance(infos, list) else [infos]
    for info in infos:
        if isinstance(info, Mapping) and (
            len(infos) == 1 or str(info.get("config_name")) == str(config or "default")
        ):
            return _of_card(info.get("features"))
    for name in ("dataset_info.json", "dataset_infos.json"):
        if (folder / name).is_file():
            return _of_infos(folder / name, config)
    return {}


def _of_infos(path: Path, config: Any) -> dict[str, Any]:
    """Names of classes, as ``datasets`` wrote them beside data of one or several configurations."""
    try:
        infos = json.loads(path.read_text(encoding="utf-8"))
        if "features" not in infos:
            only = next(iter(infos.values())) if len(infos) == 1 else {}
            infos = infos.get(str(config or "default"), only)
        return classes_in(infos.get("features"))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} can't be read: {error}") from error


def _of_card(features: Any) -> dict[str, Any]:
    """Names of classes, from features as cards write them."""
    found: dict[str, Any] = {}
    for feature in features if isinstance(features, list) else ():
        if not isinstance(feature, Mapping) or "name" not in feature:
            continue
        name, dtype = str(feature["name"]), feature.get("dtype")
        if isinstance(dtype, Mapping) and isinstance(dtype.get("class_label"), Mapping):
            names = dtype["class_label"].get("names") or ()
            found[name] = tuple(map(str, names.values() if isinstance(names, Mapping) else names))
        elif isinstance(inner := feature.get("struct") or dtype, list):
            found[name] = _of_card(inner)
    return found
