"""Consensus and absolute agreement of methods, against scipy and plain Python."""

import warnings
from collections.abc import Iterator
from statistics import mean

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata

from tests.schemas.test_metric_views import (
    Connection,
    assert_same,
    by,
    number_or_none,
    select,
    tables_of_tokens,
    views,
)
from tests.support.synthetic_run import Row

Floats = NDArray[np.float64]
Scores = dict[str, dict[str, list[float]]]

FAMILIES = {"lime": "removal", "shap": "removal", "alti": "norms", "random": "control"}
SIZES = (1, 2, 3, 4, 9, 30)


def drawn(seed: int = 0) -> Scores:
    """Scores with ties and zeros; ``lime`` is constant of some, and ``other`` lacks some."""
    rng = np.random.default_rng(seed)
    scores: Scores = {}
    for size in SIZES:
        for number in range(3):
            base = rng.normal(size=size)
            of = {
                name: np.round((base + rng.normal(size=size)) * 2) / 2
                for name in ("alti", "lime", "random", "saliency", "shap")
            }
            of["other"] = rng.normal(size=size)
            if number == 1:
                of["lime"] = np.zeros(size)
            if number == 2 and size > 3:
                del of["other"]
            scores[f"{size} tokens, {number}"] = {m: v.tolist() for m, v in of.items()}
    return scores


@pytest.fixture(scope="module")
def scores() -> Scores:
    return drawn()


@pytest.fixture(scope="module")
def opened(scores: Scores) -> Iterator[Connection]:
    with connected(scores) as connection:
        yield connection


def connected(scores: Scores) -> Connection:
    connection = tables_of_tokens(scores)
    connection.execute("create table methods (method text, family text)")
    for pair in FAMILIES.items():
        connection.execute("insert into methods values (?, ?)", pair)
    asked = ("centred_ranks", "summed_lists", "consensus_by_instance", "consensus")
    for view in views(*asked):
        connection.execute(view.sql)
    return connection


def correlation(one: Floats, other: Floats) -> float | None:
    if len(one) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return number_or_none(float(pearsonr(one, other).statistic))


# Consensus -------------------------------------------------------------------------------------


def kendall_w(votes: list[Floats]) -> float | None:
    """Kendall's W with the correction for ties, as it is usually written."""
    m, n = len(votes), len(votes[0])
    ties = sum(
        int(((counts := np.unique(vote, return_counts=True)[1]) ** 3 - counts).sum())
        for vote in votes
    )
    below = m**2 * (n**3 - n) - m * ties
    spread = np.sum((np.sum(votes, axis=0) - m * (n + 1) / 2) ** 2)
    return 12 * float(spread) / below if m > 1 and below else None


def consensus(of: dict[str, list[float]], *, absolute: bool = False) -> dict[str, Row]:
    """Consensus on one instance by the definitions."""
    ranks = {m: rankdata(np.abs(s) if absolute else s) for m, s in of.items()}
    families = {m: FAMILIES.get(m, m) for m in of}
    votes = {
        family: rankdata(
            np.sum([ranks[m] for m in of if families[m] == family and m != "random"], axis=0)
        )
        for family in {families[m] for m in of if m != "random"}
    }
    rows = {}
    for method, family in families.items():
        others = [vote for name, vote in votes.items() if name != family]
        rows[method] = {
            "family": family,
            "families": len(votes),
            "tokens": len(of[method]),
            "consensus": correlation(ranks[method], np.mean(others, axis=0)) if others else None,
            "concordance": kendall_w(list(votes.values())),
        }
    return rows


@pytest.mark.parametrize("absolute", [False, True])
def test_consensus_by_instance(scores: Scores, opened: Connection, absolute: bool) -> None:
    rows = select(opened, f"from consensus_by_instance_over(absolute := {absolute})")
    expected = {
        (name, method): row
        for name, of in scores.items()
        for method, row in consensus(of, absolute=absolute).items()
    }
    assert_same(by(rows, "instance_id", "method"), expected, 1e-10)
    assert (select(opened, "from consensus_by_instance") == rows) is not absolute


def test_consensus_is_the_mean_over_what_is_common(scores: Scores, opened: Connection) -> None:
    found = by(select(opened, "from consensus"), "method")
    common = [consensus(of) for of in scores.values() if len(of) == 6]
    assert set(found) == {(method,) for method in common[0]}
    for (method,), row in found.items():
        of = [rows[method] for rows in common]
        there = [r["consensus"] for r in of if r["consensus"] is not None]
        assert row["consensus"] == pytest.approx(mean(there), abs=1e-10)
        assert (row["n"], row["constant"]) == (len(of), len(of) - len(there))
        concordance = [r["concordance"] for r in of if r["concordance"] is not None]
        assert row["concordance"] == pytest.approx(mean(concordance), abs=1e-10)
        assert (row["family"], row["families"]) == (of[0]["family"], 4)
        assert row["left_out"] == len(scores) - len(common)


def test_only_the_methods_that_are_named_vote(scores: Scores, opened: Connection) -> None:
    rows = by(select(opened, "from consensus_over(methods := ['lime', 'other'])"), "method")
    both = [of for of in scores.values() if "other" in of]
    pairs = [correlation(rankdata(of["lime"]), rankdata(of["other"])) for of in both]
    there = [value for value in pairs if value is not None]
    for row in rows.values():
        assert row["consensus"] == pytest.approx(mean(there), abs=1e-10)
        assert (row["n"], row["constant"]) == (len(both), len(both) - len(there))


def test_consensus_by_hand() -> None:
    toy = {"a": [4.0, 3, 2, 1], "b": [4.0, 2, 3, 1], "c": [1.0, 2, 3, 4]}
    with connected({"t": toy}) as connection:
        rows = by(select(connection, "from consensus"), "method")
    assert rows["a",]["consensus"] == pytest.approx(-0.316228, abs=1e-6)
    # The other two are opposite, so that their mean ranks nothing.
    assert (rows["b",]["consensus"], rows["b",]["constant"]) == (None, 1)
    assert rows["c",]["consensus"] == pytest.approx(-0.948683, abs=1e-6)
    assert {row["concordance"] for row in rows.values()} == {1 / 9}


def test_twins_have_one_vote() -> None:
    twins = {"lime": [1.0, 2, 3], "shap": [1.0, 2, 3], "alti": [3.0, 2, 1], "other": [1.0, 3, 2]}
    with connected({"t": twins}) as connection:
        rows = by(select(connection, "from consensus_by_instance"), "method")
    # The twins and `alti` cancel for `other`; they don't vote for each other.
    assert (rows["other",]["consensus"], rows["other",]["families"]) == (None, 3)
    assert rows["lime",] == rows["shap",]
    assert rows["lime",]["consensus"] == pytest.approx(-0.5, abs=1e-10)
