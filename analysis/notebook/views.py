"""Some instances of a run, as an object that shows itself in a notebook or terminal."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import duckdb

from attribeam.analysis.instances.html import instances_html
from attribeam.analysis.instances.loading import Shown, load_shown
from attribeam.analysis.instances.terminal import print_instances

if TYPE_CHECKING:  # Looking at a sentence is not to wait for these.
    import pandas as pd
    import plotly.graph_objects as go

_WIDTH = 80


class Instances:
    """Instances of a run and what its methods say of them.

    A notebook shows coloured sentences, or maps over pictures; ``print`` shows words and numbers.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        ids: Sequence[str],
        methods: Sequence[str] | None = None,
    ) -> None:
        self._connection = connection
        self._shown: list[Shown] = load_shown(connection, ids, methods)

    def __repr__(self) -> str:
        out = io.StringIO()
        print_instances(self._connection, self._shown, out, width=_WIDTH, colours=False)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def _repr_html_(self) -> str:
        return instances_html(self._connection, self._shown)

    def __dir__(self) -> list[str]:
        return ["plot", "to_pandas"]

    def to_pandas(self) -> "pd.DataFrame":
        """A row for each token: instance_id, token, special, and raw scores, a column a method."""
        import pandas as pd  # noqa: PLC0415

        columns: dict[str, list[Any]] = {"instance_id": [], "token": [], "special": []}
        for each in self._shown:
            columns["instance_id"] += [each.instance_id] * len(each.pieces)
            columns["token"] += [piece.text for piece in each.pieces]
            columns["special"] += [piece.special for piece in each.pieces]
            for method in each.methods:
                none = [None] * len(each.pieces)
                columns.setdefault(method.method, []).extend(method.scores or none)
        return pd.DataFrame(columns)

    def plot(self) -> "go.Figure":
        """The scores as a figure: words (or patches) across, methods down."""
        from attribeam.analysis.plots.sentences import sentences  # noqa: PLC0415

        return sentences(
            [
                (
                    each.instance_id,
                    [piece.text for piece in each.pieces],
                    [(method.method, method.strengths, method.scores) for method in each.methods],
                )
                for each in self._shown
            ]
        )
