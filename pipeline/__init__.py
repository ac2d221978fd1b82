"""Beam and running: sources, the plan, the graph, writing, and the command line.

>>> from pipeline import Options, run
>>> run(Options(model="examples/models/sentiment-bert", corpus="reviews.jsonl", output="out"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.job import Summary, run
    from pipeline.options import Options

__all__ = ["Options", "Summary", "run"]

_HOMES = {"Options": "pipeline.options", "Summary": "pipeline.job", "run": "pipeline.job"}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for: torch and Beam would delay every query."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
