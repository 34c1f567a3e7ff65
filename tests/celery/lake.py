"""A bucket, and somebody who looks into it all the time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

BUCKET = "lake"


class Lake:
    """
    A bucket of an S3-compatible store.

    :param endpoint: the store's URL.
    :param expected: which files are to land, by their keys. Anything else that is seen counts as wrong.
    """

    def __init__(self, endpoint: str, expected: Mapping[str, bytes]) -> None:
        import boto3

        self.connection = {
            "conn_type": "aws",
            "login": "access-key",
            "password": "secret-key",
            "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        }
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="access-key",
            aws_secret_access_key="secret-key",
        )
        self._client.create_bucket(Bucket=BUCKET)
        self.expected = expected
        self.looks: list[int] = []
        self.wrong: list[str] = []
        self._whole: dict[str, str] = {}
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def close(self) -> None:
        self._ended.set()
        self._watcher.join(30)

    def landed(self) -> list[str]:
        return [entry["Key"] for entry in self._entries()]

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def metadata(self, key: str) -> str:
        """Return what the store says of a file beside its content."""
        return repr(self._client.head_object(Bucket=BUCKET, Key=key))

    def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return entries

    def _watch(self) -> None:
        while not self._ended.wait(0.3):
            entries = self._entries()
            self.looks.append(len(entries))
            for entry in entries:
                self._look_at(entry["Key"], entry["Size"], f"{entry['ETag']} {entry['LastModified']}")

    def _look_at(self, key: str, size: int, version: str) -> None:
        if self._whole.get(key) == version:
            return
        self._whole[key] = version
        expected = self.expected.get(key)
        if expected is None or size != len(expected) or self.read(key) != expected:
            self.wrong.append(f"{key}, {size} bytes")
