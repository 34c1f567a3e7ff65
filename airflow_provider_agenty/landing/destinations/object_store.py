"""
An object store, or other remote file system, through the Airflow provider for it.

The file is collected and verified on local disk first and uploaded once. Object stores show an upload when it is
complete and not before. Other remote file systems get it under a temporary name, which is renamed.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.callbacks import Callback  # type: ignore[import-untyped]

from airflow_provider_agenty.airflow_compat import AirflowNotFoundException, BaseHook, file_system
from airflow_provider_agenty.exceptions import AgentyDestinationError, AgentyExportError
from airflow_provider_agenty.landing.destinations import Destination, in_folder
from airflow_provider_agenty.landing.destinations.object_place import ObjectPlace
from airflow_provider_agenty.landing.temporary_file import SUFFIX, StagedFile, make_room, spool_place, staged_file

_S3 = dict.fromkeys(("s3", "s3a", "s3n"), "apache-airflow-providers-amazon[s3fs]")
_GOOGLE = dict.fromkeys(("gs", "gcs"), "apache-airflow-providers-google")
_AZURE = dict.fromkeys(("abfs", "abfss", "adl"), "apache-airflow-providers-microsoft-azure")
_SFTP = dict.fromkeys(("sftp", "ssh"), "apache-airflow-providers-sftp[sshfs]")
_SHOW_ONLY_WHOLE_OBJECTS = {**_S3, **_GOOGLE, **_AZURE}
_PACKAGES = {**_SHOW_ONLY_WHOLE_OBJECTS, **_SFTP}
_UNKNOWN_SCHEME = re.compile("No filesystem registered|Unsupported filesystem|Protocol not known")
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_MAX_CAUSES = 5
_COMPARED_BYTES = 64 * 1024
_PARTS_AT_ONCE = 4  # with the size of a part this bounds the memory of an upload
_PART_SIZE = 8 * 1024 * 1024
_MAX_PARTS = 10_000  # what S3 takes
_SECONDS_TO_CLEAN_UP = 30.0


def open_object(
    path: str, *, default_name: Callable[[], str], storage_conn_id: str | None, overwrite: bool
) -> Destination:
    """Check a place in an object store; a URL that ends in ``/`` is a folder."""
    in_a_folder = path.endswith("/")
    place = ObjectPlace.of(path)
    store = ObjectStore(place, storage_conn_id or place.conn_id)
    store.check_bucket(store.key(ObjectPlace.of(f"{path}name") if in_a_folder else place))
    if in_a_folder:
        place = ObjectPlace.of(in_folder(path, default_name()))
    destination = ObjectDestination(place.url, store, store.key(place), overwrite=overwrite)
    destination.check()
    return destination


class ObjectStore:
    """A store, as one Airflow connection reaches it; the place is the one that errors name."""

    def __init__(self, place: ObjectPlace, conn_id: str | None) -> None:
        self._url = place.url
        self._scheme = place.scheme
        self._conn_id = conn_id
        self.files = self._file_system()
        self.shows_only_whole_objects = place.scheme in _SHOW_ONLY_WHOLE_OBJECTS
        can_refuse = {"mode", "overwrite"} & _parameters_of_put_file(self.files)
        self.refuses_to_replace = self.shows_only_whole_objects and bool(can_refuse)

    def _file_system(self) -> Any:
        package = _PACKAGES.get(self._scheme)
        install = f"Install {package}." if package else "Install the Airflow provider that brings it."
        with self.errors("reach", self._url):
            try:
                if self._conn_id:
                    # Some providers take an unknown connection for none at all, and land with other credentials.
                    BaseHook.get_connection(self._conn_id)
                return file_system(self._scheme, self._conn_id)
            except ImportError as error:
                message = f"a package for {self._scheme}:// is missing. {install} ({error})"
            except AirflowNotFoundException as error:
                message = f"{error}. Make the connection or correct storage_conn_id."
            except ValueError as error:
                if not _UNKNOWN_SCHEME.search(str(error)):
                    raise
                message = f"no installed provider knows {self._scheme}://. {install}"
            raise AgentyDestinationError(f"{self._url}: {message}")

    def key(self, place: ObjectPlace) -> str:
        """Return the name of a place inside the store."""
        return place.name_in(self.files, has_buckets=self.shows_only_whole_objects)

    def check_bucket(self, key: str) -> None:
        """Check that the bucket of a key exists, in S3: elsewhere a missing one looks like an empty one."""
        if self._scheme not in _S3:
            return
        bucket = self.files.split_path(key)[0]
        exists = True
        with self.errors("reach", self._url, ignore_forbidden=True):
            # s3fs 2025.9 (Airflow 3.0) has no info of an empty bucket.
            exists = bool(self.info(bucket) or self.files.exists(bucket))
        if not exists:
            raise AgentyDestinationError(
                f"{self._url}: there is no bucket or container {bucket!r}. Make it or correct the path."
            )

    def info(self, key: str) -> dict[str, Any] | None:
        """Return what the store knows of a key now; ``None`` if it does not exist."""
        self.files.invalidate_cache()
        try:
            return dict(self.files.info(key))
        except FileNotFoundError:
            return None

    def remove(self, key: str) -> None:
        """Remove a key, if that can be done."""
        with contextlib.suppress(Exception):
            self.files.rm_file(key)

    @contextlib.contextmanager
    def errors(self, doing: str, url: str, *, ignore_forbidden: bool = False) -> Iterator[None]:
        """
        Put into words what the store's library raises.

        :param ignore_forbidden: Whether a missing right is no error: some may write a key and not look at it.
        """
        try:
            yield
        except AgentyExportError:
            raise
        except Exception as error:
            if not (ignore_forbidden and _is_forbidden(error)):
                raise self._error(error, f"Could not {doing} {url}") from None

    def _error(self, error: Exception, message: str) -> AgentyExportError:
        own = "this machine's own credentials (storage_conn_id names no connection)"
        who = f"the connection {self._conn_id!r}" if self._conn_id else own
        name = type(error).__name__
        if isinstance(error, FileNotFoundError):
            return AgentyDestinationError(f"{message}: its bucket or container does not exist. ({error})")
        if _is_forbidden(error):
            return AgentyDestinationError(f"{message}: permission denied. Check the rights of {who}. ({error})")
        if "Credential" in name or "Token" in name or "Auth" in name or _http_status(error) == _UNAUTHORIZED:
            return AgentyDestinationError(f"{message}: no usable credentials. Check {who}. ({error})")
        if "Parameter validation failed" in str(error):  # botocore's words, which s3fs may wrap in a ValueError
            return AgentyDestinationError(f"{message}: the store can't have such a name. Correct the path. ({error})")
        return AgentyExportError(f"{message}: {name}: {error}".rstrip(": "))


def _is_forbidden(error: Exception) -> bool:
    # gcsfs raises an OSError without a number.
    return isinstance(error, PermissionError) or _http_status(error) == _FORBIDDEN or str(error).startswith("Forbidden")


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status in an error or its causes: Google has it in ``code``, Azure in ``status_code``."""
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        answer = getattr(cause, "response", None)  # botocore's
        metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        names = ("code", "status_code", "status")
        for status in (metadata.get("HTTPStatusCode"), *(getattr(cause, name, None) for name in names)):
            if isinstance(status, int):
                return int(status)
        cause = cause and (cause.__cause__ or cause.__context__)
    return None


class ObjectDestination(Destination):
    """A key in an object store."""

    def __init__(self, path: str, store: ObjectStore, key: str, *, overwrite: bool) -> None:
        super().__init__(path, overwrite=overwrite)
        self._store = store
        self._key = key

    def check(self) -> None:
        """Check that the key is free or may be replaced."""
        found = None
        the_upload_tells = self._overwrite or self._store.refuses_to_replace
        with self._store.errors("look at", self.path, ignore_forbidden=the_upload_tells):
            found = self._store.info(self._key)
        if found and found.get("type") == "directory":
            raise self._is_folder()
        if found and not self._overwrite:
            raise self._exists_already()

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
            if type(files).mv is AbstractFileSystem.mv:
                # The mv that all file systems inherit takes [, * and ? in a key for a pattern.
                files.cp_file(temporary, self._key)
                files.rm_file(temporary)
            else:
                files.mv(temporary, self._key)
        except BaseException:
            self._store.remove(temporary)
            raise

    def _check_arrived(self, staged: StagedFile, key: str) -> None:
        """Remove what arrived if it is only the beginning of the file; another file, landed at the same time, stays."""
        size = None
        with self._store.errors("look at", self.path, ignore_forbidden=True):
            size = (self._store.info(key) or {"size": 0}).get("size")
        if size is None or size >= staged.size or not self._is_beginning(staged, key, size):
            return
        self._store.remove(key)
        raise AgentyExportError(
            f"{size} of {staged.size} bytes of the upload to {self.path} arrived. They were removed. Try again."
        )

    def _is_beginning(self, staged: StagedFile, key: str, size: int) -> bool:
        """Tell whether the last of the bytes at the key are those of the file there."""
        start = max(0, size - _COMPARED_BYTES)
        with staged.path.open("rb") as file:
            file.seek(start)
            expected = file.read(size - start)
        return not size or bool(self._store.files.cat_file(key, start=start, end=size) == expected)


class _InterruptibleCallback(Callback):  # type: ignore[misc]
    """Fails an interrupted upload when its next part has arrived, which makes the file system abort it."""

    interrupted = False

    def call(self, *_: Any, **__: Any) -> None:
        # When the last part has arrived, some stores show the file already.
        if self.interrupted and self.value != self.size:
            raise InterruptedError("the upload was interrupted")


def upload(files: Any, staged: StagedFile, key: str, *, only_if_absent: bool) -> None:
    """Upload a file by the file system's own ``put_file``; when interrupted, that gets 30 seconds to clean up."""
    callback = _InterruptibleCallback()
    options: dict[str, Any] = {"mode": "create" if only_if_absent else "overwrite", "overwrite": not only_if_absent}
    known = _parameters_of_put_file(files)
    if "max_concurrency" in known:  # the others send one part after another, of a size that they choose well
        options["max_concurrency"] = _PARTS_AT_ONCE
        options["chunksize"] = max(_PART_SIZE, -(-staged.size // _MAX_PARTS))
    options = {name: value for name, value in options.items() if name in known}
    # A signal's exception would end put_file in this thread only. fsspec's own thread would go on with the upload.
    executor = ThreadPoolExecutor(max_workers=1)
    uploading = executor.submit(files.put_file, str(staged.path), key, callback=callback, **options)
    try:
        uploading.result()
    except BaseException:
        callback.interrupted = True
        wait([uploading], _SECONDS_TO_CLEAN_UP)
        if only_if_absent and uploading.done() and uploading.exception() is None:
            files.rm_file(key)  # it had arrived already, and a retry would find it and fail
        raise
    finally:
        executor.shutdown(wait=False)


def _parameters_of_put_file(files: Any) -> set[str]:
    return set(inspect.signature(files.put_file).parameters)
