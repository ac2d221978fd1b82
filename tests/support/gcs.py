"""A server that speaks the protocol of Google's store, in this process, with one bucket."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

BUCKET = "bucket"


class GoogleStore:
    """The bucket."""

    def __init__(self) -> None:
        from google.cloud import storage

        self._bucket = storage.Client.create_anonymous_client().bucket(BUCKET)

    def put(self, key: str, content: bytes) -> str:
        """Stores an object; returns its address."""
        self._bucket.blob(key).upload_from_string(content)
        return f"gs://{BUCKET}/{key}"

    def keys(self, prefix: str) -> set[str]:
        """Keys below a prefix, relative to it."""
        found = self._bucket.list_blobs(prefix=f"{prefix}/")
        return {blob.name.removeprefix(f"{prefix}/") for blob in found}

    def download(self, prefix: str, folder: Path) -> Path:
        """Copies all below a prefix into a folder."""
        for key in self.keys(prefix):
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._bucket.blob(f"{prefix}/{key}").download_as_bytes())
        return folder


@contextmanager
def served() -> Iterator[GoogleStore]:
    """Serves a bucket that is empty; skips the test if the packages for that aren't installed."""
    for package in ("google.cloud.storage", "gcp_storage_emulator"):
        pytest.importorskip(package)
    from apache_beam.internal.gcp.auth import _Credentials
    from gcp_storage_emulator.server import create_server

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    told = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "GOOGLE_CLOUD_PROJECT": "project"}
    try:
        # Beam looks for credentials for half a minute.
        with (
            mock.patch.dict(os.environ, told),
            mock.patch.multiple(_Credentials, _credentials_init=True, _credentials=None),
        ):
            yield GoogleStore()
    finally:
        server.stop()
