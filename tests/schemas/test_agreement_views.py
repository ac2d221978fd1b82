"""Consensus and absolute agreement of methods, against scipy and plain Python."""

import math
import warnings
from collections.abc import Iterator
from itertools import combinations
from statistics import mean

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata

from tests.schemas.test_metric_views import (
    Connection,
    assert_same,
    average,
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
    asked = ("agreement_absolute_by_instance", "agreement_absolute")
    for view in views(
        *asked, "centred_ranks", "summed_lists", "consensus_by_instance", "consensus"
    ):
        connection.execute(view.sql)
    return connection


def correlation(one: Floats, other: Floats) -> float | None:
    if len(one) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return number_or_none(float(pearsonr(one, other).statistic))


# Agreement about sizes -------------------------------------------------------------------------


def openxai(one: Floats, other: Floats) -> Row:
    """The six measures as OpenXAI's code defines them, with loops over features and pairs."""
    n = len(one)
    k = max(1, math.floor(n / 4 + 0.5))
    both = (one, other)
    ranks = [rankdata(-np.abs(scores), method="dense") for scores in both]
    # The earlier of equals first: a stable sort.
    tops = [np.argsort(-np.abs(scores), kind="stable")[:k].tolist() for scores in both]
    signed = [{(t, np.sign(s[t])) for t in top} for s, top in zip(both, tops, strict=True)]
    placed = [
        [(t, r[t], np.sign(s[t])) for t in top] for s, r, top in zip(both, ranks, tops, strict=True)
    ]
    alike = [
        (ranks[0][i] < ranks[0][j]) == (ranks[1][i] < ranks[1][j])
        for i, j in combinations(range(n), 2)
    ]
    return {
        "tokens": n,
        "top_k": k,
        "feature_agreement": len(set(tops[0]) & set(tops[1])) / k,
        "rank_agreement": sum(a[:2] == b[:2] for a, b in zip(*placed, strict=True)) / k,
        "sign_agreement": len(signed[0] & signed[1]) / k,
        "signed_rank_agreement": sum(a == b for a, b in zip(*placed, strict=True)) / k,
        "rank_correlation": correlation(ranks[0], ranks[1]),
        "pairwise_rank_agreement": float(np.mean(alike)) if alike else None,
    }


def test_agreement_absolute_by_instance(scores: Scores, opened: Connection) -> None:
    expected = {
        (name, a, b): openxai(np.array(of[a]), np.array(of[b]))
        for name, of in scores.items()
        for a, b in combinations(sorted(of), 2)
    }
    found = select(opened, "from agreement_absolute_by_instance")
    assert_same(by(found, "instance_id", "method_a", "method_b"), expected, 1e-10)
    # Signs are told apart, and ties there are.
    assert any(row["sign_agreement"] < row["feature_agreement"] for row in expected.values())
    assert any(row["rank_agreement"] > row["signed_rank_agreement"] for row in expected.values())


def test_agreement_absolute_is_the_mean_over_what_is_common(
    scores: Scores, opened: Connection
) -> None:
    common = [of for of in scores.values() if len(of) == 6]
    rows = by(select(opened, "from agreement_absolute"), "method_a", "method_b")
    assert set(rows) == set(combinations(sorted(common[0]), 2))
    for (a, b), row in rows.items():
        of = [openxai(np.array(each[a]), np.array(each[b])) for each in common]
        expected = {
            "n": len(of),
            "constant": sum(each["rank_correlation"] is None for each in of),
            **{name: average([each[name] for each in of]) for name in list(of[0])[2:]},
            "left_out": len(scores) - len(of),
        }
        assert row == pytest.approx(expected, abs=1e-10)


def test_on_one_sign_sizes_are_scores() -> None:
    """There both kinds of agreement are of the same tokens."""
    rng = np.random.default_rng(3)
    of = {name: rng.uniform(0.1, 1, 20).tolist() for name in "ab"}
    with connected({"t": of}) as connection:
        (absolute,) = select(connection, "from agreement_absolute")
        (signed,) = select(connection, "from agreement")
    jaccard = signed["jaccard"]
    assert absolute["feature_agreement"] == pytest.approx(2 * jaccard / (1 + jaccard), abs=1e-10)
    assert absolute["sign_agreement"] == absolute["feature_agreement"]
    assert absolute["rank_correlation"] == pytest.approx(signed["spearman"], abs=1e-6)
    pairwise = (1 + signed["kendall"]) / 2
    assert absolute["pairwise_rank_agreement"] == pytest.approx(pairwise, abs=1e-10)


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
