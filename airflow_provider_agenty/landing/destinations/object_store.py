"""The object store, or other remote file system, that a URL leads to, through the Airflow provider for it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from airflow_provider_agenty.airflow_compat import AirflowNotFoundException, BaseHook, file_system
from airflow_provider_agenty.exceptions import AgentyDestinationError, AgentyExportError
from airflow_provider_agenty.landing.destinations.object_place import ObjectPlace
from airflow_provider_agenty.landing.destinations.upload import can_refuse_to_replace

_S3 = dict.fromkeys(("s3", "s3a", "s3n"), "apache-airflow-providers-amazon[s3fs]")
_GOOGLE = dict.fromkeys(("gs", "gcs"), "apache-airflow-providers-google")
_AZURE = dict.fromkeys(("abfs", "abfss", "adl"), "apache-airflow-providers-microsoft-azure")
_SFTP = dict.fromkeys(("sftp", "ssh"), "apache-airflow-providers-sftp[sshfs]")
_SHOW_ONLY_WHOLE_OBJECTS = {**_S3, **_GOOGLE, **_AZURE}
_PACKAGES = {**_SHOW_ONLY_WHOLE_OBJECTS, **_SFTP}
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_MAX_CAUSES = 5
_UNKNOWN_SCHEME = re.compile("No filesystem registered|Unsupported filesystem|Protocol not known")


class ObjectStore:
    """
    A store, as one Airflow connection reaches it.

    :param place: the place in it that the errors name.
    :param conn_id: the Airflow connection; ``None``: that of the store's provider.
    :raises AgentyExportError: if Airflow has no file system for it.
    """

    def __init__(self, place: ObjectPlace, conn_id: str | None) -> None:
        self._scheme = place.scheme
        self._url = place.url
        self._conn_id = conn_id
        self.files = self._file_system()

    @property
    def shows_only_whole_objects(self) -> bool:
        """Whether a key appears when its upload is complete and not before."""
        return self._scheme in _SHOW_ONLY_WHOLE_OBJECTS

    @property
    def refuses_to_replace(self) -> bool:
        """Whether the store itself can refuse to replace a key."""
        return self.shows_only_whole_objects and can_refuse_to_replace(self.files)

    def key(self, place: ObjectPlace) -> str:
        """
        Return the name of a place inside the store.

        :param place: the place.
        :raises AgentyExportError: if the file system would take it for another one.
        """
        return place.name_in(self.files, has_buckets=self.shows_only_whole_objects)

    def check_bucket(self, key: str) -> None:
        """
        Check that the bucket exists, in S3.

        Elsewhere a missing bucket looks like an empty one, or like one that may not be looked at.

        :param key: a key in it.
        :raises AgentyExportError: if it does not exist.
        """
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

    @contextlib.contextmanager
    def errors(self, doing: str, url: str, *, ignore_forbidden: bool = False) -> Iterator[None]:
        """
        Raise what the store's library raises as a :class:`AgentyExportError`.

        :param doing: what is tried, as in ``"upload to"``.
        :param url: the place that it is tried on.
        :param ignore_forbidden: whether a missing right is no error: some may write a key and not look at it.
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
                message = f"{self._url}: a package for {self._scheme}:// is missing. {install} ({error})"
                raise AgentyDestinationError(message) from None
            except AirflowNotFoundException as error:
                message = f"{self._url}: {error}. Make the connection or correct storage_conn_id."
                raise AgentyDestinationError(message) from None
            except ValueError as error:
                if not _UNKNOWN_SCHEME.search(str(error)):
                    raise
                message = f"{self._url}: no installed provider knows {self._scheme}://. {install}"
                raise AgentyDestinationError(message) from None


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
