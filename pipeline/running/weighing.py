"""What the units of a job weigh against each other: about how many forward passes they take."""

from collections.abc import Callable

from attribeam.pipeline.settings import Settings
from attribeam.schemas import Unit
from attribeam.transforms.evaluate import Evaluation

# Making a table and writing it, beside the passes.
_TABLE = 0.1
# Of curves whose units are removed one after the other.
_UNITS = 32
# Tables that are made of a method's scores, whether they have just been computed or not.
OF_SCORES = ("localisation", "curves")


def weigher(settings: Settings) -> Callable[[Unit], float]:
    """Returns what says about how many forward passes of an instance a unit takes."""
    chosen = {choice.name: choice for choice in settings.chosen}
    points = 0 if settings.evaluation is None else _points(settings.evaluation)
    shares = {
        name: choice.passes
        / max(1, sum(table not in OF_SCORES for table in settings.tables_of(name)))
        for name, choice in chosen.items()
    }

    def weigh(unit: Unit) -> float:
        if unit.table == "instances":
            return 1 + _TABLE
        if unit.table == "curves":
            return points + _TABLE
        if unit.table in OF_SCORES or unit.method not in shares:
            return _TABLE
        return shares[unit.method] + _TABLE

    return weigh


def _points(evaluation: Evaluation) -> int:
    """Points of a method's curves; those of random orders are of all methods alike."""
    orders = sum(order != "random" for order in evaluation.orders)
    fractions = _UNITS if evaluation.each else len(evaluation.fractions)
    ways = max(1, len(evaluation.operations))
    if evaluation.draws is not None:
        # Each fill is run, and in double precision once what draws it.
        ways += evaluation.draws + 1
    return fractions * orders * ways
