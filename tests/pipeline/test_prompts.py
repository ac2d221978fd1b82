"""Runs over pictures whose classes are prompts (CLIP)."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import open_run, verify
from attribeam.pipeline import Options, run
from attribeam.pipeline.corpus.prompts import read_prompts
from attribeam.schemas import UsageError
from attribeam.transforms.evaluate import Evaluation
from tests.pipeline.test_images import colours, file_of
from tests.support.clip import TEXTS, clip_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip") / "model")


def options(folder: Path, corpus: Path, out: Path, **more: Any) -> Options:
    plain = {"methods": "saliency", "evaluation": Evaluation(fractions=(0.5,))}
    return Options(str(folder), str(corpus), str(out), **(plain | more))


def test_a_run_with_prompts(folder: Path, tmp_path: Path) -> None:
    corpus, out, prompts = (tmp_path / name for name in ("corpus.parquet", "out", "prompts.txt"))
    wide = colours().resize((40, 32))
    mask = file_of(colours().convert("1"))
    columns = {
        "id": ["square", "wide", "other", "cut"],
        "image": [file_of(colours()), file_of(wide), file_of(colours()), file_of(wide)],
        "caption": ["not looked at"] * 4,
        "label": [*TEXTS, None],
        "mask": [mask, None, None, file_of(wide.convert("1"))],
    }
    pq.write_table(pa.table(columns), corpus)
    prompts.write_text("\n".join((*TEXTS, "")))
    run(options(folder, corpus, out, prompts=str(prompts)))
    assert verify(out).problems == []
    with open_run(out) as connection:
        found = connection.execute("select instance_id, label, rationale from instances").fetchall()
        (curves,) = connection.execute("select count(*) from curves").fetchone() or (0,)
        failures = connection.execute("select instance_id, message from failures").fetchall()
    assert {(name, label) for name, label, _ in found} == {("square", 0), ("wide", 1), ("other", 2)}
    assert [bool(rationale) for name, _, rationale in sorted(found)] == [False, True, False]
    assert curves == 3 * 3 * 3
    assert failures == [
        ("cut", "the model's processor cuts pictures, so that a mask can't be laid on them")
    ]
    record = json.loads((out / "run.json").read_text())["identity"]["model"]
    assert record["architecture"] == "CLIPModel" and record["task"] == "classification"
    assert record["prompts"] == {"texts": list(TEXTS), "features": "text_model"}
    assert record["labels"] == list(TEXTS)
    # The same, said otherwise; and other classes.
    run(options(folder, corpus, out, prompts=",".join(TEXTS), methods="occlusion"))
    with pytest.raises(UsageError, match=r"model\.prompts\.texts"):
        run(options(folder, corpus, out, prompts=",".join(TEXTS[::-1])))
    with pytest.raises(UsageError, match="lrp is defined by heads that don't divide features"):
        run(options(folder, corpus, tmp_path / "lrp", prompts=str(prompts), methods="lrp"))


def test_prompts_that_are_read(tmp_path: Path) -> None:
    assert read_prompts(None) is None
    assert read_prompts(" a cat, a dog,,") == ("a cat", "a dog")
    many = ",".join(f"a photo of number {number}" for number in range(500))
    assert len(read_prompts(many) or ()) == 500
    file = tmp_path / "prompts"
    file.write_text("a cat, asleep\n\n a dog \n", encoding="utf-8")
    assert read_prompts(str(file)) == ("a cat, asleep", "a dog")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="can't be read"):
        read_prompts(str(file))
    with pytest.raises(UsageError, match="names none"):
        read_prompts(" , ")
