"""Whether there is a model or a corpus at a place, as far as its name tells."""

from contextlib import suppress
from pathlib import Path

from attribeam.schemas import UsageError


def check_model_folder(source: str) -> None:
    """Checks that what is no folder can be the id of a hub's model.

    Raises:
        UsageError: If it is a path.
    """
    if Path(source).exists() or source.startswith((".", "/")) or source.count("/") > 1:
        raise UsageError(f"there is no model folder {source}")


def no_corpus(corpus: str) -> str:
    """What is said where there is no corpus."""
    return f"there is no corpus at {corpus}: no such file, folder or match of a glob"


def check_corpus(corpus: str) -> None:
    """Checks that there is something at a local path without wildcards.

    Raises:
        UsageError: If there isn't.
    """
    plain = corpus.startswith((".", "/")) and not {*"*?[:"} & {*corpus}
    # Of a name that no file system takes, whoever opens it says more.
    with suppress(OSError):
        if plain and not Path(corpus).exists():
            raise UsageError(no_corpus(corpus))
