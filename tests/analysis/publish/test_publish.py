"""Publishing: what is written loads with datasets and DuckDB, tells nothing local, and uploads."""

import io
import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import datasets
import duckdb
import huggingface_hub
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import ClassLabel, List, Value
from datasets.utils.metadata import known_task_ids
from markdown_it import MarkdownIt

from attribeam.analysis import joining, open_run, verify
from attribeam.analysis.local import without_paths
from attribeam.analysis.opening.database import add_manifest, add_table, add_views
from attribeam.analysis.opening.manifest import rows_of
from attribeam.analysis.publish import card, commits, publishable
from attribeam.analysis.publish import tables as publish_tables
from attribeam.analysis.publish.card import ROWS, escaped, size_category
from attribeam.analysis.publish.hub import upload as upload_folder
from attribeam.analysis.publish.publish import Published, publish
from attribeam.analysis.publish.publishable import published_manifest
from attribeam.analysis.publish.versions import changes
from attribeam.analysis.verifying.verify import Report
from attribeam.schemas import TABLES, UsageError
from attribeam.schemas.encoding import is_plain
from attribeam.schemas.layout import PUBLISHED_GLOBS, UNFINISHED
from attribeam.schemas.tables import EVALUATIONS
from tests.support.hub import TOKEN, Hub, served
from tests.support.models import save_tiny
from tests.support.synthetic_run import METHODS, SyntheticRun, synthetic_run, write_run
from tests.support.tiny import command

REPO = "someone/some-run"
LABELS = ["negative", "neutral", "positive"]
# As a folder of the run that must show up nowhere.
SECRET_FOLDER = "zoltana-private-folder"
ODD_LABELS = [
    "no",
    "0o7",
    "- a: b # c",
    "a|b `c` **d** [e](http://f) <script>alert(1)</script> & g ~h~ $i$",
    "---\nlicense: mit\n---\u2028x 'y' \"z\" \\ {{ 7 * 7 }} {% raw %}",
]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(SECRET_FOLDER)


@pytest.fixture(scope="module")
def run() -> SyntheticRun:
    return synthetic_run(rows=60, shard_size=25)


@pytest.fixture(scope="module")
def folder(run: SyntheticRun, parent: Path) -> Path:
    """A run that nobody changes."""
    return write_run(run, parent / "run")


@pytest.fixture(scope="module")
def sound(folder: Path) -> Report:
    """What its verification says."""
    return verify(folder)


@pytest.fixture
def verified(folder: Path, sound: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifies the run that nobody changes no more than once."""
    monkeypatch.setattr(publishable, "verify", {folder: sound}.__getitem__)


@pytest.fixture(scope="module")
def dry(folder: Path, parent: Path) -> Path:
    """What would be uploaded of it."""
    published = publish(folder, REPO, license="cc-by-4.0", languages=["en"], dry_run=parent / "dry")
    assert published.folder == parent / "dry"
    assert published.warnings == ()
    return parent / "dry"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Lets nobody reach a network; returns a new cache for data sets."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    datasets.disable_progress_bars()
    return tmp_path / "datasets"


def front_matter(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    found = re.match(r"^---\n(.*?)\n---\n\n# ", text, re.DOTALL)
    assert found is not None
    content: dict[str, Any] = yaml.safe_load(found[1])
    return content


def load(folder: Path, config: str, cache: Path, **options: Any) -> Any:
    return datasets.load_dataset(str(folder), config, split="test", cache_dir=str(cache), **options)


def sorted_rows(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@cache
def run_rows(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a run that nobody changes."""
    with open_run(folder, commented=False) as connection:
        rows: list[dict[str, Any]] = connection.sql(f"from {table}").to_arrow_table().to_pylist()
    return rows


# What is written


def test_the_card_names_every_config(dry: Path, offline: Path) -> None:
    content = front_matter(dry)
    names = [config["config_name"] for config in content["configs"]]
    tables = ["attributions", "instances", "layers", "information", "curves", "failures"]
    assert names == ["wide", *tables, "methods", "run"]
    assert datasets.get_dataset_config_names(str(dry)) == names
    assert datasets.get_dataset_default_config_name(str(dry)) == "wide"
    assert [info["config_name"] for info in content["dataset_info"]] == names
    assert content["license"] == "cc-by-4.0"
    assert content["language"] == ["en"]
    assert content["pretty_name"] == "some-run"
    assert content["size_categories"] == ["n<1K"]
    assert content["task_categories"] == ["text-classification"]


def test_every_file_belongs_to_a_config_and_is_counted(dry: Path) -> None:
    content = front_matter(dry)
    matched: set[Path] = set()
    for config, info in zip(content["configs"], content["dataset_info"], strict=True):
        (data_files,) = config["data_files"]
        files = sorted(dry.glob(data_files["path"]))
        assert all(re.fullmatch(r"test-\d{5}-of-\d{5}\.parquet", file.name) for file in files)
        assert data_files["split"] == "test"
        assert info["splits"][0]["num_examples"] == sum(pq.read_metadata(f).num_rows for f in files)
        assert info["download_size"] == sum(file.stat().st_size for file in files)
        matched |= {*files}
    others = {dry / "README.md", dry / "run.json", dry / "reproduce.yaml"}
    assert {path for path in dry.rglob("*") if path.is_file()} == matched | others


@pytest.mark.parametrize("table", ["instances", "attributions", "layers", "information", "curves"])
def test_datasets_loads_what_the_run_has(
    table: str, folder: Path, dry: Path, offline: Path
) -> None:
    loaded = load(dry, table, offline).with_format("arrow")[:].to_pylist()
    assert sorted_rows(loaded) == sorted_rows(run_rows(folder, table))


def test_a_row_has_all_scores_of_an_instance(folder: Path, dry: Path, offline: Path) -> None:
    loaded = load(dry, "wide", offline)
    assert loaded.features["target"] == ClassLabel(names=LABELS)
    rows = list(loaded)
    assert [row["instance_id"] for row in rows] == [
        row["instance_id"] for row in load(dry, "instances", offline)
    ]
    instances = {row["instance_id"]: row for row in run_rows(folder, "instances")}
    scored = {(r["instance_id"], r["method"]): r for r in run_rows(folder, "attributions")}
    assert len(rows) == len(instances) and len(scored) < len(rows) * len(METHODS)
    for row in rows:
        own = instances[row["instance_id"]]
        assert all(row[name] == own[name] for name in ("text", "tokens", "label", "prediction"))
        found = {m: scored.get((row["instance_id"], m)) for m in METHODS}
        for method, one in found.items():
            assert row[method] == (None if one is None else one["scores"])
        targets = {one["target"] for one in found.values() if one} - {None}
        assert row["target"] == (targets.pop() if len(targets) == 1 else None)


def test_features_have_the_right_types(dry: Path, offline: Path) -> None:
    features = load(dry, "attributions", offline).features
    assert features["scores"] == List(Value("float32"))
    assert features["target"] == ClassLabel(names=LABELS)
    assert features["method"] == Value("string")
    assert features["layer"] == Value("int32")
    features = load(dry, "instances", offline).features
    assert features["label"] == features["prediction"] == ClassLabel(names=LABELS)
    assert features["tokens"] == List(Value("string"))
    assert features["special"] == List(Value("bool"))
    assert features["segment"] == List(Value("int8"))
    # The hub is not told of pictures where there are none.
    assert features["image"] == {"bytes": Value("binary"), "path": Value("string")}
    assert load(dry, "curves", offline).features["fraction"] == Value("float64")


def test_labels_that_were_given_by_name_keep_it(tmp_path: Path, offline: Path) -> None:
    """The corpus numbers its classes otherwise than the model does."""
    model = save_tiny(tmp_path / "model", "bert")
    names = ["red", "green", "blue"]
    config = json.loads((model / "config.json").read_text())
    config |= {
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }
    (model / "config.json").write_text(json.dumps(config))
    given = {"id": ["a", "b", "c"], "text": ["good film", "dull", "a plot"], "label": [0, 2, 1]}
    text, label = Value("string"), ClassLabel(names=names[::-1])
    features = {"id": text, "text": text, "label": label}
    corpus = tmp_path / "test.parquet"
    datasets.Dataset.from_dict(given, features=datasets.Features(features)).to_parquet(corpus)
    arguments = ("--model", model, "--corpus", corpus, "--output", tmp_path / "run")
    done = command("run", *arguments, "--methods", "random", "--no-evaluate")
    assert done.status == 0 and "labels by name: " in done.out
    publish(tmp_path / "run", "someone/some-run", dry_run=tmp_path / "published")
    loaded = load(tmp_path / "published", "instances", offline)
    label = loaded.features["label"]
    assert label == ClassLabel(names=names)
    found = {row["instance_id"]: label.int2str(row["label"]) for row in loaded}
    assert found == {"a": "blue", "b": "red", "c": "green"}


def test_streaming_gives_the_same_rows(dry: Path, offline: Path) -> None:
    streamed = load(dry, "wide", offline, streaming=True)
    assert streamed.features["target"] == ClassLabel(names=LABELS)
    assert list(streamed) == list(load(dry, "wide", offline))


def test_the_manifest_is_in_tables(dry: Path, offline: Path) -> None:
    methods = load(dry, "methods", offline)
    assert methods["method"] == [*METHODS]
    assert json.loads(methods[1]["params"]) == {"steps": 20}
    (run,) = load(dry, "run", offline)
    assert run["model_labels"] == LABELS
    assert json.loads(run["evaluation"])["protocol"] == "token"


def test_duckdb_reads_it(folder: Path, dry: Path) -> None:
    text = (dry / "README.md").read_text(encoding="utf-8")
    (sql,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert f"hf://datasets/{REPO}/data" in sql
    with duckdb.connect() as connection:
        asked = connection.execute(sql.replace(f"hf://datasets/{REPO}", str(dry)))
        assert len(asked.fetchall()) == 10
        sql = f"select count(*) from '{dry}/data/curves/*/*.parquet'"
        assert connection.execute(sql).fetchone() == (len(run_rows(folder, "curves")),)


def test_the_views_read_it(folder: Path, dry: Path) -> None:
    manifest = json.loads((dry / "run.json").read_text(encoding="utf-8"))
    with duckdb.connect() as connection, open_run(folder, commented=False) as original:
        for table, pattern in PUBLISHED_GLOBS.items():
            patterns = [f"{dry}/{pattern}"] if any(dry.glob(pattern)) else []
            add_table(connection, table, patterns, double=False)
        add_manifest(connection, manifest)
        add_views(connection)
        for view in ("faithfulness", "failure_summary", "words"):
            found = connection.execute(f"select * from {view} order by all").fetchall()
            expected = original.execute(f"select * from {view} order by all").fetchall()
            assert len(found) == len(expected) > 0
            for one, other in zip(found, expected, strict=True):
                assert one == pytest.approx(other)


def test_the_card_shows_the_metrics(folder: Path, dry: Path) -> None:
    text = (dry / "README.md").read_text(encoding="utf-8")
    for row in run_rows(folder, "faithfulness"):
        line = re.search(rf"^\| `{row['method']}` \| (-?\d.*)$", text, re.MULTILINE)
        assert line is not None
        shown = [cell.strip() for cell in line[1].split("|")]
        assert shown[:2] == [f"{row['comprehensiveness']:.3f}", f"{row['sufficiency']:.3f}"]
    assert "comprehensiveness ↑ | sufficiency ↓ | aopc ↑ | log odds ↓ | auc difference ↑" in text


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_says_how_the_run_is_made_again(dry: Path) -> None:
    options = yaml.safe_load((dry / "reproduce.yaml").read_text(encoding="utf-8"))
    assert (options["model"], options["corpus"]) == ("some/model", "corpus.jsonl")
    assert options["methods"] == [*METHODS] and options["set"]["paths"] == {"steps": 20}
    text = card_of(dry)
    assert f"hf download {REPO} reproduce.yaml --repo-type dataset" in text
    # The model is on the hub, as far as its name tells, and the corpus is not.
    assert "attribeam run --config reproduce.yaml --output OUT --corpus PATH\n" in text
    assert "https://huggingface.co/some/model |" in text


def test_the_card_says_what_is_left_out(folder: Path, dry: Path) -> None:
    text, failures = card_of(dry), run_rows(folder, "failures")
    for stage, method, error in {(f["stage"], f["method"], f["error"]) for f in failures}:
        alike = [
            f for f in failures if (f["stage"], f["method"], f["error"]) == (stage, method, error)
        ]
        shown = f"`{method}`" if method else "all"
        message = min(f["message"] for f in alike)
        assert f"| {stage} | {shown} | `{error}` | {len(alike)} | {message} |" in text
    instances = len(run_rows(folder, "instances"))
    assert f"| instances | {instances}, of 60 rows" in text


def test_the_card_names_papers_licences_and_people(tmp_path: Path) -> None:
    run = synthetic_run()
    # Not into the record that is there: all synthetic runs share it.
    run.manifest["methods"]["paths"] = {
        **run.manifest["methods"]["paths"],
        "paper": "Sundararajan et al. 2017, equation 1",
    }
    publish(
        write_run(run, tmp_path / "run"),
        REPO,
        license="cc-by-4.0",
        corpus_license="CC0",
        creators=["Ann {Other}", "B"],
        dry_run=tmp_path / "dry",
    )
    text = card_of(tmp_path / "dry")
    assert (
        "Axiomatic Attribution for Deep Networks (ICML 2017): https://arxiv.org/abs/1703.01365"
        in text
    )
    assert "@misc{sundararajan2017axiomatic," in text
    assert "| the texts, which are the corpus's | CC0 |" in text
    assert "which are output of the model | unknown |" in text
    assert "| the data set as a whole | cc-by-4.0 |" in text
    assert "author = {Ann Other and B}" in text and "| creators | Ann \\{Other\\}, B |" in text


def test_the_card_shows_an_instance(folder: Path, dry: Path) -> None:
    text = card_of(dry).split("## An example")[1].split("## Uses")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert re.findall("`([^`]+)`", lines[0]) == [*METHODS]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    instances = {row["instance_id"]: row for row in run_rows(folder, "instances")}
    scored = {
        (r["instance_id"], r["method"]): r["scores"] for r in run_rows(folder, "attributions")
    }
    (shown,) = (
        name
        for name, row in instances.items()
        if all((name, method) in scored for method in METHODS)
        and [[f"{scored[name, m][at]:.3g}" for m in METHODS] for at in range(len(row["tokens"]))]
        == [row[1:] for row in rows]
    )
    assert [row[0] for row in rows] == [escaped(token) for token in instances[shown]["tokens"]]


def test_the_same_run_makes_the_same_files(folder: Path, dry: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    publish(folder, REPO, license="cc-by-4.0", languages=["en"], dry_run=again)
    files = sorted(path.relative_to(dry) for path in dry.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((dry / path).read_bytes() == (again / path).read_bytes() for path in files)


def test_some_methods(folder: Path, tmp_path: Path, offline: Path) -> None:
    target = tmp_path / "some"
    publish(folder, REPO, methods=["paths"], dry_run=target)
    assert {row["method"] for row in load(target, "curves", offline)} == {"paths"}
    # Those of a shown method, and those of an instance.
    assert {row["method"] for row in load(target, "failures", offline)} == {"paths", None}
    assert load(target, "methods", offline)["method"] == ["paths"]
    for name in ("README.md", "run.json"):
        assert "gradient" not in (target / name).read_text(encoding="utf-8")


def test_without_scores_or_evaluation(tmp_path: Path, offline: Path) -> None:
    run = synthetic_run(evaluate=False, failing=False)
    for record in run.manifest["methods"].values():
        record["tables"] = [name for name in record["tables"] if name == "layers"]
    run.attributions.clear()
    run.information.clear()
    published = publish(
        write_run(run, tmp_path / "run"), REPO, dry_run=tmp_path / "dry", allow_incomplete=True
    )
    assert published.configs == ("wide", "instances", "layers", "methods", "run")
    assert len(load(tmp_path / "dry", "instances", offline)) == 9
    assert "Faithfulness" not in (tmp_path / "dry" / "README.md").read_text(encoding="utf-8")


def test_float64_stays(tmp_path: Path, offline: Path) -> None:
    folder = write_run(synthetic_run(dtype="float64"), tmp_path / "run")
    publish(folder, REPO, dry_run=tmp_path / "dry")
    loaded = load(tmp_path / "dry", "attributions", offline)
    assert loaded.features["scores"] == List(Value("float64"))
    assert sorted_rows(list(loaded)) == sorted_rows(run_rows(folder, "attributions"))


# Files


@pytest.fixture
def unjoined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves every file of the run by itself, as if it were large."""
    monkeypatch.setattr(joining, "FILE_BYTES", 1)


def test_large_files_that_suit_are_taken_as_they_are(
    folder: Path, tmp_path: Path, verified: None, unjoined: None
) -> None:
    publish(folder, REPO, dry_run=tmp_path / "dry")
    for shard in range(3):
        name = f"{shard:05d}-of-00003.parquet"
        original = folder / "attributions" / "method=paths" / f"shard-{name}"
        placed = tmp_path / "dry" / "data" / "attributions" / "paths" / f"test-{name}"
        assert placed.samefile(original)


def test_files_that_not_everybody_can_read_are_written_again(
    folder: Path, tmp_path: Path, unjoined: None
) -> None:
    run = shutil.copytree(folder, tmp_path / "run")
    path = run / "attributions" / "method=paths" / "shard-00001-of-00003.parquet"
    rows = pq.ParquetFile(path).read()
    split = {"scores.list.element": "BYTE_STREAM_SPLIT"}
    pq.write_table(
        rows, path, use_dictionary=["instance_id"], column_encoding=split, write_page_checksum=True
    )
    assert not is_plain(pq.read_metadata(path))
    publish(run, REPO, dry_run=tmp_path / "dry")
    files = list((tmp_path / "dry" / "data").rglob("*.parquet"))
    assert all(is_plain(pq.read_metadata(file)) for file in files)
    (placed,) = (tmp_path / "dry" / "data" / "attributions" / "paths").glob("test-00001-*")
    assert pq.ParquetFile(placed).read().equals(rows)


def test_files_are_copied_where_links_cant_be(
    folder: Path, dry: Path, tmp_path: Path, verified: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    publish(folder, REPO, dry_run=tmp_path / "dry")
    for file in dry.rglob("*.parquet"):
        copied = tmp_path / "dry" / file.relative_to(dry)
        assert copied.read_bytes() == file.read_bytes()
        assert not copied.samefile(file) and not copied.is_symlink()


# In groups of fewer bytes most are what each column takes by itself, its dictionary and headers.
@pytest.mark.parametrize(("files", "size"), [(1, 100 << 20), (3, 4000), (1, 4000)])
def test_shards_are_joined_and_row_groups_cut(
    files: int,
    size: int,
    folder: Path,
    tmp_path: Path,
    offline: Path,
    verified: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "FILE_BYTES", 1 if files == 3 else 100 << 20)
    monkeypatch.setattr(publish_tables, "_MOST_GROUP_BYTES", size)
    monkeypatch.setattr(joining, "GROUP_BYTES", size)
    target = tmp_path / "dry"
    publish(folder, REPO, dry_run=target)
    for table in ("instances", "attributions", "curves"):
        found = sorted((target / "data" / table).rglob("*.parquet"))
        units = 1 if table == "instances" else len(METHODS)
        assert len(found) == units * files
        for file in found:
            footer = pq.read_metadata(file)
            groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
            memory = sum(group.total_byte_size for group in groups)
            assert all(group.total_byte_size < 2 * size for group in groups)
            assert len(groups) >= min(memory // size, 2)
        loaded = load(target, table, offline).with_format("arrow")[:].to_pylist()
        assert sorted_rows(loaded) == sorted_rows(run_rows(folder, table))


# Names


def test_odd_names_are_shown_as_they_are(tmp_path: Path, offline: Path) -> None:
    run = synthetic_run(classes=len(ODD_LABELS))
    run.manifest["identity"]["model"]["labels"] = ODD_LABELS
    run.manifest["identity"]["corpus"]["source"] = "a|`b```c <i>x.csv"
    folder = write_run(run, tmp_path / "run")
    publish(folder, REPO, title="**x**: 'y' #1", dry_run=tmp_path / "dry")
    assert front_matter(tmp_path / "dry")["pretty_name"] == "**x**: 'y' #1"
    assert front_matter(tmp_path / "dry")["license"] == "unknown"
    assert load(tmp_path / "dry", "instances", offline).features["label"].names == ODD_LABELS
    text = (tmp_path / "dry" / "README.md").read_text(encoding="utf-8")
    html = MarkdownIt("commonmark").enable("table").render(text.split("\n---\n\n", 1)[1])
    assert "<script" not in html and "<i>" not in html and "href" not in html
    assert "a|b `c` **d** [e](http://f) &lt;script&gt;alert(1)&lt;/script&gt; &amp; g ~h~" in html
    assert "a|`b```c &lt;i&gt;x.csv</code>, 9 rows" in html
    assert "<h1>**x**: 'y' #1</h1>" in html
    assert "{{ 7 * 7 }}" in html


@pytest.mark.parametrize(
    ("title", "shown"), [("a\n---\nb  c", "a --- b c"), (" \n", "some-run"), ("", "some-run")]
)
def test_a_title_is_a_line(
    title: str, shown: str, folder: Path, tmp_path: Path, verified: None
) -> None:
    publish(folder, REPO, title=title, dry_run=tmp_path / "dry")
    assert front_matter(tmp_path / "dry")["pretty_name"] == shown


def test_labels_that_name_nothing_are_left_out(tmp_path: Path, offline: Path) -> None:
    run = synthetic_run()
    run.manifest["identity"]["model"]["labels"] = ["same", "same", "other"]
    publish(write_run(run, tmp_path / "run"), REPO, dry_run=tmp_path / "dry")
    assert load(tmp_path / "dry", "instances", offline).features["label"] == Value("int32")


@pytest.mark.parametrize(
    ("rows", "limit", "shown"),
    [
        (9, None, "9 rows"),
        (9, 10, "9 rows"),
        (9, 9, "the first 9 rows (--limit 9)"),
        (1, 1, "the first 1 row (--limit 1)"),
        (1234, 1234, "the first 1,234 rows (--limit 1234)"),
    ],
)
def test_a_part_of_a_corpus_is_no_whole(rows: int, limit: int | None, shown: str) -> None:
    assert rows_of({"rows": rows, "limit": limit}) == shown


def test_the_card_says_what_part_of_the_corpus_it_is_of(tmp_path: Path) -> None:
    run = synthetic_run()
    run.manifest["identity"]["corpus"]["limit"] = 9
    folder = write_run(run, tmp_path / "run")
    publish(folder, REPO, dry_run=tmp_path / "dry")
    text = (tmp_path / "dry" / "README.md").read_text(encoding="utf-8")
    assert "| `corpus.jsonl`, the first 9 rows (--limit 9) |" in text
    assert verify(folder).summary[1].startswith("the first 9 rows (--limit 9) of the corpus: ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\n# b", r"a \# b"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("a\x1b[1m\x00", "a\N{REPLACEMENT CHARACTER}\\[1m\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_escaping(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("validation", "validation"),
        ("train[:10%]", "train"),
        ("all", "train"),
        ("a b", "train"),
        (None, "train"),
    ],
)
def test_the_split_is_the_corpus_s(split: str | None, name: str, tmp_path: Path) -> None:
    run = synthetic_run()
    for instance in run.instances:
        instance["split"] = split
    publish(write_run(run, tmp_path / "run"), REPO, dry_run=tmp_path / "dry")
    assert {p.name for p in (tmp_path / "dry" / "data" / "instances").iterdir()} == {
        f"{name}-00000-of-00001.parquet"
    }


def test_the_yaml_is_what_the_hub_takes(dry: Path, tmp_path: Path) -> None:
    """As far as libraries know without asking it: nothing is lost, and names are known."""
    loaded = huggingface_hub.DatasetCard.load(dry / "README.md")
    loaded.save(tmp_path / "README.md")
    assert front_matter(tmp_path) == front_matter(dry)
    assert loaded.data.configs[0]["config_name"] == "wide"
    assert loaded.data.size_categories == ["n<1K"] and loaded.data.license == "cc-by-4.0"
    resources = files(datasets) / "utils" / "resources"
    sizes = json.loads((resources / "size_categories.json").read_text(encoding="utf-8"))
    assert {size_category(10**power) for power in range(15)} <= {*sizes}
    languages = json.loads((resources / "languages.json").read_text(encoding="utf-8"))
    assert {*loaded.data.language} <= {*languages}
    assert {*card._TASKS.values()} <= {*known_task_ids}
    infos = datasets.info.DatasetInfosDict.from_dataset_card_data(loaded.data)
    configs = datasets.utils.metadata.MetadataConfigs.from_dataset_card_data(loaded.data)
    assert [*infos] == [*configs] and configs.get_default_config_name() == "wide"


def test_several_splits_are_one(tmp_path: Path) -> None:
    run = synthetic_run()
    run.instances[0]["split"] = "dev"
    publish(write_run(run, tmp_path / "run"), REPO, dry_run=tmp_path / "dry")
    assert front_matter(tmp_path / "dry")["configs"][0]["data_files"][0]["split"] == "train"


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (5_000_000, "1M<n<10M"),
        (10**9, "1B<n<10B"),
        (10**12, "n>1T"),
    ],
)
def test_size_categories(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_every_table_has_its_sentence() -> None:
    assert {*TABLES, *EVALUATIONS, "methods", "run"} <= {*ROWS}
    for table, columns in card._CLASSES.items():
        assert table in ROWS and columns


# Nothing local


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("can't open /home/ann/x.bin: no", "can't open <local>: no"),
        ("'/root/.cache/hub' is gone", "'<local>' is gone"),
        ("see ~/models/a and C:\\Users\\ann\\a", "see <local> and <local>"),
        ("s3://bucket/key failed", "<local> failed"),
        ("tried 1/2, and/or a/b; see https://x.org/a/b", None),
        ("CUDA out of memory. Tried 2.00 GiB", None),
    ],
)
def test_paths_are_taken_out(text: str, clean: str | None) -> None:
    assert without_paths(text) == (text if clean is None else clean)


def test_nothing_local_is_published(
    run: SyntheticRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path / "zoltana home"))
    monkeypatch.setattr(socket, "gethostname", lambda: "zoltana-host")
    folder = tmp_path / SECRET_FOLDER
    local = synthetic_run()
    local.manifest["identity"]["corpus"]["source"] = f"{folder}/*.parquet"
    local.manifest["identity"]["model"]["source"] = f"{folder}/model/"
    # Not into the parameters that are there: all synthetic runs share them.
    local.manifest["methods"]["paths"]["params"] = {"baseline": f"{folder}/baseline.pt"}
    local.manifest["executions"] = [
        {
            "started": "2026-03-04T05:06:07+00:00",
            "command": f"attribeam run {folder}",
            "user": "zoltana",
            "host": "zoltana-host",
            "device": "cuda:0",
            "device_name": "NVIDIA H200",
            "versions": {"torch": "2.13.0"},
        }
    ]
    for failure in local.failures:
        failure["message"] = (
            f"{tmp_path}/zoltana home/x.bin on zoltana-host: {folder}/a.txt is no file, not even b"
        )
    publish(write_run(local, folder), REPO, dry_run=tmp_path / "dry")
    for path in (tmp_path / "dry").rglob("*"):
        if path.suffix == ".parquet":
            content = str(pq.read_table(path).to_pylist()) + str(pq.read_metadata(path).metadata)
        else:
            content = path.read_text(encoding="utf-8") if path.is_file() else ""
        for secret in (str(tmp_path), SECRET_FOLDER, "zoltana", TOKEN, "05:06"):
            assert secret not in content, path
    manifest = json.loads((tmp_path / "dry" / "run.json").read_text(encoding="utf-8"))
    assert manifest["identity"]["model"]["source"] == "model"
    assert manifest["executions"] == [
        {
            "device": "cuda:0",
            "device_name": "NVIDIA H200",
            "started": "2026-03-04",
            "versions": {"torch": "2.13.0"},
        }
    ]
    failures = pq.read_table(next((tmp_path / "dry" / "data" / "failures").iterdir()))
    assert "is no file, not even b" in failures["message"][0].as_py()
    text = (tmp_path / "dry" / "README.md").read_text(encoding="utf-8")
    assert "NVIDIA H200" in text and "year = {2026}" in text


def test_a_column_s_local_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run = synthetic_run()
    run.manifest["identity"]["corpus"]["columns"] = {"text": TOKEN}
    folder = write_run(run, tmp_path / "run")
    with pytest.raises(UsageError, match=r"run\.json|README") as caught:
        publish(folder, REPO, dry_run=tmp_path / "dry")
    assert TOKEN not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_hub_ids_stay() -> None:
    manifest = synthetic_run().manifest
    manifest["identity"]["corpus"]["source"] = "nyu-mll/glue:sst2"
    published = published_manifest(manifest, ["paths"])
    assert published["identity"]["corpus"]["source"] == "nyu-mll/glue:sst2"
    assert published["identity"]["model"]["source"] == "some/model"
    assert [*published["methods"]] == ["paths"]


# Refusals


@pytest.mark.parametrize(
    "options",
    [
        {"repo_id": "name"},
        {"repo_id": "a/b/c"},
        {"repo_id": "a/b--c"},
        {"repo_id": "a/b'; drop"},
        {"repo_id": "a/" + "b" * 100},
        {"license": "Apache 2.0"},
        {"languages": ["English"]},
        {"methods": ["nope"]},
        {"methods": []},
    ],
)
def test_options_that_cant_be(options: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        publish(folder, **{"repo_id": REPO, "dry_run": tmp_path / "dry", **options})
    assert not (tmp_path / "dry").exists()


def test_a_folder_that_holds_something_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path, tmp_path / "file"):
        with pytest.raises(UsageError, match="not empty"):
            publish(folder, REPO, dry_run=target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("damage", ["missing", "torn", "lost row"])
def test_an_unsound_run_is_refused(damage: str, tmp_path: Path, offline: Path) -> None:
    run = synthetic_run(rows=12, shard_size=4)
    if damage == "lost row":
        run.attributions.pop()
    folder = write_run(run, tmp_path / "run")
    file = folder / "attributions" / "method=paths" / "shard-00001-of-00003.parquet"
    if damage == "missing":
        file.unlink()
    elif damage == "torn":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"not finished and sound.*attribeam verify"):
        publish(folder, REPO, dry_run=tmp_path / "dry")
    assert not (tmp_path / "dry").exists()
    told: list[str] = []
    publish(folder, REPO, dry_run=tmp_path / "dry", allow_incomplete=True, tell=told.append)
    assert len(told) == 2 and "licence" in told[0] and "incomplete" in told[1]
    text = " ".join((tmp_path / "dry" / "README.md").read_text(encoding="utf-8").split())
    lacking = {
        "missing": "not finished: 29 of 30 files were there; this is of the 2 of 3 shards",
        "torn": "not sound: attributions/method=paths/shard-00001-of-00003.parquet: damaged (",
        "lost row": "not sound: layers: 1 belong to no attribution, such as row-11 under ",
    }
    assert f"**Incomplete**: when this was published, the run was {lacking[damage]}" in text
    # Row 1 failed; a shard that isn't whole is left out of every table.
    expected = 11 if damage == "lost row" else 7
    assert len(load(tmp_path / "dry", "instances", offline)) == expected


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run folder"):
        publish(tmp_path, REPO, dry_run=tmp_path / "dry")


# Uploading


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_XET_CACHE", str(tmp_path / "xet"))
    with served() as server:
        yield server


Upload = Callable[..., Published]


@pytest.fixture
def upload(folder: Path, hub: Hub, verified: None) -> Upload:
    def to_hub(**options: Any) -> Published:
        return publish(folder, endpoint=hub.endpoint, **{"repo_id": REPO, **options})

    return to_hub


def test_uploads_what_the_dry_run_writes(dry: Path, hub: Hub, upload: Upload) -> None:
    published = upload(license="cc-by-4.0", languages=["en"])
    expected = {
        path.relative_to(dry).as_posix(): path.read_bytes()
        for path in dry.rglob("*")
        if path.is_file()
    }
    found = dict(hub.repos[REPO])
    del found[".gitattributes"]
    assert found == expected
    assert not hub.private[REPO]
    assert published.url == f"{hub.endpoint}/datasets/{REPO}"
    assert published.folder is None
    assert published.files == len(expected)
    assert published.size == sum(map(len, expected.values()))


def test_the_token_is_in_one_header_alone(hub: Hub, upload: Upload) -> None:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        published = upload()
    assert TOKEN not in out.getvalue() + err.getvalue() + str(published)
    for verb, path, headers, body in hub.requests:
        rest = {key: value for key, value in headers.items() if key.lower() != "authorization"}
        assert TOKEN not in f"{verb} {path} {rest}"
        assert TOKEN.encode() not in body
        # Yaml is checked for anyone.
        authorization = {k.lower(): v for k, v in headers.items()}.get("authorization")
        assert authorization in (f"Bearer {TOKEN}", None)
        assert authorization or path == "/api/validate-yaml"


def test_what_is_there_is_not_sent_again(hub: Hub, upload: Upload) -> None:
    upload(license="mit")
    hub.committed.clear()
    upload(license="mit")
    assert hub.committed == []
    upload(license="cc0-1.0")
    assert hub.committed == [["README.md", "run.json"]]


def test_an_upload_that_broke_off_continues(hub: Hub, upload: Upload) -> None:
    hub.refuse[f"/api/datasets/{REPO}/commit"] = 418
    with pytest.raises(UsageError, match="answered 418: the same command continues"):
        upload()
    assert [*hub.repos[REPO]] == [".gitattributes"]
    hub.refuse.clear()
    upload()
    assert "data/attributions/paths/test-00000-of-00001.parquet" in hub.repos[REPO]


Content = dict[str, bytes]


Send = Callable[..., str]


@pytest.fixture
def send(dry: Path, hub: Hub) -> Send:
    """Uploads what the dry run wrote."""

    def to_hub(folder: Path = dry, **options: Any) -> str:
        return upload_folder(folder, REPO, False, hub.endpoint, **options).url

    return to_hub


@pytest.fixture
def small_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that takes few files at a time: the run has some 15."""
    monkeypatch.setattr(commits, "FILES_OF_COMMIT", 4)


def check_whole_or_marked(content: Content, whole: list[Content]) -> None:
    """Whatever a reader meets is a whole data set, or says that it isn't one."""
    if content not in whole:
        assert UNFINISHED in content
        assert not {"README.md", "run.json"} & {*content}


@pytest.mark.parametrize("lost", [False, True], ids=["commit not made", "answer lost"])
@pytest.mark.parametrize("former", [False, True], ids=["new", "replacing"])
def test_an_upload_continues_wherever_it_is_cut(
    former: bool, lost: bool, hub: Hub, send: Send, small_commits: None
) -> None:
    send()
    whole, number = hub.repos[REPO], len(hub.committed)
    assert number > 4
    before: Content = {".gitattributes": whole[".gitattributes"]}
    if former:
        # Of more shards, and so of other names: all of it goes.
        old = {f"data/curves/paths/test-{n:05d}-of-00009.parquet": b"old" for n in range(9)}
        before |= {**old, "README.md": b"old", "run.json": b"old", "LICENSE": b"mine"}
        whole = {**whole, "LICENSE": b"mine"}
    for cut in range(number):
        hub.repos[REPO], hub.private[REPO], hub.heads[REPO] = dict(before), False, 0
        hub.committed.clear()
        hub.commits.clear()
        hub.cut, hub.lost = cut, lost
        with pytest.raises(UsageError, match=r"answered 50[34]: the same command continues"):
            send()
        hub.cut = None
        send()
        assert hub.repos[REPO] == whole
        for content in hub.commits:
            check_whole_or_marked(content, [before, whole])
        again = len(hub.committed)
        send()
        assert len(hub.committed) == again
        # What has come is not sent again.
        sent = [path for commit in hub.committed for path in commit if path.startswith("data/")]
        assert len(sent) == len({*sent}) == sum(path.startswith("data/") for path in whole)


@pytest.mark.parametrize(
    ("former", "lost"), [(False, False), (True, True)], ids=["new, not done", "replacing, lost"]
)
def test_any_request_may_be_the_last(
    former: bool, lost: bool, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From each request on in turn, the hub is gone; the same command then ends as if it never was.

    What is met in between is whole, or says that it isn't.
    """
    monkeypatch.setattr(commits, "FILES_OF_COMMIT", 2)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub waits and tries again.
    hub.lfs, hub.lost = True, lost
    folder = small_data_set(tmp_path / "small", 3)
    before: Content = {".gitattributes": b"*.parquet filter=lfs\n"}
    if former:
        old = small_data_set(tmp_path / "old", 4)
        before |= {name: b"old" + data for name, data in contents(old).items()}
        before["LICENSE"] = b"mine"

    def finish(versions: list[Any]) -> None:
        (folder / "run.json").write_text(json.dumps({"versions": versions}), encoding="utf-8")

    def send() -> str:
        return upload_folder(folder, REPO, False, hub.endpoint, finish=finish).version

    def begin() -> None:
        hub.repos, hub.private, hub.heads, hub.stored, hub.tags = {}, {}, {}, {}, {}
        hub.committed.clear(), hub.commits.clear(), hub.requests.clear()
        if former:
            hub.repos[REPO], hub.private[REPO], hub.heads[REPO] = dict(before), False, 0

    begin()
    send()
    whole, tags = dict(hub.repos[REPO]), dict(hub.tags[REPO])
    kept = {name: before[name] for name in (".gitattributes", "LICENSE") if name in before}
    assert whole == {**contents(folder), **kept}
    assert [*tags] == (["v1", "v2"] if former else ["v1"])
    number = len(hub.requests)
    assert number > 10 and len(hub.committed) > 2
    for dead in range(number):
        begin()
        hub.dead = dead
        with pytest.raises(UsageError, match="the same command continues"):
            send()
        hub.dead = None
        assert send() == [*tags][-1]
        assert hub.repos[REPO] == whole, dead
        assert {n: (message, files) for n, (_, message, files) in hub.tags[REPO].items()} == {
            n: (message, files) for n, (_, message, files) in tags.items()
        }
        for content in hub.commits:
            check_whole_or_marked(content, [before, whole])


def small_data_set(folder: Path, files: int) -> Path:
    """A folder as a dry run writes it, of a few bytes."""
    (folder / "data" / "curves").mkdir(parents=True)
    for number in range(files):
        name = f"test-{number:05d}-of-{files:05d}.parquet"
        (folder / "data" / "curves" / name).write_bytes(b"PAR1" + bytes([number]))
    for name in ("run.json", "reproduce.yaml"):
        (folder / name).write_text(name, encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    return folder


def contents(folder: Path) -> Content:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_each_version_is_a_tag_and_says_what_it_changed(
    hub: Hub, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upload(license="mit", methods=["paths"]).version == "v1"
    assert "## Versions" not in hub.repos[REPO]["README.md"].decode()
    for _ in range(2):  # The same again is no version.
        assert upload(license="mit").version == "v2"
    assert upload(license="cc0-1.0").version == "v3"
    tags = hub.tags[REPO]
    assert [(name, message) for name, (_, message, _) in tags.items()] == [
        ("v1", None),
        ("v2", "added: gradient, attention"),
        ("v3", "the same run, with another card"),
    ]
    card_text = hub.repos[REPO]["README.md"].decode()
    assert "This is `v3`." in card_text and "| `v2` | added: gradient, attention |" in card_text
    assert "| `v3` | the same run, with another card |" in card_text
    files = huggingface_hub.HfFileSystem(endpoint=hub.endpoint, skip_instance_cache=True)
    for tag, methods in (("v1", ["paths"]), ("v2", [*METHODS]), ("v3", [*METHODS])):
        found = files.find(f"datasets/{REPO}@{tag}")
        scored = {path.split("/")[-2] for path in found if "/attributions/" in path}
        assert scored == {*methods}
        manifest = json.loads(files.read_bytes(f"datasets/{REPO}@{tag}/run.json"))
        assert [*manifest["methods"]] == methods


def test_what_was_published_without_a_tag_is_the_first_version(hub: Hub, upload: Upload) -> None:
    upload(methods=["paths"])
    hub.tags.clear()
    # One of somebody else is left to them.
    hub.tags[REPO] = {"v2": ("0" * 40, None, {}), "paper": ("0" * 40, None, {})}
    assert upload().version == "v3"
    assert [*hub.tags[REPO]] == ["v2", "paper", "v1", "v3"]
    assert "data/attributions/gradient/test-00000-of-00001.parquet" not in hub.tags[REPO]["v1"][2]


def test_a_report_may_lie_beside_the_card(hub: Hub, upload: Upload) -> None:
    """It is of what is published, and tells nothing that isn't."""
    upload(methods=["paths"], report=True)
    page = hub.repos[REPO]["report.html"].decode()
    named = {name for name in METHODS if re.search(rf'[>"]{name}[<"]', page)}
    assert named == {"paths"}
    assert SECRET_FOLDER not in page and TOKEN not in page
    assert "[report.html](report.html) has figures" in hub.repos[REPO]["README.md"].decode()
    assert len(hub.committed) == 1
    upload(methods=["paths"])
    assert "report.html" not in hub.repos[REPO]


def test_it_may_be_added_to_a_collection(hub: Hub, send: Send, tmp_path: Path) -> None:
    slug = "someone/attributions-0123456789abcdef01234567"
    hub.collections[slug] = []
    for _ in range(2):
        send(collection=slug)
        send(collection="My runs")
    made = f"someone/my-runs-{'0' * 24}"
    assert hub.collections == {slug: [REPO], made: [REPO]}
    with pytest.raises(UsageError, match="is published, but there is no collection no/such"):
        send(collection="no/such")
    with pytest.raises(UsageError, match="a dry run puts nothing"):
        publish(tmp_path, REPO, dry_run=tmp_path / "dry", collection=slug)


def test_changes_are_named() -> None:
    method = {"params": {"steps": 20}}
    before = {
        "methods": {"a": method, "b": method},
        "identity": {"corpus": {"rows": 60}, "settings": {"seed": 0}, "tokenizer": None},
        "files": {"data/instances/x": {"rows": 60}, "data/curves/a": {"sha256": "1"}},
        "incomplete": "not finished",
    }
    after = {
        "methods": {"a": {"params": {"steps": 50}}, "c": method},
        "identity": {"corpus": {"rows": 70}, "settings": {"seed": 0}, "tokenizer": None},
        "files": {"data/instances/x": {"rows": 70}},
    }
    assert changes(before, after) == [
        "added: c",
        "left out: b",
        "other parameters, version or tables: a",
        "another corpus: rows 70 (was 60)",
        "70 instances instead of 60",
        "the run is whole",
    ]
    assert changes(before, before) == ["the same run, with another card"]
    other = {**before, "files": {**before["files"], "data/curves/a": {"sha256": "2"}}}  # type: ignore[dict-item]
    assert changes(before, other) == ["other contents of 1 of 2 files"]


def test_card_and_manifest_come_last(hub: Hub, send: Send, small_commits: None) -> None:
    send()
    first, *middle, last = hub.committed
    assert first == [UNFINISHED]
    assert all(path.startswith("data/") for commit in middle for path in commit)
    assert sorted(last) == [f"-{UNFINISHED}", "README.md", "reproduce.yaml", "run.json"]


def test_an_unchanged_card_comes_back(hub: Hub, send: Send, small_commits: None) -> None:
    """The hub is asked what it has before the commit that takes the card away."""
    send()
    whole = dict(hub.repos[REPO])
    for path in [path for path in whole if path.startswith("data/")]:
        hub.repos[REPO][path] = b"damaged"
    send()
    assert hub.repos[REPO] == whole


@pytest.mark.parametrize("cut", [None, 0, 3])
def test_what_goes_to_the_store_is_sent_once(
    cut: int | None,
    dry: Path,
    hub: Hub,
    send: Send,
    small_commits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    hub.lfs, hub.cut = True, cut
    if cut is not None:
        with pytest.raises(UsageError, match="answered 503: the same command continues"):
            send()
        hub.cut = None
    send()
    send()
    found = {path: data for path, data in hub.repos[REPO].items() if path != ".gitattributes"}
    files = [path for path in dry.rglob("*") if path.is_file()]
    assert found == {path.relative_to(dry).as_posix(): path.read_bytes() for path in files}
    puts = [path for verb, path, *_ in hub.requests if verb == "PUT"]
    assert len(puts) == len({*puts}) == len(hub.stored) > 10


def test_few_files_are_one_commit(hub: Hub, send: Send) -> None:
    send()
    assert len(hub.committed) == 1
    assert UNFINISHED not in hub.committed[0]


def test_another_run_replaces_an_upload_that_broke_off(
    dry: Path, hub: Hub, send: Send, small_commits: None, tmp_path: Path
) -> None:
    hub.cut = 3
    with pytest.raises(UsageError, match="continues"):
        send()
    hub.cut = None
    other = shutil.copytree(dry, tmp_path / "other")
    shutil.rmtree(other / "data" / "attributions" / "gradient")
    (other / "README.md").write_bytes(b"other")
    send(other)
    found = {path: data for path, data in hub.repos[REPO].items() if path != ".gitattributes"}
    assert found == {
        path.relative_to(other).as_posix(): path.read_bytes()
        for path in other.rglob("*")
        if path.is_file()
    }


def test_two_that_upload_at_once_do_not_mix(hub: Hub, send: Send, small_commits: None) -> None:
    hub.other = 2
    with pytest.raises(UsageError, match="changed by somebody else"):
        send()
    assert len(hub.committed) == 2


def test_what_a_former_publication_had_more_is_deleted(hub: Hub, upload: Upload) -> None:
    upload()
    hub.committed.clear()
    upload(methods=["paths"])
    assert not any("gradient" in path for path in hub.repos[REPO])
    manifest = json.loads(hub.repos[REPO]["run.json"])
    assert manifest.pop("versions") == [
        {"version": "v2", "changes": ["left out: gradient, attention"]}
    ]
    assert "gradient" not in json.dumps(manifest)
    text, _, rest = hub.repos[REPO]["README.md"].decode().partition("## Versions")
    assert "gradient" not in text + rest.partition("## Licences")[2]


def test_a_private_data_set_is_private(hub: Hub, upload: Upload) -> None:
    upload(private=True)
    assert hub.private[REPO]
    upload(private=True)
    hub.private[REPO] = False
    before = len(hub.requests)
    with pytest.raises(UsageError, match="is public"):
        upload(private=True, license="mit")
    assert not any("commit" in path for _, path, _, _ in hub.requests[before:])


def test_another_data_set_is_left_alone(hub: Hub, upload: Upload) -> None:
    hub.repos[REPO] = {"README.md": b"", "data/train.csv": b"a"}
    hub.private[REPO] = False
    with pytest.raises(UsageError) as caught:
        upload()
    # As it is, and not as what a network did.
    assert str(caught.value) == (
        f"{REPO} holds something else than a run (data/train.csv): give the name of a new data set."
    )
    assert hub.repos[REPO] == {"README.md": b"", "data/train.csv": b"a"}


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "hf auth login"), (403, "may not write"), (404, "may not write")]
)
def test_refusals_of_the_hub_are_sentences(status: int, remedy: str, hub: Hub, send: Send) -> None:
    hub.refuse["/api/repos/create"] = status
    with pytest.raises(UsageError, match=remedy) as caught:
        send()
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "refuses what"),
        (401, r"log in again.*the same command continues"),
        (403, "may not write"),
        (409, r"changed by somebody else.*the same command continues"),
        (412, r"changed by somebody else.*the same command continues"),
        (429, r"wait a while.*the same command continues"),
        (500, "answered 500: the same command continues"),
        (507, "no room"),
    ],
)
def test_a_refused_commit_is_a_sentence(status: int, remedy: str, hub: Hub, send: Send) -> None:
    hub.refuse[f"/api/datasets/{REPO}/commit"] = status
    with pytest.raises(UsageError, match=remedy) as caught:
        send()
    assert TOKEN not in str(caught.value) and "\n" not in str(caught.value)


def test_a_card_that_the_hub_refuses_is_found_first(hub: Hub, upload: Upload) -> None:
    hub.bad_card = '"license" must be one of [apache-2.0]'
    with pytest.raises(UsageError, match=r"refuses the card \(\"license\" must be.*--license"):
        upload(license="mitt")
    assert hub.repos == {}


def test_no_network_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UsageError, match=r"can't be reached.*the same command continues"):
            publish(folder, REPO, endpoint=address)


def test_no_token_is_a_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="hf auth login"):
        publish(folder, REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        publish(folder, REPO)


def test_no_folder_is_left_behind(
    upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    upload()
    assert not [*tmp_path.glob("attribeam-publish*")]
