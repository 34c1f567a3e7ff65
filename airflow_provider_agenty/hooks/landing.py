"""The hook's methods that land files: an export, or the rows of a result."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_agenty import parameters
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.hooks.connected import ConnectedHook

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_agenty.landing.land import ExportedFile


class LandingHook(ConnectedHook):
    """The methods of the hook that land files."""

    def get_export_link(
        self,
        job_id: int | str,
        *,
        file_type: str = "result",
        collection: int = 1,
        modified: bool = True,
        filename: str | None = None,
    ) -> str:
        """
        Return a link to a file of a job (``GET /jobs/{job_id}/export``).

        The link is a secret, and it expires: get it right before it is used, and show it to nobody. Airflow's logs hide
        its signature. ``job_id``, ``collection`` and ``modified`` are those of :meth:`iter_result`.

        :param file_type: ``result`` (default) or ``logs``.
        :param filename: The file's name in the link. Default: Agenty's own.
        :return: The URL, on another host than the API; it takes no API key.
        """
        from airflow_provider_agenty.landing.links import link_in

        job_id = parameters.job_id(job_id)
        query = {
            "type": parameters.choice("file_type", file_type, parameters.FILE_TYPES),
            "collection": parameters.collection(collection),
            "modified": int(parameters.boolean("modified", modified)),
        }
        if filename is not None:
            query["filename"] = parameters.filename(filename)
        return link_in(self._transport.read(f"/jobs/{job_id}/export", query))

    def download_export(
        self,
        job_id: int | str,
        path: str | os.PathLike[str] | ObjectStoragePath,
        *,
        file_type: str = "result",
        collection: int = 1,
        modified: bool = True,
        filename: str | None = None,
        storage_conn_id: str | None = None,
        overwrite: bool = True,
        verify_rows: bool = True,
        check: Callable[[ExportedFile], None] | None = None,
        spool_folder: str | os.PathLike[str] | None = None,
        job_seen: Callable[[Job], None] | None = None,
        required_fields: Collection[str] | Mapping[str, float] | None = None,
        max_row_drop: float | None = None,
    ) -> ExportedFile:
        """
        Land a file of a job, whole or not at all.

        It is streamed to a temporary file, verified (its length, that it is no error page, its rows against what
        Agenty says the result has) and published in one step. Calls ``GET /jobs/{job_id}``, ``…/result?limit=1``,
        ``…/export`` and the link. Parameters that are not named here are those of :meth:`get_export_link`.

        :param job_id: The job. A result is landed from a completed job only, logs from any that is over.
        :param path: A local path, ``file://…``, or a URL that Airflow's ``ObjectStoragePath`` knows, as text or as such
            an object. Below a folder (a text that ends in ``/``) the file is named
            ``{agent_id}-{job_id}-{collection}.csv``, a log ``{agent_id}-{job_id}.log``. A path that ends in ``.gz`` is
            compressed. A suffix that says something else than what is written is refused. Folders above it are made.
        :param storage_conn_id: The Airflow connection of the object store. Default: that in the URL, if any, else the
            worker's own credentials.
        :param overwrite: Whether a file that exists is replaced. Default true.
        :param verify_rows: Whether the rows are compared with what Agenty says the result has. Default true.
        :param check: Called with the verified file before it is published; if it raises, nothing is published.
        :param spool_folder: The folder of this machine in which the file is kept until it is verified and in an object
            store. Default: the system's folder for temporary files.
        :param job_seen: Called with the job before anything is downloaded.
        :param required_fields: Names of columns, each filled in every row; or a mapping of names to the least share of
            rows, 0 to 1, in which they are filled. Default: none.
        :param max_row_drop: The largest share of rows, 0 to 1, that may be missing beside the result of the agent's
            previous completed job. Default: any.
        :return: The landed file.
        :raises AgentyExportError: if the job is not over, or the file can't be landed whole. The path is as it was.
        :raises AgentyQualityError: if the result is not as ``required_fields`` or ``max_row_drop`` asks.
        """
        from airflow_provider_agenty.landing.land import LandingOptions, land_export
        from airflow_provider_agenty.paths import check_filename

        file_type = parameters.choice("file_type", file_type, parameters.FILE_TYPES)
        writes = "log" if file_type == "logs" else "csv"
        options = LandingOptions.checked(
            job_id=job_id,
            path=path,
            writes=writes,
            collection=collection,
            modified=modified,
            storage_conn_id=storage_conn_id,
            overwrite=overwrite,
            verify_rows=verify_rows,
            check=check,
            spool_folder=spool_folder,
            job_seen=job_seen,
            required_fields=required_fields,
            max_row_drop=max_row_drop,
        )
        link = partial(self.get_export_link, file_type=file_type, filename=check_filename(filename, writes=writes))

        def get_link() -> str:
            return link(options.job_id, collection=options.collection, modified=options.modified)

        return land_export(self, self._transport, options, get_link=get_link)

    def download_result(
        self,
        job_id: int | str,
        path: str | os.PathLike[str] | ObjectStoragePath,
        *,
        format: str = "jsonl",  # noqa: A002 - what users call it
        column_types: str = "infer",
        collection: int = 1,
        modified: bool = True,
        storage_conn_id: str | None = None,
        overwrite: bool = True,
        verify_rows: bool = True,
        check: Callable[[ExportedFile], None] | None = None,
        spool_folder: str | os.PathLike[str] | None = None,
        job_seen: Callable[[Job], None] | None = None,
        required_fields: Collection[str] | Mapping[str, float] | None = None,
        max_row_drop: float | None = None,
    ) -> ExportedFile:
        """
        Land the rows of a job's result as JSON Lines, CSV or Parquet, whole or not at all.

        The result is read page by page and written as it comes; memory holds a few pages. CSV and Parquet keep the rows
        in ``spool_folder`` first, because a later row may have other columns. Calls ``GET /jobs/{job_id}`` and
        ``…/result``. Parameters that are not named here are those of :meth:`download_export`.

        :param job_id: The job, which has to be completed.
        :param path: The place, as for :meth:`download_export`. Parquet, which is compressed inside, can't have a path
            that ends in ``.gz``.
        :param format: ``jsonl`` (default): each row on a line, with its values as they came. ``csv``: with the columns
            of all rows, in the order in which they first appear. ``parquet``: the same columns, with types where all of
            a column's values agree; needs the extra ``parquet``.
        :param column_types: ``infer`` (default): the values of this result decide. ``text``: each value but null is
            text, so that no later result has other types; numbers keep their text.
        :return: The landed file.
        :raises AgentyExportError: as :meth:`download_export`, and if a page of the result is missing.
        """
        from airflow_provider_agenty.landing.formats import check_format
        from airflow_provider_agenty.landing.land import LandingOptions, land_result

        format = parameters.choice("format", format, parameters.FORMATS)  # noqa: A001 - what users call it
        column_types = parameters.choice("column_types", column_types, parameters.COLUMN_TYPES)
        options = LandingOptions.checked(
            job_id=job_id,
            path=path,
            writes=format,
            collection=collection,
            modified=modified,
            storage_conn_id=storage_conn_id,
            overwrite=overwrite,
            verify_rows=verify_rows,
            check=check,
            spool_folder=spool_folder,
            job_seen=job_seen,
            required_fields=required_fields,
            max_row_drop=max_row_drop,
        )
        check_format(format)
        return land_result(self, self._transport, options, column_types=column_types)
