"""Pictures that a corpus names by path, and folders of pictures."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import ViTImageProcessor

from attribeam.pipeline.corpus.staging import Corpus, open_corpus, read_rows, stage
from attribeam.schemas import UsageError
from attribeam.transforms import Model
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.row import EncodeOptions
from tests.conftest import LoadTiny
from tests.support.tiny import write_jsonl


def model_of(*classes: str) -> Model:
    """What opening a corpus asks of a model: its classes, and that it has a processor."""
    known = {"task": "classification", "modality": "images", "tokenizer": None, "beside": None}
    return cast(Model, SimpleNamespace(labels=classes, processor=object(), **known))


@pytest.fixture
def model() -> Model:
    return model_of("cat", "dog", "owl")


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), shade, np.uint8)).save(out, "PNG")
    return out.getvalue()


def folder(root: Path, *names: str) -> dict[str, bytes]:
    """Pictures of different shades at these paths below a folder."""
    files = {name: png(10 * at + 5) for at, name in enumerate(names)}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return files


def opened(path: Path | str, model: Model, **more: Any) -> Corpus:
    return open_corpus(str(path), model, **more)


def rows(corpus: Corpus) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if v is not None} for row in corpus.rows()]


def named(corpus: Corpus, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row.get(column) for column in columns) for row in rows(corpus)]


# Columns of paths -----------------------------------------------------------------------------


def test_paths_below_the_file_the_folder_and_the_root(model: Model, tmp_path: Path) -> None:
    files = folder(tmp_path, "corpus/data/a.png", "corpus/pictures/b.png", "elsewhere/c.png")
    paths = ["a.png", "pictures/b.png", str(tmp_path / "elsewhere/c.png")]
    path = tmp_path / "corpus" / "data" / "corpus.csv"
    path.write_text("id,image,label\n" + "".join(f"{p[-5]},{p},dog\n" for p in paths))
    corpus = opened(tmp_path / "corpus", model)
    assert corpus.columns == {"image": "image", "label": "label", "id": "id"}
    assert named(corpus, "instance_id", "label", "image") == [
        (name, 1, content) for name, content in zip("abc", files.values(), strict=True)
    ]
    # The file's own folder alone, when it is named itself.
    messages = dict(named(opened(path, model), "instance_id", "problem"))
    assert messages == {
        "a": None,
        "b": f"there is no file pictures/b.png below {path.parent}",
        "c": None,
    }


def test_paths_where_bytes_are_not(model: Model, tmp_path: Path) -> None:
    """As ``datasets`` stores pictures: bytes, or a path, or both."""
    files = folder(tmp_path, "a.png", "b.png")
    cells = [
        {"bytes": files["a.png"], "path": "gone.png"},
        {"bytes": None, "path": "b.png"},
        {"bytes": None, "path": None},
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), "mask": pa.array(cells[::-1], kind)})
    pq.write_table(table, tmp_path / "corpus.parquet")
    corpus = opened(tmp_path / "corpus.parquet", model)
    assert corpus.columns == {"image": "image.bytes", "mask": "mask.bytes"}
    a, b = files.values()
    assert named(corpus, "image", "mask", "files") == [
        (a, None, None),
        (b, [b], "image b.png, mask b.png"),
        (None, [a], None),
    ]
    lines = [{"image": {"bytes": None, "path": "a.png"}}, {"image": {"path": "b.png"}}]
    corpus = opened(write_jsonl(tmp_path / "lines.jsonl", lines), model)
    assert corpus.columns == {"image": "image.path"}
    assert named(corpus, "image") == [(a,), (b,)]


def test_several_masks_by_path(model: Model, tmp_path: Path) -> None:
    files = folder(tmp_path, "a.png", "m/1.png", "m/2.png")
    line = {
        "image": "a.png",
        "masks": [{"bytes": None, "path": "m/1.png"}, {"path": "m/2.png"}],
        "mask_labels": ["cat", "owl"],
        "other_mask": ["m/2.png"],
    }
    gone = {"image": "a.png", "masks": [{"path": "m/3.png"}], "other_mask": [None]}
    corpus = opened(write_jsonl(tmp_path / "c.jsonl", [line, gone]), model)
    one, two = files["m/1.png"], files["m/2.png"]
    assert named(corpus, "mask", "mask_label", "other_mask", "files", "problem") == [
        (
            [one, two],
            [0, 2],
            [two],
            "image a.png, mask m/1.png, mask m/2.png, other_mask m/2.png",
            None,
        ),
        (
            None,
            None,
            None,
            "image a.png, mask m/3.png",
            f"there is no file m/3.png below {tmp_path}",
        ),
    ]


def test_files_that_can_not_be_read(model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    images = ("gone.png", "empty.png", "folder.png", "https://x.org/a.png", "a\0b", None, " ")
    path = write_jsonl(tmp_path / "corpus.jsonl", [{"image": image} for image in images])
    problems = [row.get("problem") for row in rows(opened(path, model))]
    assert problems[0] == f"there is no file gone.png below {tmp_path}"
    assert problems[1:4] == [
        "the file empty.png is empty",
        f"{tmp_path / 'folder.png'} is no file",
        "https://x.org/a.png is at a URL that is not read: fetch the files first",
    ]
    assert "a\0b" in problems[4] and problems[5:] == [None, None]


def test_pixels_go_before_guessed_paths(model: Model, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "corpus.jsonl", [{"image": "a.png", "pixel_values": [1.5]}])
    assert opened(path, model).columns == {"pixel_values": "pixel_values"}
    assert opened(path, model, columns={"image": "image"}).columns == {"image": "image"}


# Folders --------------------------------------------------------------------------------------


def test_a_folder_of_classes(model: Model, tmp_path: Path) -> None:
    files = folder(tmp_path, "dog/1.png", "cat/1.JPG", "cat/test_2.png", ".hidden/x.png")
    (tmp_path / "README.md").write_text("Pets.")
    corpus = opened(tmp_path, model)
    expected = [("cat/1.JPG", 0), ("cat/test_2.png", 0), ("dog/1.png", 1)]
    assert named(corpus, "instance_id", "label", "image", "split") == [
        (name, label, files[name], None) for name, label in expected
    ]
    assert corpus.notes == ["image: image, label: label, id: id", "labels by folder: cat, dog"]
    assert named(opened(f"{tmp_path}/[cd]*/*.png", model), "instance_id", "label") == [
        ("cat/test_2.png", 0),
        ("dog/1.png", 1),
    ]
    before = corpus.source.fingerprint
    (tmp_path / "dog" / "1.png").write_bytes(png(99))
    after = opened(tmp_path, model).source.fingerprint
    (tmp_path / "dog").rename(tmp_path / "owl")
    assert len({before, after, opened(tmp_path, model).source.fingerprint}) == 3


def test_folders_are_numbers_of_a_model_without_names_alone(model: Model, tmp_path: Path) -> None:
    """As many classes, in the order of their names, as ``datasets`` numbers them."""
    folder(tmp_path, "ant/1.png", "bee/1.png")
    corpus = opened(tmp_path, model_of("LABEL_0", "LABEL_1"))
    assert named(corpus, "label") == [(0,), (1,)]
    assert (
        "labels by number, since the model has other names: 0 (ant) is class 0 (LABEL_0), "
        in (corpus.notes[-1])
    )
    for other in (model, model_of("LABEL_0", "LABEL_1", "LABEL_2")):
        said = [row["problem"] for row in rows(opened(tmp_path, other))]
        assert said[1].startswith("the label 'bee' is none of the model's (")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), split="train")
    assert loaded.features["label"].names == ["ant", "bee"]


def test_splits_of_folders(model: Model, tmp_path: Path) -> None:
    folder(tmp_path, "train/cat/1.png", "train/owl/1.png", "test/cat/1.png")
    everything = named(opened(tmp_path, model), "instance_id", "split", "label")
    assert everything == [
        ("test/cat/1.png", "test", 0),
        ("train/cat/1.png", "train", 0),
        ("train/owl/1.png", "train", 2),
    ]
    assert named(opened(tmp_path, model, split="test"), "instance_id", "label") == [
        ("test/cat/1.png", 0)
    ]
    with pytest.raises(UsageError, match="has no file of the split 'dev'"):
        opened(tmp_path, model, split="dev")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("1.png", "2.png"), None),
        (("train/1.png", "test/1.png"), None),
        (("cat/1.png", "cat/2.png"), "no labels by folder: all pictures are in cat"),
        (("cat/1.png", "2.png"), "no labels by folder: some pictures lie deeper than others"),
    ],
)
def test_folders_without_labels(
    model: Model, tmp_path: Path, names: tuple[str, ...], says: str | None
) -> None:
    folder(tmp_path, *names)
    corpus = opened(tmp_path, model)
    assert corpus.notes[1:] == ([] if says is None else [says])
    assert {(row.get("label"), "problem" in row) for row in rows(corpus)} == {(None, False)}


def test_metadata_beside_pictures(model: Model, tmp_path: Path) -> None:
    files = folder(tmp_path, "a.png", "b.png", "c.png", "masks/a.png")
    (tmp_path / "metadata.csv").write_text(
        "file_name,mask_file_name,label,caption\na.png,masks/a.png,owl,an owl\nb.png,,cat,a cat\n"
    )
    corpus = opened(tmp_path, model)
    assert named(corpus, "label", "image", "mask") == [
        (2, files["a.png"], [files["masks/a.png"]]),
        (0, files["b.png"], None),
    ]
    assert corpus.notes == [
        "image: file_name, label: label, mask: mask_file_name; not used: caption",
        f"left out: 1 pictures that no metadata names, such as {tmp_path / 'c.png'}",
    ]


def test_metadata_by_split_and_class(model: Model, tmp_path: Path) -> None:
    for split in ("train", "test"):
        names = [f"{animal}/1.png" for animal in ("cat", "dog")]
        folder(tmp_path / split, *names)
        lines = [{"file_name": name, "caption": f"my {name[:3]}"} for name in names]
        write_jsonl(tmp_path / split / "metadata.jsonl", lines)
    corpus = opened(tmp_path, model)
    assert named(corpus, "split", "label") == [
        ("test", 0),
        ("test", 1),
        ("train", 0),
        ("train", 1),
    ]
    assert "labels by folder: cat, dog" in corpus.notes
    assert not any("problem" in row for row in rows(corpus))


def test_a_card_says_which_pictures_are_which_split(model: Model, tmp_path: Path) -> None:
    folder(tmp_path, "a/cat/1.png", "a/owl/1.png", "b/cat/1.png")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - {split: train, path: a/*/*}\n  - {split: held, path: b/*/*}\n---\n"
    )
    assert named(opened(tmp_path, model), "instance_id", "split", "label") == [
        ("a/cat/1.png", "train", 0),
        ("a/owl/1.png", "train", 2),
        ("b/cat/1.png", "held", 0),
    ]


def test_what_no_folder_of_pictures_is(model: Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="JSON lines, CSV or TSV file, and no picture"):
        opened(tmp_path, model)
    folder(tmp_path, "a.png")
    write_jsonl(tmp_path / "corpus.jsonl", [{"text": "a"}])
    with pytest.raises(UsageError, match="has no column of their files"):
        opened(tmp_path, model)
    with pytest.raises(UsageError, match=r"a corpus is .*, or pictures alone"):
        opened(f"{tmp_path}/*", model)


# Runs -----------------------------------------------------------------------------------------


def test_workers_need_the_run_alone(model: Model, tmp_path: Path) -> None:
    files = folder(tmp_path / "pets", "cat/1.png", "dog/1.png")
    count = stage(opened(tmp_path / "pets", model), str(tmp_path / "out"), shard_size=1).rows
    (tmp_path / "pets").rename(tmp_path / "elsewhere")
    found = [row for shard in range(count) for row in read_rows(str(tmp_path / "out"), shard)]
    assert [(row.image, row.label) for row in found] == [
        (files["cat/1.png"], 0),
        (files["dog/1.png"], 1),
    ]


def test_failures_name_files(golden: LoadTiny, model: Model, tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "masks/a.png", "b.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "masks" / "a.png").write_bytes(png(0)[:60])
    lines = [
        {"id": "mask", "image": "a.png", "mask": "masks/a.png"},
        {"id": "image", "image": "b.png"},
        {"id": "none", "image": "c.png"},
        {"id": "good", "image": "a.png"},
    ]
    path = write_jsonl(tmp_path / "corpus.jsonl", lines)
    stage(opened(path, model), str(tmp_path / "out"), shard_size=4)
    square = ViTImageProcessor(size={"height": 32, "width": 32})
    found, failures = encode_rows(
        replace(golden("vit-golden", "float64"), processor=square),
        read_rows(str(tmp_path / "out"), 0),
        EncodeOptions(17),
    )
    assert [instance.instance_id for instance in found] == ["good"]
    assert [(f.instance_id, f.stage) for f in failures] == [
        ("mask", "encode"),
        ("image", "read"),
        ("none", "read"),
    ]
    cut, no_picture, none = (f.message for f in failures)
    assert cut.startswith("the mask can't be decoded: ")
    assert cut.endswith(" (image a.png, mask masks/a.png)")
    assert no_picture == "the file b.png is no picture in a format that can be read"
    assert none == f"there is no file c.png below {tmp_path}"
    # What is no picture is not copied.
    assert [row.image is None for row in read_rows(str(tmp_path / "out"), 0)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_run_goes_on_with_its_columns(model: Model, tmp_path: Path) -> None:
    files = folder(tmp_path, "a.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = pa.array([{"bytes": None, "path": "a.png"}], kind)
    pq.write_table(pa.table({"image": image, "mask_path": ["a.png"]}), tmp_path / "c.parquet")
    first = opened(tmp_path / "c.parquet", model, columns={"mask": "none"})
    begun = {"fingerprint": first.source.fingerprint, "columns": dict(first.columns)}
    again = opened(tmp_path / "c.parquet", model, begun=begun)
    assert again.columns == first.columns == {"image": "image.bytes"}
    assert rows(again) == rows(first) and rows(first)[0]["image"] == files["a.png"]
