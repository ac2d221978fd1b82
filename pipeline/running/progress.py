"""The progress bar of a long run.

It watches the files that are committed, which works with every runner and number of processes and
knows what an earlier run had done. Within a shard, a worker in this very process also says how far
it is.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

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
from attribeam.pipeline.store.files import count_rows, exists, is_local, join
from attribeam.schemas import Unit, failures_path, unit_path

_REFRESH = 0.5
_REFRESH_REMOTE = 15.0
_LOG_EVERY = 30.0

_within = 0.0
_lock = threading.Lock()


def advance(instances: float) -> None:
    """Says that a share of the shards in this process is done, in instances."""
    global _within  # noqa: PLW0603  One number, shared by the threads of this process.
    with _lock:
        _within += instances


class _Watch:
    """Counts what is committed of a plan."""

    def __init__(self, root: str, tasks: Sequence[Task], sizes: Sequence[int]) -> None:
        self._root = root
        self._open = [(t, unit) for t in tasks for unit in t.units]
        # What is damaged and made again is there before. At a URL it takes too long to look.
        self._before = {
            (task.shard, unit): self._stamp(task, unit) if is_local(root) else None
            for task, unit in self._open
        }
        self._share = {t.shard: sizes[t.shard] / len(t.units) for t in tasks}
        self.total = sum(sizes[t.shard] for t in tasks)
        self.committed = 0.0
        self.failures = 0
        self.pause = _REFRESH if is_local(root) else _REFRESH_REMOTE
        self._start = _within

    def look(self) -> float:
        """Instances done so far: by committed files, or by what this process says it has done."""
        start = time.monotonic()
        still = []
        for task, unit in self._open:
            where = unit, task.shard, task.num_shards
            if self._stamp(task, unit) != self._before[task.shard, unit]:
                self.committed += self._share[task.shard]
                self.failures += self._failed(join(self._root, failures_path(*where)))
            else:
                still.append((task, unit))
        self._open = still
        # A plan of very many files takes a while to look through; watching must stay cheap.
        self.pause = max(self.pause, 20 * (time.monotonic() - start))
        return min(self.total, max(self.committed, _within - self._start))

    def _stamp(self, task: Task, unit: Unit) -> object:
        """What changes when a file is committed."""
        path = join(self._root, unit_path(unit, task.shard, task.num_shards))
        if not is_local(self._root):
            return exists(path) or None
        try:
            found = Path(path).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    @staticmethod
    def _failed(path: str) -> int:
        return count_rows(path) if exists(path) else 0


class _Rate(ProgressColumn):
    """Instances a second since the start."""

    def render(self, task: Bar) -> Text:
        """The rate, once there is one."""
        rate = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f} instances/s" if rate else "- instances/s", style="cyan")


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
    stop = threading.Event()
    show = _bar if console.is_terminal else _log
    thread = threading.Thread(target=show, args=(watch, console, stop), daemon=True)
    thread.start()
    try:
        with lastly(console.show_cursor):  # The bar hides it.
            yield
    finally:
        stop.set()
        thread.join()


def _bar(watch: _Watch, console: Console, stop: threading.Event) -> None:
    columns = (
        TextColumn("attributing"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} instances"),
        _Rate(),
        TextColumn("{task.fields[failures]} failures"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=watch.total, failures=0)
        last = False
        while not last:
            last = stop.wait(watch.pause)
            progress.update(bar, completed=watch.look(), failures=watch.failures)


def _log(watch: _Watch, console: Console, stop: threading.Event) -> None:
    """Without a terminal: a line now and then."""
    start = time.monotonic()
    while not stop.wait(_LOG_EVERY):
        done = watch.look()
        elapsed = time.monotonic() - start
        left = f"{elapsed * (watch.total - done) / done:.0f} s left" if done else "no estimate yet"
        print(
            f"attributing: {done:.0f}/{watch.total} instances, {done / elapsed:.1f} instances/s, "
            f"{watch.failures} failures, {elapsed:.0f} s, {left}",
            file=sys.stderr,
            flush=True,
        )
