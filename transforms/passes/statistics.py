"""Statistics of the corpus, once for a whole run."""

from dataclasses import dataclass

from attribeam.transforms.passes.base import Pass


@dataclass(frozen=True)
class CorpusStatistics(Pass[None]):
    """Mean and deviation of what leaves each layer over texts of the corpus, once for a whole run.

    Attributes:
        sample: How many texts they are estimated from.
    """

    sample: int
