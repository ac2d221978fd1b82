"""Files of a run that take the place of others, all of them or none, whenever it is killed.

What comes is written under temporary names first. Then a note says what goes and what comes: from
here on it is decided, and whoever has the folder next finishes what a killed process has begun. In
between rows are missing, which everybody who reads says, and never twice there.
"""

import json
from collections.abc import Mapping, Sequence

from attribeam.pipeline.store.files import (
    TEMPORARY,
    discard,
    exists,
    join,
    move,
    open_read,
    write_beside,
)
from attribeam.schemas.layout import REPLACING


def replace_files(root: str, gone: Sequence[str], come: Mapping[str, str]) -> None:
    """Puts files in the place of others.

    The caller has the folder to itself.

    Args:
        root: The run's folder.
        gone: Paths of those that go, relative to it.
        come: By path, the temporary path of each that comes (``write_beside``).
    """
    names = {path: temporary.removeprefix(join(root, "")) for path, temporary in come.items()}
    note = json.dumps({"gone": [*gone], "come": names}).encode()
    path = join(root, REPLACING)
    move(write_beside(path, lambda handle: handle.write(note)), path)
    settle(root)


def settle(root: str) -> bool:
    """Finishes what a killed process has begun; whether there was anything.

    The caller has the folder to itself.
    """
    note = join(root, REPLACING)
    if not exists(note):
        return False
    with open_read(note) as handle:
        said = json.loads(handle.read())
    for path in said["gone"]:
        if path not in said["come"]:
            discard(join(root, path))
    for path, temporary in said["come"].items():
        assert temporary.endswith(TEMPORARY)
        if exists(join(root, temporary)):
            move(join(root, temporary), join(root, path))
    discard(note)
    return True
