"""The views of influence patterns against plain Python over the same rows."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib.resources import files
from itertools import pairwise
from math import log2, log10
from statistics import correlation, mean, median
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from attribeam.schemas import View

Row = dict[str, Any]

LAYERS, HEADS = 3, 2
KINDS = ("whole", "nothing", "attention")
# Words of one structure, with a role that comes twice and one that is unknown. `a` and `b` are of
# different sizes; a few instances have no subset, and no roles either.
STRUCTURES: dict[str | None, tuple[int, list[str | None]]] = {
    "a": (12, ["[CLS]", "subject", "verb", None, "target"]),
    "b": (9, ["[CLS]", "preposition", "preposition", "subject", "target", "verb"]),
    None: (7, [None, None, None]),
}
VIEWS = (
    "pattern_nodes",
    "pattern_concentration",
    "pattern_consistency",
    "pattern_consistency_accuracy",
    "skip_share",
    "path_share",
    "pattern_ablation_summary",
    "pattern_flow",
)
INSTANCE_SCHEMA = pa.schema(
    [
        ("instance_id", pa.string()),
        ("tokens", pa.list_(pa.string())),
        ("readout", pa.int32()),
        ("subset", pa.string()),
        ("correct", pa.bool_()),
    ]
)
PATTERN_SCHEMA = pa.schema(
    [
        ("instance_id", pa.string()),
        ("method", pa.string()),
        ("level", pa.string()),
        ("source", pa.int32()),
        ("nodes", pa.list_(pa.int32())),
        ("roles", pa.list_(pa.string())),
        ("heads", pa.list_(pa.int32())),
        ("steps", pa.list_(pa.float32())),
        ("influence", pa.float32()),
        ("input_influence", pa.float32()),
    ]
)
ABLATION_SCHEMA = pa.schema(
    [
        ("instance_id", pa.string()),
        ("method", pa.string()),
        ("kind", pa.string()),
        ("nodes_kept", pa.int32()),
        ("heads_kept", pa.int32()),
        ("skips_kept", pa.int32()),
        ("output", pa.float32()),
        ("correct", pa.bool_()),
    ]
)


class Tables:
    """The tables as lists of rows; numbers are float32, as they are stored."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.instances: list[Row] = []
        self.patterns: list[Row] = []
        self.ablation: list[Row] = []
        for subset, (number, roles) in STRUCTURES.items():
            for index in range(number):
                self._add_instance(random, f"{subset}-{index}", subset, roles)
        # A role that a single instance has makes no group.
        rare = next(row for row in self.patterns if row["instance_id"] == "a-3")
        rare["roles"] = ["rare", *rare["roles"][1:]]
        # Neither has an influence: the ratio is none, the sign is the same.
        self.patterns[4] |= {"influence": 0.0, "input_influence": 0.0}
        self.by_id = {row["instance_id"]: row for row in self.instances}

    def _add_instance(
        self, random: np.random.Generator, name: str, subset: str | None, roles: list[str | None]
    ) -> None:
        readout = roles.index("target") if subset else 0
        correct = None if name == "a-0" else bool(random.random() < 0.7)
        self.instances.append(
            {
                "instance_id": name,
                "tokens": [f"{name}.{position}" for position in range(len(roles))],
                "readout": readout,
                "subset": subset,
                "correct": correct,
            }
        )
        for source in range(len(roles)):
            if roles[source] != "target":
                self._add_patterns(random, name, source, readout, roles)
        for kind in KINDS:
            kept = None if kind == "whole" else int(random.integers(1, 9))
            self.ablation.append(
                {
                    "instance_id": name,
                    "method": "m",
                    "kind": kind,
                    "nodes_kept": int(random.integers(20)),
                    "heads_kept": kept,
                    "skips_kept": kept,
                    "output": float(np.float32(random.normal())),
                    "correct": correct if kind == "whole" else bool(random.random() < 0.5),
                }
            )

    def _add_patterns(
        self,
        random: np.random.Generator,
        name: str,
        source: int,
        readout: int,
        roles: list[str | None],
    ) -> None:
        nodes = [source]
        while len(nodes) < LAYERS:
            stays = random.random() < 0.7
            nodes.append(nodes[-1] if stays else int(random.integers(len(roles))))
        nodes.append(readout)
        stay = [one == other for one, other in pairwise(nodes)]
        heads = [-1 if s and random.random() < 0.7 else int(random.integers(HEADS)) for s in stay]
        total = float(np.float32(random.normal()))
        for level in ("embedding", "attention"):
            influence = float(np.float32(total * random.uniform(-0.1, 1.5)))
            self.patterns.append(
                {
                    "instance_id": name,
                    "method": "m",
                    "level": level,
                    "source": source,
                    "nodes": nodes,
                    "roles": None if roles[0] is None else [roles[node] for node in nodes],
                    "heads": None if level == "embedding" else heads,
                    "steps": [influence],
                    "influence": influence,
                    "input_influence": total,
                }
            )

    def connect(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        for name, rows, schema in (
            ("instances", self.instances, INSTANCE_SCHEMA),
            ("patterns", self.patterns, PATTERN_SCHEMA),
            ("pattern_ablation", self.ablation, ABLATION_SCHEMA),
        ):
            connection.register("_rows", pa.Table.from_pylist(rows, schema=schema))
            connection.execute(f"create table {name} as from _rows")
            connection.unregister("_rows")
        sizes = f"{LAYERS} as model_num_layers, {HEADS} as model_num_heads"
        connection.execute(f"create table run as select {sizes}")
        for view in VIEWS:
            connection.execute(source_of(view))
        return connection

    def edges(self) -> list[Row]:
        found = []
        for row in self.patterns:
            roles = row["roles"] or [None] * (LAYERS + 1)
            for layer in range(LAYERS):
                before, after = row["nodes"][layer : layer + 2]
                head = row["heads"][layer] if row["heads"] else None
                found.append(
                    {
                        "instance_id": row["instance_id"],
                        "method": "m",
                        "level": row["level"],
                        "source": row["source"],
                        "source_role": roles[0],
                        "layer": layer,
                        "previous": before,
                        "previous_role": roles[layer],
                        "position": after,
                        "token": f"{row['instance_id']}.{after}",
                        "role": roles[layer + 1],
                        "head": head,
                        "kind": {None: None, -1: "skip"}.get(head, "head"),
                        "stay": before == after,
                        "influence": row["influence"],
                    }
                )
        return found

    def subset(self, row: Row) -> str | None:
        found: str | None = self.by_id[row["instance_id"]]["subset"]
        return found

    def grouped(
        self, rows: list[Row], key: Callable[[Row], tuple[Any, ...]]
    ) -> dict[tuple[Any, ...], list[Row]]:
        """By key and subset, and with subset None over all instances, those without one too."""
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in rows:
            for subset in {self.subset(row), None}:
                groups[*key(row), subset].append(row)
        return groups


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables()


@pytest.fixture(scope="module")
def connection(tables: Tables) -> Iterator[duckdb.DuckDBPyConnection]:
    with tables.connect() as connection:
        yield connection


def source_of(view: str) -> str:
    return (files("attribeam.schemas") / "sql" / f"{view}.sql").read_text(encoding="utf-8")


def select(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Row]:
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def assert_rows(found: list[Row], expected: list[Row], *keys: str) -> None:
    def key(row: Row) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in keys)

    assert len({key(row) for row in found}) == len(found)
    assert sorted(map(key, found)) == sorted(map(key, expected))
    for one, other in zip(sorted(found, key=key), sorted(expected, key=key), strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            if isinstance(value, float):
                assert one[name] == pytest.approx(value, rel=1e-9, abs=1e-12), (name, key(one))
            else:
                assert one[name] == value, (name, key(one))


def share(flags: list[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_is_explained(connection: duckdb.DuckDBPyConnection, view: str) -> None:
    lines = [line[3:] for line in source_of(view).splitlines() if line.startswith("--")]
    explained = list(View(view, "\n".join(lines), "").columns)
    columns = [row["column_name"] for row in select(connection, f"describe {view}")]
    assert explained == [name for name in columns if name not in ("instance_id", "method")]


@pytest.mark.parametrize("view", VIEWS)
def test_the_queries_of_a_comment_run(connection: duckdb.DuckDBPyConnection, view: str) -> None:
    comment = [line[2:] for line in source_of(view).splitlines() if line.startswith("--")]
    blocks = "\n".join(comment).partition("\nColumns:")[0].split("\n\n")
    queries = [block for block in blocks if block.lstrip().startswith(("select ", "from "))]
    for query in queries:
        connection.execute(query.replace("object_relative", "a"))
        assert connection.fetchall()


def test_pattern_nodes(tables: Tables, connection: duckdb.DuckDBPyConnection) -> None:
    keys = ("instance_id", "method", "level", "source", "layer")
    found = select(connection, "from pattern_nodes")
    assert_rows(found, tables.edges(), *keys)
    assert [tuple(row[key] for key in keys) for row in found] == sorted(
        tuple(row[key] for key in keys) for row in found
    )


def test_pattern_concentration(tables: Tables, connection: duckdb.DuckDBPyConnection) -> None:
    expected = []
    for (level, subset), rows in tables.grouped(tables.patterns, lambda p: (p["level"],)).items():
        pairs = [(row["influence"], row["input_influence"]) for row in rows]
        ratios = [one / all_ for one, all_ in pairs if all_]
        expected.append(
            {
                "method": "m",
                "level": level,
                "subset": subset,
                "n": len(rows),
                "concentration": sum(abs(p) for p, _ in pairs) / sum(abs(g) for _, g in pairs),
                "mean": mean(ratios),
                "median": median(ratios),
                "sign_agreement": share([bool(np.sign(p) == np.sign(g)) for p, g in pairs]),
            }
        )
    found = select(connection, "from pattern_concentration")
    assert_rows(found, expected, "level", "subset")
    assert any(row["sign_agreement"] < 1 for row in found)
    # What belongs to no subset counts among all.
    number = {row["subset"]: row["n"] for row in found}
    assert number[None] > number["a"] + number["b"]


def test_no_subsets_at_all() -> None:
    whole = Tables()
    for row in whole.instances:
        row["subset"] = None
    with whole.connect() as connection:
        number = {
            view: len(select(connection, f"from {view} where subset is null"))
            for view in ("pattern_concentration", "path_share", "pattern_ablation_summary")
        }
        assert number == {
            "pattern_concentration": 2,
            "path_share": 2,
            "pattern_ablation_summary": len(KINDS),
        }
        assert len(select(connection, "from skip_share")) == LAYERS + 1


def groups_of(tables: Tables) -> dict[tuple[str, str | None, str], list[Row]]:
    """Patterns by level, subset and role: the first with that role of each instance."""
    groups: dict[tuple[str, str | None, str], dict[str, Row]] = defaultdict(dict)
    for row in sorted(tables.patterns, key=lambda p: -int(p["source"])):
        roles = row["roles"] or [None] * (LAYERS + 1)
        nodes = [role or str(node) for role, node in zip(roles, row["nodes"], strict=True)]
        pattern = ">".join(nodes)
        if row["heads"]:
            heads = ["skip" if head == -1 else str(head) for head in row["heads"]]
            pattern += " | " + ">".join(heads)
        key = row["level"], tables.subset(row), nodes[0]
        groups[key][row["instance_id"]] = row | {"pattern": pattern, "by_role": nodes}
    sizes = Counter(tables.subset(row) for row in tables.instances)
    return {key: list(own.values()) for key, own in groups.items() if 2 * len(own) >= sizes[key[1]]}


def hashed(row: Row) -> int:
    """DuckDB's md5_number, which reads the digest from its last byte."""
    return int.from_bytes(hashlib.md5(row["instance_id"].encode()).digest(), "little")


def consistency(tables: Tables) -> list[Row]:
    groups = groups_of(tables)
    n = min(map(len, groups.values()))
    expected = []
    for (level, subset, role), own in groups.items():
        taken = sorted(own, key=hashed)[:n]
        counts = Counter(row["pattern"] for row in taken)
        shares = [count / n for count in counts.values()]
        modal = min(counts, key=lambda pattern: (-counts[pattern], pattern))
        those = [row for row in taken if row["pattern"] == modal]
        right = [tables.by_id[row["instance_id"]]["correct"] for row in own]
        entropy = abs(sum(p * log2(p) for p in shares))
        expected.append(
            {
                "method": "m",
                "level": level,
                "subset": subset,
                "source_role": role,
                "position": mean(float(row["source"]) for row in own),
                "n": n,
                "available": len(own),
                "n_patterns": len(counts),
                "entropy": entropy,
                "normalised_entropy": entropy / log2(n),
                "modal_share": max(shares),
                "modal_pattern": modal,
                "modal_nodes": those[0]["by_role"],
                "modal_heads": those[0]["heads"],
                "modal_influence": mean(abs(row["influence"]) for row in those),
                "accuracy": share([flag for flag in right if flag is not None]),
            }
        )
    return expected


def test_pattern_consistency(tables: Tables, connection: duckdb.DuckDBPyConnection) -> None:
    found = select(connection, "from pattern_consistency")
    assert_rows(found, consistency(tables), "level", "subset", "source_role")
    # Of the largest subset some are left out, and some may be equal and some not.
    assert {row["n"] for row in found} == {7} and max(row["available"] for row in found) == 12
    assert any(0 < row["entropy"] < log2(7) for row in found)
    roles = {(row["subset"], row["source_role"]) for row in found}
    assert ("b", "preposition") in roles and ("a", "3") in roles and (None, "0") in roles
    assert not any(role == "rare" for _, role in roles)


def test_entropy_of_literal_patterns() -> None:
    """Four patterns alike, and three of which two are; the heads tell apart, positions don't."""
    ids = [*(f"x{index}" for index in range(4)), *(f"y{index}" for index in range(4))]
    heads = [[-1, 0]] * 4 + [[0, 0], [0, 0], [1, 0], [1, 1]]
    few = Tables()
    few.instances = [
        {"instance_id": name, "tokens": ["s", "v", "t"], "subset": name[0], "correct": name < "y2"}
        for name in ids
    ]
    few.patterns = [
        few.patterns[0]
        | {"instance_id": name, "level": "attention", "nodes": [at, at, 2], "source": at}
        | {"roles": ["subject", "subject", "target"], "heads": own}
        for name, own, at in zip(ids, heads, [0, 1, 0, 1] * 2, strict=True)
    ]
    with few.connect() as connection:
        columns = "subset, n, n_patterns, entropy, normalised_entropy, modal_share, modal_pattern"
        found = connection.execute(
            f"select {columns}, accuracy from pattern_consistency"
        ).fetchall()
        pooled = connection.execute("from pattern_consistency_accuracy").fetchall()
    assert found == [
        ("x", 4, 1, 0.0, 0.0, 1.0, "subject>subject>target | skip>0", 1.0),
        ("y", 4, 3, 1.5, 0.75, 0.5, "subject>subject>target | 0>0", 0.5),
    ]
    assert pooled == [("m", "attention", None, 2, -1.0), ("m", "attention", "subject", 2, -1.0)]


def test_pattern_consistency_accuracy(
    tables: Tables, connection: duckdb.DuckDBPyConnection
) -> None:
    groups: dict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for row in consistency(tables):
        groups[row["level"], row["source_role"]].append(row)
        groups[row["level"], None].append(row)
    expected = []
    for (level, role), rows in groups.items():
        entropy = [row["entropy"] for row in rows]
        accuracy = [row["accuracy"] for row in rows]
        varied = len(rows) > 1 and min(np.ptp(entropy), np.ptp(accuracy)) > 1e-9
        expected.append(
            {
                "method": "m",
                "level": level,
                "source_role": role,
                "groups": len(rows),
                "correlation": correlation(entropy, accuracy) if varied else None,
            }
        )
    found = select(connection, "from pattern_consistency_accuracy")
    assert_rows(found, expected, "level", "source_role")
    assert {row["correlation"] is None for row in found} == {True, False}


def test_no_labels() -> None:
    unlabelled = Tables()
    for row in (*unlabelled.instances, *unlabelled.ablation):
        row["correct"] = None
    with unlabelled.connect() as connection:
        query = "select distinct groups, correlation from pattern_consistency_accuracy"
        assert connection.execute(query).fetchall() == [(0, None)]
        query = "select distinct accuracy, accuracy_kept from pattern_ablation_summary"
        assert connection.execute(query).fetchall() == [(None, None)]


def test_skip_share(tables: Tables, connection: duckdb.DuckDBPyConnection) -> None:
    attention = [row for row in tables.edges() if row["level"] == "attention"]
    layered = tables.grouped(attention, lambda edge: (edge["layer"],))
    layered |= tables.grouped(attention, lambda edge: (None,))
    expected = []
    for (layer, subset), rows in layered.items():
        skips = [row["kind"] == "skip" for row in rows]
        weights = [abs(row["influence"]) for row in rows]
        skipping = sum(w for w, skip in zip(weights, skips, strict=True) if skip)
        expected.append(
            {
                "method": "m",
                "subset": subset,
                "layer": layer,
                "edges": len(rows),
                "skip_share": share(skips),
                "stays": sum(row["stay"] for row in rows),
                "stay_skip_share": share([row["kind"] == "skip" for row in rows if row["stay"]]),
                "influence_skip_share": skipping / sum(weights),
            }
        )
    found = select(connection, "from skip_share")
    assert_rows(found, expected, "subset", "layer")
    # A skip is possible only where the position stays.
    for row in found:
        skipped = (row["stay_skip_share"] or 0) * row["stays"]
        assert row["skip_share"] * row["edges"] == pytest.approx(skipped)


def paths(length: int, source: int, target: int) -> float:
    """Number of all paths, by powers of the matrix of ways through one layer."""
    ways = np.full((length, length), HEADS) + np.eye(length, dtype=int)
    return float(np.linalg.matrix_power(ways, LAYERS)[source, target])


def test_path_share(tables: Tables, connection: duckdb.DuckDBPyConnection) -> None:
    expected = []
    for (level, subset), rows in tables.grouped(tables.patterns, lambda p: (p["level"],)).items():
        shares, every = [], []
        for row in rows:
            nodes = row["nodes"]
            own = 1
            for one, other in pairwise(nodes):
                own *= HEADS + (one == other) if level == "embedding" else 1
            length = len(tables.by_id[row["instance_id"]]["tokens"])
            every.append(paths(length, nodes[0], nodes[-1]))
            shares.append(own / every[-1])
        expected.append(
            {
                "method": "m",
                "level": level,
                "subset": subset,
                "n": len(rows),
                "mean": mean(shares),
                "median": median(shares),
                "log10": mean(map(log10, shares)),
                "log10_paths": mean(map(log10, every)),
            }
        )
    assert_rows(select(connection, "from path_share"), expected, "level", "subset")


def test_path_share_of_a_large_model(tables: Tables) -> None:
    """More paths than integers hold."""
    with tables.connect() as connection:
        nodes = [1] * 24 + [0]
        connection.execute("delete from patterns where level = 'attention' or source > 0")
        connection.execute("update run set model_num_layers = 24, model_num_heads = 16")
        connection.execute("update patterns set nodes = ?", [nodes])
        connection.execute("update instances set tokens = range(512)::varchar[]")
        row = select(connection, "from path_share where subset is null")[0]
    assert row["log10"] == pytest.approx(23 * log10(17) + log10(16) - row["log10_paths"])
    assert row["log10_paths"] == pytest.approx(24 * log10(16 * 512 + 1) - log10(512))


def test_pattern_ablation_summary(tables: Tables, connection: duckdb.DuckDBPyConnection) -> None:
    groups = tables.grouped(tables.ablation, lambda row: (row["kind"],))
    accuracy = {
        key: mean(float(row["correct"]) for row in rows if row["correct"] is not None)
        for key, rows in groups.items()
    }
    expected = []
    for (kind, subset), rows in groups.items():
        kept = [float(row["heads_kept"]) for row in rows if row["heads_kept"] is not None]
        expected.append(
            {
                "method": "m",
                "subset": subset,
                "kind": kind,
                "n": len(rows),
                "accuracy": accuracy[kind, subset],
                "accuracy_kept": accuracy[kind, subset] / accuracy["whole", subset],
                "output": mean(row["output"] for row in rows),
                "nodes": mean(float(row["nodes_kept"]) for row in rows),
                "heads": mean(kept) if kept else None,
                "skips": mean(kept) if kept else None,
            }
        )
    found = select(connection, "from pattern_ablation_summary")
    assert_rows(found, expected, "subset", "kind")
    assert {row["accuracy_kept"] for row in found if row["kind"] == "whole"} == {1.0}


def test_pattern_flow(tables: Tables, connection: duckdb.DuckDBPyConnection) -> None:
    names = ("level", "subset", "layer", "from_role", "to_role", "head", "kind")
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for edge in tables.edges():
        one = edge["previous_role"] or str(edge["previous"])
        other = edge["role"] or str(edge["position"])
        key = edge["level"], tables.subset(edge), edge["layer"], one, other
        groups[*key, edge["head"], edge["kind"]].append(abs(edge["influence"]))
    expected = [
        {"method": "m"}
        | dict(zip(names, key, strict=True))
        | {"n": len(weights), "weight": float(sum(weights))}
        for key, weights in groups.items()
    ]
    found = select(connection, "from pattern_flow")
    assert_rows(found, expected, *names)
    # What comes into a role leaves it.
    into: Counter[tuple[Any, ...]] = Counter()
    out: Counter[tuple[Any, ...]] = Counter()
    for row in found:
        into[row["level"], row["subset"], row["layer"] + 1, row["to_role"]] += row["n"]
        out[row["level"], row["subset"], row["layer"], row["from_role"]] += row["n"]
    inner = [key for key in into if key[2] < LAYERS]
    assert inner and all(into[key] == out[key] for key in inner)


def test_what_is_not_finite_is_left_out() -> None:
    """One influence and one output of another instance change nothing but what counts them."""
    plain, broken = Tables(), Tables()
    gone = plain.instances[0]["instance_id"]
    plain.patterns = [row for row in plain.patterns if row["instance_id"] != gone]
    plain.ablation = [row for row in plain.ablation if row["instance_id"] != gone]
    for row in broken.patterns:
        if row["instance_id"] == gone:
            row["influence"] = float("nan")
    for number, row in enumerate(row for row in broken.ablation if row["instance_id"] == gone):
        row["output"] = float("inf") if number == 0 else row["output"]
    keys = {
        "pattern_concentration": ("method", "level", "subset"),
        "pattern_ablation_summary": ("method", "subset", "kind"),
        "pattern_flow": ("method", "level", "subset", "layer", "from_role", "to_role", "head"),
    }
    with plain.connect() as expected, broken.connect() as found:
        for view, own in keys.items():
            assert_rows(select(found, f"from {view}"), select(expected, f"from {view}"), *own)
        for view in ("skip_share", "pattern_consistency", "pattern_consistency_accuracy"):
            rows = select(found, f"from {view}")
            values = [v for row in rows for v in row.values() if isinstance(v, float)]
            assert values and np.isfinite(values).all(), view
        query = "select layer, subset, influence_skip_share from skip_share"
        assert_rows(select(found, query), select(expected, query), "layer", "subset")
