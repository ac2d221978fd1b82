"""The process ``attribeam``, also ``python -m attribeam.pipeline``.

It heeds signals before it imports anything that takes a while.
"""

import sys
from collections.abc import Sequence

from attribeam.pipeline.interruption import heeded


def interrupted(given: Sequence[str]) -> str:
    """What is said of a command that was interrupted, given its words."""
    continues = "; the same command continues" if given[:1] == ["run"] else ""
    return f"attribeam: interrupted{continues}"


def main() -> int:
    """Runs the command of the process's arguments; returns its exit status."""
    given = sys.argv[1:]
    with heeded(interrupted(given)):
        from attribeam.pipeline.commands import cli

        return cli.main(given)


if __name__ == "__main__":
    sys.exit(main())
