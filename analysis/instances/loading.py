"""An instance and its scores, as they are shown: pieces of its text, and how strong each is."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import duckdb
import numpy as np

from attribeam.analysis.instances.pieces import GLUED, SPECIAL, pieces
from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.pictures.drawing import strengths
from attribeam.schemas import UsageError

_KNOWN = 2000  # Ids that one that isn't there is compared with.

# What of an instance is shown. The text of several windows is stored once.
_SHOWN = """
    select
        i.* exclude (text, text_pair),
        t.text,
        t.text_pair,
        i.probabilities[i.prediction + 1] as probability,
        run.model_labels as classes
    from instances as i
    left join (select row_id, text, text_pair from instances where text is not null) as t
        using (row_id)
    cross join run
    where list_contains($ids, i.instance_id)
"""
_SCORES = """
    select a.instance_id, a.method, m.signed, a.target, a.scores
    from attributions as a
    join methods as m using (method)
    where a.layer is null and list_contains($ids, a.instance_id)
"""


class Piece(NamedTuple):
    """A token as it stands in the text.

    Attributes:
        text: What is read.
        special: Whether it is [CLS], [SEP] or the like.
        glued: Whether it goes on the word before it.
        rationale: Whether it is in the rationale.
    """

    text: str
    special: bool
    glued: bool
    rationale: bool


class Scored(NamedTuple):
    """What a method says of an instance.

    Attributes:
        method: Its name.
        signed: Whether scores below 0 speak against the class.
        target: Number of the class that is explained; None where the method knows none.
        scores: Raw score of each token; None where the method has none for it.
        strengths: Scores over the largest magnitude of the tokens that aren't special, -1 to 1;
            those of a method without a sign from 0 on.
    """

    method: str
    signed: bool
    target: int | None
    scores: list[float] | None
    strengths: list[float]


class Shown(NamedTuple):
    """An instance and what the methods say of it.

    Attributes:
        row: Its row of ``instances``, with the whole text, ``probability`` and ``classes``.
        pieces: Its tokens as they are read.
        methods: What each method says.
    """

    row: Mapping[str, Any]
    pieces: list[Piece]
    methods: list[Scored]

    @property
    def instance_id(self) -> str:
        """Its key."""
        return str(self.row["instance_id"])

    def class_name(self, number: int | None) -> str:
        """The name of one of the model's classes."""
        if self.row["contrast"] and number in (0, 1):  # A masked LM's words.
            return str(self.row["contrast"][number])
        names = self.row["classes"] or []
        return str(names[number]) if number is not None and number < len(names) else str(number)

    @property
    def says(self) -> list[str]:
        """What the model says of it, and what is known, in a few words each."""
        row = self.row
        sure = "" if row["probability"] is None else f" ({row['probability']:.1%})"
        said = [f"predicted {self.class_name(row['prediction'])}{sure}"]
        if row["label"] is not None:
            said.append(f"label {self.class_name(row['label'])}")
        if row["outputs"]:
            said.insert(0, f"asked for {', '.join(row['outputs'])}")
        if row["subset"] is not None:
            said.append(f"subset {row['subset']}")
        targets = {each.target for each in self.methods if each.target is not None}
        explained = targets - {row["prediction"]}
        if explained and not row["outputs"]:
            said.append(f"explained {', '.join(map(self.class_name, sorted(explained)))}")
        return [*said, *["truncated"] * bool(row["truncated"])]


def load_shown(
    connection: duckdb.DuckDBPyConnection,
    ids: Sequence[str],
    methods: Sequence[str] | None = None,
) -> list[Shown]:
    """Instances by their ids, in that order.

    Args:
        connection: A run that was opened.
        ids: Of ``instances``.
        methods: The methods to show, in their order; None for all of the run.

    Raises:
        UsageError: If the run has no such instance, or no such method.
    """
    names = _methods(connection, methods)
    rows = {row["instance_id"]: row for row in dict_rows(connection, _SHOWN, {"ids": list(ids)})}
    if lacking := [each for each in ids if each not in rows]:
        raise UsageError(_no_instance(connection, lacking[0]))
    found = {
        (row["instance_id"], row["method"]): row
        for row in dict_rows(connection, _SCORES, {"ids": list(ids)})
    }
    return [
        Shown(
            rows[each],
            _pieces(rows[each]),
            [_scored(rows[each], name, signed, found.get((each, name))) for name, signed in names],
        )
        for each in ids
    ]


def _methods(
    connection: duckdb.DuckDBPyConnection, methods: Sequence[str] | None
) -> list[tuple[str, bool]]:
    """The methods to show, and whether each has a sign."""
    known = dict(
        connection.execute(
            "select method, signed from methods where list_contains(tables, 'attributions')"
        ).fetchall()
    )
    for name in methods or ():
        if name not in known:
            meant = get_close_matches(name, known, 1)
            hint = f"did you mean {meant[0]}? " if meant else ""
            raise UsageError(
                f"the run has no scores of {name}: {hint}its methods are {', '.join(sorted(known))}"
            )
    return [(name, known[name]) for name in (known if methods is None else methods)]


def _no_instance(connection: duckdb.DuckDBPyConnection, wanted: str) -> str:
    """What is said of an id that isn't there."""
    known = [
        name
        for (name,) in connection.execute(
            "select instance_id from instances order by "
            "not starts_with(instance_id, $wanted), instance_id limit $most",
            {"wanted": wanted, "most": _KNOWN},
        ).fetchall()
    ]
    if not known:
        return "the run has no instances yet"
    meant = get_close_matches(wanted, known, 3, cutoff=0.5) or known[:3]
    return f"the run has no instance {wanted!r}: there are {', '.join(meant)}, say"


def _pieces(row: Mapping[str, Any]) -> list[Piece]:
    marks = row["rationale"] or [0] * len(row["tokens"])
    return [
        Piece(text, bool(flags & SPECIAL), bool(flags & GLUED), mark == 1)
        for (text, flags), mark in zip(pieces(row), marks, strict=True)
    ]


def _scored(
    row: Mapping[str, Any], method: str, signed: bool, found: Mapping[str, Any] | None
) -> Scored:
    """What a method says of an instance: its row of scores, if it has one."""
    if found is None:
        return Scored(method, signed, None, None, [0.0] * len(row["tokens"]))
    scores = np.array(found["scores"], np.float64)
    special = np.array(row["special"], bool)
    strong = np.zeros(len(scores))
    # Special tokens are often so strong that nothing else would be seen.
    strong[~special] = strengths(scores[~special], signed=signed)
    if special.any():
        strong[special] = strengths(scores[special], signed=signed)
    return Scored(method, signed, found["target"], found["scores"], strong.tolist())
