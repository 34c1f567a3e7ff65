"""The checks of ``doctor`` for places where files are landed."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from airflow_provider_agenty import paths
from airflow_provider_agenty.commands.output import ERROR, OK, WARNING, Finding, first_line
from airflow_provider_agenty.landing.destinations import local_path
from airflow_provider_agenty.landing.temporary_file import with_home_folder

MIN_FREE_BYTES = 1024**3
_CONTENT = b"written by the doctor of airflow-provider-agenty\n"


def check_spool_folder() -> Finding:
    """Tell whether there is room for files on their way to an object store."""
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    except OSError:
        return Finding("spool folder", ERROR, "No folder for temporary files can be written to: set TMPDIR to one.")
    if free < MIN_FREE_BYTES:
        text = f"Only {free // 1024**2} MiB are free in {folder}: free space there, or set spool_folder or TMPDIR."
        return Finding("spool folder", WARNING, text)
    return Finding("spool folder", OK, f"{free / 1024**3:.1f} GiB are free in {folder} on this machine.")


def check_path(path: str, *, write: bool) -> Finding:
    """Tell whether a place can be reached, and whether a file can be made there."""
    name = f"agenty-doctor-{secrets.token_hex(8)}.txt"
    try:
        path = paths.check_path(path, writes=paths.kind_of(path))
        local = local_path(path)
        return _check_store(path, name, write) if local is None else _check_local(local, name, write)
    except Exception as error:
        return Finding("path", ERROR, first_line(error))


def _check_local(path: str, name: str, write: bool) -> Finding:
    path = with_home_folder(path)
    folder = Path(path if path.endswith("/") else Path(path).parent).absolute()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        text = f"{existing} is no folder that this user may write to: grant it, or choose another path."
        return Finding("path", ERROR, text)
    if not write:
        return Finding("path", OK, f"This user may write to {existing} on this machine.")
    file = existing / name
    try:
        file.write_bytes(_CONTENT)
        file.read_bytes()
    finally:
        file.unlink(missing_ok=True)
    return Finding("path", OK, f"A file was written to {existing} on this machine, read and removed.")


def _check_store(path: str, name: str, write: bool) -> Finding:
    from airflow_provider_agenty.landing.destinations.object_place import ObjectPlace
    from airflow_provider_agenty.landing.destinations.object_store import ObjectStore

    ObjectPlace.of(path)  # refuses what has no folder
    place = ObjectPlace.of(path[: path.rindex("/") + 1] + name)
    store = ObjectStore(place, place.conn_id)
    key = store.key(place)
    store.check_bucket(key)
    if not write:
        return Finding("path", OK, f"{place.scheme}:// can be reached. Add --write to try to write there.")
    with store.errors("write to", place.url):
        store.files.pipe_file(key, _CONTENT)
    try:
        with store.errors("read from", place.url):
            store.files.cat_file(key)
    finally:
        removed = _remove(store.files, key)
    if not removed:
        return Finding("path", WARNING, f"A file was written and could not be removed again: remove {place.url}.")
    return Finding("path", OK, f"A file was written to {place.url.removesuffix(name)}, read and removed.")


def _remove(files: Any, key: str) -> bool:
    try:
        files.rm_file(key)
    except Exception:
        return False
    return True
