"""In which commits a data set of the hub becomes the one that is to be there.

A commit of the hub is whole or isn't there, but it takes only so many files before it times out.
What fits into one is one commit: a reader sees the former data set or the new one. Of more, the
first takes away the former card and manifest and leaves a note instead, the next ones bring data,
and the last one brings card and manifest, and takes away the note and what the former one had more.
Wherever that breaks off, what is there has no card and no manifest, and the note says why.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from attribeam.schemas.layout import CARD, MANIFEST, PUBLISHED, REPORT, REPRODUCE, UNFINISHED

# What huggingface_hub, too, begins with; the hub takes about half a minute for them.
FILES_OF_COMMIT = 250

NOTE = """\
# This upload has not finished

The files under `data/` are part of a data set that attribeam is uploading, or of an upload that
broke off. They are not whole, and some may be of a former version. `README.md` and `run.json` come
with the last of them, and this note goes then. The `attribeam publish` command that began this
continues it.
"""

_LAST = (CARD, MANIFEST, REPRODUCE, REPORT)


class Commit(NamedTuple):
    """A commit: its message, the files that it adds or replaces, and those that it deletes."""

    message: str
    add: list[str]
    delete: list[str]


def commits(there: Collection[str], files: Collection[str], changed: Sequence[str]) -> list[Commit]:
    """Returns the commits that are to be made, in order; none if nothing is to be done.

    Args:
        there: Paths that the data set has.
        files: Paths that it is to have, beside those that are none of ours.
        changed: Those of ``files`` that it hasn't, or with other contents.
    """
    gone = [
        path
        for path in sorted(there)
        if path not in files and (path.startswith(f"{PUBLISHED}/") or path in (UNFINISHED, REPORT))
    ]
    message = "Publish a run of attribeam"
    if len(changed) + len(gone) <= FILES_OF_COMMIT:
        return [Commit(message, list(changed), gone)] if changed or gone else []
    data = [path for path in changed if path not in _LAST]
    of_data = parts(data)
    note = [] if UNFINISHED in there else [UNFINISHED]
    former = [path for path in _LAST if path in there]
    planned = [Commit("Begin to upload a run of attribeam", note, former)] * bool(note or former)
    planned += [
        Commit(f"Upload a run of attribeam, part {number} of {len(of_data)}", part, [])
        for number, part in enumerate(of_data, 1)
    ]
    gone = list(dict.fromkeys([*gone, UNFINISHED]))
    return [*planned, Commit(message, [path for path in _LAST if path in files], gone)]


def parts(paths: Sequence[str]) -> list[list[str]]:
    """Returns paths in the order that they have, as many at a time as a commit takes."""
    return [
        list(paths[start : start + FILES_OF_COMMIT])
        for start in range(0, len(paths), FILES_OF_COMMIT)
    ]
