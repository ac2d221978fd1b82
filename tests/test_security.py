"""Attacks: models that bring code, corpora that name paths, runs from strangers, things to hide.

More of it stands beside what it is about: pickled weights in ``test_loading``, markup in
``test_report`` and in a browser in ``test_report_browser``, the token and the card in
``test_publish``, other addresses in ``test_remote``.
"""

import io
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from attribeam.analysis import open_run, verify, write_database
from attribeam.analysis.plots.plots import plot
from attribeam.analysis.publish.publish import publish
from attribeam.analysis.query.query import _execute, _first_lines
from attribeam.analysis.query.terminal import harmless, print_rows
from attribeam.analysis.report.report import write_report
from attribeam.pipeline.corpus.sources import open_source
from attribeam.schemas import Unit, UsageError, table_schema
from attribeam.schemas.layout import corpus_path
from attribeam.schemas.manifest import misshapen
from attribeam.transforms import load_model
from tests.support.models import save_tiny
from tests.support.synthetic_run import synthetic_run, write_run
from tests.support.tiny import Outcome, command, files, table, unit_files, write_jsonl

# Where a pickle that is opened, or code that is run, leaves its mark.
Mark = Path


class Payload:
    """An object whose pickle runs code when it is loaded."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Mark:
    return tmp_path / "code has run"


def test_the_payload_works(mark: Mark) -> None:
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


# Models ---------------------------------------------------------------------------------------


def change(path: Path, **changes: Any) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | changes))


def pickled(folder: Path, mark: Mark, name: str = "pytorch_model.bin") -> None:
    torch.save({"weight": Payload(mark)}, folder / name)


def indexed(part: str) -> Callable[[Path, Mark], None]:
    """Weights in parts, of which each is the one that is named."""

    def spoil(folder: Path, mark: Mark) -> None:
        names = load_file(folder / "model.safetensors")
        shutil.copy(folder / "model.safetensors", folder.parent / "other.safetensors")
        torch.save(names, folder / "good.bin")
        pickled(folder, mark, "evil.bin")
        (folder / "model.safetensors").unlink()
        target = part.format(parent=folder.parent)
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, target)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def own_code(name: str, **changes: Any) -> Callable[[Path, Mark], None]:
    """A file of code beside the model, which a file of settings names."""

    def spoil(folder: Path, mark: Mark) -> None:
        (folder / "custom.py").write_text(
            f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
            "from transformers import BertConfig, BertTokenizerFast\n"
            "class C(BertConfig): pass\nclass T(BertTokenizerFast): pass\n"
        )
        change(folder / name, **changes)

    return spoil


def only_pickled(folder: Path, mark: Mark) -> None:
    pickled(folder, mark)
    (folder / "model.safetensors").unlink()


def pickle_at(name: str) -> Callable[[Path, Mark], object]:
    return lambda folder, mark: (folder / name).write_bytes(pickle.dumps(Payload(mark)))


def configured(**changes: Any) -> Callable[[Path, Mark], None]:
    return lambda folder, _: change(folder / "config.json", **changes)


CONFIG_CODE = own_code("config.json", auto_map={"AutoConfig": "custom.C"})
TOKENIZER_CODE = own_code("tokenizer_config.json", auto_map={"AutoTokenizer": ["custom.T"] * 2})

REFUSED: dict[str, tuple[Callable[[Path, Mark], object], str]] = {
    "pickle alone": (only_pickled, "--allow-pickle"),
    "index of an evil pickle": (indexed("evil.bin"), "names 'evil.bin', which is no .safetensors"),
    "index of a good pickle": (indexed("good.bin"), "names 'good.bin', which is no .safetensors"),
    "index of what is above": (indexed("../other.safetensors"), "names '../other.safetensors', "),
    "index of what is elsewhere": (indexed("{parent}/other.safetensors"), "file of its folder"),
    "an unknown model with code": (
        own_code("config.json", auto_map={"AutoConfig": "custom.C"}, model_type="mine"),
        "contains custom code",
    ),
    "pickled config": (pickle_at("config.json"), "can't be loaded"),
    "pickled tokenizer": (pickle_at("tokenizer.json"), "can't be loaded"),
    "pickled settings": (pickle_at("tokenizer_config.json"), "can't be loaded"),
    "an adapter": (
        lambda f, _: change(f / "adapter_config.json", base_model_name_or_path="/lost"),
        "holds an adapter",
    ),
    "Auto": (configured(architectures=["AutoModelForMaskedLM"]), "can be explained"),
    "an attribute": (configured(architectures=["__name__ForMaskedLM"]), "can be explained"),
    "numbers": (configured(architectures=[5]), "is 5; only"),
    "an object": (configured(architectures={"a": 1}), "doesn't say what it is"),
    "no list": (configured(architectures=5), "doesn't say what it is"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_refused(name: str, mark: Mark, tmp_path: Path) -> None:
    spoil, message = REFUSED[name]
    spoil(save_tiny(tmp_path / "model", "bert"), mark)
    with pytest.raises(UsageError) as caught:
        load_model(tmp_path / "model")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        pickled,
        CONFIG_CODE,
        TOKENIZER_CODE,
        pickle_at("vocab.pkl"),
        configured(_attn_implementation="who/kernel", attn_implementation="who/kernel"),
        lambda f, _: (f / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}"),
        lambda f, _: change(f / "generation_config.json", custom_generate="who/code"),
    ],
)
def test_what_is_of_no_use_is_not_opened(
    spoil: Callable[[Path, Mark], object], mark: Mark, tmp_path: Path
) -> None:
    spoil(save_tiny(tmp_path / "model", "bert"), mark)
    load_model(tmp_path / "model")
    assert not mark.exists()


def test_even_pickles_that_are_allowed_run_no_code(mark: Mark, tmp_path: Path) -> None:
    only_pickled(save_tiny(tmp_path / "model", "bert"), mark)
    with pytest.raises(UsageError, match="UnpicklingError"):
        load_model(tmp_path / "model", allow_pickle=True)
    assert not mark.exists()


@pytest.mark.parametrize("spoil", [CONFIG_CODE, TOKENIZER_CODE])
def test_code_runs_if_one_insists(
    spoil: Callable[[Path, Mark], None],
    mark: Mark,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)
    spoil(save_tiny(tmp_path / f"model-{mark.parent.name}", "bert"), mark)
    load_model(tmp_path / f"model-{mark.parent.name}", trust_remote_code=True)
    assert mark.exists()


# Corpora --------------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("kind", ["arrow.py_extension_type", "ray.data.arrow_pickled_object"])
def test_pickles_in_arrow_are_text_to_us(
    kind: str, saved: bool, mark: Mark, tmp_path: Path
) -> None:
    metadata = {"ARROW:extension:name": kind, "ARROW:extension:metadata": ""}
    field = pa.field("text", pa.string(), metadata=metadata)
    field = field.with_metadata(
        {**field.metadata, b"ARROW:extension:metadata": pickle.dumps(Payload(mark))}
    )
    content = pa.table({"text": ["the film"]}).cast(pa.schema([field]))
    corpus = tmp_path / "corpus.parquet"
    if saved:
        datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(corpus))
        with (
            pa.OSFile(str(next(corpus.glob("*.arrow"))), "wb") as sink,
            pa.ipc.new_stream(sink, content.schema) as writer,
        ):
            writer.write_table(content)
    else:
        pq.write_table(content, corpus)
    records = list(open_source(str(corpus), None).records())
    assert [record.values for record in records] == [{"text": "the film"}]
    assert not mark.exists()


def test_a_loading_script_is_not_run(mark: Mark, tmp_path: Path) -> None:
    folder = tmp_path / "script"
    folder.mkdir()
    (folder / "script.py").write_text(f"open({str(mark)!r}, 'w')")
    for corpus in (folder, folder / "script.py"):
        with pytest.raises(UsageError):
            open_source(str(corpus), None)
    with pytest.raises(RuntimeError, match="scripts are no longer supported"):
        datasets.load_dataset(str(folder))
    assert not mark.exists()


# A run of hostile texts by someone with something to hide ---------------------------------------

TOKEN = "hf_zoltanasSecretToken"
PERSON = "zoltana"
EVIL = (
    "</script><script>alert(1)</script> `x` | [a](javascript:alert(1)) <!-- {{ 7*7 }} \x1b]0;y\x07"
)
IDS = [
    "../../../escaped",
    "/tmp/escaped",
    "a\0b",
    "two\nlines",
    "$(touch escaped)",
    "'); attach 'escaped.db'; --",
    "*",
    "x" * 5000,
    "---\nlicense: evil\n---",
    EVIL,
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes") / PERSON


@pytest.fixture(scope="module")
def ran(home: Path) -> Path:
    """A run, its report, database, plot and what is published of it, all below ``home / work``."""
    labels = dict(enumerate(["no", EVIL, "---\nlicense: evil"]))
    home.mkdir()
    model = save_tiny(home / "model", "bert")
    change(model / "config.json", id2label=labels, label2id={v: k for k, v in labels.items()})
    write_jsonl(
        home / "[evil](x) 1.jsonl",
        [
            {"../../c": f"the film is {EVIL}", "id": name, "label": at % 3, "subset": EVIL}
            for at, name in enumerate(IDS)
        ]
        + [{"id": "bad", "../../c": "a", "label": f"{home}/lost"}],
    )
    work = home / "work"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "HF_TOKEN": TOKEN,
            "HOME": home,
            "USER": PERSON,
            "LOGNAME": PERSON,
        }.items():
            patch.setenv(name, str(value))
        patch.setattr(socket, "gethostname", lambda: f"{PERSON}-host")
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
        patch.chdir(home)
        outcome = command(
            *("run", "--model", model, "--corpus", f"{home}/*.jsonl", "--output", work / "run"),
            *("--methods", "random,saliency", "--text-column", "../../c", "--split", "["),
            *("--device", "cpu", "--shard-size", 4),
        )
        assert outcome.status in (0, 1), outcome.err
        shutil.copytree(work / "run", work / "plain")
        write_report(work / "run")
        plot(work / "run", "degradation")
        write_database(work / "run")
        publish(work / "run", "who/what", dry_run=work / "published", title=EVIL.strip())
    return work


def test_paths_are_functions_of_method_and_shard(ran: Path, home: Path) -> None:
    methods = ("random", "saliency")
    units = [Unit("instances"), *(Unit(t, m) for t in ("attributions", "curves") for m in methods)]
    found = {path for path in files(ran / "plain") if not path.startswith("failures/")}
    assert found == unit_files(units, 3) | {"run.json"} | {corpus_path(shard) for shard in range(3)}
    assert {path.name for path in home.iterdir()} == {"model", "work", "[evil](x) 1.jsonl"}
    assert not [path for path in home.parent.rglob("*") if "escaped" in path.name]
    assert table(ran / "run", "instances")["instance_id"].to_pylist() == IDS


def contents(path: Path) -> str:
    """All texts of a file, those of Parquet decompressed, with its metadata."""
    if path.suffix != ".parquet":
        return path.read_bytes().decode("utf-8", "replace")
    metadata = pq.read_schema(path).metadata or {}
    return f"{pq.ParquetFile(path).read().to_pylist()}{metadata}{pq.read_metadata(path).metadata}"


def test_nothing_tells_of_the_machine(ran: Path, home: Path) -> None:
    own = {"failures", "corpus"}  # What was said of a label that is a path, and the row itself.
    for path in [path for path in ran.rglob("*") if path.is_file()]:
        text = contents(path)
        assert TOKEN not in text, path
        if path.relative_to(ran).parts[1] not in own:
            assert PERSON not in text, path
            assert str(home.parent) not in text, path


def test_nothing_is_pickled(ran: Path) -> None:
    for path in [path for path in ran.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        assert path.suffix in (".parquet", ".json", ".html", ".md", ".duckdb", ".yaml"), path
        # How protocols 4 and 5 begin, which have been the default since Python 3.8.
        assert b"\x80\x04\x95" not in content and b"\x80\x05\x95" not in content, path
        # What makes YAML build objects, as unpickling does.
        assert path.suffix != ".yaml" or b"!!python" not in content, path
        if path.suffix == ".parquet":
            schema = pq.read_schema(path)
            kinds = [getattr(field.type, "value_type", field.type) for field in schema]
            assert not [kind for kind in kinds if pa.types.is_binary(kind)], path
            assert not [kind for kind in kinds if isinstance(kind, pa.BaseExtensionType)], path
            for value in (schema.metadata or {}).values():
                value.decode("utf-8")


def test_the_card_is_ours(ran: Path) -> None:
    text = (ran / "published/README.md").read_text(encoding="utf-8")
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    front = yaml.safe_load(head)
    assert front["license"] == "unknown" and front["pretty_name"] == EVIL.strip()
    assert "\x1b" not in body and "<script" not in body and "<!--" not in body
    assert not re.search(r"(?<!\\)\]\(javascript", body)
    assert r"\{\{ 7\*7 \}\}" in body
    assert not re.search(r"^(---|license:)", body, re.MULTILINE)


def test_plots_and_reports_are_ours(ran: Path) -> None:
    for name in ("report", "degradation"):
        text = (ran / f"run/{name}.html").read_text(encoding="utf-8")
        assert "<script>alert" not in text


def test_hostile_texts_are_shown_harmlessly(ran: Path) -> None:
    sql = 'select instance_id, text as "\x1b[2Jtext", subset from instances'
    for outcome in (
        command("query", ran / "run", sql),
        command("query", ran / "run", "select instance_id::int from instances"),
        command("query", ran / "run", "select error('\x1b]0;x\x07[bold]red')"),
        command("verify", ran / "run"),
    ):
        assert printable(outcome)
    assert "[a](javascript" in command("query", ran / "run", "select subset from instances").out
    # Programs get what is there.
    raw = command("query", ran / "run", "select subset from instances limit 1", "--format", "json")
    assert json.loads(raw.out) == [{"subset": EVIL}]


def printable(outcome: Outcome) -> bool:
    return all(c.isprintable() or c == "\n" for c in outcome.out + outcome.err)


def test_harmless() -> None:
    assert harmless(
        "a\x1b[31mb\x1b]0;title\x07c\x9b\r\nd\u202e\te"
    ) == "abc\ufffd\nd\ufffd\te".replace("\t", " " * 6)
    out = io.StringIO()
    print_rows(["\x1b[2Ja", "[bold]b"], [["\x9b1m", "\u202e"]], out, width=40)
    assert out.getvalue().replace("\n", "").isprintable()
    assert "[bold]b" in out.getvalue()


def test_column_names_of_a_corpus_reach_no_terminal(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"\x1b]0;x\x07evil": "a"}])
    arguments = ("--model", tiny_folder("bert"), "--corpus", corpus, "--output", tmp_path / "out")
    outcome = command("run", *arguments)
    assert outcome.status == 2 and "evil" in outcome.err and printable(outcome)


# Queries --------------------------------------------------------------------------------------


Ask = Callable[[str], pa.Table]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run, with what a stranger may have put into its folder and what must not be reached.

    The user's home, and the folder that commands are given in, are the one that it lies in.
    """
    around = tmp_path_factory.mktemp("strangers")
    folder = write_run(synthetic_run(rows=4), around / "run")
    (folder / "import").mkdir()
    (folder / "import/schema.sql").write_text(f"copy (select 1) to '{folder}/new.csv'")
    (folder / "import/load.sql").touch()
    (folder / "own.duckdb_extension").write_bytes(b"x" * 600)
    (around / "run-2").mkdir()
    # What an address of the run would be, were it a path.
    (around / "run:").mkdir()
    for secret in (around / "secret.csv", around / "run-2/secret.csv", around / "run:/secret.csv"):
        secret.write_text("a\nsecret\n")
    (folder / "link.csv").symlink_to(around / "secret.csv")
    (folder / "out").symlink_to(around)
    os.mkfifo(folder / "pipe.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(around)
        patch.setenv("HOME", str(around))
        yield folder


@pytest.fixture(scope="module")
def asked(strangers: Path) -> Iterator[Ask]:
    """Runs a query as ``run_query`` does, on a connection that is opened once."""
    with open_run(strangers) as connection:
        yield lambda sql: _execute(connection.cursor(), sql).read_all()


COPY = "copy (select 1 as a) to '{run}/new.csv'"
SERIALIZED = "json_serialize_sql('with t as (co' || 'py (select 1) to ''{run}/new.csv'') from t')"


@pytest.mark.parametrize(
    "sql",
    [
        "with t as (copy (select 1) to '{run}/new.csv') select 1",
        "create table x as with t as (copy (select 1) to '{run}/new.csv') from t; from x",
        "from query('with t as (co' || 'py (select 1) to ''{run}/new.csv'') from t')",
        "set variable x = (with t as (copy (select 1) to '{run}/new.csv') from t)",
        "explain analyze with t as (copy (select 1) to '{run}/new.csv') select 1",
        f"select * from json_execute_serialized_sql({SERIALIZED})",
        f"pragma json_execute_serialized_sql({SERIALIZED})",
        "import database '{run}/import'",
        "pragma import_database('{run}/import')",
        f"/* */ {COPY}",
        f"begin; {COPY}; commit",
        f"prepare p as {COPY}; execute p",
        "execute x",
        "copy (select 1 as a) to 'run://new.csv'",
        "copy (select 1 as a) to 'run://run.json' (format csv, use_tmp_file false)",
        "copy (select 1 as a) to 'run://out/new.csv'",
        "copy (select 1 as a) to 'run:/new.csv'",
        "copy (select 1 as a) to 'run:new.csv'",
        "copy (select 1 as a) to './run:/new.csv'",
        "copy (select 1 as a) to 'new.csv'",
        "copy (select 1 as a) to 'file://{run}/new.csv'",
        "copy (select 1 as a) to '{run}/new.parquet' (format parquet)",
        "copy (select 1 as a) to '{run}/new.json' (format json)",
        "copy (select 1 as a) to '{run}/run.json' (use_tmp_file false)",
        "copy (select 1 as a, 2 as b) to '{run}/new' (format csv, partition_by (a))",
        "copy (select 1 as a, 2 as b) to 'run://new' (format csv, partition_by (a))",
        "copy (select 1 as a) to '{run}/new' (format csv, per_thread_output)",
        "copy (select 1 as a) to '{run}' (format csv, per_thread_output, overwrite)",
        "copy (select 1 as a) to 'run://instances' (format csv, per_thread_output, overwrite)",
        "create table x as select 1 as a; copy x to '{run}/new.csv'",
        "create table x (a varchar); copy x from '{run}/../secret.csv'",
        "export database '{run}/new'",
        "export database 'run://new'",
        "attach '{run}/new.db'",
        "attach 'run://new.db' as x; create table x.y as select 1; checkpoint x",
        "attach '{run}/new.db' as x (encryption_key 'x')",
        "attach if not exists 'new.db' as x (type duckdb)",
        "attach 'sqlite:new.db'",
        "install httpfs",
        "install '{run}/own.duckdb_extension'",
        "force install httpfs from 'https://example.org'",
        "load '{run}/own.duckdb_extension'",
        "load 'run://own.duckdb_extension'",
        "load httpfs",
        "update extensions",
        "create secret s (type s3)",
        "create persistent secret s (type http)",
        "create or replace persistent secret s in local_file (type http)",
        "call enable_logging(storage = 'file', storage_path = '{run}/new')",
        "call enable_logging('QueryLog')",
        "call enable_profiling()",
        "pragma enable_profiling = 'json'",
        "pragma profiling_output = '{run}/new.json'",
        "set profiling_output = '{run}/new.json'",
        "set log_query_path = '{run}/new.log'",
        "set logging_storage = 'file'",
        "set secret_directory = '{run}'",
        "set temp_directory = '{run}'",
        "set home_directory = '{run}'",
        "set extension_directories = ['{run}']",
        "set global enable_external_access = true",
        "reset enable_external_access",
        "reset global lock_configuration",
        "set allowed_directories = ['/']",
        "set allowed_paths = ['{run}/run.json']",
        "set allowed_configs = ['allowed_paths']",
        "set python_enable_replacements = true",
        "set autoload_known_extensions = true",
        "from read_text('{run}/run.json')",
        "from read_text('{run}/../secret.csv')",
        "from read_text('{run}-2/secret.csv')",
        "from read_text('run://../secret.csv')",
        "from read_text('run://instances/../../secret.csv')",
        "from read_text('run://{run}/../secret.csv')",
        "from read_text('run:/secret.csv')",
        "from read_csv('run://link.csv')",
        "from read_csv('run://out/secret.csv')",
        "from read_csv('run://pipe.csv')",
        "from read_csv('secret.csv')",
        "from read_csv('/dev/stdin')",
        "from read_blob('/dev/zero')",
        "from read_json('{run}/run.json')",
        "from read_ndjson('{run}/run.json')",
        "from read_duckdb('{run}/attribeam.duckdb')",
        "from parquet_metadata('{run}/instances/*.parquet')",
        "from parquet_schema('{run}/instances/*.parquet')",
        "from parquet_kv_metadata('{run}/instances/*.parquet')",
        "from read_parquet('{run}/instances/*.parquet')",
        "from read_parquet(['run://instances/*.parquet', '{run}/instances/*.parquet'])",
        "from '{run}/link.csv'",
        "from 'run.json'",
        "from query_table('{run}/link.csv')",
        "from query('from ''{run}/link.csv'' ')",
        "from glob('*')",
        "from glob('{run}/*')",
        "from glob('{run}/../*')",
        "from glob('run://../*')",
        "from sniff_csv('/etc/passwd')",
        "select getenv('HOME')",
        "from strangers",
        "from os",
        "from 'https://example.org/x.csv'",
        "from 's3://bucket/x.parquet'",
        "from 'hf://datasets/a/b/x.csv'",
    ],
)
def test_a_query_only_reads_the_run(sql: str, strangers: Path, asked: Ask) -> None:
    before = _state(strangers.parent)
    with pytest.raises((UsageError, duckdb.Error)):
        asked(sql.format(run=strangers))
    assert _state(strangers.parent) == before


@pytest.mark.parametrize(
    "sql",
    [
        "from glob('run://out/*')",
        "attach ':memory:' as x; create table x.y as select 1; checkpoint x",
        "create secret s (type http)",
        "select write_log('x'); from duckdb_logs",
        "checkpoint",
        "force checkpoint",
        "vacuum analyze",
        "from duckdb_secrets()",
        "from duckdb_temporary_files()",
        "copy from database memory to nothing",
    ],
)
def test_what_a_query_may_try_changes_no_file(sql: str, strangers: Path, asked: Ask) -> None:
    before = _state(strangers.parent)
    try:
        found = str(asked(sql))
    except duckdb.Error:
        found = ""
    assert "secret.csv" not in found
    assert _state(strangers.parent) == before


def _state(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """All that a folder holds, and when it was changed."""
    found = {}
    for path in folder.rglob("*"):
        regular = path.is_file() and not path.is_symlink()
        found[str(path)] = (path.lstat().st_mtime_ns, path.read_bytes() if regular else None)
    return found


def test_files_of_the_run_can_be_read_by_name(strangers: Path, asked: Ask) -> None:
    text = asked("select content from read_text('run://run.json')")
    assert str(text.column(0)[0]) == (strangers / "run.json").read_text()
    names = asked("from glob('run://instances/*.parquet')").column(0).to_pylist()
    assert names == [f"run://{n}" for n in sorted(files(strangers)) if n.startswith("instances/")]
    assert asked("select count(*) from read_parquet('run://instances/*')").column(0)[0].as_py() > 0


def test_what_is_spilled_lies_in_the_temporary_folder_and_goes(
    strangers: Path, tmp_path: Path
) -> None:
    program = f"""
import sys
from pathlib import Path
from attribeam.analysis import open_run
connection = open_run({str(strangers)!r})
spill, = connection.execute("select current_setting('temp_directory')").fetchone()
for path in ("/..", "/../..", "/../../..", ".csv", "-2"):
    try:
        connection.execute(f"copy (select 1 as a) to '{{spill}}{{path}}/new.csv'")
    except Exception:
        continue
    sys.exit(f"{{path}} was written to")
connection.execute("export database " + repr(spill))
print(spill)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    given = [sys.executable, "-c", program]
    done = subprocess.run(given, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # Of a query that takes seconds, DuckDB shows the progress before that.
    assert tmp_path in Path(done.stdout.split()[-1]).parents
    assert not list(tmp_path.iterdir())


def test_a_query_that_is_interrupted_leaves_nothing(strangers: Path, tmp_path: Path) -> None:
    sql = "select range, repeat('x', 1000) from range(1000000000)"
    given = ["-m", "attribeam.pipeline", "query", str(strangers), sql, "--format", "csv"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    query = subprocess.Popen(
        [sys.executable, *given],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert query.stdout is not None
    query.stdout.readline()
    assert list(tmp_path.iterdir())  # Where it would spill.
    query.send_signal(signal.SIGINT)
    query.communicate(timeout=120)
    assert query.returncode == 130
    assert not list(tmp_path.iterdir())


def test_a_query_that_is_no_utf8(strangers: Path, tmp_path: Path) -> None:
    script = tmp_path / "query.sql"
    for text in (b"select 1 as \xff", "select 1".encode("utf-16")):
        script.write_bytes(text)
        outcome = command("query", strangers, script)
        assert outcome.status == 2 and f"{script} is no UTF-8" in outcome.err
    script.write_bytes("\ufeffselect 1 as a".encode())
    assert command("query", strangers, script).status == 0
    outcome = command("query", strangers, os.fsdecode(b"select 1 as \xff"))
    assert outcome.status == 2 and "The query is no UTF-8" in outcome.err


def test_a_refusal_says_what_to_do(strangers: Path) -> None:
    outcome = command("query", strangers, COPY.format(run=strangers))
    assert outcome.status == 2 and outcome.out == ""
    assert outcome.err.startswith("attribeam: A query may not write files")
    assert "--external-access" in outcome.err and outcome.err.count("\n") == 1


def test_nor_does_a_file_of_queries(strangers: Path, tmp_path: Path) -> None:
    script = tmp_path / "query.sql"
    script.write_text(f"with t as (copy (select 1) to '{strangers}/new.csv') select 1")
    outcome = command("query", strangers, script)
    assert outcome.status == 2 and "A query may not write files" in outcome.err
    assert not (strangers / "new.csv").exists()
    assert command("query", strangers, script, "--external-access").status == 0
    (strangers / "new.csv").unlink()


@pytest.mark.parametrize(
    "sql",
    [
        "select 'copy' as copy",
        "create table copy as select 1; insert into copy values (2); from copy",
        "pivot instances on label using count(*)",
        "set variable n = 1; select getvariable('n')",
        "pragma version",
        "show tables",
        "describe instances",
        "explain select 1",
    ],
)
def test_what_is_in_memory_may_be_done(sql: str, asked: Ask) -> None:
    asked(sql)


def test_a_traceback_of_another_library_is_one_sentence() -> None:
    error = duckdb.Error(
        "Traceback (most recent call last):\n  File 'a.py', line 1\n    f()\nOSError: gone away."
    )
    assert _first_lines(error) == "OSError: gone away."


# Runs of strangers ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = synthetic_run(rows=4, fractions=(0.5,), orders=("morf", "lerf"))
    for failure in run.failures:
        failure["message"] = f"can't open {tmp_path}/model/x.bin: gone"
    return write_run(run, tmp_path / "run")


def spoiled(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    manifest = json.loads((folder / "run.json").read_text())
    change(manifest)
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "a/b", "*", "", "..", "a'); attach 'x", "a\nb", "\x1b[2J"]
)
def test_a_method_s_name_is_no_path(name: str, folder: Path, tmp_path: Path) -> None:
    spoiled(folder, lambda m: m["methods"].update({name: m["methods"]["paths"]}))
    asked: list[Callable[[], object]] = [
        lambda: open_run(folder),
        lambda: write_report(folder),
        lambda: plot(folder, "degradation"),
        lambda: write_database(folder),
        lambda: publish(folder, "a/b", dry_run=tmp_path / "dry", allow_incomplete=True),
    ]
    for ask in asked:
        with pytest.raises(UsageError, match="a method is called"):
            ask()
    assert "a method is called" in verify(folder).problems[0]


MISSHAPEN: list[tuple[str, Any]] = [
    ("identity", None),
    ("identity.model", 5),
    ("identity.model.source", ["x"]),
    ("identity.model.labels", [5]),
    ("identity.corpus", None),
    ("identity.corpus.rows", "x"),
    ("identity.corpus.limit", True),
    ("identity.settings.num_shards", -1),
    ("identity.settings.num_shards", 10**12),
    ("identity.settings.num_shards", "1"),
    ("methods", []),
    ("methods.paths", None),
    ("methods.paths.params", None),
    ("methods.paths.tables", ["../instances"]),
    ("methods.paths.tables", [{}]),
    ("methods.paths.passes", [5]),
    ("methods.paths.paper", ["x"]),
    ("evaluation", 5),
    ("evaluation.protocol", None),
    ("evaluation.orders", [{}]),
    ("evaluation.fractions", ["x"]),
    ("executions", None),
    ("executions", ["x"]),
]


@pytest.mark.parametrize(("where", "value"), MISSHAPEN)
def test_a_manifest_that_can_be_no_run_s(where: str, value: Any) -> None:
    manifest = synthetic_run(rows=1).manifest
    assert misshapen(manifest) is None
    part: Any = manifest
    *names, last = where.split(".")
    for name in names:
        part = part[name]
    part[last] = value
    problem = misshapen(manifest)
    assert problem is not None and "\n" not in problem


def test_links_in_a_run_are_not_written_through(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    for name in ("report.html", "degradation.html", "attribeam.duckdb", "attribeam.duckdb.tmp"):
        (folder / name).symlink_to(mine)
    report = write_report(folder).read_text(encoding="utf-8")
    plot(folder, "degradation")
    write_database(folder)
    assert mine.read_text() == "mine"
    # And a report, which others are shown, does not say where something failed.
    assert str(tmp_path) not in report and "&lt;local&gt;: gone" in report
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]


def test_a_plot_of_what_is_elsewhere_has_to_be_told_where() -> None:
    outcome = command("plot", "hf://datasets/who/what", "degradation")
    assert outcome.status == 2
    assert outcome.err == (
        "attribeam: hf://datasets/who/what is not on this machine: "
        "say with -o where the plot is to be\n"
    )


def test_names_in_plots_are_no_markup(folder: Path) -> None:
    row = {
        **{"evaluation": "a", "method": "attattr", "importance": "attattr", "seed": None},
        **{"corpus": "<a href='javascript:alert(1)'>x", "rate": 0.0, "pruned": 0, "heads": 6},
        **{"n": 5, "correct": 4, "accuracy": 0.8, "loss": 0.1, "split": None},
    }
    (folder / "pruning").mkdir()
    content = pa.Table.from_pylist([row], table_schema("pruning"))
    pq.write_table(content, folder / "pruning/a.parquet")
    page = plot(folder, "pruning").read_text()
    assert not re.search(r"(<|\\u003c)a href='javascript", page)
    assert "a href='javascript" in page
