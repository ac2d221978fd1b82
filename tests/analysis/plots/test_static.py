"""Figures for papers: what a name ends with decides what is written."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from attribeam.analysis.plots.plots import PLOTS, plot
from attribeam.pipeline.commands.arguments import parsers
from attribeam.schemas import UsageError
from tests.support.synthetic_run import METHODS, synthetic_run, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(synthetic_run(rows=3), tmp_path_factory.mktemp("run"))


@pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "google-chrome"))), reason="no browser draws"
)
def test_the_ending_decides(folder: Path, tmp_path: Path) -> None:
    path = plot(folder, "degradation", tmp_path / "a.PNG", width=400, theme="dark")
    picture = Image.open(path)
    assert picture.format == "PNG" and picture.width == 1200
    corner = picture.convert("RGB").getpixel((2, 2))
    assert corner == (0x14, 0x17, 0x1B)
    svg = plot(folder, "cost_faithfulness", tmp_path / "a.svg").read_text()
    assert svg.startswith("<svg") and all(f">{name}</text>" in svg for name in METHODS)
    assert plot(folder, "degradation", tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_a_page_is_a_page(folder: Path, tmp_path: Path) -> None:
    page = plot(folder, "degradation", tmp_path / "a.html", width=400).read_text()
    assert page.startswith("<html>") and '"width":400' in page


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("a.gif", {}, "ends with .gif: a plot is written as .html, .svg, .png, .pdf"),
        ("a.html", {"theme": "pink"}, "choose one of light, dark"),
        ("a.html", {"width": 20}, "between 200 and 5000 pixels, not 20"),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, more: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        plot(folder, "degradation", tmp_path / name, **more)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_plot(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsers()[0].parse_args(["plot", "--help"])
    said = capsys.readouterr().out
    assert [name for name in PLOTS if name not in said] == []
