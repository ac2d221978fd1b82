"""Runs over pairs of a picture and a text (CLIP), through the command line."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import open_run, verify
from attribeam.analysis.publish.publish import publish
from attribeam.analysis.report.report import write_report
from attribeam.pipeline import Options, run
from attribeam.pipeline.commands.cli import main
from attribeam.schemas import UsageError
from attribeam.transforms.evaluate import Evaluation
from tests.pipeline.test_images import colours, file_of
from tests.support.authors import golden_numbers
from tests.support.clip import clip_folder
from tests.support.models import GOLDENS, relative_error

MODEL, CORPUS = GOLDENS / "clip-golden", GOLDENS / "corpus_clip.parquet"
# The authors' by ours: of the last layer alone unless all are said.
KEYS = {
    "raw_attention": ("raw_attention", "raw_attention"),
    "attention_rollout": ("rollout", None),
    "attention_gradcam": ("attention_gradcam", None),
    "generic_attribution": ("generic_attribution_nl-1", "generic_attribution_nl-1"),
    "bt_token": ("bt_token_nl2", "bt_token_nl1"),
    "bt_head": ("bt_head_nl2", "bt_head_nl1"),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_authors_scores_of_mixed_batches(tmp_path: Path, dtype: str) -> None:
    """Of ``bt_head`` and texts see ``tests/transforms``: theirs count padding."""
    out, limit = tmp_path / "out", 1e-12 if dtype == "float64" else 1e-5
    command = f"run --model {MODEL} --corpus {CORPUS} --output {out} --dtype {dtype} --shard-size 7"
    methods = f"--methods {','.join(KEYS)}"
    assert main(shlex.split(f"{command} {methods} --no-evaluate")) == 0
    assert verify(out).problems == []
    with open_run(out) as connection:
        rows = connection.execute(
            "select method, row_id, modality, scores from attributions join instances"
            " using (instance_id)"
        ).fetchall()
    assert len(rows) == 2 * 12 * len(KEYS)
    compared = 0
    for method, row, modality, scores in rows:
        picture, text = map(int, row.split("-")[1:])
        key = KEYS[method][modality == "text"]
        if picture == 3 or key is None or (method == "bt_head" and modality == "text" and text < 2):
            continue
        found = np.array(scores)[1:] if modality == "image" else np.pad(scores, (0, 12))[:12]
        if method == "attention_gradcam":  # Theirs is scaled to [0, 1].
            found = (found - found.min()) / (found.max() - found.min())
        expected = golden_numbers("clip")[f"{modality}/{key}"][picture, text]
        rough = 5 if method == "attention_gradcam" and dtype == "float32" else 1
        assert relative_error(found, expected) < rough * limit, (method, row, modality)
        compared += 1
    assert compared == 9 * len(KEYS) + 9 * 3 + 3


def options(folder: Path, corpus: Path, out: Path, **more: Any) -> Options:
    plain = {"methods": "occlusion,bt_head", "evaluation": Evaluation(fractions=(0.5,))}
    return Options(str(folder), str(corpus), str(out), **(plain | more))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip") / "model")


def corpus_of(path: Path, **more: Any) -> Path:
    picture = file_of(colours())
    columns = {
        "id": ["a", "b", "c", "d"],
        "image": [picture, picture, b"none", picture],
        "caption": ["t05 t06 t07", "t08", "t09", " ".join(["t10"] * 30)],
        "label": [0, 1, 0, 1],
    }
    pq.write_table(pa.table(columns | more), path)
    return path


def test_a_run_of_pairs(folder: Path, tmp_path: Path) -> None:
    corpus, out = corpus_of(tmp_path / "corpus.parquet"), tmp_path / "out"
    run(options(folder, corpus, out))
    assert verify(out).problems == []
    record = json.loads((out / "run.json").read_text())
    towers = {"image": {"num_layers": 4, "num_heads": 4}, "text": {"num_layers": 3, "num_heads": 4}}
    assert record["identity"]["model"]["towers"] == towers
    assert record["identity"]["model"]["task"] == "similarity"
    assert record["methods"]["bt_head"]["params"]["start_layer"] == "auto"
    assert record["methods"]["bt_head"]["sides"] == {
        "image": {"start_layer": 3},
        "text": {"start_layer": 2},
    }
    assert record["evaluation"]["protocol"] == "patch"
    assert record["evaluation"]["text_protocol"] == "token"
    with open_run(out) as connection:
        instances = connection.execute(
            "select instance_id, row_id, modality, text, label, truncated, outputs, logits[1]"
            " from instances order by all"
        ).fetchall()
        curves = connection.execute(
            "select modality, protocol, operation, count(*) from curves"
            " join instances using (instance_id) group by all order by all"
        ).fetchall()
        failures = connection.execute("select instance_id, message from failures").fetchall()
    assert [row[:3] for row in instances] == [
        (f"{name}/{side}", name, side) for name in "abd" for side in ("image", "text")
    ]
    for picture, text in zip(instances[::2], instances[1::2], strict=True):
        assert picture[3] is None and text[3] is not None
        assert picture[4] is None and picture[6] == ["similarity"]
        assert picture[7] == pytest.approx(text[7], rel=1e-4)
    assert [row[5] for row in instances] == [False] * 5 + [True]
    assert curves == [("image", "patch", "mean", 54), ("text", "token", "pad", 54)]
    assert failures == [("c", "the picture's file is no picture in a format that can be read")]
    page = write_report(str(out), str(tmp_path / "page.html")).read_text()
    assert "a patch at a time, of texts a token" in page and "text: start_layer=2" in page
    publish(str(out), "user/name", dry_run=str(tmp_path / "page"))
    card = (tmp_path / "page" / "README.md").read_text()
    assert "- zero-shot-image-classification\n" in card
    # It goes on with another method, and makes again what is damaged.
    next((out / "attributions").rglob("*bt_head*/*.parquet")).write_bytes(b"")
    run(options(folder, corpus, out, methods="saliency", repair=True))
    assert verify(out).problems == []


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        ({}, {"overflow": "stride"}, "--overflow stride: a pair has one text"),
        ({}, {"layers": True, "methods": "w"}, "--layers: pairs are run by two networks"),
        ({}, {"columns": {"label": "label"}}, "rows of a similarity model have no class"),
        ({}, {"columns": {"pair": "caption"}}, "--pair-column caption: the model is of pairs of a"),
        (
            {},
            {"columns": {"other_mask": "image"}},
            "a picture and a text, which have no other_mask",
        ),
        ({}, {"columns": {"text": "none"}}, "no text column .* or give texts as classes with --pr"),
        ({}, {"columns": {"image": "none"}}, "has no column of their files"),
        ({}, {"explain": "probability"}, "--explain probability: a similarity model is explained"),
        ({"id": ["a", "a/text", "c", "d"]}, {}, "'a' and 'a/text' .* the second could be a side"),
    ],
)
def test_what_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], more: dict[str, Any], says: str
) -> None:
    corpus = corpus_of(tmp_path / "corpus.parquet", **change)
    with pytest.raises(UsageError, match=says):
        run(options(folder, corpus, tmp_path / "out", **more))
    assert not (tmp_path / "out" / "run.json").exists()
