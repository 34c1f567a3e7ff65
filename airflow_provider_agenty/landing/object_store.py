"""
A place in an object store: any URL that Airflow's ``ObjectStoragePath`` knows.

The file is collected and verified on local disk first and uploaded once. Object stores show an upload when it is
complete and not before. Other remote file systems get it under a temporary name, which is renamed.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from airflow_provider_agenty.compat import AirflowNotFoundException, BaseHook, object_at
from airflow_provider_agenty.landing.destination import Destination
from airflow_provider_agenty.landing.errors import LandingError
from airflow_provider_agenty.landing.staging import SUFFIX, StagedFile, make_room, spool_place, staged_file
from airflow_provider_agenty.landing.upload import Upload

_AMAZON = "apache-airflow-providers-amazon[s3fs]"
_GOOGLE = "apache-airflow-providers-google"
_AZURE = "apache-airflow-providers-microsoft-azure"
_SFTP = "apache-airflow-providers-sftp[sshfs]"
# The stores in which a key appears at once and whole, and which package brings them to Airflow.
_OBJECT_STORES = {
    "s3": _AMAZON,
    "s3a": _AMAZON,
    "s3n": _AMAZON,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "adl": _AZURE,
}
_PACKAGES = {**_OBJECT_STORES, "sftp": _SFTP, "ssh": _SFTP}
_UNKNOWN_SCHEME = re.compile("No filesystem registered|Unsupported filesystem|Protocol not known")
_LAST_BYTES = 64 * 1024  # what tells the beginning of a file from another one
_SPOOLED_FILE = 0o600  # the spool folder is often open to everyone


def open_object(
    path: str, *, default_name: Callable[[], str] | str, storage_conn_id: str | None, overwrite: bool
) -> Destination:
    """
    Check a place in an object store.

    :param path: the URL; one that ends in ``/`` stands for a folder, in which the file gets its default name.
    :param default_name: the file's name in a folder, or what finds it out.
    :param storage_conn_id: the Airflow connection of the store; default: the one of its provider.
    :param overwrite: whether a file that is there already may be replaced.
    :return: the destination.
    :raises LandingError: if nothing can be landed there, as far as that shows before an upload.
    """
    store = _Store(path, storage_conn_id)
    store.check_bucket()
    if path.endswith("/"):
        path += default_name if isinstance(default_name, str) else default_name()
    destination = ObjectDestination(path, store, overwrite=overwrite)
    destination.check()
    return destination


class _Store:
    """The store that a URL leads to."""

    def __init__(self, url: str, conn_id: str | None) -> None:
        self.scheme = url.partition("://")[0].lower()
        self._url = url
        self._bucket = _bucket(url)
        self._conn_id = conn_id
        self.files = self._file_system()

    @property
    def shows_only_whole_objects(self) -> bool:
        return self.scheme in _OBJECT_STORES

    def key(self, url: str) -> str:
        """Give the name of a URL inside the store."""
        return str(object_at(url, self._conn_id)[0].path)

    def check_bucket(self) -> None:
        """Check that the bucket is there, if the store says so to these credentials."""
        if not self.shows_only_whole_objects:
            return
        problem = None
        try:
            if not self._has_bucket():
                problem = LandingError(
                    f"{self._url}: there is no bucket or container {self._bucket!r}. Make it or correct the path."
                )
        except PermissionError:
            pass  # those who may write a key need not have the right to look at the bucket
        except Exception as error:
            problem = self.error(error, "reach", self._url)
        if problem:
            raise problem

    def _has_bucket(self) -> bool:
        try:
            self.files.info(self._bucket)
        except FileNotFoundError:
            # s3fs 2025.9 (Airflow 3.0) says so of an empty bucket too.
            return bool(self.files.exists(self._bucket))
        return True

    def info(self, key: str) -> dict[str, Any] | None:
        """Tell what the store knows of a key now; ``None`` if it is not there."""
        self.files.invalidate_cache()
        try:
            return dict(self.files.info(key))
        except FileNotFoundError:
            return None

    def error(self, error: Exception, doing: str, url: str) -> LandingError:
        """Put an error of the store into words."""
        own = "this machine's own credentials (storage_conn_id names no connection)"
        who = f"the connection {self._conn_id!r}" if self._conn_id else own
        name = type(error).__name__
        if isinstance(error, PermissionError):
            return LandingError(f"Could not {doing} {url}: permission denied. Check the rights of {who}. ({error})")
        if isinstance(error, FileNotFoundError):
            return LandingError(f"Could not {doing} {url}: its bucket or container does not exist. ({error})")
        if "Credential" in name or "Token" in name or "Auth" in name:
            return LandingError(f"Could not {doing} {url}: no usable credentials. Check {who}. ({error})")
        return LandingError(f"Could not {doing} {url}: {name}: {error}".rstrip(": "), retryable=True)

    def _file_system(self) -> Any:
        package = _PACKAGES.get(self.scheme)
        install = f"Install {package}." if package else "Install the Airflow provider that brings it."
        problem = None
        try:
            return self._connected_file_system()
        except ImportError as error:
            problem = LandingError(f"{self._url}: a package for {self.scheme}:// is missing. {install} ({error})")
        except AirflowNotFoundException as error:
            problem = LandingError(f"{self._url}: {error}. Make the connection or correct storage_conn_id.")
        except Exception as error:
            if isinstance(error, ValueError) and _UNKNOWN_SCHEME.search(str(error)):
                problem = LandingError(f"{self._url}: no installed provider knows {self.scheme}://. {install}")
            else:
                problem = self.error(error, "reach", self._url)
        raise problem

    def _connected_file_system(self) -> Any:
        path, self._conn_id = object_at(self._url, self._conn_id)
        if self._conn_id:
            # Some providers take an unknown connection for none at all, and land with other credentials.
            BaseHook.get_connection(self._conn_id)
        return path.fs


def _bucket(url: str) -> str:
    scheme, _, rest = url.partition("://")
    bucket = rest.partition("/")[0].rpartition("@")[2]
    if not bucket:
        raise LandingError(f"{url} names no bucket: write it as {scheme}://bucket/key.")
    if "/" not in rest:
        raise LandingError(f"{url} names a bucket and no key: add a / to land a file in it, or a key.")
    return bucket


class ObjectDestination(Destination):
    """
    A key in an object store.

    :param path: its URL.
    :param store: the store.
    :param overwrite: whether a file that is there already may be replaced.
    """

    def __init__(self, path: str, store: _Store, *, overwrite: bool) -> None:
        super().__init__(path)
        self._store = store
        self._key = store.key(path)
        self._overwrite = overwrite

    def check(self) -> None:
        """
        Check that the key is free or may be replaced.

        :raises LandingError: if not.
        """
        problem = found = None
        try:
            found = self._store.info(self._key)
        except Exception as error:
            # Those who may write a key need not have the right to look at it.
            if not (self._overwrite and isinstance(error, PermissionError)):
                problem = self._store.error(error, "look at", self.path)
        if problem:
            raise problem
        if found and found.get("type") == "directory":
            raise LandingError(f"{self.path} is a folder: add a / to land a file in it, or a file name.")
        if found and not self._overwrite:
            raise self._exists_already()

    def _exists_already(self) -> LandingError:
        return LandingError(f"{self.path} exists already and overwrite is False: remove it or choose another path.")

    @contextlib.contextmanager
    def stage(self, *, length: int | None, spool_folder: str | None) -> Iterator[StagedFile]:
        """Open a temporary file in the spool folder."""
        folder = spool_place(spool_folder)
        make_room(folder, length)
        with staged_file(folder, Path(self._key).name, mode=_SPOOLED_FILE, durable=False) as staged:
            yield staged

    def publish(self, staged: StagedFile) -> None:
        """Upload the temporary file, once and as a whole."""
        problem = None
        try:
            if self._store.shows_only_whole_objects:
                self._upload_in_place(staged)
            else:
                self._upload_and_rename(staged)
        except LandingError:
            raise
        except FileExistsError:
            problem = self._exists_already()
        except Exception as error:
            problem = self._store.error(error, "upload to", self.path)
        if problem:
            raise problem

    def _upload_in_place(self, staged: StagedFile) -> None:
        upload = Upload(self._store.files, staged, self._key, only_if_absent=not self._overwrite)
        if not self._overwrite and not upload.can_be_only_if_absent:
            self.check()
        try:
            upload.run()
        except BaseException:
            # Whoever made the key may take it away again; an older file under it is not ours.
            if upload.done and not self._overwrite and upload.can_be_only_if_absent:
                self._remove(self._key)
            raise
        self._check_arrived(staged)

    def _check_arrived(self, staged: StagedFile) -> None:
        """Remove what arrived if it is a part of the file; another file was landed here at the same time and stays."""
        size = self._size_at(self._key, staged)
        if size < staged.size and self._is_beginning(staged, size):
            self._remove(self._key)
            raise self._arrived_short(staged, size)

    def _is_beginning(self, staged: StagedFile, size: int) -> bool:
        """Tell whether what is at the key may be the beginning of the file: whether its last bytes are the same."""
        if not size:
            return True
        start = max(0, size - _LAST_BYTES)
        with staged.path.open("rb") as file:
            file.seek(start)
            expected = file.read(size - start)
        return bool(self._store.files.cat_file(self._key, start=start, end=size) == expected)

    def _upload_and_rename(self, staged: StagedFile) -> None:
        files = self._store.files
        folder, _, name = self._key.rpartition("/")
        temporary = f"{folder}/.{name[:100]}.{secrets.token_hex(8)}{SUFFIX}"
        if folder:
            files.makedirs(folder, exist_ok=True)
        try:
            Upload(files, staged, temporary, only_if_absent=False).run()
            self._check_size(temporary, staged)
            self.check()
            files.mv(temporary, self._key)
        except BaseException:
            self._remove(temporary)
            raise

    def _check_size(self, key: str, staged: StagedFile) -> None:
        size = self._size_at(key, staged)
        if size != staged.size:
            raise self._arrived_short(staged, size)

    def _size_at(self, key: str, staged: StagedFile) -> int:
        """Tell how many bytes are at a key; those of the file where the store does not say it."""
        try:
            found = self._store.info(key)
        except PermissionError:
            return staged.size
        if found is None:
            return 0
        size = found.get("size")
        return staged.size if size is None else int(size)

    def _arrived_short(self, staged: StagedFile, size: int) -> LandingError:
        return LandingError(
            f"The upload to {self.path} was of {staged.size} bytes, but {size} bytes arrived; it was removed "
            "again. Try again.",
            retryable=True,
        )

    def _remove(self, key: str) -> None:
        with contextlib.suppress(Exception):
            self._store.files.rm_file(key)
