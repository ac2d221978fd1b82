"""Statistics of the corpus that some methods need: estimated once, before any worker starts.

They lie in the run's folder, so that every worker, and every later call that continues the run, has
the same.
"""

from collections.abc import Collection, Iterator, Sequence
from hashlib import blake2b
from heapq import nsmallest

import numpy as np
import pyarrow as pa

from attribeam.pipeline.corpus.staging import read_rows
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import exists, is_whole, join, read_parquet, write_parquet
from attribeam.schemas.layout import statistics_path
from attribeam.transforms import Instance, Model, Row, Statistics, collect, load_model
from attribeam.transforms.attribute import budget_for
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.text.tokenised import unpadded

# Of pictures there are statistics of each position, one after the other, and of each feature there;
# ``tokens`` counts pictures then. Older runs have no ``positions``.
_SCHEMA = pa.schema(
    [
        ("layer", pa.int32()),
        ("mean", pa.list_(pa.float64())),
        ("std", pa.list_(pa.float64())),
        ("tokens", pa.int64()),
        ("positions", pa.int64()),
    ]
)


def ensure_statistics(settings: Settings, model: Model, again: Collection[int] = ()) -> None:
    """Estimates the statistics that the chosen methods need, unless they are there.

    The sample is those texts whose seeded hash is lowest: neither the order of the corpus nor the
    cut into shards is of consequence.

    Args:
        settings: Settings of the run, whose corpus is staged.
        model: The model, on any device.
        again: Samples whose statistics are damaged.

    Raises:
        UsageError: If the sample is too small for statistics.
    """
    for sample in sorted({*samples(settings), *again}):
        path = join(settings.output, statistics_path(sample))
        if is_whole(path) and sample not in again:
            continue
        if model.device.type != settings.device.split(":")[0]:
            model = load_model(settings.model, device=settings.device, **settings.loading())
        instances = sample_of(settings, model, sample)
        if not instances:
            # Nothing of the corpus can be attributed either.
            continue
        budget = budget_for(model, settings.token_budget)
        write_parquet(path, _table(collect(model, instances, budget)))


def sample_of(settings: Settings, model: Model, sample: int) -> Sequence[Instance]:
    """The instances that statistics are estimated from, of so many texts of the corpus."""
    rows = nsmallest(sample, _rows(settings), key=lambda row: _key(model, row, settings.seed))
    return _encoded(model, rows, settings, sample)


def read_statistics(settings: Settings) -> Statistics | None:
    """The statistics that the chosen methods need; None if there are none."""
    for sample in samples(settings):
        path = join(settings.output, statistics_path(sample))
        if not exists(path):
            return None
        table = read_parquet(path).sort_by("layer")
        mean, std = (np.array(table[name].to_pylist(), np.float64) for name in ("mean", "std"))
        positions = table["positions"][0].as_py() if "positions" in table.column_names else None
        if positions is not None:
            mean, std = (each.reshape(len(each), positions, -1) for each in (mean, std))
        return Statistics(mean, std, table["tokens"][0].as_py())
    return None


def samples(settings: Settings) -> set[int]:
    """Sizes of the samples that the chosen methods need statistics of."""
    needs = (need for choice in settings.chosen for need in choice.needs)
    return {need.sample for need in needs if need.sample is not None}


def _encoded(
    model: Model, rows: Sequence[Row], settings: Settings, sample: int
) -> Sequence[Instance]:
    """The rows' instances; of windows, of which there may be too many to hold, a sample too."""
    if settings.encoding.overflow != "stride":
        return encode_rows(model, rows, settings.encoding)[0]
    each = (i for row in rows for i in encode_rows(model, [row], settings.encoding)[0])
    return nsmallest(sample, each, key=lambda i: blake2b(i.content).digest())


def _rows(settings: Settings) -> Iterator[Row]:
    for shard in range(settings.num_shards):
        yield from read_rows(settings.output, shard)


def _key(model: Model, row: Row, seed: int) -> tuple[bytes, str]:
    row = unpadded(model, row)
    content = repr((seed, row.text, row.text_pair, row.input_ids, row.token_type_ids))
    if row.image is not None or row.pixel_values is not None:
        content += repr((row.image, row.pixel_values))
    return blake2b(content.encode(errors="surrogatepass"), digest_size=8).digest(), content


def _table(statistics: Statistics) -> pa.Table:
    layers, *positions, _ = statistics.mean.shape
    columns = {
        "layer": range(layers),
        "mean": statistics.mean.reshape(layers, -1).tolist(),
        "std": statistics.std.reshape(layers, -1).tolist(),
        "tokens": [statistics.count] * layers,
        "positions": [positions[0] if positions else None] * layers,
    }
    return pa.Table.from_pydict(columns, _SCHEMA)
