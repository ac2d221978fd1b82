"""Beam's file system for Google's store, made quick enough for many small files."""

import threading
from typing import Any

from apache_beam.io.filesystems import FileSystems

try:
    from apache_beam.io.gcp import gcsio
except ImportError:  # Whoever doesn't use it needs none of its packages.
    gcsio = None


def share_clients() -> None:
    """Lets the calls of a thread share a client; does nothing if the packages aren't installed.

    Beam makes a client for every call, with a connection and perhaps a token of its own.
    """
    if gcsio is None or hasattr(gcsio.create_storage_client, "shared"):
        return
    make = gcsio.create_storage_client
    made = threading.local()

    def shared(options: Any, use_credentials: bool = True) -> Any:
        clients: dict[tuple[int, bool], tuple[Any, Any]] = vars(made).setdefault("clients", {})
        key = id(options), use_credentials
        if key not in clients:
            # The options are kept, so that no others can come to have their id.
            clients[key] = options, make(options, use_credentials)
        return clients[key][1]

    shared.shared = True  # type: ignore[attr-defined]
    gcsio.create_storage_client = shared


def put(path: str, content: bytes) -> None:
    """Writes a small object by one request; it is there whole or as it was before."""
    bucket, name = gcsio.parse_gcs_path(path)
    client = FileSystems.get_filesystem(path)._gcsIO().client
    client.bucket(bucket).blob(name).upload_from_string(content, "application/octet-stream")
