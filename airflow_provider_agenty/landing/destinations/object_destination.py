"""
A key in an object store as the destination of a file.

The file is collected and verified on local disk first and uploaded once. Object stores show an upload when it is
complete and not before. Other remote file systems get it under a temporary name, which is renamed.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

from airflow_provider_agenty.exceptions import AgentyDestinationError, AgentyExportError
from airflow_provider_agenty.landing.destinations.destination import Destination, in_folder
from airflow_provider_agenty.landing.destinations.object_place import ObjectPlace
from airflow_provider_agenty.landing.destinations.object_store import ObjectStore
from airflow_provider_agenty.landing.destinations.upload import upload
from airflow_provider_agenty.landing.temporary_file import SUFFIX, StagedFile, make_room, spool_place, staged_file

_COMPARED_BYTES = 64 * 1024


def open_object(
    path: str, *, default_name: Callable[[], str] | str, storage_conn_id: str | None, overwrite: bool
) -> Destination:
    """
    Check a place in an object store, as :func:`~airflow_provider_agenty.landing.open_destination` does.

    A URL that ends in ``/`` stands for a folder, in which the file gets its default name.
    """
    in_a_folder = path.endswith("/")
    place = ObjectPlace.of(path)
    store = ObjectStore(place, storage_conn_id or place.conn_id)
    store.check_bucket(store.key(ObjectPlace.of(f"{path}name") if in_a_folder else place))
    if in_a_folder:
        place = ObjectPlace.of(in_folder(path, default_name))
    destination = ObjectDestination(place.url, store, store.key(place), overwrite=overwrite)
    destination.check()
    return destination


class ObjectDestination(Destination):
    """
    A key in an object store.

    :param path: its URL.
    :param store: the store.
    :param key: its name there.
    :param overwrite: whether a file that is there already may be replaced.
    """

    def __init__(self, path: str, store: ObjectStore, key: str, *, overwrite: bool) -> None:
        super().__init__(path)
        self._store = store
        self._key = key
        self._overwrite = overwrite

    def check(self) -> None:
        """
        Check that the key is free or may be replaced.

        :raises AgentyExportError: if not.
        """
        found = None
        the_upload_tells = self._overwrite or self._store.refuses_to_replace
        with self._store.errors("look at", self.path, ignore_forbidden=the_upload_tells):
            found = self._store.info(self._key)
        if found and found.get("type") == "directory":
            raise AgentyDestinationError(f"{self.path} is a folder: add a / to land a file in it, or a file name.")
        if found and not self._overwrite:
            raise self._exists_already()

    def _exists_already(self) -> AgentyExportError:
        return AgentyDestinationError(
            f"{self.path} exists already and overwrite is False: remove it or choose another path."
        )

    @contextlib.contextmanager
    def stage(self, *, length: int | None, spool_folder: str | None) -> Iterator[StagedFile]:
        """Open a temporary file in the spool folder."""
        folder = spool_place(spool_folder)
        make_room(folder, length)
        with staged_file(folder, Path(self._key).name) as staged:
            yield staged

    def publish(self, staged: StagedFile) -> None:
        """Upload the temporary file, once and as a whole."""
        with self._store.errors("upload to", self.path):
            try:
                if self._store.shows_only_whole_objects:
                    self._upload_in_place(staged)
                else:
                    self._upload_and_rename(staged)
            except FileExistsError:
                raise self._exists_already() from None

    def _upload_in_place(self, staged: StagedFile) -> None:
        only_if_absent = not self._overwrite and self._store.refuses_to_replace
        if not self._overwrite and not only_if_absent:
            self.check()
        upload(self._store.files, staged, self._key, only_if_absent=only_if_absent)
        self._check_arrived(staged, self._key)

    def _upload_and_rename(self, staged: StagedFile) -> None:
        files = self._store.files
        folder, _, name = self._key.rpartition("/")
        temporary = f"{folder}/.{name[:100]}.{secrets.token_hex(8)}{SUFFIX}"
        if folder:
            files.makedirs(folder, exist_ok=True)
        try:
            upload(files, staged, temporary, only_if_absent=False)
            self._check_arrived(staged, temporary)
            self.check()
            _move(files, temporary, self._key)
        except BaseException:
            self._remove(temporary)
            raise

    def _check_arrived(self, staged: StagedFile, key: str) -> None:
        """Remove what arrived if it is only the beginning of the file; another file, landed at the same time, stays."""
        size = None
        with self._store.errors("look at", self.path, ignore_forbidden=True):
            size = (self._store.info(key) or {"size": 0}).get("size")
        if size is None or size >= staged.size or not self._is_beginning(staged, key, size):
            return
        self._remove(key)
        raise AgentyExportError(
            f"The upload to {self.path} was of {staged.size} bytes, but {size} bytes arrived; it was removed "
            "again. Try again.",
        )

    def _is_beginning(self, staged: StagedFile, key: str, size: int) -> bool:
        """Tell whether the last of the bytes at the key are those of the file there."""
        start = max(0, size - _COMPARED_BYTES)
        with staged.path.open("rb") as file:
            file.seek(start)
            expected = file.read(size - start)
        return not size or bool(self._store.files.cat_file(key, start=start, end=size) == expected)

    def _remove(self, key: str) -> None:
        with contextlib.suppress(Exception):
            self._store.files.rm_file(key)


def _move(files: Any, key: str, new_key: str) -> None:
    if type(files).mv is not AbstractFileSystem.mv:
        files.mv(key, new_key)
        return
    # The mv that all file systems inherit takes [, * and ? in a key for a pattern.
    files.cp_file(key, new_key)
    files.rm_file(key)
