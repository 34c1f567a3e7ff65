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

from airflow_provider_agenty.compat import AirflowNotFoundException, BaseHook, file_system
from airflow_provider_agenty.landing.destination import Destination, in_folder
from airflow_provider_agenty.landing.errors import DestinationError, LandingError
from airflow_provider_agenty.landing.object_place import ObjectPlace
from airflow_provider_agenty.landing.staging import SUFFIX, StagedFile, make_room, spool_place, staged_file
from airflow_provider_agenty.landing.upload import Upload, can_be_only_if_absent

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
_S3 = {"s3", "s3a", "s3n"}
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_CAUSES_LOOKED_AT = 5
_UNKNOWN_SCHEME = re.compile("No filesystem registered|Unsupported filesystem|Protocol not known")
_LAST_BYTES = 64 * 1024  # what tells the beginning of a file from another one


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
    place = ObjectPlace.of(path)
    store = _Store(place, storage_conn_id or place.conn_id)
    if path.endswith("/"):
        store.check_bucket(store.key(ObjectPlace.of(f"{path}name")))
        place = ObjectPlace.of(in_folder(path, default_name))
        key = store.key(place)
    else:
        key = store.key(place)
        store.check_bucket(key)
    destination = ObjectDestination(place.url, store, key, overwrite=overwrite)
    destination.check()
    return destination


class _Store:
    """
    The store that a URL leads to.

    :param place: what the URL says.
    :param conn_id: the Airflow connection; ``None``: that of the store's provider.
    """

    def __init__(self, place: ObjectPlace, conn_id: str | None) -> None:
        self._scheme = place.scheme
        self._url = place.url
        self._conn_id = conn_id
        self.files = self._file_system()

    @property
    def shows_only_whole_objects(self) -> bool:
        return self._scheme in _OBJECT_STORES

    def key(self, place: ObjectPlace) -> str:
        """
        Return the name of a place inside the store.

        :param place: the place.
        :raises LandingError: if the file system would take it for another one.
        """
        return place.name_in(self.files, has_buckets=self.shows_only_whole_objects)

    def check_bucket(self, key: str) -> None:
        """
        Check that the bucket is there, where that is certain.

        Only S3 tells a bucket that is missing from one that is empty or may not be looked at. Elsewhere the upload
        shows it.
        """
        if self._scheme not in _S3:
            return
        bucket = self.files.split_path(key)[0]
        problem: LandingError | None = None
        try:
            if not self._has_bucket(bucket):
                problem = DestinationError(
                    f"{self._url}: there is no bucket or container {bucket!r}. Make it or correct the path."
                )
        except Exception as error:
            # Those who may write a key need not have the right to look at the bucket.
            if not is_forbidden(error):
                problem = self.error(error, "reach", self._url)
        if problem:
            raise problem

    def _has_bucket(self, bucket: str) -> bool:
        try:
            self.files.info(bucket)
        except FileNotFoundError:
            # s3fs 2025.9 (Airflow 3.0) says so of an empty bucket too.
            return bool(self.files.exists(bucket))
        return True

    @property
    def refuses_to_replace(self) -> bool:
        """Whether the store itself can refuse to replace a key."""
        return self.shows_only_whole_objects and can_be_only_if_absent(self.files)

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
        message = f"Could not {doing} {url}"
        if is_forbidden(error):
            return DestinationError(f"{message}: permission denied. Check the rights of {who}. ({error})")
        if isinstance(error, FileNotFoundError):
            return DestinationError(f"{message}: its bucket or container does not exist. ({error})")
        if "Credential" in name or "Token" in name or "Auth" in name or http_status(error) == _UNAUTHORIZED:
            return DestinationError(f"{message}: no usable credentials. Check {who}. ({error})")
        if "ParamValidation" in name:
            return DestinationError(f"{message}: the store can't have such a name. Correct the path. ({error})")
        return LandingError(f"{message}: {name}: {error}".rstrip(": "), retryable=True)

    def _file_system(self) -> Any:
        package = _PACKAGES.get(self._scheme)
        install = f"Install {package}." if package else "Install the Airflow provider that brings it."
        problem: LandingError
        try:
            if self._conn_id:
                # Some providers take an unknown connection for none at all, and land with other credentials.
                BaseHook.get_connection(self._conn_id)
            return file_system(self._scheme, self._conn_id)
        except ImportError as error:
            problem = DestinationError(f"{self._url}: a package for {self._scheme}:// is missing. {install} ({error})")
        except AirflowNotFoundException as error:
            problem = DestinationError(f"{self._url}: {error}. Make the connection or correct storage_conn_id.")
        except Exception as error:
            if isinstance(error, ValueError) and _UNKNOWN_SCHEME.search(str(error)):
                problem = DestinationError(f"{self._url}: no installed provider knows {self._scheme}://. {install}")
            else:
                problem = self.error(error, "reach", self._url)
        raise problem


def http_status(error: BaseException) -> int | None:
    """
    Tell with which HTTP status a store has refused something; ``None`` if the error does not say.

    Each library keeps it elsewhere: google's in ``code``, azure's in ``status_code``, aiohttp's in ``status``, and
    botocore's in the answer.

    :param error: the error of the store's library, or one that was caused by it.
    """
    cause: BaseException | None = error
    for _ in range(_CAUSES_LOOKED_AT):
        if cause is None:
            break
        answer = getattr(cause, "response", None)
        metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        names = ("code", "status_code", "status")
        for status in (metadata.get("HTTPStatusCode"), *(getattr(cause, name, None) for name in names)):
            if isinstance(status, int):
                return int(status)
        cause = cause.__cause__ or cause.__context__
    return None


def is_forbidden(error: BaseException) -> bool:
    """
    Tell whether a store has refused something for want of a right.

    :param error: the error of the store's library.
    """
    if isinstance(error, FileNotFoundError):
        return False
    # gcsfs makes an OSError without a number of it.
    return isinstance(error, PermissionError) or http_status(error) == _FORBIDDEN or str(error).startswith("Forbidden")


class ObjectDestination(Destination):
    """
    A key in an object store.

    :param path: its URL.
    :param store: the store.
    :param key: its name there.
    :param overwrite: whether a file that is there already may be replaced.
    """

    def __init__(self, path: str, store: _Store, key: str, *, overwrite: bool) -> None:
        super().__init__(path)
        self._store = store
        self._key = key
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
            if not (is_forbidden(error) and (self._overwrite or self._store.refuses_to_replace)):
                problem = self._store.error(error, "look at", self.path)
        if problem:
            raise problem
        if found and found.get("type") == "directory":
            raise DestinationError(f"{self.path} is a folder: add a / to land a file in it, or a file name.")
        if found and not self._overwrite:
            raise self._exists_already()

    def _exists_already(self) -> LandingError:
        return DestinationError(f"{self.path} exists already and overwrite is False: remove it or choose another path.")

    @contextlib.contextmanager
    def stage(self, *, length: int | None, spool_folder: str | None) -> Iterator[StagedFile]:
        """Open a temporary file in the spool folder."""
        folder = spool_place(spool_folder)
        make_room(folder, length)
        with staged_file(folder, Path(self._key).name) as staged:
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
        if not self._overwrite and not self._store.refuses_to_replace:
            self.check()
        try:
            upload.run()
        except BaseException:
            # Whoever made the key may take it away again; an older file under it is not ours.
            if upload.done and not self._overwrite and self._store.refuses_to_replace:
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
            _move(files, temporary, self._key)
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
        except Exception as error:
            if is_forbidden(error):
                return staged.size
            raise
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


def _move(files: Any, key: str, new_key: str) -> None:
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

    if type(files).mv is not AbstractFileSystem.mv:
        files.mv(key, new_key)
        return
    # What all file systems share takes [, * and ? in a key for a pattern.
    files.cp_file(key, new_key)
    files.rm_file(key)
