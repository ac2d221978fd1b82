"""A finished run as an object: what ran, its views, and its instances."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Self

import duckdb

from attribeam.analysis import comparing
from attribeam.analysis.comparing import Comparison
from attribeam.analysis.notebook.topics import views_by_topic
from attribeam.analysis.notebook.views import Instances
from attribeam.analysis.opening import runs
from attribeam.analysis.opening.database import identifier
from attribeam.analysis.opening.remote import is_remote

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import pyarrow as pa

_WIDTH = 80
_ROW = "select count(*), count(label), avg(correct::int) from instances"


class Run:
    """A run that was opened: ask it in SQL, look at its instances, draw its plots.

    What DuckDB's connection can do, it can too: it is a context, and has ``execute`` and the rest.

    Attributes:
        folder: Its folder or address.
    """

    def __init__(self, folder: str, connection: duckdb.DuckDBPyConnection) -> None:
        self.folder = folder
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._connection, name)

    def __dir__(self) -> list[str]:
        return sorted(name for name in (*vars(self), *_public(type(self))) if name[0] != "_")

    def close(self) -> None:
        """Ends it; its files stay."""
        self._connection.close()

    @property
    def methods(self) -> list[str]:
        """Names of its methods, in their order."""
        found = self._connection.execute("select method from methods").fetchall()
        return [name for (name,) in found]

    @property
    def ids(self) -> list[str]:
        """Ids of its instances, sorted."""
        found = self._connection.execute("select instance_id from instances order by 1").fetchall()
        return [name for (name,) in found]

    @property
    def views(self) -> dict[str, list[str]]:
        """Names of views and tables by topic: ``run.sql("from NAME")`` asks one."""
        return views_by_topic()

    def sql(self, query: str, **parameters: Any) -> duckdb.DuckDBPyRelation:
        """The answer to a question in SQL, as a relation: ``.df()``, ``.arrow()``, ``.fetchall()``.

        Args:
            query: SQL over the tables and views (``views``).
            **parameters: What ``$name`` in it stands for.
        """
        return self._connection.sql(query, params=parameters or None)

    def instance(self, instance_id: str | int, methods: Sequence[str] | None = None) -> Instances:
        """An instance, which shows itself: a sentence in colours for each method.

        Args:
            instance_id: Its id (``ids``).
            methods: The methods to show; None for all.

        Raises:
            UsageError: If there is no such instance or method.
        """
        return self.instances([str(instance_id)], methods)

    def instances(
        self, ids: Sequence[str | int], methods: Sequence[str] | None = None
    ) -> Instances:
        """Several instances, which show themselves.

        Args:
            ids: Theirs.
            methods: The methods to show; None for all.

        Raises:
            UsageError: If there is no such instance or method.
        """
        names = [methods] if isinstance(methods, str) else methods
        return Instances(self._connection, [str(each) for each in ids], names)

    def plot(
        self, name: str = "degradation", *, method: str | None = None, subset: str | None = None
    ) -> "go.Figure":
        """A plot of the run as plotly's figure.

        Args:
            name: ``degradation``, ``overlays`` and so on, as of ``attribeam plot``.
            method: The method to show, where a plot shows one.
            subset: The subset of the corpus to show, likewise.

        Raises:
            UsageError: If there is no such plot, or nothing in the run to show.
        """
        from attribeam.analysis.plots.plots import draw  # noqa: PLC0415  plotly takes a while.

        return draw(self._connection, self.folder, name, method, subset)

    def compare(self, other: "str | Path | Run") -> Comparison:
        """This run beside another one: how alike methods' scores are, and which run does better.

        Args:
            other: The other run, opened, or its folder or address: another model's on the same
                corpus, say.

        Raises:
            UsageError: If it is no run, or they have no method or no instance in common.
        """
        return comparing.compare(self.folder, other.folder if isinstance(other, Run) else other)

    def to_arrow(self, table: str = "attributions") -> "pa.Table":
        """A table or view as Arrow, with its columns.

        Args:
            table: Its name (``views``).
        """
        return self.sql(f"from {identifier(table)}").to_arrow_table()

    def to_pandas(self, table: str = "tokens") -> "pd.DataFrame":
        """A table or view as a data frame: by default a row for each token and method.

        Args:
            table: Its name (``views``).
        """
        return self.sql(f"from {identifier(table)}").df()

    def __repr__(self) -> str:
        lines = [f"attribeam run {self.folder}: {self._title()}", self._counts()]
        lines += wrap(f"methods: {', '.join(self.methods)}", _WIDTH, subsequent_indent="  ")
        lines.append('views, each asked by .sql("from NAME"):')
        for topic, names in self.views.items():
            lines += wrap(f"  {topic:16} {', '.join(names)}", _WIDTH, subsequent_indent=" " * 19)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left;vertical-align:top">{escape(topic)}</th>'
            f'<td style="text-align:left">{escape(", ".join(names))}</td></tr>'
            for topic, names in {"methods": self.methods, **self.views}.items()
        )
        return (
            f"<div><b>{escape(self._title())}</b> <code>{escape(self.folder)}</code><br>"
            f"{escape(self._counts())}<details><summary>methods and views</summary>"
            f"<table>{rows}</table></details></div>"
        )

    def _title(self) -> str:
        """Which model and which corpus."""
        model, corpus = self._connection.execute(
            "select model_source, corpus_source from run"
        ).fetchall()[0]
        return f"{model} on {corpus}"

    def _counts(self) -> str:
        """How many instances, what the model got right, and what failed."""
        number, labelled, right = self._connection.execute(_ROW).fetchall()[0]
        failures = self._connection.execute("select count(*) from failures").fetchall()[0][0]
        said = [_counted(number, "instance"), _counted(len(self.methods), "method")]
        if labelled:
            said.append(f"{right:.1%} of {labelled:,} predicted rightly")
        return ", ".join([*said, _counted(failures, "failure")])


def _public(kind: type) -> list[str]:
    return [name for base in kind.__mro__[:-1] for name in vars(base) if name[0] != "_"]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def open_run(
    folder: str | Path,
    *,
    external_access: bool = False,
    others: Mapping[str, str | Path] | None = None,
    settings: Mapping[str, str | int | float | bool] | None = None,
) -> Run:
    """Opens a run: its folder, or the address of a published one.

    Args:
        folder: The run's folder; or, as a text, an address: ``hf://datasets/user/name``.
        external_access: Let queries read and write any file.
        others: Other runs, each with a name: their tables are ``name.attributions`` and so on.
        settings: DuckDB's settings, such as ``threads`` and ``memory_limit``.

    Raises:
        UsageError: If it is no run folder, or can't be read.
    """
    connection = runs.open_run(
        folder, external_access=external_access, others=others, settings=settings
    )
    where = str(folder) if is_remote(folder) else str(Path(folder))
    return Run(where, connection)
