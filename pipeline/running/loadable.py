"""A run's folder as a data set: ``datasets.load_dataset(OUT)`` takes it as it lies there.

``README.md`` says in YAML which files are of which table. It names patterns, not files, so that it
stays true when shards are added or joined; a table that comes or goes makes another of it.
"""

import json
from collections.abc import Iterator

import yaml

from attribeam.analysis.opening.files import units
from attribeam.pipeline.running.manifest import read_manifest
from attribeam.pipeline.store.files import exists, join, list_files, open_read, write_content
from attribeam.schemas import TABLES
from attribeam.schemas.layout import CARD, FAILURES, GLOBS
from attribeam.schemas.manifest import Manifest
from attribeam.schemas.tables import EVALUATIONS

# By which a text is known to be ours; one that somebody else wrote is left alone.
_OURS = "<!-- written by attribeam, and anew whenever tables are added -->"
_FIRST = "attributions"
_BATCH = 1000
_SPLIT = "train"  # What `datasets` calls the only split of what has none.


def describe_run(root: str, manifest: Manifest) -> None:
    """Writes the text of a run's folder, unless it is there already or somebody else's is.

    Args:
        root: The run's folder, whose shards are done.
        manifest: Its ``run.json``.
    """
    path = join(root, CARD)
    before = _read(path)
    text = _text([*_tables(root, manifest)])
    if before != text and (before is None or _OURS in before):
        write_content(path, text.encode())


def describe_again(root: str) -> None:
    """Writes the text of a run's folder anew if there is one, once a table may have come."""
    manifest = read_manifest(root) if is_described(root) else None
    if manifest is not None:
        describe_run(root, manifest)


def is_described(root: str) -> bool:
    """Whether the ``README.md`` of a folder is what ``describe_run`` has written."""
    return _OURS in (_read(join(root, CARD)) or "")


def _read(path: str) -> str | None:
    """What the text is; None if there is none."""
    if not exists(path):
        return None
    with open_read(path) as handle:
        return handle.read().decode(errors="replace")


def _tables(root: str, manifest: Manifest) -> Iterator[str]:
    """The tables that have files: of a pattern that finds none, ``datasets`` refuses all."""
    of_units = {unit.table for unit in units(manifest)}
    for table in sorted((*TABLES, *EVALUATIONS), key=lambda table: table != _FIRST):
        beside = table == FAILURES or table in EVALUATIONS
        files = list_files(join(root, table)) if beside else []
        if table in of_units or any(file.endswith(".parquet") for file in files):
            yield table


def _text(tables: list[str]) -> str:
    configs = [
        {
            "config_name": table,
            **({"default": True} if number == 0 else {}),
            "data_files": [{"split": _SPLIT, "path": GLOBS[table]}],
            # Else it takes that of the first row group, and none is read from a file without rows.
            "batch_size": _BATCH,
        }
        for number, table in enumerate(tables)
    ]
    head = yaml.safe_dump({"configs": configs}, sort_keys=False)
    lines = [
        f"load_dataset(FOLDER, {json.dumps(table)}, split={json.dumps(_SPLIT)})" for table in tables
    ]
    calls = "\n".join(["from datasets import load_dataset", "", *lines])
    return (
        f"---\n{head}---\n\n{_OURS}\n\n"
        "# A run of attribeam\n\n"
        "Its tables are Parquet files, and `run.json` says what they were made of:\n\n"
        f"```python\n{calls}\n```\n\n"
        "`attribeam query FOLDER` lists the views on them; `attribeam publish` makes a data set "
        "for others of it, with a card.\n"
    )
