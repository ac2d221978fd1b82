"""The progress bar of a long run.

It watches the files that are committed, which works with every runner and number of processes and
knows what an earlier run had done. Within a shard, a worker in this very process also says how far
it is.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

from attribeam.pipeline.interruption import lastly
from attribeam.pipeline.running.missing import Task
from attribeam.pipeline.store.files import count_rows, is_local, join, list_files, list_stamped
from attribeam.schemas import failures_path
from attribeam.schemas.layout import shard_name

_REFRESH = 0.5
_REFRESH_REMOTE = 15.0
_LOG_EVERY = 30.0
_PATIENCE = 5.0

_within = 0.0
_lock = threading.Lock()


def advance(instances: float) -> None:
    """Says that a share of the shards in this process is done, in instances."""
    global _within  # noqa: PLW0603  One number, shared by the threads of this process.
    with _lock:
        _within += instances


class _Watch:
    """Counts what is committed of a plan, by a listing at each look and no question a file."""

    def __init__(self, root: str, tasks: Sequence[Task], sizes: Sequence[int]) -> None:
        self._root = root
        # By folder and name: the share of a shard's instances, and where failures would be.
        self._open: dict[str, dict[str, tuple[float, str]]] = {}
        for task in tasks:
            share = sizes[task.shard] / len(task.units)
            for unit in task.units:
                failures = failures_path(unit, task.shard, task.num_shards)
                name = shard_name(task.shard, task.num_shards)
                self._open.setdefault(unit.folder, {})[name] = (share, failures)
        # What is damaged and made again is there before.
        self._before = self._there() if any(task.before for task in tasks) else {}
        self.total = sum(sizes[t.shard] for t in tasks)
        self.committed = 0.0
        self.failures = 0
        self.pause = _REFRESH if is_local(root) else _REFRESH_REMOTE
        self.stop = threading.Event()
        self._start = _within

    def look(self) -> float:
        """Instances done so far: by committed files, or by what this process says it has done."""
        start = time.monotonic()
        failed = []
        for folder, files in self._there().items():
            before, waiting = self._before.get(folder, {}), self._open[folder]
            new = [name for name in files if name in waiting and files[name] != before.get(name)]
            for share, failures in map(waiting.pop, new):
                self.committed += share
                failed.append(failures)
        self._count(failed)
        self._open = {folder: names for folder, names in self._open.items() if names}
        # A plan of very many files takes a while to look through; watching must stay cheap.
        self.pause = max(self.pause, 20 * (time.monotonic() - start))
        return min(self.total, max(self.committed, _within - self._start))

    def _there(self) -> dict[str, dict[str, object]]:
        """The files of the folders that are waited for, with what changes when one is written."""
        if not is_local(self._root):
            found: dict[str, dict[str, object]] = {folder: {} for folder in self._open}
            for path, stamp in list_stamped(self._root):
                folder, _, name = path.rpartition("/")
                if folder in found:
                    found[folder][name] = stamp
            return found
        return {folder: _scanned(f"{self._root}/{folder}") for folder in self._open}

    def _count(self, paths: Sequence[str]) -> None:
        """Counts the failures of units that are committed now, of which few have any."""
        folders = {path.rpartition("/")[0] for path in paths}
        there = {
            f"{folder}/{name}"
            for folder in folders
            for name in list_files(join(self._root, folder))
        }
        for path in paths:
            if self.stop.is_set() and not is_local(self._root):
                return
            if path in there:
                with suppress(OSError):  # Which is no reason for a bar to end.
                    self.failures += count_rows(join(self._root, path))


def _scanned(folder: str) -> dict[str, object]:
    """The names in a folder, with what changes when a file is written."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return {}
    found: dict[str, object] = {}
    for entry in entries:
        with suppress(OSError):  # It may have gone.
            about = entry.stat()
            found[entry.name] = (about.st_ino, about.st_mtime_ns)
    return found


class _Rate(ProgressColumn):
    """Instances a second since the start."""

    def render(self, task: Bar) -> Text:
        """The rate, once there is one."""
        rate = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f}/s" if rate else "-/s", style="cyan")


@contextmanager
def watching(root: str, tasks: Sequence[Task], sizes: Sequence[int]) -> Iterator[None]:
    """Shows progress on standard error while the body runs.

    Args:
        root: The run's folder.
        tasks: The plan.
        sizes: Number of instances per shard.
    """
    watch = _Watch(root, tasks, sizes)
    console = Console(file=sys.stderr)
    show = _bar if console.is_terminal else _log
    thread = threading.Thread(target=show, args=(watch, console), daemon=True)
    thread.start()
    try:
        with lastly(console.show_cursor):  # The bar hides it.
            yield
    finally:
        watch.stop.set()
        # A listing that takes long is not waited for.
        thread.join(_PATIENCE)


def _bar(watch: _Watch, console: Console) -> None:
    columns = (
        # As wide as what the others leave: all of it fits 80 columns.
        BarColumn(bar_width=None),
        TextColumn("{task.completed:.0f}/{task.total:.0f} instances"),
        _Rate(),
        TextColumn("{task.fields[failures]} failures"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        bar = progress.add_task("", total=watch.total, failures=0)
        last = False
        while not last:
            last = watch.stop.wait(watch.pause)
            progress.update(bar, completed=watch.look(), failures=watch.failures)


def _log(watch: _Watch, console: Console) -> None:
    """Without a terminal: a line now and then."""
    start = time.monotonic()
    while not watch.stop.wait(max(_LOG_EVERY, watch.pause)):
        done = watch.look()
        elapsed = time.monotonic() - start
        left = f"{elapsed * (watch.total - done) / done:.0f} s left" if done else "no estimate yet"
        print(
            f"attributing: {done:.0f}/{watch.total} instances, {done / elapsed:.1f} instances/s, "
            f"{watch.failures} failures, {elapsed:.0f} s, {left}",
            file=sys.stderr,
            flush=True,
        )
