"""The report: what the page holds against the views, and that no text of a run becomes markup."""

import base64
import gzip
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plotly.offline import get_plotlyjs

from attribeam.analysis import open_run
from attribeam.analysis.instances.pieces import pieces
from attribeam.analysis.plots.cost import cost_scatter
from attribeam.analysis.report import figures
from attribeam.analysis.report.instances import NOT_A_NUMBER, quantise
from attribeam.analysis.report.plots import agreement_map, head_map
from attribeam.analysis.report.report import write_report
from attribeam.analysis.report.shell import embedded
from attribeam.schemas import VIEWS, UsageError, table_schema
from tests.support.synthetic_run import METHODS, SyntheticRun, synthetic_run, write_run

VIEW_NAMES = {view.name for view in VIEWS}
EVIL = '</script><script>document.title="hacked"</script><img src=x onerror=alert(1)>&amp;'


class Page(HTMLParser):
    """What of a page the tests look at: its elements, their texts, and the tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self.sections: list[str] = []
        self.tables: dict[str, list[list[tuple[str, dict[str, str | None]]]]] = {}
        self._open: str | None = None
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "section":
            self.sections.append(str(given["id"]))
            self.tables[self.sections[-1]] = []
        elif tag == "tr":
            self.tables[self.sections[-1]].append([])
        elif tag in ("td", "th"):
            self.tables[self.sections[-1]][-1].append(("", given))
            self._open = "cell"
        elif tag == "script":
            self._open = str(given.get("id", "main"))
            self.scripts[self._open] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "script"):
            self._open = None

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open == "cell":
            row = self.tables[self.sections[-1]][-1]
            row[-1] = (row[-1][0] + data, row[-1][1])
        elif self._open:
            self.scripts[self._open] += data

    def data(self, name: str) -> Any:
        """What the page's script reads."""
        return json.loads(self.scripts[f"{name}-data"])

    def columns(self, section: str) -> dict[str, dict[str, float | None]]:
        """The values of a table of metrics, by heading and method."""
        heads, *rows = self.tables[section]
        plain = str.maketrans({"\N{SOFT HYPHEN}": "", "\N{NO-BREAK SPACE}": " "})
        names = [text.translate(plain).strip() for text, _ in heads]
        return {
            name: {
                row[0][0]: None if (v := row[at][1].get("data-value")) is None else float(v)
                for row in rows
            }
            for at, name in enumerate(names)
            if at
        }


def near(values: dict[str, float]) -> Any:
    """Values to the digits that a page keeps."""
    return pytest.approx(values, rel=1e-8, abs=1e-12)


def numbers(kind: str, packed: str) -> Any:
    return np.frombuffer(base64.b64decode(packed), kind)


@pytest.fixture(scope="module")
def run() -> SyntheticRun:
    run = synthetic_run(rows=30)
    for instance in run.instances:
        instance["subset"] = f"set {len(instance['tokens']) % 2}"
    # Far above the others, as attention to a [SEP] often is.
    run.attributions[0]["scores"][0] = 1e6
    run.attributions[1]["scores"][1] = float("nan")
    return run


@pytest.fixture(scope="module")
def folder(run: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(run, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(folder, tmp_path_factory.mktemp("report") / "report.html"))


# The page -------------------------------------------------------------------------------------


def test_sections(page: Page) -> None:
    maybe = {"plausibility", "agreement"} & VIEW_NAMES
    expected = {"run", "faithfulness", "cost", "degradation", "cost-faithfulness", "information"}
    assert set(page.sections) == expected | maybe | {"distributions-0", "failures", "browser"}
    assert set(page.data("figures")) == set(page.sections) & {
        "degradation",
        "cost-faithfulness",
        "information",
        "agreement",
    }
    for text in ("28", "some/model", "corpus.jsonl", "negative, neutral, positive"):
        assert any(text in found for found in page.texts), text
    links = {str(given["href"]) for tag, given in page.tags if tag == "a"}
    assert links == {f"#{section}" for section in page.sections} | {"#top"}


def test_nothing_is_fetched_and_no_other_script_runs(page: Page) -> None:
    assert not [tag for tag, given in page.tags if {"src", "action"} & given.keys()]
    assert "link" not in {tag for tag, _ in page.tags}
    policy = next(
        str(given["content"])
        for tag, given in page.tags
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    plotly = gzip.decompress(base64.b64decode(page.scripts["plotly-data"])).decode()
    assert plotly == get_plotlyjs()
    for script in (page.scripts["main"], plotly):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_table_of_metrics(folder: Path, page: Page) -> None:
    columns = page.columns("faithfulness")
    with open_run(folder, commented=False) as connection:
        rows = connection.execute(
            "select method, comprehensiveness, sufficiency, degradation, low, high"
            " from faithfulness join degradation_intervals using (method)"
        ).fetchall()
    assert columns["comprehensiveness ↑"] == near({row[0]: row[1] for row in rows})
    assert columns["sufficiency ↓"] == near({row[0]: row[2] for row in rows})
    assert columns["degradation ↑"] == near({row[0]: row[3] for row in rows})
    heads, *lines = page.tables["faithfulness"]
    assert [line[0][0] for line in lines] == [r[0] for r in sorted(rows, key=lambda r: -r[3])]
    assert [given.get("aria-sort") for _, given in heads].count("descending") == 1
    intervals = [f"{low:.3f} to {high:.3f}" for *_, low, high in rows]
    assert all(any(text in found for found in page.texts) for text in intervals)


def test_the_best_of_a_column_is_marked(page: Page) -> None:
    heads, *rows = page.tables["faithfulness"]
    assert (heads[1][0], heads[1][1]["data-better"]) == ("instances", "")
    assert {row[1][0] for row in rows} == {"27"}
    for at, (_, head) in enumerate(heads[2:], 2):
        value = {row[0][0]: float(str(row[at][1]["data-value"])) for row in rows}
        best = {"higher": max, "lower": min}[str(head["data-better"])](value.values())
        marked = {row[0][0] for row in rows if row[at][1].get("class") == "best"}
        assert marked == {method for method, own in value.items() if own == best}
        assert head["title"]


def notes(page: Page, start: str) -> str:
    return next(text for text in page.texts if text.startswith(start))


def test_methods_are_compared_on_the_same_instances(page: Page, tmp_path: Path) -> None:
    """The method that fails on the text where all are worst is none the better for it."""
    faithful, cost = "How the probability", "Passes and work"
    assert "on the same 27 instances, so that" in notes(page, faithful)
    assert "; 2 more are left out, since some method has no" in notes(page, faithful)
    assert "not run on the same instances" in notes(page, cost)
    _, *rows = page.tables["cost"]
    assert "best" not in {cell[1].get("class") for row in rows for cell in row[1:3]}

    equal = Page(write_report(write_run(synthetic_run(rows=6, failing=False), tmp_path)))
    assert "intervals overlap. A click" in notes(equal, faithful)
    assert "not run on the same instances" not in notes(equal, cost)
    _, *rows = equal.tables["cost"]
    assert [row[0][0] for row in rows if row[1][1].get("class") == "best"] == ["gradient"]


def test_without_a_common_instance_nothing_is_compared(tmp_path: Path) -> None:
    run = synthetic_run(rows=6, failing=False)
    half = {row["instance_id"] for row in run.instances[:3]}
    run.curves = [
        row for row in run.curves if (row["method"] == "paths") == (row["instance_id"] in half)
    ]
    page = Page(write_report(write_run(run, tmp_path)))
    assert "none of the 6 instances has curves of every method" in notes(page, "How the prob")
    columns = page.columns("faithfulness")
    assert columns == {"instances": dict.fromkeys(METHODS, 0.0)}


def test_methods_whose_curves_are_of_another_class_are_named(tmp_path: Path) -> None:
    run = synthetic_run(rows=12, failing=False)
    run.manifest["methods"]["paths"]["params"]["target"] = "gold"
    labels = {row["instance_id"]: row["label"] for row in run.instances}
    wrong = sum(row["label"] != row["prediction"] for row in run.instances)
    assert 0 < wrong < 12
    for row in (row for row in run.curves if row["method"] == "paths"):
        row["target"] = labels[row["instance_id"]]
    page = Page(write_report(write_run(run, tmp_path / "differing")))
    found = notes(page, "How the probability")
    assert "paths follows the gold class (target=gold), all others the predicted one" in found
    assert f"on {wrong} of the compared instances" in found
    _, *rows = page.tables["faithfulness"]
    assert [row[0][0] for row in rows][-1] == "paths"
    for row in rows:
        marks = [cell[1].get("style") or cell[1].get("class") for cell in row[2:]]
        assert any(marks) == (row[0][0] != "paths")

    # Where all are right, all classes are the same.
    for row in run.curves:
        row["target"] = labels[row["instance_id"]]
    page = Page(write_report(write_run(run, tmp_path / "same")))
    assert "gold class" not in notes(page, "How the probability")
    assert any(row[-1][1] for row in page.tables["faithfulness"][1:] if row[0][0] == "paths")


def test_a_method_without_scores_has_a_cost(tmp_path: Path) -> None:
    run = synthetic_run(rows=6, failing=False)
    run.manifest["methods"]["paths"]["tables"] = ["layers"]
    for table in ("attributions", "curves"):
        rows = getattr(run, table)
        setattr(run, table, [row for row in rows if row["method"] != "paths"])
    page = Page(write_report(write_run(run, tmp_path)))
    assert page.columns("cost")["instances"] == near(dict.fromkeys(METHODS, 6.0))
    assert page.columns("cost")["ms an instance ↓"]["paths"] is None
    assert "Of methods without scores of tokens, seconds aren't kept" in notes(page, "Passes")


def test_a_run_that_is_not_finished_says_so(folder: Path, page: Page, tmp_path: Path) -> None:
    assert not [text for text in page.texts if "not finished" in text]
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    files = sorted(copy.rglob("shard-*.parquet"))
    for path in (path for path in files if "failures" not in path.parts and "curves" in path.parts):
        if path.name.startswith("shard-00000"):
            path.unlink()
    expected = len([path for path in files if "failures" not in path.parts])
    (found,) = (text for text in Page(write_report(copy)).texts if "not finished" in text)
    assert f"not finished: {expected - 3} of {expected} files are there" in found


def test_a_table_per_way_to_perturb(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=12, operations=("mask", "pad")), tmp_path)
    page = Page(write_report(folder))
    assert {"faithfulness", "faithfulness-1"} <= set(page.sections)
    for section, operation in (("faithfulness", "mask"), ("faithfulness-1", "pad")):
        with open_run(folder, commented=False) as connection:
            rows = connection.execute(
                "select method, aopc from faithfulness where operation = ?", [operation]
            ).fetchall()
        assert page.columns(section)["AOPC ↑"] == near(dict(rows))


@pytest.mark.skipif("plausibility" not in VIEW_NAMES, reason="there is no view of plausibility")
def test_plausibility(folder: Path, page: Page) -> None:
    with open_run(folder, commented=False) as connection:
        rows = connection.execute("select method, token_f1, auprc from plausibility").fetchall()
    columns = page.columns("plausibility")
    assert columns["token F1 ↑"] == near({row[0]: row[1] for row in rows})
    assert columns["AUPRC ↑"] == near({row[0]: row[2] for row in rows})


def test_plausibility_of_parts_of_texts_says_so(page: Page, tmp_path: Path) -> None:
    def note(of: Page) -> str:
        return next(text for text in of.texts if text.startswith("How well a method's highest"))

    assert "parts" not in note(page)
    run = synthetic_run(rows=12, failing=False)
    with open_run(write_run(run, tmp_path / "whole"), commented=False) as connection:
        (name,) = connection.execute("select min(instance_id) from word_ranks").fetchall()[0]
    cut = next(row for row in run.instances if row["instance_id"] == name)
    cut |= {"truncated": True, "text": cut["text"] + " and more"}
    folder = write_run(run, tmp_path / "cut")
    with open_run(folder, commented=False) as connection:
        (row,) = connection.execute(
            "select n, cut, unseen, text_words from plausibility limit 1"
        ).fetchall()
    assert row[1:3] == (1, 2)
    found = note(Page(write_report(folder)))
    assert f"over {row[0]} instances. Of the {row[0]}, 1 is a part of a text, cut" in found
    assert f"and 2 of the {row[3]} words of these texts" in found


def test_failures_are_listed(page: Page) -> None:
    _, *rows = page.tables["failures"]
    listed = {(row[0][0], row[1][0], row[2][0], row[3][0]) for row in rows}
    assert listed == {
        ("encode", "all", "ValueError", "1"),
        ("attribute", "paths", "FloatingPointError", "1"),
        ("attribute", "attention", "MemoryError", "1"),
        ("perturb", "attention", "RuntimeError", "1"),
    }


def test_without_evaluation_and_failures(tmp_path: Path) -> None:
    run = synthetic_run(evaluate=False, failing=False)
    for instance in run.instances:
        instance["rationale"] = None
    run.layers, run.information = [], []
    page = Page(write_report(write_run(run, tmp_path)))
    assert (tmp_path / "report.html").is_file()
    agreement = ["agreement"] if "agreement" in VIEW_NAMES else []
    assert page.sections == ["run", "cost", *agreement, "browser"]
    assert page.data("instances")["rationale"] is None
    # Without a figure there is no need of the library.
    assert ("plotly-data" in page.scripts) == bool(agreement)


def test_the_same_run_gives_the_same_bytes(folder: Path, tmp_path: Path, page: Page) -> None:
    again = write_report(folder, tmp_path / "again.html")
    assert again.read_text(encoding="utf-8") == page.source


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be written"):
        write_report(folder, tmp_path / "none" / "report.html")
    with pytest.raises(UsageError, match="no run folder"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="at least 0, not -1"):
        write_report(folder, limit=-1)
    empty = synthetic_run(rows=1, failing=False)
    empty.instances, empty.attributions, empty.curves = [], [], []
    empty.layers, empty.information = [], []
    with pytest.raises(UsageError, match="no instances yet"):
        write_report(write_run(empty, tmp_path / "empty"))


def test_scores_that_do_not_fit(tmp_path: Path) -> None:
    run = synthetic_run(failing=False)
    run.attributions[0]["scores"].append(0.0)
    with pytest.raises(UsageError, match="The scores of gradient do not fit"):
        write_report(write_run(run, tmp_path))


def test_many_methods_and_instances_stay_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(28 - len(METHODS)):
        monkeypatch.setitem(
            METHODS, f"integrated_gradients_{number}", METHODS["paths"] | {"tables": []}
        )
    run = synthetic_run(rows=100, shard_size=100, fractions=(0.2, 0.5), failing=False)
    path = write_report(write_run(run, tmp_path))
    page = Page(path)
    assert len(page.data("instances")["ids"]) == 100
    assert len(page.data("instances")["methods"]) == 28
    assert path.stat().st_size < 3_000_000


@pytest.mark.parametrize("roles", [True, False])
def test_patterns_of_roles_need_roles(roles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [figures.Choice("", {"layout": {}})]
    monkeypatch.setattr(
        figures, "_pattern_flow", lambda _: figures.Section("patterns", "", "", drawn)
    )
    monkeypatch.setattr(
        figures, "_plotted", lambda _, name, title, note: figures.Section(name, title, note, drawn)
    )
    with duckdb.connect() as connection:
        connection.execute("create table instances (roles varchar[])")
        connection.execute(
            "insert into instances values (null), (?)", [["noun"] if roles else None]
        )
        found = [section.key for section in figures._patterns(connection)]
    assert found == (["patterns", "pattern_consistency"] if roles else [])


# Texts of the run -----------------------------------------------------------------------------


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    run = synthetic_run(rows=12)
    identity = run.manifest["identity"]
    identity["model"]["source"] = identity["corpus"]["source"] = EVIL
    identity["model"]["labels"] = [EVIL, "b", "c"]
    run.manifest["methods"]["gradient"]["params"] = {EVIL: EVIL}
    for number, instance in enumerate(run.instances):
        old, new = instance["instance_id"], f"{EVIL} {number}"
        run.shards[new] = run.shards[old]
        for table in (run.attributions, run.layers, run.information, run.curves, run.failures):
            for row in table:
                if row["instance_id"] == old:
                    row["instance_id"] = new
        instance["instance_id"], instance["subset"] = new, EVIL
        instance["text"] = EVIL * 9
        instance["tokens"] = [EVIL for _ in instance["tokens"]]
        instance["roles"] = [EVIL for _ in instance["tokens"]]
    for failure in run.failures:
        failure["message"] = EVIL
    found = Page(write_report(write_run(run, tmp_path)))
    plain = synthetic_run(rows=12)
    for instance in plain.instances:
        instance["subset"] = "a"
    other = Page(write_report(write_run(plain, tmp_path / "plain")))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in other.tags]
    assert "<img" not in found.source and "<script>document" not in found.source
    # Yet it is all there.
    packed = found.data("instances")
    assert packed["ids"][0] == f"{EVIL} 0" and EVIL in packed["vocabulary"]
    assert packed["subsets"] == [EVIL] and packed["classes"][0] == EVIL
    assert any(text == EVIL for text in found.texts)


def test_plotly_gets_no_markup(tmp_path: Path) -> None:
    run = synthetic_run(rows=12, failing=False)
    pruning = {
        **{"evaluation": "a", "method": "<b>attattr</b>", "importance": "attattr", "seed": None},
        **{"corpus": "<a href='https://example.org'>&", "rate": 0.0, "pruned": 0, "heads": 6},
        **{"n": 5, "correct": 4, "accuracy": 0.8, "loss": 0.1, "split": None},
    }
    folder = write_run(run, tmp_path)
    (folder / "pruning").mkdir()
    table = pa.Table.from_pylist([pruning], table_schema("pruning"))
    pq.write_table(table, folder / "pruning" / "a.parquet")
    (figure,) = Page(write_report(folder)).data("figures")["pruning"]
    assert figure["layout"]["title"]["text"] == (
        "Pruning: &lt;b&gt;attattr&lt;/b&gt;, 5 texts of &lt;a href='https://example.org'&gt;&amp;"
    )


def test_embedded_json() -> None:
    text = embedded({"a": "</script><!-- & \u2028 é", "b": [1.5, None]})
    assert not re.search("[<>&]", text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028 é", "b": [1.5, None]}


# Instances ------------------------------------------------------------------------------------


def test_instances_are_all_there(run: SyntheticRun, page: Page) -> None:
    packed = page.data("instances")
    by_id = {row["instance_id"]: row for row in run.instances}
    assert packed["ids"] == sorted(by_id)
    rows = [by_id[name] for name in packed["ids"]]
    for key in ("label", "prediction", "correct"):
        assert packed[key] == [row[key] for row in rows]
    assert [packed["subsets"][at] for at in packed["subset"]] == [row["subset"] for row in rows]
    lengths = numbers("<u4", packed["lengths"])
    assert lengths.tolist() == [len(row["tokens"]) for row in rows]
    tokens = numbers("<u4" if packed["wide"] else "<u2", packed["tokens"])
    assert [packed["vocabulary"][at] for at in tokens] == [t for row in rows for t in row["tokens"]]
    special = [bool(packed["marks"][at] & 1) for at in tokens]
    assert special == [mark for row in rows for mark in row["special"]]
    rationale = numbers("u1", packed["rationale"]).tolist()
    assert rationale == [
        mark for row in rows for mark in row["rationale"] or [0] * len(row["tokens"])
    ]


def test_scores_come_back(run: SyntheticRun, page: Page) -> None:
    packed = page.data("instances")
    lengths = numbers("<u4", packed["lengths"])
    ends = np.cumsum(lengths)
    found = {(row["instance_id"], row["method"]): row for row in run.attributions}
    special = {row["instance_id"]: row["special"] for row in run.instances}
    assert sorted(method["name"] for method in packed["methods"]) == sorted(METHODS)
    for method in packed["methods"]:
        assert method["signed"] == METHODS[method["name"]]["signed"]
        values, scales = numbers("i1", method["scores"]), numbers("<f4", method["scales"])
        given = numbers("u1", method["given"])
        for at, name in enumerate(packed["ids"]):
            row = found.get((name, method["name"]))
            assert given[at] == (row is not None)
            if row is None:
                continue
            own = values[ends[at] - lengths[at] : ends[at]]
            scale = scales[2 * at + np.array(special[name], int)]
            scores = np.array(row["scores"], np.float32)
            assert np.array_equal(own == NOT_A_NUMBER, np.isnan(scores))
            bound = scale * (1 / 254 + 1e-6)
            error = np.abs(own / 127 * scale - scores)[~np.isnan(scores)]
            assert np.all(error <= bound[~np.isnan(scores)])


def test_quantise() -> None:
    scores = np.array([1e6, 0.5, -1.0, np.inf, 0.0, 0.0, 1e-30, -3e-30])
    special = np.array([True, False, False, False, True, False, False, False])
    values, scales = quantise(scores, np.array([4, 2, 2]), special)
    assert values.tolist() == [127, 64, -127, NOT_A_NUMBER, 0, 0, 42, -127]
    assert scales.tolist() == pytest.approx([1, 1e6, 0, 0, 3e-30, 0], rel=1e-6)
    assert (values.dtype, scales.dtype) == (np.int8, np.float32)


def test_most_instances(folder: Path, tmp_path: Path, page: Page) -> None:
    assert not any("can be looked at here" in text for text in page.texts)
    few = Page(write_report(folder, tmp_path / "few.html", limit=7))
    assert any("7 of 29 instances can be looked at here" in text for text in few.texts)
    ids = few.data("instances")["ids"]
    every = page.data("instances")["ids"]
    digest = {name: hashlib.md5(name.encode()).hexdigest() for name in every}
    assert ids == sorted(sorted(every, key=lambda name: digest[name])[:7])
    # Tables and figures are of all.
    assert few.tables["faithfulness"] == page.tables["faithfulness"]
    assert few.data("figures") == page.data("figures")
    none = Page(write_report(folder, tmp_path / "none.html", limit=0))
    assert "browser" not in none.sections and "instances-data" not in none.scripts


def _row(text: str | None, tokens: list[str], spans: list[tuple[int, int] | None]) -> Any:
    words = [None if span is None else 0 for span in spans]
    return {
        "text": text,
        "text_pair": None,
        "tokens": tokens,
        "special": [span is None for span in spans],
        "segment": [0] * len(tokens),
        "word_ids": words,
        "char_start": [span and span[0] for span in spans],
        "char_end": [span and span[1] for span in spans],
    }


def test_pieces_stand_as_in_the_text() -> None:
    text = "Fascinating, isn't it"
    tokens = ["[CLS]", "fascinat", "##ing", ",", "isn", "'", "t", "it", "[SEP]"]
    spans = [None, (0, 8), (8, 11), (11, 12), (13, 16), (16, 17), (17, 18), (19, 21), None]
    assert list(pieces(_row(text, tokens, spans))) == [
        ("[CLS]", 1),
        ("Fascinat", 0),
        ("ing", 2),
        (",", 2),
        ("isn", 0),
        ("'", 2),
        ("t", 2),
        ("it", 0),
        ("[SEP]", 1),
    ]
    # Bytes of one character, and a space that belongs to its token.
    row = _row("a 🙂 b", ["a", "Ġð", "Ł", "Ġb"], [(0, 1), (1, 3), (2, 3), (3, 5)])
    assert list(pieces(row)) == [("a", 0), ("🙂", 0), ("Ł", 2), ("b", 0)]
    row = _row(None, ["[CLS]", "play", "##ing", "[SEP]"], [None, (0, 4), (4, 7), None])
    row["char_start"] = row["char_end"] = None
    assert list(pieces(row)) == [("[CLS]", 1), ("play", 0), ("ing", 2), ("[SEP]", 1)]


def test_trees(tmp_path: Path) -> None:
    run = synthetic_run(rows=3, failing=False, evaluate=False)
    name = run.instances[0]["instance_id"]
    # The synthetic run writes no such tables.
    run.manifest["methods"]["attattr"] = {**run.manifest["methods"]["gradient"], "tables": []}
    folder = write_run(run, tmp_path)
    key = {"instance_id": name, "method": "attattr", "algorithm": "code"}
    edges = [(2, 1, 1, 0.5), (2, 3, 1, 0.25), (1, 0, 0, 0.125)]
    rows: dict[str, list[Any]] = {
        "tree_edges": [
            {**key, "position": at, "parent": p, "child": c, "layer": n, "attr": a, "prop": 1.0}
            for at, (p, c, n, a) in enumerate(edges)
        ],
        "tree_nodes": [
            {**key, "token": t, "state": 0, "is_root": t == 2, "depth": d, "top_score": 1.0}
            for t, d in ((2, 0), (1, 1), (3, 1), (0, 2))
        ],
    }
    for table, own in rows.items():
        path = folder / table / "method=attattr"
        path.mkdir(parents=True)
        content = pa.Table.from_pylist(own, table_schema(table))
        pq.write_table(content, path / "shard-00000-of-00001.parquet")
    page = Page(write_report(folder))
    place = page.data("instances")["ids"].index(name)
    # Token, row of the parent, layer, attribution.
    tree = [[2, None, None, None], [1, 0, 1, 0.5], [0, 1, 0, 0.125], [3, 0, 1, 0.25]]
    assert page.data("instances")["trees"] == {str(place): [["attattr", "code", tree]]}
    assert "trees" in page.sections


# Figures --------------------------------------------------------------------------------------


def test_cost_scatter() -> None:
    given = {"a": (1, 0.1), "b": (1, 0.3), "c": (2, 0.2), "d": (3, 0.3), "e": (4, 0.4)}
    rows = [
        {"method": name, "seconds_per_instance": seconds / 1000, "degradation": value}
        for name, (seconds, value) in given.items()
    ]
    others, front = cost_scatter(rows, "degradation", "degradation").data
    assert list(front.text) == ["b", "e"] and list(others.text) == ["a", "c", "d"]
    assert list(front.x) == pytest.approx([1, 4]) and list(front.y) == [0.3, 0.4]


def test_agreement_map() -> None:
    values = {("a", "b"): 0.1, ("a", "c"): 0.9, ("b", "c"): None}
    rows = [{"method_a": a, "method_b": b, "spearman": v} for (a, b), v in values.items() if v]
    (trace,) = agreement_map(rows, "spearman", "Spearman").data
    names = list(trace.x)
    # The two that agree stand together.
    assert abs(names.index("a") - names.index("c")) == 1 and names == list(trace.y)
    at = {name: number for number, name in enumerate(names)}
    for (a, b), value in values.items():
        assert trace.z[at[a]][at[b]] == trace.z[at[b]][at[a]] == value
    assert (trace.zmin, trace.zmax) == (-1, 1)


def test_head_map() -> None:
    rows = [
        {"method": "m", "layer": layer, "head": head, "importance": 10.0 * layer + head}
        for layer in range(2)
        for head in range(3)
    ]
    (trace,) = head_map(rows, "importance", "importance").data
    assert [list(line) for line in trace.z] == [[0, 1, 2], [10, 11, 12]]
