"""The overlays of a run: in a plot, and in what is published."""

import base64
from pathlib import Path

import numpy as np

from attribeam.analysis import open_run
from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.pictures.drawing import decoded, outline, overlay
from attribeam.analysis.pictures.overlays import OVERLAID, drawn
from attribeam.analysis.plots.overlays import OVERLAY_PLOTS
from attribeam.analysis.plots.plots import plot
from tests.analysis.pictures.conftest import METHODS


def test_a_row_of_each_picture_and_method(folder: Path) -> None:
    with open_run(folder) as connection:
        rows = dict_rows(connection, OVERLAID)
    assert len(rows) == 4 * len(METHODS)
    assert {row["method"] for row in rows if row["signed"]} == {"integrated_gradients"}
    for row in rows:
        picture, mask = decoded(row["image"]), decoded(row["mask"])
        # The class token stands before all patches.
        patches = np.array(row["scores"][1:]).reshape(row["rows"], row["columns"])
        expected = overlay(picture, patches, mask, signed=row["signed"])
        found = np.asarray(decoded(drawn(row)))
        np.testing.assert_array_equal(found, np.asarray(expected))
        assert (found[outline(np.asarray(mask))] == 255).all()


def test_the_plot(folder: Path, tmp_path: Path) -> None:
    wanted = OVERLAY_PLOTS["overlays"]
    with open_run(folder) as connection:
        rows = dict_rows(connection, wanted.query, {"method": None})
    figure = wanted.draw(rows)
    assert list(figure.layout.xaxis.ticktext) == [
        "picture",
        "integrated_<br>gradients",
        *METHODS[1:],
    ]
    assert len(figure.layout.yaxis.ticktext) == 4
    held = {
        (image.x, image.y): base64.b64decode(image.source.partition(",")[2])
        for image in figure.layout.images
    }
    names = sorted({row["instance_id"] for row in rows})
    assert len(held) == 4 * (1 + len(METHODS))
    for row in rows:
        line = names.index(row["instance_id"])
        assert held[1 + METHODS.index(row["method"]), line] == drawn(row)
        assert held[0, line] == row["image"]
        assert row["predicted"] in figure.layout.yaxis.ticktext[line]
    page = plot(folder, "overlays", tmp_path / "page.html", method="saliency").read_text()
    assert "saliency" in page and "raw_attention" not in page
