"""The documented views on run-like folders of 0.2 and 2 million (instance, method) rows.

The folders are those of ``benchmarks.scale_run``. Before all else it is checked that every view and
table macro has a query here, or none of what it is of.

Run it by itself with ``python -m benchmarks.sql_scale [--rows 200000 2000000] [--views NAME ...]``.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import duckdb
import numpy as np

from attribeam.analysis import open_run
from attribeam.schemas import VIEWS
from benchmarks.scale_run import CURVES_EVERY, METHODS, SHARD, write_run

ROWS = (200_000, 2_000_000)
WIDTH = 20  # Methods of the folder whose size is measured.

THREADS, MEMORY = 2, "3GiB"
BYTES_LIMIT, GROWTH_LIMIT, LOOKUP_LIMIT = 4.0, 11.0, 0.2
# Seconds that a view may take over 2 million rows on two free cores, and any other.
SECONDS_LIMITS = {
    "faithfulness": 2.0,
    "cost": 2.0,
    "agreement": 60.0,
    "agreement_absolute": 60.0,
    "consensus": 60.0,
}
SECONDS_LIMIT = 30.0

SUMMARIES = (
    "cost",
    "completeness",
    "quadrature",
    "failure_summary",
    "faithfulness",
    "faithfulness_normalised",
    "faithfulness_distributions",
    "degradation",
    "degradation_curves",
    "perturbation_auc",
    "cost_faithfulness",
    "degradation_intervals",
    "faithfulness_intervals",
    "faithfulness_differences",
    "agreement",
    "agreement_absolute",
    "consensus",
    "complexity",
    "ranking",
    "ranking_agreement",
    "mean_ranks",
    "grad_x_input_correlation",
    "plausibility",
    "plausibility_intervals",
    "document_plausibility",
    "pointing",
    "segmentation",
    "localisation_intervals",
    "class_discrimination",
    "mixing",
    "information_flow",
    "head_importance",
    "head_agreement",
    "receptive_field",
    "attack_success",
    "pattern_concentration",
    "pattern_consistency",
    "pattern_consistency_accuracy",
    "skip_share",
    "path_share",
    "pattern_ablation_summary",
    "pattern_flow",
)
# Views with a row per instance or finer, read whole by an aggregate.
SCANS = {
    "tokens": "select count(*), avg(score) from tokens where not special",
    "words": "select count(*), avg(score_max) from words",
    "documents": "select count(*), avg(agreeing) from documents",
    "document_tokens": "select count(*), avg(score) from document_tokens",
    "compared": "select count(*) from {view}('scores', true, null) where compared",
    "compared_curves": "select count(*) from {view}(true, null) where compared",
    "compared_points": "select count(*), avg(probability) from {view}(true, null)",
    "faithfulness_by_instance": "select count(*), avg(auc_difference) from {view}",
    "agreement_over": "from {view}(methods := ['globenc', 'influence'])",
    "complexity_by_instance": "select count(*), avg(gini), avg(entropy) from {view}",
    "plausibility_by_instance": "select count(*), avg(auprc) from {view}",
    "pointing_by_instance": "select count(*), avg(roc_auc) from {view}",
    "segmentation_by_instance": "select count(*), avg(miou) from {view}",
    "document_word_ranks": "select count(*), sum(len(ranked)) from {view}",
    "word_ranks": "select count(*), sum(len(ranked)) from {view}",
    "layer_tokens": "select count(*), avg(rollout) from {view} where not special",
    "information_tokens": "select role, count(*), avg(bits) from {view} group by role",
    "interaction_edges": "select query_text, count(*), avg(attr) from {view} group by all",
    "attribution_tree": "select depth, count(*), avg(len(path_text)) from {view} group by depth",
    "trigger_candidates": "select count(*), avg(score) from {view}",
    "pattern_nodes": "select kind, count(*), avg(abs(influence)) from {view} group by kind",
    "head_agreement_with": "from {view}('{folder}/heads/*/*.parquet')",
}
# What is of two runs, or of tables that these folders have not: what language models go on with,
# and what ``attribeam check`` leaves.
ELSEWHERE = (
    "agreement_with",
    "faithfulness_with",
    "continuations",
    "continuation_sources",
    "continuation_faithfulness_by_instance",
    "continuation_faithfulness",
    "datamodeling_by_instance",
    "datamodeling",
    "evidence_by_instance",
    "evidence",
    "randomisation_by_instance",
    "randomisation",
    "efficient_randomisation",
    "random_logit",
    "subset_drops",
    "infidelity_by_instance",
    "infidelity",
    "sensitivity_n",
    "sensitivity_by_instance",
    "sensitivity",
    "reliability_by_instance",
    "reliability",
)
LOOKUPS = (
    "instances",
    "attributions",
    "tokens",
    "words",
    "faithfulness_by_instance",
    "faithfulness_normalised_by_instance",
    "faithfulness_distributions_by_instance",
    "agreement_by_instance",
    "agreement_absolute_by_instance",
    "consensus_by_instance",
    "complexity_by_instance",
    "plausibility_by_instance",
    "pointing_by_instance",
    "segmentation_by_instance",
    "documents",
    "document_tokens",
    "word_ranks",
    "layer_tokens",
    "information_tokens",
    "interaction_edges",
    "attribution_tree",
    "trigger_candidates",
    "pattern_nodes",
)


def main(rows: Sequence[int] = ROWS, views: Sequence[str] = ()) -> bool:
    """Prints seconds per view at each size; returns whether all that has a limit keeps it."""
    if forgotten := without_query():
        print(f"no query for {', '.join(forgotten)}")
        return False
    good = _size()
    with tempfile.TemporaryDirectory() as name:
        folders = [_written(Path(name), number) for number in rows]
        found = _times(folders, [number // METHODS for number in rows], views)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process {peak:,.0f} MiB (DuckDB's limit {MEMORY})")
    for name, seconds in found[-1].items():
        limit = SECONDS_LIMITS.get(name, SECONDS_LIMIT)
        if rows[-1] >= ROWS[-1] and seconds > limit:
            print(f"{name}: {seconds:.2f} s, over its limit of {limit:.0f} s")
            good = False
        if name.startswith("lookup ") and seconds > LOOKUP_LIMIT:
            print(f"{name}: {seconds:.2f} s, over the limit of {LOOKUP_LIMIT} s")
            good = False
        # What takes no time can't grow in proportion to anything.
        ratio = seconds / max(found[0][name], 0.05) * (10 * rows[0] / rows[-1])
        if len(rows) > 1:
            print(f"{name:32} grows {ratio:5.1f}x")
            good &= ratio <= GROWTH_LIMIT
    return good


def _size() -> bool:
    """Bytes per token score of the attributions of one shard and twenty methods."""
    with tempfile.TemporaryDirectory() as name:
        write_run(Path(name), SHARD, WIDTH)
        size = sum(path.stat().st_size for path in Path(name).glob("attributions/*/*"))
        with open_run(name) as connection:
            scores = _number(connection, "select sum(len(scores)) from attributions")
    each = size / scores
    print(
        f"attributions, {WIDTH} methods: {each:.2f} bytes a token score (limit {BYTES_LIMIT})",
        flush=True,
    )
    return each <= BYTES_LIMIT


def _number(connection: duckdb.DuckDBPyConnection, sql: str) -> float:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return float(row[0])


def without_query() -> list[str]:
    """The views and table macros that have none; the other macros are parts of views."""
    asked = {*SUMMARIES, *SCANS, *LOOKUPS, *ELSEWHERE}
    return [
        view.name for view in VIEWS if view.name not in asked and view.created[-1].kind != "macro"
    ]


def _queries(folder: Path, instances: int) -> Iterator[tuple[str, str]]:
    for view in SUMMARIES:
        yield view, f"from {view}"
    for view, sql in SCANS.items():
        yield f"scan {view}", sql.format(view=view, folder=folder)
    # One that has curves, details and a rationale.
    middle = instances // 2 // CURVES_EVERY * CURVES_EVERY
    for view in LOOKUPS:
        key = "row_id" if view.startswith("document") else "instance_id"
        yield f"lookup {view}", f"from {view} where {key} = 'row-{middle:08d}'"


def _written(parent: Path, rows: int) -> Path:
    folder = parent / str(rows)
    start = time.perf_counter()
    write_run(folder, rows // METHODS)
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    seconds = time.perf_counter() - start
    print(f"{rows:,} rows of attributions: {size / 1e6:,.0f} MB, written in {seconds:.0f} s")
    return folder


def _times(
    folders: Sequence[Path], instances: Sequence[int], views: Sequence[str]
) -> list[dict[str, float]]:
    """Seconds of each query in each folder.

    The folders take turns, query by query: a machine that others use is slower at some times than
    at others.
    """
    found: list[dict[str, float]] = [{} for _ in folders]
    with tempfile.TemporaryDirectory() as spill, ExitStack() as stack:
        connections = [
            stack.enter_context(open_run(folder, external_access=True)) for folder in folders
        ]
        for connection in connections:
            connection.execute(f"set threads = {THREADS}")
            connection.execute(f"set memory_limit = '{MEMORY}'")
            connection.execute(f"set temp_directory = '{spill}'")
        queries = [_queries(*each) for each in zip(folders, instances, strict=True)]
        for of_sizes in zip(*queries, strict=True):
            name = of_sizes[0][0]
            if views and name not in views:
                continue
            best = _best(connections, [sql for _, sql in of_sizes])
            for times, seconds in zip(found, best, strict=True):
                times[name] = seconds
            print(f"  {name:32} {', '.join(f'{each:6.2f} s' for each in best)}", flush=True)
    return found


def _best(connections: Sequence[duckdb.DuckDBPyConnection], queries: Sequence[str]) -> list[float]:
    """Seconds of a query on each connection, the best of five rounds, of two, or of one.

    They are those on the clock or, where other processes take the cores, CPU seconds: on free
    cores a query takes no more.
    """
    best = [np.inf] * len(connections)
    for repeat in range(1, 6):
        round_start = time.perf_counter()
        for number, (connection, sql) in enumerate(zip(connections, queries, strict=True)):
            start, used = time.perf_counter(), time.process_time()
            connection.execute(sql).fetchall()
            wall, cpu = time.perf_counter() - start, time.process_time() - used
            best[number] = min(best[number], wall, cpu)
        # The shorter, the more of it is chance.
        lasted = time.perf_counter() - round_start
        if lasted > 20 or (lasted > 2 and repeat == 2):
            break
    return [float(each) for each in best]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql_scale", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--views", nargs="+", default=(), metavar="NAME")
    arguments = parser.parse_args()
    raise SystemExit(0 if main(arguments.rows, arguments.views) else 1)
