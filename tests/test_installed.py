"""The distribution: what the wheel holds, and that it works among strangers with common names."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.tiny import write_jsonl

ROOT = Path(__file__).parents[1]
PARTS = ("pipeline", "transforms", "schemas", "analysis")
COPIED = re.compile(r"^COPY (?!--)(.+) \S+$", re.MULTILINE)
HOSTILE = "raise ImportError(f'{__name__} is somebody else')\n"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel is built from: what the image of containers/ takes, and no more."""
    folder = tmp_path_factory.mktemp("sources")
    names = " ".join(COPIED.findall((ROOT / "containers/Dockerfile").read_text())).split()
    assert {"setup.py", "src", *PARTS} <= set(names)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def built(kind: str, sources: Path, target: Path) -> Path:
    """Builds a ``wheel``, an ``sdist`` or an ``editable`` wheel as pip does, offline."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(target)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=sources, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", sources, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def beside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: ours from the wheel, and strangers called as its parts are."""
    site = tmp_path_factory.mktemp("site")
    with ZipFile(wheel) as packed:
        packed.extractall(site)
    for name in PARTS:
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(HOSTILE)
    return site


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with modules called as our parts are, from which nothing may come."""
    for name in PARTS:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def python(site: Path, *arguments: object) -> str:
    """What a process says that finds packages of a folder before all others."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_one_package_and_all_of_it(wheel: Path) -> None:
    found = {name for name in contents(wheel) if ".dist-info/" not in name}
    wanted = {f"attribeam/{name}" for name in ("__init__.py", "__main__.py", "py.typed")} | {
        f"attribeam/{path.relative_to(ROOT)}"
        for part in PARTS
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert found == wanted


def test_an_sdist_builds_the_same_wheel(wheel: Path, sources: Path, tmp_path: Path) -> None:
    with tarfile.open(built("sdist", sources, tmp_path)) as packed:
        assert not [member.name for member in packed if member.islnk() or member.issym()]
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("attribeam-*/")
    assert contents(built("wheel", unpacked, tmp_path)) == contents(wheel)


def test_a_new_file_is_seen_without_installing_again(sources: Path, tmp_path: Path) -> None:
    with ZipFile(built("editable", sources, tmp_path)) as packed:
        (link,) = (name for name in packed.namelist() if name.endswith(".pth"))
        place = Path(packed.read(link).decode().strip())
    assert place == sources / "src"
    new = sources / "pipeline" / "store" / "new.py"
    new.write_text("print(__name__, __file__)\n")
    try:
        said = python(place, "-c", "import attribeam.pipeline.store.new").split()
    finally:
        new.unlink()
    assert said[0] == "attribeam.pipeline.store.new"
    assert Path(said[1]).resolve() == new.resolve()


def test_it_runs_beside_packages_called_as_its_parts(
    beside: Path, hostile: Path, tiny_folder: Callable[..., Path]
) -> None:
    for name in PARTS:
        with pytest.raises(AssertionError, match=f"{name} is somebody else"):
            python(beside, "-c", f"import {name}")
    where = "import attribeam.schemas; print(attribeam.schemas.__file__)"
    assert python(beside, "-c", where).startswith(str(beside))
    write_jsonl(hostile / "corpus.jsonl", [{"id": str(n), "text": "good film"} for n in range(4)])
    command = ("-m", "attribeam")
    python(
        *(beside, *command, "run", "--model", tiny_folder("bert"), "--corpus", "corpus.jsonl"),
        *("--output", "out", "--methods", "saliency", "--shard-size", 2, "--workers", 2),
        *("--device", "cpu"),
    )
    sql = "select count(*) as n from attributions"
    assert python(beside, *command, "query", "out", sql, "--format", "csv").split() == ["n", "4"]


def test_the_script_is_the_command(beside: Path, hostile: Path) -> None:
    code = (
        "import sys; from importlib.metadata import distribution\n"
        "(script,) = distribution('attribeam').entry_points.select(group='console_scripts')\n"
        "sys.argv = [script.name, '--help']; sys.exit(script.load()())"
    )
    assert python(beside, "-c", code).startswith("usage: attribeam ")
