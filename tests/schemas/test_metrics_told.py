"""Every metric says which values are better, what range they have, and what fools it."""

import re
from pathlib import Path

from attribeam.analysis import open_run
from attribeam.analysis.report.checks import _INFIDELITY, _RELIABILITY, _SENSITIVITY
from attribeam.analysis.report.metrics import (
    _CONTINUATIONS,
    _COST,
    _DISTRIBUTIONS,
    _EVIDENCE,
    _FAITHFULNESS,
    _PLAUSIBILITY,
    metric_sheets,
)
from attribeam.schemas import VIEWS
from attribeam.schemas.views import NO_METRICS
from tests.support.synthetic_run import synthetic_run, write_run

MEASURING = {view.name: view for view in VIEWS if view.name not in NO_METRICS}
BETTER = re.compile(
    r"(higher|lower) is (better|stabler|surer|cheaper|sparser|less complex|more alike)"
    r"|higher is (a stronger trigger|more concentrated|better for method_a)"
    r"|nearest to 0 is best|farther from 0 is a larger effect"
    r"|better as its metric in `\w+`"
)
RANGE = re.compile(r"\b(to|or more|at most|above|any size|as there)\b")
SAID = re.compile(r"\b(higher|lower) is better\b", re.IGNORECASE)


def test_each_view_measures_or_says_that_it_does_not() -> None:
    assert {view.name for view in VIEWS} >= NO_METRICS
    for view in VIEWS:
        assert (view.metrics == {}) == (view.name in NO_METRICS), view.name


def test_metrics_say_what_is_better_and_how_large_they_get() -> None:
    for view in MEASURING.values():
        assert len(view.fools) > 60, view.name
        for name, metric in view.metrics.items():
            where = f"{view.name}.{name}"
            assert BETTER.fullmatch(metric.better), where
            assert RANGE.search(metric.range), where
            if view.columns:
                assert name in view.columns, where
            else:
                assert re.search(rf"\b{name}\b", view.comment.partition("Metrics:")[0], re.I), where


def test_no_sentence_says_another_direction() -> None:
    for view in MEASURING.values():
        for name, sentence in view.columns.items():
            if said := SAID.search(sentence):
                of = view.metrics.get(name)
                if of is None:  # Such as one that is given beside, from another view.
                    assert name in ("difference", "comprehensiveness"), f"{view.name}.{name}"
                elif not of.better.startswith("better as"):
                    assert of.better.split()[0] == said[1].lower(), f"{view.name}.{name}"


def test_the_report_marks_the_better_ones_and_says_why() -> None:
    shown = {
        "faithfulness": _FAITHFULNESS,
        "faithfulness_distributions": _DISTRIBUTIONS,
        "continuation_faithfulness": _CONTINUATIONS,
        "plausibility": _PLAUSIBILITY,
        "evidence": _EVIDENCE,
        "cost": _COST,
        "infidelity": _INFIDELITY,
        "sensitivity": _SENSITIVITY,
        "reliability": _RELIABILITY,
    }
    for name, columns in shown.items():
        metrics = {**MEASURING["degradation"].metrics, **MEASURING["completeness"].metrics}
        metrics |= MEASURING[name].metrics
        for column, (_, better) in columns.items():
            if better:
                assert metrics[column].better.split()[0] == better, (name, column)


def test_the_report_says_it(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=4, failing=False), tmp_path)
    with open_run(folder, commented=False) as connection:
        sheets = {sheet.key: sheet for sheet in metric_sheets(connection)}
    assert {*sheets} == {"faithfulness", "distributions-0", "plausibility", "cost"}
    for sheet in sheets.values():
        assert len(sheet.fools) > 60, sheet.key
        for column in sheet.columns:
            assert not column.better or column.told.startswith(column.better), column.name
