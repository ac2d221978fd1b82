"""attribeam: a corpus goes in, tables of attributions come out, SQL answers the questions.

>>> import attribeam as ab
>>> ab.explain("examples/models/sentiment-bert", ["the plot is not at all dull ."], ["decompx"])
>>> ab.run(ab.Options(model="examples/models/sentiment-bert", corpus="reviews.jsonl", output="out"))
>>> ab.open_run("out").sql("from faithfulness")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attribeam.analysis import verify
    from attribeam.analysis.notebook.run import open_run
    from attribeam.analysis.publish.publish import publish
    from attribeam.pipeline import Options, run
    from attribeam.pipeline.explaining.explain import explain
    from attribeam.schemas import UsageError
    from attribeam.transforms import EncodeOptions, Row, collect, encode, load_model
    from attribeam.transforms.attribute import attribute
    from attribeam.transforms.registry import choose, methods

__all__ = [
    "EncodeOptions",
    "Options",
    "Row",
    "UsageError",
    "attribute",
    "choose",
    "collect",
    "encode",
    "explain",
    "load_model",
    "methods",
    "open_run",
    "publish",
    "run",
    "verify",
]

_HOMES = {
    "attribeam.analysis": ("verify",),
    "attribeam.analysis.notebook.run": ("open_run",),
    "attribeam.analysis.publish.publish": ("publish",),
    "attribeam.pipeline": ("Options", "run"),
    "attribeam.pipeline.explaining.explain": ("explain",),
    "attribeam.schemas": ("UsageError",),
    "attribeam.transforms": (
        *("EncodeOptions", "Row"),
        *("attribute", "choose", "collect", "encode", "load_model", "methods"),
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for: a query must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
