"""Google's store as ``RemoteFiles`` asks for it: what there is, and ranges of what it holds."""

import io
import os
from collections.abc import Mapping
from typing import Any

_EMULATOR = "STORAGE_EMULATOR_HOST"


class GoogleStore:
    """The objects at ``gs://``, read with the credentials that Google's own tools find.

    Raises:
        ImportError: If the package isn't installed.
    """

    def __init__(self) -> None:
        from google.auth.exceptions import DefaultCredentialsError  # noqa: PLC0415
        from google.cloud import storage  # type: ignore[import-untyped]  # noqa: PLC0415

        if _EMULATOR in os.environ:
            self._client = storage.Client.create_anonymous_client()
            return
        try:
            self._client = storage.Client()
        except (DefaultCredentialsError, OSError):  # Of what is public, nobody needs any.
            self._client = storage.Client.create_anonymous_client()

    def cat_file(self, address: str) -> bytes:
        """What an object holds.

        Raises:
            FileNotFoundError: If there is none.
        """
        from google.api_core.exceptions import NotFound  # noqa: PLC0415

        try:
            content: bytes = self._blob(address).download_as_bytes()
        except NotFound as error:
            raise FileNotFoundError(address) from error
        return content

    def find(self, address: str, *, detail: bool) -> Mapping[str, Any]:
        """The objects below an address and their sizes, by the address without its protocol."""
        assert detail
        bucket, prefix = _split(address)
        blobs = self._client.list_blobs(bucket, prefix=f"{prefix}/" if prefix else None)
        return {f"{bucket}/{blob.name}": {"size": blob.size} for blob in blobs}

    def open(self, address: str, mode: str) -> "_Object":
        """Opens an object to be read."""
        assert mode == "rb"
        return _Object(self._blob(address))

    def _blob(self, address: str) -> Any:
        bucket, name = _split(address)
        return self._client.bucket(bucket).blob(name)


class _Object(io.RawIOBase):
    """An object, of which no more is asked for than is read."""

    def __init__(self, blob: Any) -> None:
        super().__init__()
        self._blob = blob
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets where is read next, from the beginning."""
        assert whence == os.SEEK_SET
        self._position = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """Reads as many bytes."""
        from google.api_core.exceptions import RequestRangeNotSatisfiable  # noqa: PLC0415

        if size == 0:
            return b""
        last = None if size < 0 else self._position + size - 1
        try:
            content: bytes = self._blob.download_as_bytes(start=self._position, end=last)
        except RequestRangeNotSatisfiable:  # From the end on there is nothing.
            return b""
        self._position += len(content)
        return content


def _split(address: str) -> tuple[str, str]:
    """Bucket and name of an address."""
    bucket, _, name = address.removeprefix("gs://").partition("/")
    return bucket, name
