"""Files put in place whole: nothing is left of what fails, is interrupted, or was killed."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from attribeam.analysis.opening import replacing
from attribeam.analysis.opening.replacing import replace_file
from attribeam.analysis.plots.page import write_page
from attribeam.schemas import UsageError


def test_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f".a.html.{'0' * 32}.tmp"
    others = [tmp_path / f".b.html.{'0' * 32}.tmp", tmp_path / ".a.html.new.tmp"]
    for path in (left, *others):
        path.write_text("half")
    os.utime(left, (0, 0))
    os.utime(others[0], (0, 0))
    replace_file(tmp_path / "a.html", b"whole")
    # Not another file's, nor one that may be written just now.
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.html", *others])
    assert (tmp_path / "a.html").read_bytes() == b"whole"


@pytest.mark.parametrize("output", [None, "page.html"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_what_is_there_stays_until_the_new_one_is_whole(
    output: str | None, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.html").write_text("old")
    target = None if output is None else tmp_path / output

    class Half(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(content[:2])
            raise error

    opened = Path.open

    def half(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        return Half(path, mode) if mode == "wb" else opened(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", half)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UsageError
    with pytest.raises(expected) as caught:
        write_page(tmp_path, "page.html", target, "new and long")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"
    if expected is UsageError:
        assert str(caught.value) == f"{tmp_path}/page.html can't be written: No space left"


def test_a_disk_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("open", "unlink", "replace"):
        monkeypatch.setattr(replacing.Path, name, refuse)
    for output in (None, tmp_path / "page.html"):
        with pytest.raises(UsageError, match=r"page\.html can't be written: Read-only file system"):
            write_page(tmp_path, "page.html", output, "new")


def test_where_else_it_may_go(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to("real.html")
    assert write_page(tmp_path, "x", tmp_path / "link.html", "ü\n") == tmp_path / "link.html"
    assert (tmp_path / "real.html").read_bytes() == "ü\n".encode()
    assert (tmp_path / "link.html").is_symlink()
    assert write_page(tmp_path, "x", "/dev/null", "new") == Path("/dev/null")
    with pytest.raises(UsageError, match="can't be written: No such file or directory"):
        write_page(tmp_path, "x", tmp_path / "none/page.html", "new")
    with pytest.raises(UsageError, match="can't be written: Is a directory"):
        write_page(tmp_path, "x", tmp_path, "new")
