"""What is measured on: a model and a corpus, the given ones or stand-ins of realistic size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
)

from attribeam.transforms import EncodeOptions, Instance, Model, Row, load_model
from attribeam.transforms.inputs.encode import encode_rows

_EXAMPLES = Path(__file__).parent.parent / "examples"
CORPUS = _EXAMPLES / "data" / "sentiment.parquet"
MODEL = _EXAMPLES / "models" / "sentiment-bert"


@dataclass(frozen=True)
class Material:
    """A model's folder, a corpus of texts, and how many of them to take."""

    model: Path
    corpus: Path
    limit: int

    def load(self) -> tuple[Model, list[Instance]]:
        """The model in float32 on the CPU, and the encoded instances."""
        model = load_model(self.model)
        return model, self.instances(model)

    def instances(self, model: Model) -> list[Instance]:
        """The first instances of the corpus, encoded for a model."""
        table = pq.read_table(self.corpus, columns=["text"]).slice(0, self.limit)
        rows = [Row(f"text-{at}", text) for at, text in enumerate(table["text"].to_pylist())]
        return encode_rows(model, rows, EncodeOptions(model.max_length))[0]


def stand_in(folder: Path, *, layers: int = 6, hidden: int = 384, heads: int = 12) -> Path:
    """Saves a classifier of MiniLM's geometry with random weights and the bundled tokenizer.

    Speed does not depend on the weights; the geometry is that of small models people deploy.
    """
    bundled = load_model(MODEL)
    assert bundled.tokenizer is not None
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=int(bundled.network.config.vocab_size),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=512,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    bundled.tokenizer.save_pretrained(folder)
    return folder


def repeated(rows: int, times: int, target: Path) -> Path:
    """Writes rows of the bundled corpus several times over, without ids: each is one of its own."""
    table = pq.read_table(CORPUS, columns=["text", "label"])
    indices = np.tile(np.arange(rows), times)
    pq.write_table(table.take(indices), target)
    return target


def plain_model(
    folder: Path, *, dtype: torch.dtype = torch.float32, attention: str | None = None
) -> PreTrainedModel:
    """The same classifier as transformers gives it, in evaluation mode with frozen weights.

    Args:
        folder: The model.
        dtype: Type of its weights.
        attention: Implementation of attention; None for the default.
    """
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention
    )
    model.eval().requires_grad_(False)
    return model


def random_instance(model: Model, length: int) -> Instance:
    """An instance of random tokens between two special ones."""
    generator = np.random.default_rng(length)
    ids = generator.integers(5, model.network.config.vocab_size, length).astype(np.int32)
    special = np.zeros(length, bool)
    special[[0, -1]] = True
    numbers = np.arange(length, dtype=np.int32)
    return Instance(
        instance_id=f"random-{length}",
        input_ids=ids,
        segment=np.zeros(length, np.int32),
        special=special,
        word_ids=np.where(special, -1, numbers - 1).astype(np.int32),
        char_start=numbers,
        char_end=numbers,
        tokens=tuple(map(str, ids)),
    )
