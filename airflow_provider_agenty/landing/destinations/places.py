"""Which place a path means, checked before anything is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable

from airflow_provider_agenty.landing.destinations.destination import Destination
from airflow_provider_agenty.landing.destinations.local_file import local_path_of_url, open_local

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://(.*)", re.DOTALL)
_LOCAL_SCHEMES = ("file", "local")


def open_destination(
    path: str,
    *,
    default_name: Callable[[], str] | str,
    storage_conn_id: str | None = None,
    overwrite: bool = True,
) -> Destination:
    """
    Check where a file is to be landed; nothing is made or written yet.

    :param path: a local path, a ``file://`` URL or any URL that Airflow's ``ObjectStoragePath`` knows, from
        :func:`~airflow_provider_agenty.paths.check_path`. One that ends in ``/`` is a folder, in which the file gets
        its default name; one that ends in ``.gz`` is gzipped.
    :param default_name: the file's name in a folder, or what finds it out: called after the other checks, and
        only when it is needed.
    :param storage_conn_id: the Airflow connection of the object store; default: the one of its provider.
    :param overwrite: whether a file that is there already may be replaced; default ``True``.
    :return: the destination.
    :raises AgentyExportError: if nothing can be landed there, saying why.
    """
    url = _URL.fullmatch(path)
    if url and url[1].lower() not in _LOCAL_SCHEMES:
        from airflow_provider_agenty.landing.destinations.object_destination import open_object

        return open_object(path, default_name=default_name, storage_conn_id=storage_conn_id, overwrite=overwrite)
    local = local_path_of_url(path) if url else path
    return open_local(local, default_name=default_name, overwrite=overwrite)
