"""Gold labels are those that their names say, and where two readings are left, there is none."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.pipeline.corpus.labels import Reading
from attribeam.pipeline.corpus.sources import open_source
from attribeam.pipeline.corpus.staging import Corpus, open_corpus, understood
from attribeam.schemas import UsageError
from attribeam.transforms import Model
from tests.support.tiny import command, table

NLI = ("entailment", "neutral", "contradiction")
STARS = ("1", "2", "3", "4", "5")
REVIEWS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
POLARITY = ("-1", "0", "1")


@pytest.fixture
def of_classes(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    """A model whose classes have given names."""

    def named(classes: Sequence[str]) -> Model:
        monkeypatch.setattr(Model, "labels", property(lambda _: list(classes)))
        return replace(tiny("bert"))

    return named


def dataset(labels: Sequence[int], names: Sequence[str]) -> datasets.Dataset:
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))}
    rows = {"text": ["a"] * len(labels), "label": list(labels)}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def parquet(path: Path, labels: Any) -> Path:
    column = labels if isinstance(labels, pa.Array) else pa.array(labels)
    pq.write_table(pa.table({"text": ["a"] * len(column), "label": column}), path)
    return path


def csv(path: Path, labels: Sequence[object]) -> Path:
    path.write_text("text,label\n" + "".join(f"a,{label}\n" for label in labels))
    return path


def labels_of(corpus: Corpus) -> list[int | None]:
    """The labels, None for one that is none and for one that fails."""
    return [row["label"] for row in corpus.rows()]


def problems_of(corpus: Corpus) -> list[str]:
    return [row["problem"] for row in corpus.rows() if row["problem"]]


# Numbers that the corpus has names for


def saved(folder: Path, given: datasets.Dataset) -> Path:
    given.save_to_disk(str(folder / "saved"))
    return folder / "saved"


def as_parquet(folder: Path, given: datasets.Dataset) -> Path:
    given.to_parquet(str(folder / "corpus.parquet"))
    return folder / "corpus.parquet"


def with_card(folder: Path, given: datasets.Dataset) -> Path:
    (folder / "data").mkdir()
    given.to_csv(str(folder / "data" / "train.csv"))
    names = given.features["label"].names
    listed = "".join(f"\n          '{at}': {name}" for at, name in enumerate(names))
    (folder / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n"
        f"    dtype:\n      class_label:\n        names:{listed}\n---\n# It\n"
    )
    return folder


def with_infos(folder: Path, given: datasets.Dataset) -> Path:
    given.to_csv(str(folder / "train.csv"))
    features = {"label": {"_type": "ClassLabel", "names": given.features["label"].names}}
    infos = {"default": {"features": features}}
    (folder / "dataset_infos.json").write_text(json.dumps(infos))
    return folder


@pytest.mark.parametrize("write", [saved, as_parquet, with_card, with_infos])
def test_the_names_of_the_corpus_win(
    write: Callable[..., Path], of_classes: Callable[..., Model], tmp_path: Path
) -> None:
    model = of_classes(["CONTRADICTION", "NEUTRAL", "ENTAILMENT"])
    corpus = open_corpus(str(write(tmp_path, dataset([2, 2, 0, -1], NLI))), model)
    assert labels_of(corpus) == [0, 0, 2, None]
    assert corpus.labels.record == {"entailment": 2, "neutral": 1, "contradiction": 0}
    (note,) = corpus.labels.notes
    assert note.startswith("labels by name: entailment is class 2 (ENTAILMENT), ")


@pytest.mark.parametrize(
    ("names", "classes", "given", "expected", "said"),
    [
        (NLI, NLI, [0, 2], [0, 2], ""),
        (NLI, ["ENTAILMENT", "Neutral", "contradiction"], [0, 2], [0, 2], ""),
        (["Yes", "yes"], ["yes", "Yes"], [0, 1], [1, 0], "by name: Yes is class 1"),
        (NLI, ["CONTRADICTION", "ENTAILMENT"], [0, 1, 2], [1, None, 0], "neutral is none"),
        # Names that say nothing to the model leave the numbers.
        (["neg", "pos"], ["LABEL_0", "LABEL_1"], [0, 1], [0, 1], "by number, since the model has"),
        (["a", "b", "c", "d", "e"], STARS, [0, 4], [0, 4], "by number, since the model has other"),
        (["1 star", "2 star", *REVIEWS[2:]], REVIEWS, [0, 1, 4], [0, 1, 4], "1 (2 star) is class"),
        (["0", "1"], ["bad", "good"], [0, 1], [0, 1], ""),
        # The names of numbers are the corpus's own.
        (STARS, STARS, [0, 4], [0, 4], ""),
        (["neg", "pos", "unsup"], ["neg", "pos"], [0, 1, 2], [0, 1, None], ""),
    ],
)
def test_numbers_with_names(
    names: Sequence[str],
    classes: Sequence[str],
    given: list[int],
    expected: list[int | None],
    said: str,
    of_classes: Callable[..., Model],
    tmp_path: Path,
) -> None:
    corpus = open_corpus(str(as_parquet(tmp_path, dataset(given, names))), of_classes(classes))
    assert labels_of(corpus) == expected
    assert len(corpus.labels.notes) == bool(said)
    assert said in "".join(corpus.labels.notes)
    assert len(problems_of(corpus)) == expected.count(None)


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (["0", "1", "2", "3", "4"], STARS, "two ways: by the names of its classes"),
        (["YES", "no"], ["yes", "Yes"], "'YES' of .* could be the model's 'yes' .* or .*'Yes'"),
    ],
)
def test_names_that_can_be_read_in_two_ways(
    names: Sequence[str],
    classes: Sequence[str],
    message: str,
    of_classes: Callable[..., Model],
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match=message):
        open_corpus(str(as_parquet(tmp_path, dataset([0, 1], names))), of_classes(classes))


def test_names_that_are_no_text_are_refused(
    of_classes: Callable[..., Model], tmp_path: Path
) -> None:
    path = as_parquet(tmp_path, dataset([0], ["a", "b"]))
    table = pq.read_table(path)
    metadata = table.schema.metadata[b"huggingface"].replace(b'"b"', b'"\\ud800"')
    pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), path)
    with pytest.raises(UsageError, match=r"c\w+\.parquet can't be read: .* lone surrogates"):
        open_corpus(str(path), of_classes(["a", "b"]))


def test_a_number_without_a_name_fails(of_classes: Callable[..., Model], tmp_path: Path) -> None:
    path = as_parquet(tmp_path, dataset([0], NLI))
    numbers = pq.read_table(path)
    kind = numbers.schema.field("label")
    pq.write_table(numbers.set_column(1, kind, pa.array([7])), path)
    corpus = open_corpus(str(path), of_classes(["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]))
    assert problems_of(corpus) == [
        "the label 7 is none of the corpus's own (entailment, neutral, contradiction)"
    ]


def test_each_file_has_its_own_names(of_classes: Callable[..., Model], tmp_path: Path) -> None:
    dataset([0, 1], ["no", "yes"]).to_parquet(str(tmp_path / "a.parquet"))
    dataset([0, 1], ["yes", "no"]).to_parquet(str(tmp_path / "b.parquet"))
    csv(tmp_path / "c.csv", ["yes", 0])
    assert labels_of(open_corpus(str(tmp_path), of_classes(["yes", "no"]))) == [1, 0, 0, 1, 0, 0]


# Numbers that are names


@pytest.mark.parametrize(
    ("given", "classes", "expected"),
    [
        ([5, 2, 3, 1, 4], STARS, [4, 1, 2, 0, 3]),
        ([1, 2], STARS, [0, 1]),
        ([1, -1, 7], STARS, [0, None, None]),
        ([1, -1, 0, -1, 1], POLARITY, [2, 0, 1, 0, 2]),
        ([0, 1], POLARITY, [1, 2]),
        ([0, 1, -1], ["0", "1"], [0, 1, None]),
        ([0, 1], ["1", "0"], [1, 0]),
        ([0, 1], ["other", "0", "1"], [1, 2]),
        # Numbers within names, where nothing else is possible.
        ([1, 5], REVIEWS, [0, 4]),
        ([0, 1, 4], REVIEWS, [0, 1, 4]),
        ([1, 2], ["LABEL_0", "LABEL_1", "LABEL_2"], [1, 2]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "int", "float"])
def test_names_that_are_numbers(
    given: list[int],
    classes: Sequence[str],
    expected: list[int | None],
    kind: str,
    of_classes: Callable[..., Model],
    tmp_path: Path,
) -> None:
    if kind == "csv":
        path = csv(tmp_path / "c.csv", given)
    else:
        path = parquet(tmp_path / "c.parquet", pa.array(given, pa.int8()).cast(
            pa.int64() if kind == "int" else pa.float32()
        ))  # fmt: skip
    corpus = open_corpus(str(path), of_classes(classes))
    assert labels_of(corpus) == expected
    by_name = any(label not in (None, at) for at, label in zip(given, expected, strict=True))
    assert bool(corpus.labels.notes) == bool(corpus.labels.record) == by_name


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        ([0, 1, 2, 3, 4], STARS),
        ([0, 5], STARS),
        ([0, 1, 2], POLARITY),
        ([0, 1, 2], ["other", "0", "1"]),
        ([1, 2, 3], REVIEWS),
        ([0, 5], REVIEWS),
    ],
)
def test_numbers_that_can_be_read_in_two_ways(
    given: list[int], classes: Sequence[str], of_classes: Callable[..., Model], tmp_path: Path
) -> None:
    model = of_classes(classes)
    message = "can be read in two ways: by the names of the model's classes .* or as their numbers"
    for path in (csv(tmp_path / "c.csv", given), parquet(tmp_path / "c.parquet", given)):
        with pytest.raises(UsageError, match=message):
            open_corpus(str(path), model)


def test_only_the_rows_that_are_taken_decide(
    of_classes: Callable[..., Model], tmp_path: Path
) -> None:
    path = parquet(tmp_path / "c.parquet", [5, 1, 0])
    assert labels_of(open_corpus(str(path), of_classes(STARS), limit=2)) == [4, 0]


# Names


@pytest.mark.parametrize(
    ("given", "classes", "expected"),
    [
        ("Yes", ["yes", "Yes"], 1),
        ("yes", ["yes", "Yes"], 0),
        ("b", ["A", "B", "b"], 2),
        ("a", ["A", "B", "b"], 0),
        (" NEGATIVE ", ["negative", "positive"], 0),
        ("straße", ["STRASSE", "x"], 0),
        ("3", STARS, 2),
        ("3.0", STARS, 2),
        (b"positive", ["negative", "positive"], 1),
        (True, ["true", "false"], 0),
        (True, ["no", "yes"], 1),
        (np.int64(1), ["no", "yes"], 1),
        (np.float32(1), ["no", "yes"], 1),
        (np.bool_(True), ["no", "yes"], 1),
        (Decimal("1.0"), ["no", "yes"], 1),
        (Decimal("NaN"), ["no", "yes"], None),
        (0.5, ["0.0", "0.5"], 1),
    ],
)
def test_a_label(given: Any, classes: list[str], expected: int | None) -> None:
    numbers = {int(name): at for at, name in enumerate(classes)} if classes[0] == "1" else None
    assert Reading(classes, numbers)(given) == expected


def test_a_name_that_two_classes_have(of_classes: Callable[..., Model], tmp_path: Path) -> None:
    corpus = open_corpus(str(csv(tmp_path / "c.csv", ["YES"])), of_classes(["yes", "Yes"]))
    assert problems_of(corpus) == [
        "the label 'YES' could be the model's 'yes' (class 0) or the model's 'Yes' (class 1)"
    ]


def test_names_in_a_dictionary_are_names(of_classes: Callable[..., Model], tmp_path: Path) -> None:
    names = pa.array(["positive", "NEGATIVE", "positive"]).dictionary_encode()
    path = parquet(tmp_path / "c.parquet", names)
    assert labels_of(open_corpus(str(path), of_classes(["negative", "positive"]))) == [1, 0, 1]


def test_labels_in_objects_have_names_too(of_classes: Callable[..., Model], tmp_path: Path) -> None:
    features = {
        "text": datasets.Value("string"),
        "gold": {"label": datasets.ClassLabel(names=["b", "a"])},
    }
    rows = {"text": ["x", "y"], "gold": [{"label": 0}, {"label": 1}]}
    given = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    for path in (as_parquet(tmp_path, given), saved(tmp_path, given)):
        source = open_source(str(path), None)
        corpus = understood(source, {"label": "gold.label"}, of_classes(["a", "b"]))
        assert labels_of(corpus) == [1, 0]


def test_splits_and_subsets_have_names_too(
    of_classes: Callable[..., Model], tmp_path: Path
) -> None:
    given = datasets.Dataset.from_dict(
        {"text": ["x", "y"], "split": [1, 0], "subset": [0, -1]},
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "split": datasets.ClassLabel(names=["train", "test"]),
                "subset": datasets.ClassLabel(names=["sport", "art"]),
            }
        ),
    )
    path = str(as_parquet(tmp_path, given))
    rows = open_corpus(path, of_classes(["a", "b"])).rows()
    assert [(row["split"], row["subset"]) for row in rows] == [("test", "sport"), ("train", None)]
    assert [record.values["text"] for record in open_source(path, "train").records()] == ["y"]


# From end to end


def test_a_run_follows_the_names(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    names = ["label_2", "label_1", "label_0"]
    corpus, out = as_parquet(tmp_path, dataset([0, 2, 1], names)), tmp_path / "out"
    model = ("--model", tiny_folder("bert"), "--device", "cpu", "--target", "gold")
    usual = ("run", *model, "--methods", "saliency", "--no-evaluate", "--output", out)
    outcome = command(*usual, "--corpus", corpus)
    assert outcome.status == 0
    assert outcome.out.splitlines()[1].startswith("labels by name: label_2 is class 2 (LABEL_2)")
    rows = table(out, "instances").to_pylist()
    assert [row["label"] for row in rows] == [2, 0, 1]
    assert [row["correct"] for row in rows] == [row["prediction"] == row["label"] for row in rows]
    targets = table(out, "attributions", "saliency")["target"].to_pylist()
    assert targets == [2, 0, 1]
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["identity"]["corpus"]["labels"] == dict(zip(names, (2, 1, 0), strict=True))
    # It goes on only with labels that are read the same way.
    del manifest["identity"]["corpus"]["labels"]
    (out / "run.json").write_text(json.dumps(manifest))
    refused = command(*usual, "--corpus", corpus)
    assert refused.status == 2
    assert "corpus.labels" in refused.err
