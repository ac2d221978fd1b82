"""A server that speaks S3's protocol, in this process, with one bucket."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.request import Request, urlopen

import pytest

BUCKET = "bucket"
# Nothing of the machine's own configuration.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class Store:
    """The bucket.

    Attributes:
        url: Address of the server.
    """

    def __init__(self, url: str) -> None:
        import boto3

        self.url = url
        self._client = boto3.client("s3", endpoint_url=url)
        self._client.create_bucket(Bucket=BUCKET)

    def put(self, key: str, content: bytes) -> str:
        """Stores an object; returns its address."""
        self._client.put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"s3://{BUCKET}/{key}"

    def delete(self, key: str) -> None:
        """Deletes an object."""
        self._client.delete_object(Bucket=BUCKET, Key=key)

    def keys(self, prefix: str) -> set[str]:
        """Keys below a prefix, relative to it."""
        pages: Any = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{prefix}/"
        )
        found = (each["Key"] for page in pages for each in page.get("Contents", ()))
        return {key.removeprefix(f"{prefix}/") for key in found}

    def download(self, prefix: str, folder: Path) -> Path:
        """Copies all below a prefix into a folder."""
        for key in self.keys(prefix):
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(BUCKET, f"{prefix}/{key}", str(path))
        return folder


@contextmanager
def served() -> Iterator[Store]:
    """Serves a bucket that is empty; skips the test if the packages for that aren't installed."""
    for package in ("boto3", "flask_cors", "moto"):
        pytest.importorskip(package)
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    # What other servers of this process were given, they all have.
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()
    try:
        with mock.patch.dict(os.environ, ENVIRONMENT):
            yield Store(url)
    finally:
        server.stop()
