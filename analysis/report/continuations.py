"""The report's continuations: what each token that follows comes from, for the page's script.

A row of the corpus is shown once, with all that follows its prompt; scores are the table of
T_out x T_in under each method.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np

from attribeam.analysis.plots.figures import Row
from attribeam.analysis.report.instances import packed_numbers, quantise
from attribeam.analysis.report.values import finite, query_rows
from attribeam.schemas.manifest import Manifest

# Rows that are shown: each holds as many lists of scores as tokens follow, under each method.
MOST_ROWS = 200
# What tokenizers write for a blank before a token.
_BLANKS = ("\u2581", "\u0120")


def pack_continuations(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest, limit: int
) -> dict[str, Any] | None:
    """Prompts, what follows and its scores; None for runs of other models.

    Args:
        connection: To the run.
        manifest: Its manifest.
        limit: Most rows.
    """
    if manifest["identity"]["model"]["task"] != "causal_lm":
        return None
    connection.execute(
        "create or replace temp table continued as select row_id, "
        "row_number() over (order by row_id) - 1 as place from "
        "(select distinct row_id from instances where question_kind in ('next', 'all')"
        " order by md5(row_id), row_id limit ?)",
        [min(limit, MOST_ROWS)],
    )
    rows: list[list[Row]] = []
    for row in query_rows(connection, _QUESTIONS):
        if not rows or rows[-1][0]["row_id"] != row["row_id"]:
            rows.append([])
        rows[-1].append(row)
    if not rows:
        return None
    return {
        "rows": [_packed(questions) for questions in rows],
        "methods": list(_methods(connection, manifest, rows)),
    }


_QUESTIONS = """
select
    i.row_id, i.instance_id, question, tokens, special, token, foil, outputs, logit, foil_logit,
    log_prob, "rank", given, prompt_length, segments, truncated, word_ids
from instances as i
join continued as c using (row_id)
order by c.place, question nulls last
"""


def _packed(questions: Sequence[Row]) -> dict[str, Any]:
    """A row: its tokens, and what is asked of it."""
    longest = max(questions, key=lambda row: len(row["tokens"]))
    return {
        "id": longest["row_id"],
        "tokens": [_shown(token) for token in longest["tokens"]],
        "special": [at for at, mark in enumerate(longest["special"]) if mark],
        "prompt": longest["prompt_length"],
        "given": longest["given"],
        "truncated": longest["truncated"],
        "segments": [
            [segment["kind"], segment["first"], segment["last"]]
            for segment in longest["segments"] or []
        ],
        "words": _starts_of_words(longest["word_ids"]),
        "questions": [_question(row) for row in questions],
    }


def _starts_of_words(words: Sequence[int | None]) -> list[int]:
    """Positions of the tokens that begin a word, or are of none."""
    before = [None, *words[:-1]]
    pairs = enumerate(zip(words, before, strict=True))
    return [at for at, (own, last) in pairs if own is None or own != last]


def shared_by(method: Mapping[str, Any]) -> str:
    """What of a prompt has one score, which each of its tokens carries: token, word or segment."""
    params = method.get("params") or {}
    if method.get("additive"):  # What a unit has is shared out among its tokens.
        return "token"
    if params.get("unit") == "segment" or params.get("sources") == "segments":
        return "segment"
    return "word" if params.get("unit") in ("word", "bag") else "token"


def _question(row: Row) -> dict[str, Any]:
    """What is asked: a token that follows, or all of them (whose number is null)."""
    against = row["outputs"][1] if row["outputs"] else None
    return {
        "number": row["question"],
        "token": None if row["token"] is None else _shown(row["token"]),
        "against": None if against is None else _shown(against),
        "foil": row["foil"] is not None,
        "logProb": finite(row["log_prob"]),
        "rank": row["rank"],
        "length": len(row["tokens"]),
    }


def _shown(token: str) -> str:
    """A token as people read it."""
    return token[1:] or " " if token.startswith(_BLANKS) else token


def _methods(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest, rows: Sequence[Sequence[Row]]
) -> Iterator[dict[str, Any]]:
    """The scores of each method that has some: a list of numbers and two scales a question."""
    for name, method in sorted(manifest["methods"].items()):
        if "attributions" not in method["tables"]:
            continue
        found = connection.execute(
            "select instance_id, scores from attributions where method = ? and layer is null and "
            "instance_id in (select instance_id from instances join continued using (row_id))",
            [name],
        ).fetchall()
        scores = {instance: np.array(of, np.float64) for instance, of in found}
        packed = [_scores(questions, scores) for questions in rows]
        yield {
            "name": name,
            "signed": bool(method.get("signed")),
            "shared": shared_by(method),
            "scores": [values for values, _ in packed],
            "scales": [scales for _, scales in packed],
        }


def _scores(
    questions: Sequence[Row], scores: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
) -> tuple[str, str]:
    """Scores of a row's questions, one after the other, and their scales."""
    lengths = np.array([len(row["tokens"]) for row in questions])
    special = np.array([mark for row in questions for mark in row["special"]], bool)
    empty = [np.full(length, np.nan) for length in lengths]
    own = [
        scores.get(row["instance_id"], lacking)
        for row, lacking in zip(questions, empty, strict=True)
    ]
    values, scales = quantise(np.concatenate(own), lengths, special)
    return packed_numbers(values), packed_numbers(scales)
