"""The Beam-facing part of attribution: a ModelHandler whose model is an Attributor."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from apache_beam.ml.inference.base import ModelHandler

from attribeam.pipeline.running import progress
from attribeam.pipeline.running.shard import Attributor, Shard, UnitResult
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.connecting import connect_worker
from attribeam.pipeline.workers.devices import processors, take_device


class AttributionHandler(ModelHandler[Shard, UnitResult, Attributor]):
    """Gives RunInference its model, once a process, and takes whole shards.

    Beam's own batching isn't used: micro-batches are cut inside a shard, from the data alone, so
    that they are the same wherever the shard is run.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def load_model(self) -> Attributor:
        """Loads the model on this worker's device and takes its share of the processors."""
        connect_worker(self._settings.stores)
        if self._settings.workers > 1:
            torch.set_num_threads(max(1, processors() // self._settings.workers))
        settings = replace(self._settings, device=take_device(self._settings.device))
        return Attributor.load(settings, progress.advance)

    def run_inference(
        self,
        batch: Sequence[Shard],
        model: Attributor,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[UnitResult]:
        """Computes the missing units of a shard (or of each of several)."""
        shards = [batch] if isinstance(batch, Shard) else batch
        return [result for shard in shards for result in model.process(shard)]

    def get_num_bytes(self, batch: Sequence[Shard]) -> int:
        """Size of a batch for Beam's metrics; the default would pickle it to find out."""
        shards = [batch] if isinstance(batch, Shard) else batch
        return sum(len(row.text or "") for shard in shards for row in shard.rows)

    def get_metrics_namespace(self) -> str:
        """Name that Beam's counters go by."""
        return "attribute"
