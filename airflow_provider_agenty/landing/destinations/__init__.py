"""The places that a file can be landed at."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable

from airflow_provider_agenty.exceptions import AgentyDestinationError
from airflow_provider_agenty.landing.temporary_file import StagedFile
from airflow_provider_agenty.paths import URL

_LOCAL_SCHEMES = ("file", "local")


class Destination(ABC):
    """A place for one file; its path is what others are told."""

    def __init__(self, path: str, *, overwrite: bool) -> None:
        self.path = path
        self._overwrite = overwrite

    @property
    def compressed(self) -> bool:
        """Whether the file is gzipped on the way: its name ends in ``.gz``."""
        return self.path.lower().endswith(".gz")

    @abstractmethod
    def check(self) -> None:
        """Check that the place is free or may be replaced."""

    @abstractmethod
    def stage(self, *, length: int | None, spool_folder: str | None) -> contextlib.AbstractContextManager[StagedFile]:
        """Open a temporary file on the way to this place, for so many bytes, which is removed in the end."""

    @abstractmethod
    def publish(self, staged: StagedFile) -> None:
        """Make a finished temporary file appear here in one step; if that fails, this place is as it was."""

    def _exists_already(self) -> AgentyDestinationError:
        return AgentyDestinationError(
            f"{self.path} exists already and overwrite is False: remove it or choose another path."
        )

    def _is_folder(self) -> AgentyDestinationError:
        return AgentyDestinationError(f"{self.path} is a folder: add a / to land a file in it, or a file name.")


def open_destination(
    path: str,
    *,
    default_name: Callable[[], str],
    storage_conn_id: str | None = None,
    overwrite: bool = True,
) -> Destination:
    """
    Check where a file is to be landed; nothing is made or written yet.

    :param path: A local path, a ``file://`` URL or any URL that Airflow's ``ObjectStoragePath`` knows. It may be a
        folder, which ends in ``/``: the file gets its default name there.
    :param default_name: Called after the other checks, and only where the name is needed.
    :param storage_conn_id: The Airflow connection of the object store. Default: the one of its provider.
    :param overwrite: Whether a file that is there already may be replaced.
    """
    local = local_path(path)
    if local is None:
        # fsspec takes a while to import.
        from airflow_provider_agenty.landing.destinations.object_store import open_object

        return open_object(path, default_name=default_name, storage_conn_id=storage_conn_id, overwrite=overwrite)
    from airflow_provider_agenty.landing.destinations.local_file import open_local

    return open_local(local, default_name=default_name, overwrite=overwrite)


def local_path(path: str) -> str | None:
    """Return a path on this machine, also one that a ``file://`` URL names; ``None`` for an object store."""
    url = URL.fullmatch(path)
    if not url:
        return path
    if url[1].lower() not in _LOCAL_SCHEMES:
        return None
    place, slash, local = url[2].partition("/")
    host = place.rpartition("@")[2]  # an ObjectStoragePath has its connection before it
    if host not in ("", "localhost") or not slash:
        raise AgentyDestinationError(
            f"{path} names a file on another host ({host or 'none'}): a file URL has three slashes, "
            "as in file:///folder/name.csv."
        )
    return f"/{local}"


def in_folder(folder: str, name: str) -> str:
    """Return the path of a file in a folder, which ends in ``/``, unless the name leads out of it."""
    if name in {"", ".", ".."} or not name.isprintable() or "/" in name or "\\" in name:
        raise AgentyDestinationError(
            f"{name!r} is no name for a file in {folder}: end the path in a file name of your own."
        )
    return folder + name
