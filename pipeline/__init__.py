"""Beam and running: sources, the plan, the graph, writing, and the command line.

>>> import attribeam as ab
>>> ab.run(ab.Options(model="examples/models/sentiment-bert", corpus="reviews.jsonl", output="out"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attribeam.pipeline.options import Options
    from attribeam.pipeline.running.job import Summary, run

__all__ = ["Options", "Summary", "run"]

_HOMES = {
    "Options": "attribeam.pipeline.options",
    "Summary": "attribeam.pipeline.running.job",
    "run": "attribeam.pipeline.running.job",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for: torch and Beam would delay every query."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
