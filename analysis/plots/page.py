"""Where a page about a run is written."""

from pathlib import Path

from attribeam.analysis.opening.replacing import replace_file, unwritable


def write_page(
    folder: str | Path, name: str, output: str | Path | None, content: str | bytes
) -> Path:
    """Writes a page to the file that was asked for, or into the run's folder under its own name.

    A link of that name in the run's folder, which may be anyone's, is replaced and not followed.
    An interruption leaves what was there before.

    Args:
        folder: The run's folder.
        name: The page's name there.
        output: Where else to.
        content: The page, or a picture's file.

    Returns:
        The file.

    Raises:
        UsageError: If it can't be written.
    """
    written = content.encode() if isinstance(content, str) else content
    if output is None:
        path = Path(folder) / name
        replace_file(path, written)
        return path
    path = Path(output)
    try:
        if path.exists() and not path.is_file():  # As /dev/stdout.
            path.write_bytes(written)
        else:
            replace_file(path.resolve(), written)
    except OSError as error:
        raise unwritable(path, error) from error
    return path
