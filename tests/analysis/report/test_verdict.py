"""The sentence at the top of a report."""

from attribeam.analysis.plots.figures import Row
from attribeam.analysis.report.verdict import verdict


def row(method: str, area: float, ms: float | None) -> Row:
    return {"method": method, "auc_difference": area, "ms": ms, "n": 7, "operation": "mask"}


def test_it_names_the_best_and_what_is_nearly_as_good_for_less() -> None:
    rows = [row("paths", 0.5, 900.0), row("split", 0.48, 20.0), row("quick", 0.46, 30.0)]
    said = verdict([*rows, row("random", 0.01, 0.1), row("slope", 0.0, 5.0)])
    assert said == (
        "paths is the most faithful here: 0.500 between the curves (7 instances, by mask, 900 ms "
        "an instance). split comes to 96% of that at 20 ms an instance. No better than random: "
        "slope."
    )


def test_it_says_that_nothing_near_is_cheaper() -> None:
    said = verdict([row("paths", 0.5, 9.0), row("far", 0.2, 1.0), row("random", 0.1, 0.1)])
    assert said.endswith("No other within 10% of that is cheaper.")


def test_one_method_is_compared_with_nothing() -> None:
    assert verdict([row("paths", 0.5, 9.0), row("random", 0.1, 0.1)]) == ""
    assert verdict([]) == ""


def test_without_times_there_is_nothing_on_cost() -> None:
    said = verdict([row("a", 0.5, None), row("b", 0.49, None)])
    assert said == "a is the most faithful here: 0.500 between the curves (7 instances, by mask)."
