"""Beam and running: sources, the plan, the graph, writing, and the command line.

    >>> from pipeline import Options, run
    >>> run(Options(model="examples/models/sentiment-bert", corpus="reviews.jsonl", output="out"))
"""

from pipeline.options import Options
from pipeline.run import Summary, run

__all__ = ["Options", "Summary", "run"]
