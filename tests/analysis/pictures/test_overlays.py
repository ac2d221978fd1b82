"""The overlays of a run: in a plot, and in what is published."""

import base64
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Image, load_dataset

from attribeam.analysis import open_run, verify
from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.pictures.drawing import decoded, outline, overlay
from attribeam.analysis.pictures.overlays import OVERLAID, drawn
from attribeam.analysis.plots.overlays import OVERLAY_PLOTS
from attribeam.analysis.plots.plots import plot
from attribeam.analysis.publish.publish import publish
from tests.analysis.pictures.conftest import METHODS
from tests.support.tiny import command


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


def test_what_is_published(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    published = publish(folder, "user/name", dry_run=page, license="mit")
    assert published.configs[0] == "wide" and verify(page).problems == []
    loaded = load_dataset(str(page), "wide", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == ["instance_id", "label", "prediction", "image", *METHODS]
    assert all(loaded.features[name] == Image() for name in ("image", *METHODS))
    assert isinstance(loaded.features["label"], ClassLabel)
    with open_run(page) as connection:
        rows = dict_rows(connection, f"{OVERLAID} order by instance_id, method")
    for row, by_method in zip(rows, [own for own in loaded for _ in METHODS], strict=True):
        assert by_method["instance_id"] == row["instance_id"]
        np.testing.assert_array_equal(by_method["image"], decoded(row["image"]))
        np.testing.assert_array_equal(by_method[row["method"]], decoded(drawn(row)))


def test_those_of_some_methods(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    publish(folder, "user/name", methods=["saliency"], dry_run=page)
    (file,) = (page / "data" / "wide").iterdir()
    found = pq.read_table(file)
    assert found.column_names[4:] == ["saliency"] and len(found) == 4
    pq.write_table(found.drop_columns(["prediction"]), file)
    assert any("has no column prediction" in problem for problem in verify(page).problems)


@pytest.mark.parametrize("name", ["triggers", "prune", "attack"])
def test_what_is_of_texts_is_refused(folder: Path, name: str) -> None:
    held_out = () if name == "triggers" else ("--corpus", "any.jsonl")
    outcome = command(name, folder, *held_out)
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert "is a run of pictures, and `attribeam prune`, `triggers` and" in outcome.err
