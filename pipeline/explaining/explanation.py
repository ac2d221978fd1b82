"""What ``explain`` gives: a run in a temporary folder, that shows its instances and can be kept."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from attribeam.analysis.notebook.run import Run, open_run
from attribeam.analysis.opening import runs
from attribeam.analysis.opening.manifest import of_pictures
from attribeam.schemas import UsageError

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SHOWN = 10  # Instances that are shown at once.
_FAILED = 5  # And of those that failed.


class Explanation(Run):
    """Texts or pictures and what methods say of them, as a run that lies in a temporary folder.

    A notebook shows sentences in colours. All that a run can be asked, it can be asked (``sql``,
    ``instance``, ``plot``); ``save`` keeps it as a run's folder. Else that goes with ``close``, and
    at the latest when Python ends: answers to queries are read from it, whoever holds them.

    Attributes:
        notes: What was guessed and left out.
    """

    def __init__(self, folder: Path, notes: Sequence[str]) -> None:
        super().__init__(str(folder), runs.open_run(folder))
        self.notes = list(notes)
        self._remove = partial(shutil.rmtree, folder.parent, ignore_errors=True)
        atexit.register(self._remove)

    def close(self) -> None:
        """Ends it, and removes its folder."""
        super().close()
        self._remove()
        atexit.unregister(self._remove)

    @property
    def failures(self) -> list[str]:
        """What failed, a sentence each."""
        rows = self._connection.execute(
            "select instance_id, method, message from failures order by all"
        ).fetchall()
        return [f"{name}{f', {of}' if of else ''}: {message}" for name, of, message in rows]

    def plot(
        self, name: str | None = None, *, method: str | None = None, subset: str | None = None
    ) -> "go.Figure":
        """A plot as plotly's figure.

        Args:
            name: That of a run's plot; None for scores of words, or for maps over pictures.
            method: The method to show, where a plot shows one.
            subset: The subset of the corpus to show, likewise.

        Raises:
            UsageError: If there is no such plot, or nothing to show.
        """
        if name is None and not of_pictures(runs.load_manifest(self.folder)):
            return self.instances(self.ids[:_SHOWN], None if method is None else [method]).plot()
        return super().plot(name or "overlays", method=method, subset=subset)

    def save(self, output: str | Path) -> Run:
        """Keeps it as a run's folder, which `attribeam query`, `report` and all others take.

        Args:
            output: A new folder, or one that is empty.

        Returns:
            The run there.

        Raises:
            UsageError: If something is there, or it can't be written.
        """
        target = Path(output)
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise UsageError(f"{target} is there already: name a new folder")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".attribeam-") as beside:
                whole = shutil.copytree(self.folder, Path(beside) / "run")
                Path(whole).replace(target)  # Over an empty folder, too.
        except OSError as error:
            raise UsageError(f"{target} can't be written: {error}") from error
        return open_run(target)

    def __repr__(self) -> str:
        shown = self.ids[:_SHOWN]
        parts = [repr(self.instances(shown))] if shown else []
        return "\n".join([*parts, *self._said(len(shown))]) or "nothing was explained"

    def _repr_html_(self) -> str:
        shown = self.ids[:_SHOWN]
        html = self.instances(shown)._repr_html_() if shown else ""
        lines = "".join(
            f"<div><small>{escape(line)}</small></div>" for line in self._said(len(shown))
        )
        return html + lines

    def _said(self, shown: int) -> list[str]:
        """What is to be known beside what is shown."""
        total, failures = len(self.ids), self.failures
        lines = list(self.notes)
        if total > shown:
            lines.append(f"{shown} of {total:,} instances; .instance(ID) shows any (.ids)")
        lines += [f"failed: {each}" for each in failures[:_FAILED]]
        if len(failures) > _FAILED:
            lines.append(f"... {len(failures) - _FAILED:,} more failures (.failures)")
        return lines
