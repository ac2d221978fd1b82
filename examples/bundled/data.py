"""Splits of the corpora, and the samples of them that are bundled.

``python -m examples.bundled.data`` writes the samples again, the same to the byte.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from examples.bundled import agreement, influence_corpus, notes, sentiment, shapes
from examples.bundled.agreement import AgreementExample
from examples.bundled.influence_corpus import REFLEXIVES, SUBTASKS, InfluenceExample
from examples.bundled.notes import STRUCTURES, Note
from examples.bundled.sentiment import SentimentExample
from examples.bundled.shapes import SHAPES, Scene
from examples.bundled.shapes_drawing import mask_file, picture_file
from examples.bundled.splits import SPLITS, Split, split_of

Example = TypeVar("Example", SentimentExample, AgreementExample, InfluenceExample, Scene, Note)

SAMPLE_SIZE = 400
INFLUENCE_SAMPLE_SIZE = 40 * len(SUBTASKS)
# Enough that the test tenth holds the sample: longer corpora of the same seed begin with it.
_SAMPLED_CORPUS = 6_000
_SAMPLED_SENTENCES = 800
_SAMPLED_PICTURES = 3_000
_SAMPLED_NOTES = 3_000
NOTES_SAMPLE_SIZE = 40 * len(STRUCTURES)
# With one thing, and with two.
SHAPES_SAMPLE_SIZES = {"one": 96, "two": 48}
# Of a subtask: the words of the smallest one give no more.
_ALL_REFLEXIVES = 3_600
DEFAULT_FOLDER = Path(__file__).parent.parent / "data"

SENTIMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("rationale", pa.list_(pa.int64()), nullable=False),
        pa.field("structure", pa.string(), nullable=False),
    ]
)
AGREEMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("good", pa.string(), nullable=False),
        pa.field("bad", pa.string(), nullable=False),
        pa.field("subject_index", pa.int64(), nullable=False),
        pa.field("attractor_index", pa.int64()),
        pa.field("target_index", pa.int64(), nullable=False),
        pa.field("subject_number", pa.string(), nullable=False),
        pa.field("attractor_number", pa.string()),
        pa.field("structure", pa.string(), nullable=False),
    ]
)

# As ``datasets`` stores pictures and classes, so that it knows them as such.
SHAPES_SCHEMA = datasets.Features(
    {
        "id": datasets.Value("string"),
        "image": datasets.Image(),
        "mask": datasets.Image(),
        "label": datasets.ClassLabel(names=list(SHAPES)),
        "other_mask": datasets.Image(),
        "other_label": datasets.ClassLabel(names=list(SHAPES)),
        "caption": datasets.Value("string"),
        "structure": datasets.Value("string"),
    }
).arrow_schema


def deciding_sentences(example: SentimentExample) -> str:
    """Give the sentences of a review that hold a word of its rationale."""
    kept: list[str] = []
    sentence: list[str] = []
    decides = False
    for word, gold in zip(example.text.split(), example.rationale, strict=True):
        sentence.append(word)
        decides = decides or bool(gold)
        if word.endswith("."):
            kept += sentence if decides else []
            sentence, decides = [], False
    return " ".join(kept)


def _partition(
    examples: Sequence[Example], key: Callable[[Example], str]
) -> dict[Split, list[Example]]:
    parts: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    for example in examples:
        parts[split_of(key(example))].append(example)
    return parts


def sentiment_splits(n: int, seed: int) -> dict[Split, list[SentimentExample]]:
    """Generate reviews and split them; no deciding sentence occurs in two splits.

    Neutral sentences ("There was no interval.") recur in all of them.
    """
    return _partition(sentiment.generate(n, seed), deciding_sentences)


def agreement_splits(n: int, seed: int) -> dict[Split, list[AgreementExample]]:
    """Generate agreement sentences and split them; no sentence occurs in two splits."""
    return _partition(agreement.generate(n, seed), lambda example: example.text)


def shapes_splits(n: int, seed: int) -> dict[Split, list[Scene]]:
    """Compose pictures and split them; no picture occurs in two splits."""
    return _partition(shapes.generate(n, seed), lambda scene: scene.content)


def notes_splits(n: int, seed: int) -> dict[Split, list[Note]]:
    """Compose prompts and split them; none is in two splits with the same that follows."""
    return _partition(notes.generate(n, seed), lambda note: note.text)


def _balanced(
    examples: Sequence[Example], cell: Callable[[Example], Hashable], n: int
) -> list[Example]:
    """Take the first examples of each cell, as many of each, ``n`` in all, in their order."""
    cells: dict[Hashable, list[Example]] = defaultdict(list)
    for example in examples:
        cells[cell(example)].append(example)
    share, rest = divmod(n, len(cells))
    if rest or min(map(len, cells.values())) < share:
        raise ValueError(f"{n} examples cannot be shared among {len(cells)} cells")
    chosen = [example for members in cells.values() for example in members[:share]]
    return sorted(chosen, key=lambda example: example.id)


def sentiment_sample(n: int = SAMPLE_SIZE, seed: int = 0) -> list[SentimentExample]:
    """Take ``n`` test reviews, as many of each structure and label."""
    test = sentiment_splits(_SAMPLED_CORPUS, seed)["test"]
    return _balanced(test, lambda example: (example.structure, example.label), n)


def agreement_sample(n: int = SAMPLE_SIZE, seed: int = 0) -> list[AgreementExample]:
    """Take ``n`` test sentences, as many of each structure and number of the subject."""
    test = agreement_splits(_SAMPLED_CORPUS, seed)["test"]
    return _balanced(test, lambda example: (example.structure, example.subject_number), n)


def influence_test(seed: int) -> list[InfluenceExample]:
    """Generate test sentences for influence patterns, over 300 of each subtask."""
    corpus = influence_corpus.generate(_ALL_REFLEXIVES, seed)
    return [example for example in corpus if example.split == "test"]


def reflexives(n: int, seed: int) -> list[InfluenceExample]:
    """Generate ``n`` sentences of each subtask with reflexives, and keep those for training."""
    corpus = influence_corpus.generate(n, seed, REFLEXIVES)
    return [example for example in corpus if example.split == "train"]


def influence_sample(n: int = INFLUENCE_SAMPLE_SIZE, seed: int = 0) -> list[InfluenceExample]:
    """Take ``n`` test sentences for influence patterns, as many of each subtask and form."""
    corpus = influence_corpus.generate(_SAMPLED_SENTENCES, seed)
    test = [example for example in corpus if example.split == "test"]
    return _balanced(test, lambda example: (example.subtask, example.form), n)


def shapes_sample(seed: int = 0) -> list[Scene]:
    """Take test pictures of one thing and of two, of each as many of each shape."""
    test = shapes_splits(_SAMPLED_PICTURES, seed)["test"]
    parts = [
        _balanced(
            [scene for scene in test if scene.structure == structure], lambda scene: scene.label, n
        )
        for structure, n in SHAPES_SAMPLE_SIZES.items()
    ]
    return [scene for part in parts for scene in part]


def notes_sample(n: int = NOTES_SAMPLE_SIZE, seed: int = 0) -> list[Note]:
    """Take ``n`` test prompts, as many of each structure."""
    test = notes_splits(_SAMPLED_NOTES, seed)["test"]
    return _balanced(test, lambda note: note.subset, n)


def _row_of(scene: Scene) -> dict[str, object]:
    """A picture as a row of ``SHAPES_SCHEMA``."""
    masks = [{"bytes": mask_file(thing), "path": None} for thing in scene.things]
    return {
        "id": scene.id,
        "image": {"bytes": picture_file(scene), "path": None},
        "mask": masks[0],
        "label": scene.label,
        "other_mask": masks[1] if len(masks) > 1 else None,
        "other_label": scene.other_label,
        "caption": scene.caption,
        "structure": scene.structure,
    }


# How the rows of each sample are made, and what they are of.
SAMPLES: dict[str, tuple[pa.Schema, Callable[[int], Iterator[dict[str, object]]]]] = {
    "sentiment": (SENTIMENT_SCHEMA, lambda seed: map(asdict, sentiment_sample(seed=seed))),
    "agreement": (AGREEMENT_SCHEMA, lambda seed: map(asdict, agreement_sample(seed=seed))),
    "influence": (influence_corpus.SCHEMA, lambda seed: map(asdict, influence_sample(seed=seed))),
    "notes": (notes.SCHEMA, lambda seed: map(asdict, notes_sample(seed=seed))),
    "shapes": (SHAPES_SCHEMA, lambda seed: map(_row_of, shapes_sample(seed))),
}


def write_sample(folder: Path, name: str, seed: int) -> None:
    """Write the sample of a corpus as ``NAME.parquet``."""
    schema, rows = SAMPLES[name]
    table = pa.Table.from_pylist(list(rows(seed)), schema)
    pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def write_samples(folder: Path, seed: int = 0) -> None:
    """Write the samples of all corpora."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SAMPLES:
        write_sample(folder, name, seed)


def main() -> None:
    """Write the bundled samples from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DEFAULT_FOLDER, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_samples(options.output, options.seed)


if __name__ == "__main__":
    main()
