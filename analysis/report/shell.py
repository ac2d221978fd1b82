"""What the pages of a run share: their scripts, the policy on these, and data in them."""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any


def embedded(data: Any) -> str:
    """JSON that can stand in a ``<script>``, whatever texts are in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy(sources: Sequence[str]) -> str:
    """What the page may do: run these scripts, and reach nothing."""
    scripts = " ".join(f"'sha256-{source}'" for source in sources)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def digest(script: str) -> str:
    """What a policy knows a script by."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def zipped(script: str) -> str:
    """A script, packed, that a page's own script unpacks."""
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()


def template(name: str) -> str:
    """A file of ``analysis/templates``."""
    return (files("attribeam.analysis") / "templates" / name).read_text(encoding="utf-8").strip()
