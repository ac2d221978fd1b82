"""Beam's file system for S3, made quick enough for many small files."""

from copy import copy
from typing import Any

from apache_beam.io.aws import s3io
from apache_beam.io.filesystems import FileSystems


def share_clients() -> None:
    """Lets the calls of a process share a client; does nothing if boto3 isn't installed.

    Beam makes a client for every call, which takes a tenth of a second of processor time: more than
    writing most of a run's files. boto3's clients may be shared by threads, but Beam's wrapper of
    one also remembers the download that is under way, so that each call gets a copy of that.
    """
    if not s3io.BOTO3_INSTALLED or not isinstance(s3io.boto3_client.Client, type):
        return
    make = s3io.boto3_client.Client
    made: dict[int, tuple[Any, Any]] = {}

    def shared(options: Any) -> Any:
        if id(options) not in made:
            # The options are kept, so that no others can come to have their id.
            made[id(options)] = options, make(options=options)
        return copy(made[id(options)][1])

    s3io.boto3_client.Client = shared


def put(path: str, content: bytes) -> None:
    """Writes a small object by one request; it is there whole or as it was before."""
    bucket, key = s3io.parse_s3_path(path)
    client = s3io.S3IO(options=FileSystems.get_filesystem(path)._options).client.client
    client.put_object(Bucket=bucket, Key=key, Body=content)
