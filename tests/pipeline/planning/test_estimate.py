"""What a run would take: the arithmetic, and a small plan against its run."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attribeam.pipeline import Options, run
from attribeam.pipeline.planning.accelerators import ACCELERATORS
from attribeam.pipeline.planning.calibrate import Calibration, Group, Sampled, Size
from attribeam.pipeline.planning.estimate import (
    Cost,
    Estimate,
    estimate,
    estimate_run,
    file_size,
    fit_cost,
)
from attribeam.pipeline.planning.report import duration, print_estimate, size_of
from attribeam.schemas import Unit, UsageError
from attribeam.transforms import Model, Row
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.network.flops import forward_flops
from tests.support.tiny import command, files, rows, write_jsonl

LENGTHS = [[10] * 4, [20] * 3, [40] * 2, [80]]


def group(lengths: list[int]) -> Group:
    """Attribution takes 1 ms a token and 0.01 ms a pair of tokens, and so on."""
    tokens, pairs = sum(lengths), sum(n * n for n in lengths)
    return Group(
        lengths=lengths,
        encode=1e-5 * tokens,
        attribute=1e-3 * tokens + 1e-5 * pairs,
        curves=2e-3 * tokens,
        tables=1e-4 * tokens + 0.25,
        methods={"saliency": 4e-4 * tokens, "lrp": 5e-4 * tokens},
    )


def calibration(**changes: object) -> Calibration:
    """Of a corpus of 1000 rows of 10, 20, 40 and 80 tokens, a quarter of them each."""
    each = [[10], [20], [40], [80]]
    plain: dict[str, object] = {
        "sampled": Sampled(1000, [Row(str(n), "") for n in range(4)], each, 4, 0.5),
        "device": "cpu",
        "groups": [group(lengths) for lengths in LENGTHS],
        "sizes": {
            Unit("instances"): Size(1000, 3000, 100.0, 5000),
            Unit("curves", "saliency"): Size(500, 1500, 50.0, 2000),
        },
        "loading": 1.0,
        "statistics": 2.0,
        "forward_rate": 1e11,
        "double": frozenset({"lrp"}),
        "memory": 700_000_000,
        "files": 0.25,
        "device_memory": None,
        "full_batch": 2_000_000_000,
    }
    return Calibration(**(plain | changes))  # type: ignore[arg-type]


def mean(lengths: list[int], token: float, pair: float) -> float:
    return float(np.mean([token * n + pair * n * n for n in lengths]))


@pytest.mark.parametrize("cost", [Cost(2e-3, 5e-6), Cost(1e-3, 0.0), Cost(0.0, 1e-5)])
def test_a_cost_by_length_is_found_again(cost: Cost) -> None:
    found = fit_cost([(lengths, cost.of(lengths)) for lengths in LENGTHS])
    np.testing.assert_allclose(found, cost, rtol=1e-6, atol=1e-12)


def test_no_cost_is_negative() -> None:
    # Longer instances that seem cheaper a token: noise, or batches that were filled better.
    found = fit_cost([([10] * 10, 0.12), ([20] * 10, 0.2), ([80] * 10, 0.7)])
    assert found.pair == 0 and found.token == pytest.approx(1e-3, rel=0.15)
    steep = fit_cost([([10] * 10, 0.001), ([80] * 10, 0.7)])
    assert steep.token == 0 and steep.pair > 0


def test_one_length_and_none_are_fitted() -> None:
    assert fit_cost([([16] * 4, 0.64)] * 3).of([16]) == pytest.approx(0.16)
    assert fit_cost([]) == fit_cost([([], 1.0)]) == Cost(0.0, 0.0)


def test_a_run_here_is_its_shards() -> None:
    found = estimate(calibration(), shard_size=300, dtype="float32")
    each = [10, 20, 40, 80]
    assert (found.rows, found.instances, found.tokens, found.shards) == (1000, 1000, 37_500, 4)
    assert found.attribution == pytest.approx(300 * mean(each, 1e-3, 1e-5))
    assert found.curves == pytest.approx(300 * mean(each, 2e-3, 0))
    assert found.tables == pytest.approx(300 * mean(each, 1.1e-4, 0) + 0.25)
    assert {m.method: m.seconds_per_shard for m in found.methods} == pytest.approx(
        {"saliency": 300 * mean(each, 4e-4, 0), "lrp": 300 * mean(each, 5e-4, 0)}
    )
    work = found.seconds_per_shard * 1000 / 300
    assert 3600 * found.hours - found.startup == pytest.approx(work)
    assert found.money is None and found.device == "cpu"
    assert found.memory > 700_000_000


def test_workers_share_the_shards_as_far_as_there_are_processors() -> None:
    one, two, many = (
        estimate(calibration(), shard_size=300, dtype="float32", workers=n, parallel=2)
        for n in (1, 2, 8)
    )
    # Four shards by two.
    assert 3600 * two.hours - two.startup == pytest.approx(2 * one.seconds_per_shard)
    assert (two.workers, many.workers, many.hours) == (2, 2, two.hours)
    assert two.device_hours == pytest.approx(2 * two.hours)


def test_another_device_is_faster_by_its_rate() -> None:
    here = estimate(calibration(), shard_size=300, dtype="float32")
    l4 = ACCELERATORS["l4"]
    there = estimate(calibration(), shard_size=300, dtype="float32", accelerator=l4)
    speed, double = l4.rate("float32") / 1e11, l4.rate("float64") / 0.5e11
    relevance = 300 * mean([10, 20, 40, 80], 5e-4, 0)
    rest = here.attribution - relevance
    assert there.attribution == pytest.approx(rest / speed + relevance / double)
    assert there.curves == pytest.approx(here.curves / speed)
    assert there.tables == pytest.approx(here.tables)
    assert there.money == pytest.approx(l4.price * there.hours)
    assert any("extrapolated" in text for text in there.assumptions)
    mixed = estimate(calibration(), shard_size=300, dtype="mixed", accelerator=l4)
    assert mixed.curves < there.curves
    dear = estimate(calibration(), shard_size=300, dtype="float32", accelerator=l4, price=100)
    assert dear.money == pytest.approx(100 * there.hours)
    with pytest.raises(UsageError, match="T4 does not compute in bfloat16"):
        estimate(calibration(), shard_size=9, dtype="mixed", accelerator=ACCELERATORS["t4"])


def test_what_may_not_fit_a_gpu_is_said() -> None:
    found = [
        estimate(
            calibration(full_batch=size),
            shard_size=300,
            dtype="float32",
            accelerator=ACCELERATORS["l4"],
        )
        for size in (10**9, 10**11)
    ]
    assert [any("--token-budget" in text for text in each.assumptions) for each in found] == [
        False,
        True,
    ]


def test_files_grow_with_their_instances() -> None:
    assert file_size(1000, 50, 10, 5) == 500
    assert file_size(1000, 50, 10, 30) == 2000


def test_numbers_are_for_people() -> None:
    assert [size_of(n) for n in (12, 1500, 2.5e6, 7e15)] == ["12 B", "1.5 kB", "2.5 MB", "7 PB"]
    assert [duration(n) for n in (59, 600, 72_000)] == ["59 s", "10 min", "20.0 h"]


def test_operations_of_a_pass_are_those_of_its_products(tiny: Callable[..., Model]) -> None:
    model = tiny("bert")
    hidden, wide = model.network.config.hidden_size, model.network.config.intermediate_size
    token = 2 * (4 * hidden**2 + 2 * hidden * wide) + 4 * 7 * hidden
    expected = (7 * (model.num_layers - 1) + 1) * token
    assert forward_flops(model, [7, 7]) == 2 * expected


# A small plan and its run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [*rows(60), {"id": "empty", "text": ""}]
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", lines)


def test_a_plan_is_near_its_run_and_writes_nothing(
    tiny_folder: Callable[..., Path],
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    options = Options(
        str(tiny_folder("bert")),
        str(corpus),
        str(out),
        methods="saliency,norm_n,attattr",
        evaluation=Evaluation(fractions=(0.5,)),
        shard_size=25,
    )
    found = estimate_run(options, "cpu", sample=24)
    assert not files(tmp_path)
    assert (found.rows, found.instances, found.shards, found.measured) == (61, 60, 3, 24)
    assert [m.method for m in found.methods] == ["saliency", "norm_n", "attattr"]
    assert all(m.seconds_per_instance > 0 for m in found.methods)
    assert 0 < found.seconds_per_shard < 60 and 0 < found.hours < 0.1
    run(options)
    for table, size in found.output.items():
        real = sum(path.stat().st_size for path in (out / table).rglob("*.parquet"))
        assert size == pytest.approx(real, rel=0.3), table
    real = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    assert found.output_bytes == pytest.approx(real, rel=0.3)


def test_the_command_shows_it(tiny_folder: Callable[..., Path], corpus: Path) -> None:
    common = ("--model", tiny_folder("bert"), "--corpus", corpus, "--methods", "random")
    shown = command(
        "plan", *common, "--device", "l4", "--workers", 2, "--sample", 4, "--part", "1/2"
    )
    assert "the estimate is of the whole run, and not of --part 1/2\n" in shown.out
    assert shown.status == 0, shown.err
    assert "2 x L4" in shown.out and "g2-standard-4" in shown.out and "GPU hours" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    asked = command("plan", *common, "--sample", 4, "--price-per-hour", 2, "--format", "json")
    values = json.loads(asked.out)
    assert values["rows"] == 61 and values["money"] == pytest.approx(2 * values["hours"])


def test_a_corpus_without_a_text_takes_nothing(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"text": ""}, {"text": " "}])
    given = ("--model", tiny_folder("bert"), "--corpus", corpus, "--methods", "saliency,lrp")
    shown = command("plan", *given, "--device", "h100")
    assert shown.status == 0, shown.err
    assert "none of the 2 rows looked at can be encoded" in shown.out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--device", "h999"), "a100-80gb, h100, not h999"),
        (("--device", "t4", "--dtype", "mixed"), "T4 does not compute in bfloat16"),
        (("--methods", "nope"), "there is no method 'nope'"),
        (("--sample", "0"), "--sample is more than 0"),
        (("--shard-size", "0"), "--shard-size is at least 1"),
        (("--frobnicate", "1"), "unknown option --frobnicate"),
    ],
)
def test_a_wrong_plan_is_refused(
    wrong: tuple[str, ...], message: str, tiny_folder: Callable[..., Path], corpus: Path
) -> None:
    given = ("--model", tiny_folder("bert"), "--corpus", corpus, "--methods", "random", *wrong)
    refused = command("plan", *given)
    assert refused.status == 2 and message in refused.err


def test_a_plan_needs_a_corpus(tiny_folder: Callable[..., Path]) -> None:
    refused = command("plan", "--model", tiny_folder("bert"))
    assert refused.status == 2 and "--corpus is needed (`attribeam plan --help`)" in refused.err


def test_a_table_without_a_gpu_has_no_gpu_hours() -> None:
    out = io.StringIO()
    found: Estimate = estimate(calibration(), shard_size=300, dtype="float32")
    print_estimate(found, "table", out)
    assert "GPU" not in out.getvalue() and "this machine" in out.getvalue()
