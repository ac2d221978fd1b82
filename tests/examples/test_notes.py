"""The corpus of notes keeps its promises, and the language model of it does what its card says."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from attribeam.transforms.registry import methods
from examples.bundled import data, notes
from examples.bundled.card import read_accuracies
from examples.bundled.notes import STRUCTURES, Note
from examples.bundled.notes_fitting import NotesRecipe, note_accuracies, tokenizer
from examples.bundled.splits import SPLITS
from examples.bundled.train_notes import train_notes
from tests.support.tiny import command

EXAMPLES = Path(data.__file__).parent.parent
MODEL = EXAMPLES / "models" / "notes-llama"


@pytest.fixture(scope="module")
def some() -> list[Note]:
    return notes.generate(600, seed=3)


def test_prompts_are_different(some: list[Note]) -> None:
    counts = Counter(note.subset for note in some)
    assert set(counts) == set(STRUCTURES) and min(counts.values()) > 180
    assert len({note.text for note in some}) == len({note.id for note in some}) == 600
    assert some[:100] == notes.generate(100, seed=3)
    splits = data.notes_splits(600, 3)
    assert sum(len(splits[split]) for split in SPLITS) == 600


def test_evidence_decides_what_follows(some: list[Note]) -> None:
    known = {*notes.words()}
    for note in some:
        words, good, bad = note.prompt.split(), note.continuation.split(), note.foil.split()
        assert {*words, *good, *bad} <= known
        assert len(good) == len(bad) and good[0] != bad[0] and good[-1] == bad[-1] == "."
        marked = [w for w, mark in zip(words, note.rationale, strict=True) if mark]
        if note.subset == "lookup":
            assert marked == [words[-1], good[0]]
            assert words.count(good[0]) == words.count(bad[0]) == 1
        elif note.subset == "names":
            # Named twice is who gives, and once who receives.
            assert words.count(bad[0]) == 2 and words.count(good[0]) == 1
            assert sorted(marked) == sorted([good[0], bad[0], bad[0]])
        else:
            plural = marked[0] in {notes._number(noun, plural=True) for noun in notes.THINGS}
            assert marked == [words[1]] and (good[0], bad[0]) == (
                ("are", "is") if plural else ("is", "are")
            )


def test_the_bundled_sample_is_made_again() -> None:
    stored = pq.read_table(EXAMPLES / "data" / "notes.parquet")
    assert stored.schema.equals(notes.SCHEMA)
    assert [Note(**row) for row in stored.to_pylist()] == data.notes_sample()


def test_the_model_is_as_good_as_its_card() -> None:
    sample = data.notes_sample()
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    words = AutoTokenizer.from_pretrained(MODEL)
    assert words.get_vocab() == tokenizer().get_vocab()
    found, stated = note_accuracies(model, words, sample), read_accuracies(MODEL)
    assert set(found) == set(stated)
    for group, (accuracy, count) in found.items():
        assert accuracy >= stated[group][1] - 1.01 / count, group
    assert stated["overall"][0] >= 0.95
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 4_000_000


def test_a_folder_is_made_and_made_again(tmp_path: Path) -> None:
    recipe = NotesRecipe(notes=120, epochs=1, layers=1, hidden=16, feed_forward=16)
    card = train_notes(tmp_path / "one", 0, recipe=recipe)
    train_notes(tmp_path / "other", 0, recipe=recipe)
    assert read_accuracies(tmp_path / "one").keys() == card.test.keys()
    weights = [tmp_path / name / "model.safetensors" for name in ("one", "other")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_query_of_the_demo_answers(tmp_path: Path) -> None:
    """On two prompts of each structure, with two of its methods."""
    table = pq.read_table(EXAMPLES / "data" / "notes.parquet")
    pq.write_table(table.take([0, 1, 2, 3, 4, 5]), tmp_path / "few.parquet")
    config = yaml.safe_load((EXAMPLES / "lm.yaml").read_text())
    assert EXAMPLES.parent / config["model"] == MODEL
    assert (EXAMPLES.parent / config["corpus"]).is_file()
    assert {*config["methods"]} <= {*methods()}
    out = tmp_path / "out"
    found = command(
        *("run", "--config", EXAMPLES / "lm.yaml", "--model", MODEL, "--output", out),
        *("--corpus", tmp_path / "few.parquet", "--methods", "decompx,random"),
    )
    assert found.status == 0, found.err
    answer = command("query", out, EXAMPLES / "lm.sql", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert [row["method"] for row in rows] == ["decompx", "random"]
    assert float(rows[0]["mrr_lookup"]) == 1 > float(rows[1]["mrr_lookup"])
