"""Reads the URL of an object store, and checks that the file system for it understands it in the same way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from airflow_provider_agenty.exceptions import AgentyDestinationError

_AZURE_ACCOUNT = re.compile(r"[^/@]+\.(?:dfs|blob)\.[^/@]+", re.IGNORECASE)


@dataclass(frozen=True)
class ObjectPlace:
    """A place in an object store, as its URL says; the bucket may be a container, or a machine."""

    url: str
    scheme: str
    conn_id: str | None
    bucket: str
    key: str

    @classmethod
    def of(cls, url: str) -> ObjectPlace:
        """Take a URL apart."""
        scheme, _, rest = url.partition("://")
        first, slash, key = rest.partition("/")
        conn_id, _, bucket = first.rpartition("@")
        if conn_id and _AZURE_ACCOUNT.fullmatch(bucket):
            raise AgentyDestinationError(
                f"{url} names a storage account: write {scheme}://{conn_id}/{key or 'key'}, and name the Airflow "
                "connection that leads to the account as storage_conn_id, or before the container and an @."
            )
        if not bucket and not conn_id:
            raise AgentyDestinationError(f"{url} names no bucket: write it as {scheme}://bucket/key.")
        if not slash:
            raise _no_key(url)
        if {".", ".."} & set(key.split("/")):
            raise AgentyDestinationError(
                f"{url} has . or .. between two slashes, which stores take differently: write out which key is meant."
            )
        return cls(url=url, scheme=scheme.lower(), conn_id=conn_id or None, bucket=bucket, key=key)

    def name_in(self, files: Any, *, has_buckets: bool) -> str:
        """Return what the file system calls this place, if that is what the URL says, to the letter."""
        asked = f"{self.bucket}/{self.key}"
        name = str(files._strip_protocol(files.unstrip_protocol(asked)))
        on_a_machine = name == f"/{self.key}" and not has_buckets
        as_asked = on_a_machine or name in {asked, f"/{asked}"}
        if hasattr(files, "split_path"):
            bucket, key, *_ = files.split_path(name)
            if not key:
                raise _no_key(self.url)
            as_asked = as_asked and f"{bucket}/{key}" == asked
        if not as_asked or files._strip_protocol(name) != name:
            raise AgentyDestinationError(
                f"No file can be landed at {self.url}: {type(files).__name__} reads a part of it as something other "
                "than a file name. Choose a path without ::, ?, # and //."
            )
        if on_a_machine:
            self._check_host(files)
        elif not self.bucket:
            raise AgentyDestinationError(f"{self.url} names no bucket: write it as {self.scheme}://bucket/key.")
        return name

    def _check_host(self, files: Any) -> None:
        wanted = self.bucket.partition(":")[0].lower()
        host = next(iter(files.storage_args), files.storage_options.get("host"))
        if wanted and isinstance(host, str) and host.lower() != wanted:
            raise AgentyDestinationError(
                f"{self.url} names the host {wanted}, but the connection leads to {host}: write "
                f"{self.scheme}://connection@/{self.key}, or correct one of them."
            )


def _no_key(url: str) -> AgentyDestinationError:
    return AgentyDestinationError(f"{url} names a bucket and no key: add a / to land a file in it, or a key.")
