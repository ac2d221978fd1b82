"""The progress bar of a long run.

It watches the files that are committed, which works with every runner and number of processes and
knows what an earlier run had done. Within a shard, a worker in this very process also says how far
it is. Parts of the work count by about how many forward passes they take: of a hundred instances,
curves of twenty methods are most of the work, and a gradient is none to speak of.
"""

import os
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

from attribeam.pipeline.interruption import lastly
from attribeam.pipeline.running.missing import Task
from attribeam.pipeline.store.files import count_rows, is_local, join, list_files, stamp
from attribeam.schemas import Unit, unit_path
from attribeam.schemas.layout import FAILURES, ShardNames

_REFRESH = 0.5
_REFRESH_REMOTE = 15.0
_LOG_EVERY = 30.0
_PATIENCE = 5.0

# What is known of a shard that is to be made: it isn't there, or is, and failures weren't counted.
_WAITED, _NEW = 1, 2

_within = 0.0
_lock = threading.Lock()


def advance(passes: float) -> None:
    """Says that a share of the shards in this process is done, in forward passes of rows."""
    global _within  # noqa: PLW0603  One number, shared by the threads of this process.
    with _lock:
        _within += passes


class _Watch:
    """Counts what is committed of a plan, by a listing at each look and no question a file.

    What is waited for is a byte for each unit of a shard, since a plan may be of very many.
    """

    def __init__(
        self,
        root: str,
        tasks: Sequence[Task],
        sizes: Sequence[int],
        weigh: Callable[[Unit], float],
    ) -> None:
        self._root = root
        num_shards = tasks[0].num_shards if tasks else 0
        self._shard = ShardNames(num_shards)
        self._sizes = array("q", sizes)
        self.instances = sum(sizes[t.shard] for t in tasks)
        self.total = 0.0
        # By folder: which shards are waited for, where their failures would be, and what is taken
        # of an instance.
        self._open: dict[str, tuple[bytearray, str, float]] = {}
        for task in tasks:
            for unit in task.units:
                if unit.folder not in self._open:
                    waiting = bytearray(num_shards)
                    self._open[unit.folder] = waiting, f"{FAILURES}/{unit}", weigh(unit)
                waiting, _, weight = self._open[unit.folder]
                waiting[task.shard] = _WAITED
                self.total += self._sizes[task.shard] * weight
        # What is damaged and made again is there before.
        replaced = (unit_path(unit, t.shard, num_shards) for t in tasks for unit, _ in t.before)
        self._before = {path: stamp(join(root, path)) for path in replaced}
        self.committed = 0.0
        self.failures = 0
        self.pause = _REFRESH if is_local(root) else _REFRESH_REMOTE
        self.stop = threading.Event()
        self._start = _within

    def look(self) -> float:
        """The share that is done: by committed files, or by what this process says it has done."""
        start = time.monotonic()
        for folder, names in self._there():
            waiting, _, weight = self._open[folder]
            for name in names:
                shard = self._shard(name)
                if shard is None or waiting[shard] != _WAITED:
                    continue
                if self._before and self._is_as_before(f"{folder}/{name}"):
                    continue
                waiting[shard] = _NEW
                self.committed += self._sizes[shard] * weight
        self._count()
        self._open = {folder: found for folder, found in self._open.items() if any(found[0])}
        # A plan of very many files takes a while to look through; watching must stay cheap.
        self.pause = max(self.pause, 20 * (time.monotonic() - start))
        return min(1.0, max(self.committed, _within - self._start) / self.total)

    def _is_as_before(self, path: str) -> bool:
        """Whether a file that is to be replaced is still the one that was there."""
        if path not in self._before:
            return False
        try:
            return stamp(join(self._root, path)) == self._before[path]
        except OSError:  # It may have gone.
            return True

    def _there(self) -> Iterator[tuple[str, Iterable[str]]]:
        """The folders that are waited for, and the names in each."""
        if is_local(self._root):
            for folder in self._open:
                yield folder, _scanned(f"{self._root}/{folder}")
            return
        for path in list_files(self._root):
            folder, _, name = path.rpartition("/")
            if folder in self._open:
                yield folder, (name,)

    def _count(self) -> None:
        """Counts the failures of units that are committed now, of which few have any."""
        for waiting, folder, _ in self._open.values():
            if _NEW not in waiting:
                continue
            for name in list_files(join(self._root, folder)):
                if self.stop.is_set() and not is_local(self._root):
                    return
                shard = self._shard(name)
                if shard is not None and waiting[shard] == _NEW:
                    with suppress(OSError):  # Which is no reason for a bar to end.
                        self.failures += count_rows(join(self._root, f"{folder}/{name}"))
            waiting[:] = waiting.replace(bytes([_NEW]), b"\0")


def _scanned(folder: str) -> Iterator[str]:
    """The names in a folder, if it is there by now."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


class _Left(ProgressColumn):
    """What is left, if all goes on as it went since the start."""

    def render(self, task: Bar) -> Text:
        """The time, once there is one."""
        done, elapsed = task.completed, task.elapsed or 0.0
        left = str(timedelta(seconds=round(elapsed * (1 - done) / done))) if done else "-:--:--"
        return Text(left, style="cyan")


@contextmanager
def watching(
    root: str, tasks: Sequence[Task], sizes: Sequence[int], weigh: Callable[[Unit], float]
) -> Iterator[None]:
    """Shows progress on standard error while the body runs.

    Args:
        root: The run's folder.
        tasks: The plan.
        sizes: Number of instances per shard.
        weigh: What a unit takes of an instance (``weighing.weigher``).
    """
    watch = _Watch(root, tasks, sizes, weigh)
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
        TaskProgressColumn(),
        TextColumn(f"of {watch.instances} instances"),
        TextColumn("{task.fields[failures]} failures"),
        TimeElapsedColumn(),
        TextColumn("left"),
        _Left(),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        bar = progress.add_task("", total=1.0, failures=0)
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
        left = f"{elapsed * (1 - done) / done:.0f} s left" if done else "no estimate yet"
        rate = done * watch.instances / elapsed
        print(
            f"attributing: {done:.0%} of {watch.instances} instances, {rate:.1f} instances/s, "
            f"{watch.failures} failures, {elapsed:.0f} s, {left}",
            file=sys.stderr,
            flush=True,
        )
