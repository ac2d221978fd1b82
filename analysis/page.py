"""Where a page about a run is written."""

from pathlib import Path
from uuid import uuid4

from schemas import UsageError


def write_page(folder: str | Path, name: str, output: str | Path | None, content: str) -> Path:
    """Writes a page to the file that was asked for, or into the run's folder under its own name.

    A link of that name in the run's folder, which may be anyone's, is replaced and not followed.

    Args:
        folder: The run's folder.
        name: The page's name there.
        output: Where else to.
        content: The page.

    Returns:
        The file.

    Raises:
        UsageError: If it can't be written.
    """
    path = Path(folder) / name if output is None else Path(output)
    target = path.with_name(f".{name}.{uuid4().hex}.tmp") if output is None else path
    try:
        target.write_text(content, encoding="utf-8", newline="\n")
        if target != path:
            target.replace(path)
    except OSError as error:
        if target != path:
            target.unlink(missing_ok=True)
        raise UsageError(f"{path} can't be written: {error}") from error
    return path
