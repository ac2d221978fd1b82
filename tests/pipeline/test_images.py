"""Runs over pictures: files of any kind and pixels, through the command line's options."""

import io
import json
import shutil
import zlib
from pathlib import Path
from struct import pack
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from attribeam.analysis import open_run, verify
from attribeam.analysis.publish.publish import publish
from attribeam.pipeline import Options, run
from attribeam.schemas import UsageError
from attribeam.transforms import attribute, choose, collect, load_model
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.row import EncodeOptions, Row
from tests.support.models import GOLDENS, save_tiny
from tests.transforms.inputs.images.test_closed import ASKED, COLUMNS, HEIGHT, ROWS, WIDTH, saved

PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "rescale_factor": 1 / 255,
    "resample": 2,
    "size": {"height": 32, "width": 32},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model with a processor beside it."""
    made = tmp_path_factory.mktemp("vit") / "model"
    shutil.copytree(GOLDENS / "vit-golden", made)
    (made / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return made


def file_of(picture: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **more)
    return out.getvalue()


def colours() -> Image.Image:
    """A picture of 32 x 32, of which no two corners are alike."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))


def header_of(width: int, height: int) -> bytes:
    """The beginning of a PNG file that would be so large."""
    inside = b"IHDR" + pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + pack(">I", 13) + inside + pack(">I", zlib.crc32(inside))
    return start + pack(">I", 9) + b"IDAT"


def options(folder: Path, corpus: Path, out: Path, **more: Any) -> Options:
    plain = {"methods": "random,saliency", "evaluation": Evaluation(fractions=(0.5,))}
    return Options(str(folder), str(corpus), str(out), **(plain | more))


def corpus_of(path: Path, files: dict[str, bytes | None]) -> Path:
    """As ``datasets`` stores pictures."""
    images = [None if file is None else {"bytes": file, "path": None} for file in files.values()]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"id": pa.array(list(files)), "image": pa.array(images, kind)}
    pq.write_table(pa.table({**columns, "label": [1] * len(files)}), path)
    return path


def test_pixels(tmp_path: Path) -> None:
    """What comes out is what Python gives, for the same pixels."""
    out = tmp_path / "out"
    chosen: dict[str, Any] = {
        "dtype": "float64",
        "methods": "bt_token,occlusion,iba",
        "params": {"iba": {"copies": 2, "steps": 3}},
        "shard_size": 3,
    }
    corpus = GOLDENS / "corpus_vit.parquet"
    run(options(GOLDENS / "vit-golden", corpus, out, **chosen))
    run(
        options(
            GOLDENS / "vit-golden", corpus, out, **{**chosen, "methods": "decompx", "params": {}}
        )
    )
    assert verify(out).problems == []
    model = load_model(GOLDENS / "vit-golden", dtype="float64")
    rows = pq.read_table(corpus).to_pylist()
    instances, _ = encode_rows(
        model, [Row(r["id"], pixel_values=r["pixel_values"]) for r in rows], EncodeOptions(17)
    )
    names = choose(["bt_token", "occlusion", "decompx", "iba"], chosen["params"])
    statistics = collect(model, instances, 1000)
    expected = attribute(model, instances, names, statistics=statistics).rows
    with open_run(str(out)) as connection:
        found = connection.execute(
            "select method, instance_id, scores from attributions order by all"
        ).fetchall()
        tokens, text, protocol = connection.execute(
            "select any_value(tokens), any_value(text), any_value(protocol)"
            " from instances join curves using (instance_id)"
        ).fetchall()[0]
    assert len(found) == 16 and protocol == "patch" and text is None
    assert tokens == ["[CLS]", *(f"r{row}c{column}" for row in range(4) for column in range(4))]
    for method, name, scores in found:
        row = expected[method][int(name.removeprefix("vit-"))]
        assert row is not None
        np.testing.assert_allclose(scores, row.scores, rtol=0, atol=1e-9)


def test_a_mean_of_patches(tmp_path: Path) -> None:
    out, corpus = tmp_path / "out", GOLDENS / "corpus_vit.parquet"
    run(options(GOLDENS / "vit-golden", corpus, out, pooling="mean", methods="bt_head"))
    assert verify(out).problems == []
    record = json.loads((out / "run.json").read_text())["identity"]["model"]
    assert record["pooling"] == "mean"
    with open_run(out) as connection:
        found = connection.execute("select count(*), count(readout) from instances").fetchall()
        assert found == [(4, 0)]
        assert connection.execute("from agreement_by_instance").fetchall() == []
    with pytest.raises(UsageError, match=r"model\.pooling"):
        run(options(GOLDENS / "vit-golden", corpus, out, methods="saliency"))
    with pytest.raises(UsageError, match="--pooling mean is of pictures"):
        run(options(GOLDENS / "bert-golden", GOLDENS / "corpus.parquet", out, pooling="mean"))


def test_a_network_of_which_nothing_is_known(tmp_path: Path) -> None:
    """Convolutions: all methods that ask it alone, over patches that ``run.json`` names."""
    out, model = tmp_path / "out", tmp_path / "model"
    model.mkdir()
    saved("resnet", model)
    corpus = corpus_of(tmp_path / "corpus.parquet", {"one": file_of(colours())})
    drawn = {"lime": {"samples": 12}, "kernel_shap": {"samples": 12}}
    asked, told = {"methods": "all", "params": drawn, "token_budget": 8000}, []
    run(options(model, corpus, out, **asked), tell=told.append)
    assert "a resnet is known: pictures are cut into 8 x 10 patches of 1 x 2 pixels" in "".join(
        told
    )
    assert verify(out).problems == []
    record = json.loads((out / "run.json").read_text())
    assert record["identity"]["model"]["patches"] == {
        **{"rows": ROWS, "columns": COLUMNS},
        **{"height": HEIGHT // ROWS, "width": WIDTH // COLUMNS},
    }
    assert set(record["methods"]) == ASKED
    assert "layers whose parts attribeam knows" in record["executions"][0]["left_out"]["decompx"]
    with open_run(out) as connection:
        query = "select distinct method, len(scores) from attributions"
        assert set(connection.execute(query).fetchall()) == {(m, ROWS * COLUMNS) for m in ASKED}


@pytest.fixture(scope="module")
def seen(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over two pictures of the model's size, which it sees as they are."""
    made = tmp_path_factory.mktemp("seen")
    files = {"first": file_of(colours()), "second": file_of(colours().rotate(90))}
    run(options(folder, corpus_of(made / "corpus.parquet", files), made / "out"))
    return made / "out"


def test_what_the_model_saw(seen: Path) -> None:
    assert verify(seen).problems == []
    with open_run(seen) as connection:
        found = connection.execute(
            "select image.bytes, image.path, width, height, rows, columns, patch from instances"
            " order by instance_id"
        ).fetchall()
        views = connection.execute("select count(*) from document_tokens").fetchall()
    for row, picture in zip(found, (colours(), colours().rotate(90)), strict=True):
        assert row[1:] == (None, 32, 32, 4, 4, 8)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row[0]))), picture)
    assert views == [(2 * 2 * 16,)]


def test_what_is_published(seen: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    publish(str(seen), "user/name", dry_run=str(page))
    card = (page / "README.md").read_text()
    assert "- image-classification\n" in card and "not\nthe picture's own" not in card
    with open_run(page) as connection:
        (count,) = connection.execute("select count(*) from tokens").fetchall()[0]
    assert count == 2 * 2 * 17
    cache = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    files = [str(path) for path in seen.glob("instances/*.parquet")]
    for loaded in (
        datasets.load_dataset(str(page), "instances", **cache),
        datasets.load_dataset("parquet", data_files=files, **cache),
    ):
        assert loaded.features["image"] == datasets.Image()
        np.testing.assert_array_equal(np.asarray(loaded[0]["image"]), np.asarray(colours()))


def test_unknown_colours_are_said(tmp_path: Path) -> None:
    out, page, said = tmp_path / "out", tmp_path / "page", []
    chosen = options(GOLDENS / "vit-golden", GOLDENS / "corpus_vit.parquet", out, methods="random")
    run(chosen, tell=said.append)
    assert "so that colours of pictures are unknown" in "".join(said)
    publish(str(out), "user/name", dry_run=str(page))
    assert "its colours are **not\nthe picture's own**" in (page / "README.md").read_text()


def test_files_of_any_kind(folder: Path, tmp_path: Path) -> None:
    plain = colours()
    grey = plain.convert("L")
    deep = Image.fromarray((np.asarray(grey).astype(np.uint16) << 8) + 7)
    seen = Image.merge("RGBA", (*plain.split(), Image.new("L", plain.size, 9)))
    turned = plain.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 270 degrees before it is looked at.
    files = {
        "plain": file_of(plain),
        "bitmap": file_of(plain, "BMP"),
        "seen": file_of(seen),
        "turned": file_of(turned, "PNG", exif=exif),
        "grey": file_of(grey),
        "grey-rgb": file_of(grey.convert("RGB")),
        "deep": file_of(deep),
        "cmyk": file_of(plain.convert("CMYK"), "TIFF"),
        "small": file_of(Image.new("RGB", (1, 1), (200, 10, 10))),
        "wide": file_of(Image.new("RGB", (900, 20))),
        "empty": b"",
        "cut": file_of(plain)[:900],
        "drawn": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "huge": header_of(20_000, 20_000),
        "none": None,
    }
    out, corpus = tmp_path / "out", corpus_of(tmp_path / "corpus.parquet", files)
    run(options(folder, corpus, out))
    assert verify(out).problems == []
    with open_run(str(out)) as connection:
        logits = dict(connection.execute("select instance_id, logits from instances").fetchall())
        failures = dict(connection.execute("select instance_id, message from failures").fetchall())
    for alike in (("plain", "bitmap", "seen", "cmyk", "turned"), ("grey", "grey-rgb", "deep")):
        for name in alike[1:]:
            assert logits[name] == pytest.approx(logits[alike[0]], abs=1e-4), name
    assert logits["grey"] != pytest.approx(logits["plain"], abs=1e-2)
    assert {"small", "wide"} < set(logits)
    assert set(failures) == {"empty", "cut", "drawn", "huge", "none"}
    assert failures["empty"] == "the picture's file is empty"
    assert failures["drawn"] == "the picture's file is no picture in a format that can be read"
    assert failures["huge"] == "the picture has more than 100 million pixels"
    assert failures["cut"].startswith("the picture can't be decoded: ")
    assert failures["none"] == "the row has no picture"
    record = json.loads((out / "run.json").read_text())["identity"]["model"]["processor"]
    assert record["class"] == "ViTImageProcessorPil" and record["image_std"] == [0.25] * 3


def test_masks_are_rationales(folder: Path, tmp_path: Path) -> None:
    values = np.zeros((40, 40), np.uint8)
    values[:20, 10:25] = 255  # Columns 1 and 2, of 10 pixels a patch, the second by half.
    mask = Image.fromarray(values)
    picture = file_of(colours().resize((40, 40)))
    files = {
        "light": (picture, file_of(mask)),
        "bits": (picture, file_of(mask.convert("1"))),
        "ones": (picture, file_of(Image.fromarray(values // 255))),
        "none": (picture, None),
        "small": (picture, file_of(mask.resize((20, 40)))),
        "broken": (picture, b"no picture"),
    }
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        name: pa.array([f[at] and {"bytes": f[at], "path": None} for f in files.values()], kind)
        for at, name in enumerate(("image", "mask"))
    }
    corpus, out = tmp_path / "corpus.parquet", tmp_path / "out"
    pq.write_table(pa.table({"id": list(files), **columns}), corpus)
    run(options(folder, corpus, out, methods="random,saliency,mask_itself"))
    assert verify(out).problems == []
    with open_run(out) as connection:
        found = dict(connection.execute("select instance_id, rationale from instances").fetchall())
        failures = dict(connection.execute("select instance_id, message from failures").fetchall())
        scored = connection.execute("select any_value(n) from plausibility").fetchall()
        drawn = dict(connection.execute("select instance_id, mask.bytes from instances").fetchall())
        best = connection.execute(
            "select token_f1, average_precision from plausibility where method = 'mask_itself'"
        ).fetchall()
    expected = [0, *[0, 1, 1, 0] * 2, *[0] * 8]
    assert found["light"] == found["bits"] == found["ones"] == expected
    assert found["none"] is None and scored == [(3,)] and best == [(1, 1)]
    # 40 pixels are seen in 32.
    expected_mask = np.zeros((32, 32), bool)
    expected_mask[:16, 8:20] = True
    assert drawn["none"] is None and drawn["light"] == drawn["bits"] == drawn["ones"]
    np.testing.assert_array_equal(Image.open(io.BytesIO(drawn["light"])), expected_mask)
    assert failures == {
        "none": "the row has no rationale (of pictures: no mask)",
        "small": "the mask is of 20 x 40 pixels, and its picture of 40 x 40",
        "broken": "the mask's file is no picture in a format that can be read",
    }


def test_a_run_keeps_its_processor(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    corpus = corpus_of(tmp_path / "corpus.parquet", {"a": file_of(colours())})
    run(options(folder, corpus, out))
    other = tmp_path / "model"
    shutil.copytree(folder, other)
    changed = {**PROCESSOR, "image_mean": [0.4, 0.5, 0.5]}
    (other / "preprocessor_config.json").write_text(json.dumps(changed))
    with pytest.raises(UsageError, match=r"model\.processor"):
        run(options(other, corpus, out, methods="occlusion"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"overflow": "stride"}, "--overflow is of texts, and the model is of pictures"),
        ({"max_length": 9}, "--max-length is of texts, and the model is of pictures"),
        ({"columns": {"text": "id"}}, "--text-column id: the model is of pictures, which have no"),
        ({"columns": {"image": "none"}}, "has no column of their files"),
        ({"columns": {"image": "label"}}, "holds integers, which can't be the image"),
        ({"evaluation": Evaluation(operations=("pad",))}, "--operations: there is no 'pad'"),
        ({"evaluation": Evaluation(protocol="word")}, "--units: there is no 'word'; there are pat"),
        (
            {"evaluation": Evaluation(protocol="pixel", operations=("drop",))},
            "drop leaves out whole patches: with --units pixel",
        ),
        ({"target": "objects"}, "--target objects needs masks, but"),
        ({"methods": "pattern_ablation"}, "pattern_ablation is defined for rows of tokens"),
    ],
)
def test_what_is_refused(folder: Path, tmp_path: Path, more: dict[str, Any], says: str) -> None:
    corpus = corpus_of(tmp_path / "corpus.parquet", {"a": file_of(colours())})
    with pytest.raises(UsageError) as caught:
        run(options(folder, corpus, tmp_path / "out", **more))
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_pictures_need_a_processor_and_texts_a_model_of_texts(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus.parquet", {"a": file_of(colours())})
    with pytest.raises(UsageError, match=r"no preprocessor_config\.json, so the corpus must hold"):
        run(options(GOLDENS / "vit-golden", corpus, tmp_path / "out"))
    bert = save_tiny(tmp_path / "bert", "bert")
    with pytest.raises(UsageError, match="has no text column that could be guessed"):
        run(options(bert, corpus, tmp_path / "out"))
    words = tmp_path / "words.parquet"
    pq.write_table(pa.table({"input_ids": [[2, 5, 3]]}), words)
    with pytest.raises(UsageError, match="--pixels is of pictures, and the model is of texts"):
        run(options(bert, words, tmp_path / "out", pixels=True))


def test_masks_of_several_things(folder: Path, tmp_path: Path) -> None:
    """Each class that a mask is of is a question, and maps are held against its own mask."""
    left, right = (np.zeros((32, 32), np.uint8) for _ in range(2))
    left[:, :12], right[:, 20:] = 255, 255
    masks = [file_of(Image.fromarray(mask)) for mask in (left, right)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    files = [{"bytes": mask, "path": None} for mask in masks]
    picture = {"bytes": file_of(colours()), "path": None}
    corpus, out = tmp_path / "corpus.parquet", tmp_path / "out"
    columns = {
        "id": ["two", "one", "unknown", "list", "none"],
        "image": pa.array([picture] * 5, kind),
        "label": [2, 1, None, 0, 1],
        "mask": pa.array([files[:1], files[:1], files[:1], files, None], pa.list_(kind)),
        "mask_labels": [[2], None, None, [0, 2], None],
        "other_mask": pa.array([files[1], None, None, None, None], kind),
        "other_label": [0, None, None, None, None],
    }
    pq.write_table(pa.table(columns), corpus)
    chosen = {"methods": "random,saliency", "target": "objects", "dtype": "float64"}
    run(options(folder, corpus, out, **chosen, evaluation=None))
    assert verify(out).problems == []
    model = load_model(folder, dtype="float64")
    with open_run(out) as connection:
        found = connection.execute(
            "select instance_id, localisation.target, region, tp + fn, mass_inside, mass_other,"
            " scores"
            " from localisation join attributions using (instance_id, method)"
            " where method = 'saliency' order by 1"
        ).fetchall()
        failed = connection.execute("select instance_id, message from failures").fetchall()
        counts = connection.execute("select method, n from class_discrimination").fetchall()
        unseen = connection.execute("select distinct unseen from plausibility").fetchall()
        kinds = connection.execute("select distinct question_kind from instances").fetchall()
        rationales = dict(
            connection.execute("select instance_id, rationale from instances").fetchall()
        )
    assert sorted(failed) == [
        ("none", "no mask of the picture has a class that could be explained"),
        ("unknown", "no mask of the picture has a class that could be explained"),
    ]
    assert unseen == [(0,)]
    assert kinds == [("object",)] and counts == [("random", 4), ("saliency", 4)]
    # A patch is 8 wide: 12 pixels are the first and half of the second.
    shares = {name: np.tile(s, 4) for name, s in (("l", [1, 0.5, 0, 0]), ("r", [0, 0, 0.5, 1]))}
    expected = {
        "two#0": (0, "r", "l"),
        "two#1": (2, "l", "r"),
        "one#0": (1, "l", None),
        "list#0": (0, "l", "r"),
        "list#1": (2, "r", "l"),
    }
    assert {row[0] for row in found} == expected.keys()
    for name, target, region, inside, mass, other, scores in found:
        label, own, beside = expected[name]
        values = np.array(scores[1:])
        assert (target, region, inside) == (label, "object", 12 * 32)
        assert mass == pytest.approx(values @ shares[own] / values.sum(), abs=1e-9)
        if beside is None:
            assert other is None
        else:
            assert other == pytest.approx(values @ shares[beside] / values.sum(), abs=1e-9)
    assert rationales["two#0"] == rationales["one#0"] == [0, *[1, 1, 0, 0] * 4]
    instance = encode_rows(model, [Row("x", image=picture["bytes"], label=1)], EncodeOptions(17))[0]
    alone = attribute(model, instance, ["saliency"], target=2).rows["saliency"][0]
    assert alone is not None
    two = next(row for row in found if row[0] == "two#1")
    np.testing.assert_allclose(two[-1], alone.scores, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pixels", [False, True])
def test_pixels_are_removed_and_found_again(folder: Path, tmp_path: Path, pixels: bool) -> None:
    """What a run lacks is made of the scores that it has."""
    mask = np.zeros((32, 32), np.uint8)
    mask[4:20, 4:20] = 255
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    files = [{"bytes": file_of(i), "path": None} for i in (colours(), Image.fromarray(mask))]
    columns = {name: pa.array([files[at]], kind) for at, name in enumerate(("image", "mask"))}
    corpus, out = tmp_path / "corpus.parquet", tmp_path / "out"
    pq.write_table(pa.table({"id": ["a"], **columns, "label": [1]}), corpus)
    evaluation = Evaluation((0.25,), operations=("black",), protocol="pixel")
    chosen: dict[str, Any] = {
        "methods": "saliency",
        "evaluation": evaluation,
        "pixels": pixels,
        "dtype": "float64",
    }
    run(options(folder, corpus, out, **chosen))
    assert verify(out).problems == []
    with open_run(out) as connection:
        ((stored, level, inside),) = connection.execute(
            "select pixels, level, mass_inside"
            " from attributions join localisation using (instance_id, method)"
        ).fetchall()
        points = connection.execute(
            'select "order", fraction, removed, units from curves where fraction = 0.25'
        ).fetchall()
        areas = connection.execute("select n, labelled from perturbation_auc").fetchall()
        before = connection.execute("from localisation").fetchall()
    assert sorted(points) == [(order, 0.25, 256, 1024) for order in ("lerf", "morf", "random")]
    assert areas == [(1, 1)] and len(before) == 1
    assert (level, stored is None) == (("pixel", False) if pixels else ("patch", True))
    if pixels:
        values = np.array(stored)
        assert inside == pytest.approx(values[mask.reshape(-1) > 0].sum() / values.sum(), abs=1e-9)
    curves = 'select "order", fraction, logit from curves order by all'
    with open_run(out) as connection:
        logits = np.array([row[2] for row in connection.execute(curves).fetchall()])
    for table in ("localisation", "curves"):
        next((out / table).rglob("*.parquet")).unlink()
    run(options(folder, corpus, out, **chosen))
    with open_run(out) as connection:
        assert connection.execute("from localisation").fetchall() == before
        again = np.array([row[2] for row in connection.execute(curves).fetchall()])
    np.testing.assert_allclose(again, logits, rtol=0, atol=1e-9)
    with pytest.raises(UsageError, match=r"settings.*pixels|pixels"):
        run(options(folder, corpus, out, **{**chosen, "pixels": not pixels}))
