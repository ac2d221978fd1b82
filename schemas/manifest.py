"""``run.json``: what a run's numbers depend on, and who has added to it when."""

import re
from collections.abc import Mapping
from typing import Any

from attribeam.schemas.layout import FORMAT, FORMATS

# A manifest may come from anyone, and what it names is to be installed.
_VERSION = re.compile(r"\d[\w.+!-]{0,40}", re.ASCII)


def newer(manifest: Mapping[str, Any]) -> str | None:
    """What is to be said of a manifest of a format that is yet unknown; None of any other."""
    found = manifest.get("format")
    if type(found) is not int or found <= FORMAT:
        return None
    calls = manifest.get("executions")
    call = calls[-1] if isinstance(calls, list) and calls else None
    versions = call.get("versions") if isinstance(call, Mapping) else None
    version = versions.get("attribeam") if isinstance(versions, Mapping) else None
    reads = f"this version reads {' and '.join(map(str, FORMATS))}"
    if isinstance(version, str) and _VERSION.fullmatch(version):
        return (
            f"has format {found}, which attribeam {version} wrote, and {reads}: "
            f"pip install 'attribeam>={version}'"
        )
    return f"has format {found}, which a newer attribeam wrote, and {reads}: install the newest"
