"""Prompts: texts that are the classes of pictures, from a file or the command line."""

from pathlib import Path

from attribeam.schemas import UsageError


def read_prompts(given: str | None) -> tuple[str, ...] | None:
    """The prompts that are given: lines of a file that is there, else parts between commas.

    Blank ones are none.

    Raises:
        UsageError: If the file can't be read, or there are none.
    """
    if given is None:
        return None
    parts = given.split(",")
    if _is_file(given):
        try:
            parts = Path(given).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(f"--prompts {given} can't be read: {error}") from error
    prompts = tuple(part.strip() for part in parts if part.strip())
    if not prompts:
        raise UsageError(f"--prompts {given!r} names none: give a file with one a line, or A,B,...")
    return prompts


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except (OSError, ValueError):  # Prompts may be longer than a name may be.
        return False
