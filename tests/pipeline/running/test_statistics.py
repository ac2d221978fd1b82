"""Statistics of the corpus: estimated once per run, from a sample that nothing else decides on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attribeam.pipeline import Options, run
from attribeam.pipeline.running.outcome import reasons
from attribeam.schemas import UsageError
from attribeam.schemas.layout import statistics_path
from attribeam.transforms import attribute, collect, encode, load_model
from tests.conftest import LoadTiny
from tests.support.conditioning import SINGLE
from tests.support.models import random_instances
from tests.support.tiny import scores

Save = Callable[[str, str], Path]

TEXTS = ["the film is good", "a dull plot .", "the actor was not very good", "bad , bad and dull !"]
METHODS = "iba,random"
SAMPLE_OF_TWO = {"iba": {"sample": 2, "copies": 2, "steps": 3}}


def run_iba(model: Path, corpus: Path, output: Path, **more: object) -> Path:
    options = Options(
        model=str(model),
        corpus=str(corpus),
        output=str(output),
        methods=METHODS,
        params=SAMPLE_OF_TWO,
        evaluation=None,
        device="cpu",
        **more,  # type: ignore[arg-type]
    )
    run(options)
    return output / statistics_path(2)


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in ["text", *(f'"{t}"' for t in texts)]))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "texts.csv", TEXTS)


def test_neither_order_nor_shards_decide_on_the_sample(
    tiny_folder: Save, corpus: Path, tmp_path: Path
) -> None:
    model = tiny_folder("bert", "classification")
    turned = write(tmp_path / "turned.csv", TEXTS[::-1])
    first = pq.read_table(run_iba(model, corpus, tmp_path / "one"))
    assert pq.read_table(run_iba(model, corpus, tmp_path / "two", shard_size=1)).equals(first)
    assert pq.read_table(run_iba(model, turned, tmp_path / "three")).equals(first)
    seeded = [run_iba(model, corpus, tmp_path / f"{seed}", seed=seed) for seed in (1, 2, 3, 4)]
    assert not all(pq.read_table(path).equals(first) for path in seeded)
    assert first["layer"].to_pylist() == [0, 1, 2]
    assert set(first["tokens"].to_pylist()) <= set(range(8, 24))


def test_a_later_call_has_the_same_statistics(
    tiny_folder: Save, corpus: Path, tmp_path: Path
) -> None:
    model = tiny_folder("bert", "classification")
    path = run_iba(model, corpus, tmp_path / "run", shard_size=2)
    before, stamp = scores(tmp_path / "run", ["iba"]), path.stat().st_mtime_ns
    for lost in (tmp_path / "run" / "attributions" / "method=iba").glob("*-of-*"):
        lost.unlink()
    run_iba(model, corpus, tmp_path / "run", shard_size=2)
    assert path.stat().st_mtime_ns == stamp
    assert scores(tmp_path / "run", ["iba"]) == before


def test_the_sample_is_a_part_of_the_corpus(
    tiny_folder: Save, corpus: Path, tmp_path: Path
) -> None:
    folder = tiny_folder("bert", "classification")
    path = run_iba(folder, corpus, tmp_path / "run")
    table = pq.read_table(path)
    model = load_model(folder)
    # What all four texts would give is something else.
    whole = collect(model, encode(model, TEXTS), 1000)
    assert not np.allclose(np.array(table["mean"].to_pylist()), whole.mean)


def test_statistics_are_asked_for(tiny: LoadTiny) -> None:
    model = tiny("bert")
    instances = random_instances(model, [6, 9])
    with pytest.raises(UsageError, match="iba needs statistics of the corpus"):
        attribute(model, instances, "iba")
    found = attribute(model, instances, "iba", statistics=collect(model, instances, 1000))
    assert found.failures == []
    assert all(row is not None and (row.scores >= 0).all() for row in found.rows["iba"])


def test_a_corpus_of_which_nothing_can_be_read(tiny_folder: Save, tmp_path: Path) -> None:
    model = tiny_folder("bert", "classification")
    path = run_iba(model, write(tmp_path / "empty.csv", [" ", ""]), tmp_path / "run")
    assert not path.exists()
    assert scores(tmp_path / "run", ["iba"]) == {}
    assert [reason.number for reason in reasons(str(tmp_path / "run"))] == [2]


def test_what_never_varies_has_no_statistics(tiny: LoadTiny) -> None:
    model = tiny("bert")
    norm = model.layers[1].steps[-1].join
    assert norm is not None
    stuck = norm.module
    weight = stuck.weight.data.clone()
    stuck.weight.data[5] = 0
    try:
        with pytest.raises(UsageError, match="feature 5 of what leaves layer 1 is the same"):
            collect(model, random_instances(model, [6, 9]), 1000)
    finally:
        stuck.weight.data = weight
    with pytest.raises(UsageError, match="at least 2 tokens"):
        collect(model, [], 1000)


def test_a_text_that_the_model_fails_on_does_not_count(tiny: LoadTiny) -> None:
    model = tiny("bert")
    good, sick = random_instances(model, [9, 6])
    (token,) = set(sick.input_ids[1:2].tolist()) - set(good.input_ids.tolist())
    embeddings = model.network.get_input_embeddings().weight.data
    kept = embeddings[token].clone()
    embeddings[token] = torch.nan
    try:
        found = collect(model, [good, sick], 1000)
    finally:
        embeddings[token] = kept
    assert found.count == len(good)
    np.testing.assert_allclose(
        found.mean, collect(model, [good], 1000).mean, rtol=SINGLE, atol=SINGLE
    )
