"""What texts tell of the machine that they were written on, and texts without it."""

import os
import re
import socket
import tempfile
from pathlib import Path

# Paths in messages of errors: those from the root with two parts, from home, of Windows, and URLs.
_PATHS = re.compile(
    r"\b(?!https?:)[a-z][a-z0-9+]*://[^\s'\"]+"
    r"|(?<![\w/.:])~?(?:/[^\s/'\":,;()]+){2,}/?"
    r"|(?<![\w/.])~/[^\s'\":,;()]*"
    r"|\b[A-Za-z]:\\[^\s'\"]+"
    r"|\\\\[\w.-]+\\[^\s'\"]+"
)
_LOCAL = "<local>"


def without_paths(text: str) -> str:
    """Returns a text with ``<local>`` for what tells of the machine that it was written on."""
    for name in local_names():
        text = text.replace(name, _LOCAL)
    text = _PATHS.sub(_LOCAL, text)
    host = socket.gethostname()
    # A short name may be anything.
    return re.sub(rf"\b{re.escape(host)}\b", _LOCAL, text) if len(host) > 4 else text


def local_names() -> list[str]:
    """Folders of this machine, longest first; they may have spaces, which patterns can't know."""
    names = {str(Path.cwd()), os.path.expanduser("~"), tempfile.gettempdir()}  # noqa: PTH111
    return sorted((name for name in names if name.count("/") > 1), key=len, reverse=True)
