"""What Beam's file systems need to know of the stores, here and wherever workers are.

Workers that Beam's own program starts are told all options of a job; those that an engine starts by
itself (Dask, a worker pool) are told none, and find no store without what travels with the graph.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, S3Options

from attribeam.pipeline.store import gcs, s3

_ENDPOINT = "AWS_ENDPOINT_URL"


def connect_stores(flags: Sequence[str]) -> None:
    """Lets the file systems of this process know of Beam's options."""
    _share_clients()
    FileSystems.set_options(PipelineOptions([*flags]))


def options_of_stores(flags: Sequence[str]) -> dict[str, Any]:
    """What of Beam's options, and of this process's environment, workers need for stores."""
    told = PipelineOptions([*flags])
    found: dict[str, Any] = {}
    for kind in (S3Options, GoogleCloudOptions):
        found |= told.view_as(kind).get_all_options(drop_default=True, current_only=True)
    if _ENDPOINT in os.environ:
        found.setdefault("s3_endpoint_url", os.environ[_ENDPOINT])
    return found


def connect_worker(options: Mapping[str, Any]) -> None:
    """Lets the file systems of a worker know of stores, unless it has been told already."""
    _share_clients()
    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions([], **options))


def _share_clients() -> None:
    s3.share_clients()
    gcs.share_clients()
