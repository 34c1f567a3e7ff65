"""Operators that land files."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty import landing_guards, parameters
from airflow_provider_agenty.airflow_compat import AirflowSkipException
from airflow_provider_agenty.base_operators import AgentyTask
from airflow_provider_agenty.connection import DEFAULT_CONNECTION
from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.paths import check_filename, check_path

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.landing.land import ExportedFile


class AgentyLandingTask(AgentyTask):
    """Base of what lands files."""

    _job: Job | None = None
    """The job whose file is landed, once Agenty has told of it."""

    def __init__(
        self,
        *,
        job_id: Any,
        path: str | os.PathLike[str],
        storage_conn_id: str | None,
        collection: Any,
        modified: bool,
        overwrite: bool,
        verify_rows: bool,
        min_rows: int,
        on_empty: str,
        spool_folder: str | os.PathLike[str] | None,
        required_fields: Collection[str] | Mapping[str, float] | None,
        max_row_drop: float | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        # As text, in which Airflow finds a template.
        self.path = parameters.path_text(path)
        self.storage_conn_id = storage_conn_id
        self.collection = collection
        self.modified = parameters.boolean("modified", modified)
        self.overwrite = parameters.boolean("overwrite", overwrite)
        self.verify_rows = parameters.boolean("verify_rows", verify_rows)
        self.min_rows = parameters.whole_number("min_rows", min_rows)
        self.on_empty = parameters.choice("on_empty", on_empty, parameters.ON_EMPTY)
        self.spool_folder = parameters.folder("spool_folder", spool_folder)
        self.required_fields = landing_guards.required_fields(required_fields)
        self.max_row_drop = landing_guards.max_row_drop(max_row_drop)

    def check_what_is_written(self, writes: str) -> None:
        """
        Refuse what does not go with ``csv``, ``jsonl``, ``parquet`` or ``log``.

        A path that is a template is left for later.
        """
        landing_guards.refuse_for_logs(
            writes=writes, required_fields=self.required_fields, max_row_drop=self.max_row_drop
        )
        if not self.is_template(self.path):
            check_path(self.path, writes=writes)

    def landing_arguments(self, context: Context) -> dict[str, Any]:
        """Return the arguments that both of the hook's methods have which land a file."""
        return {
            "job_id": self.job_id,
            "path": self.path,
            "collection": self.collection,
            "modified": self.modified,
            "storage_conn_id": self.rendered("storage_conn_id"),
            "overwrite": self.overwrite,
            "verify_rows": self.verify_rows,
            "check": self.check_rows,
            "spool_folder": self.spool_folder,
            "required_fields": self.required_fields,
            "max_row_drop": self.max_row_drop,
            "job_seen": lambda job: self._note_job(job, context),
        }

    def _note_job(self, job: Job, context: Context) -> None:
        self._job = job
        self.push(context, AgentyAgentLink.xcoms(job))

    def check_rows(self, exported: ExportedFile) -> None:
        """
        Decide on a verified file before it is published.

        :raises AgentyExportError: if it has too few rows.
        :raises AirflowSkipException: if it has none, and that skips the task.
        """
        if exported.rows is None:
            return
        if exported.rows == 0 and self.on_empty != "land":
            message = f"The result of job {exported.job_id} is empty: no row in collection {exported.collection}."
            if self.on_empty == "skip":
                raise AirflowSkipException(f"{message} Nothing was landed.")
            raise AgentyExportError(f"{message} Nothing was landed, as on_empty='fail' says.")
        if exported.rows < self.min_rows:
            raise AgentyExportError(
                f"The result of job {exported.job_id} has {exported.rows} rows, fewer than min_rows={self.min_rows}. "
                "Nothing was landed."
            )

    def add_to_asset_events(self, exported: ExportedFile, context: Context) -> dict[str, Any]:
        """Add a landed file to the events of the task's asset outlets, and return it as XCom takes it."""
        if self.outlets:
            from airflow_provider_agenty.landing.lineage import tell_outlets

            tell_outlets(self.outlets, context["outlet_events"], exported, self.log, job=self._job)
        return exported.to_dict()


class AgentyExportOperator(AgentyLandingTask):
    """
    Lands a file of a job, whole or not at all, as :meth:`AgentyHook.download_export` does.

    The file is that of ``GET /jobs/{job_id}/export``.

    :param job_id: The job (templated). A result is landed from a completed job only, logs from any that is over.
    :param path: The place (templated): a local path, ``file://…``, or a URL that Airflow's ``ObjectStoragePath`` knows.
        Below a folder (a path that ends in ``/``) the file is named ``{agent_id}-{job_id}-{collection}.csv``, a log
        ``{agent_id}-{job_id}.log``. A path that ends in ``.gz`` is compressed.
    :param agenty_conn_id: The Airflow connection (templated). Default ``agenty_default``.
    :param storage_conn_id: The Airflow connection of the object store (templated). Default: that in the URL, if any,
        else the worker's own credentials.
    :param file_type: ``result`` (default) or ``logs``.
    :param collection: The collection of the agent (templated), counted from 1. Default 1.
    :param modified: Whether the result after post-processing is meant, where there is one. Default true.
    :param filename: The file's name in Agenty's link (templated): a suffix that asks for another format is refused.
        Default: Agenty's own.
    :param overwrite: Whether a file that exists is replaced. Default true.
    :param verify_rows: Whether the rows are compared with what Agenty says the result has. Default true.
    :param min_rows: The least rows, the header not counted, that are landed; fewer fail the task. Default 0.
    :param on_empty: Says what becomes of a result without rows: ``land`` it (default), ``fail`` or ``skip``.
    :param spool_folder: The folder in which the worker keeps a file for an object store until it is verified. Default:
        the system's folder for temporary files.
    :param required_fields: Names of columns, each filled in every row; or a mapping of names to the least share of
        rows, 0 to 1, in which they are filled. Default: none.
    :param max_row_drop: The largest share of rows, 0 to 1, that may be missing beside the result of the agent's
        previous completed job. Default: any.
    :return: The landed file, a dict: ``path``, ``size`` (bytes), ``rows``, ``sha256``, ``job_id``, ``collection``, and
        with ``required_fields`` ``filled``: the share of rows by name.
    :raises AgentyExportError: if the job is not over, or the file can't be landed whole; what was at the path before is
        still there.
    :raises AgentyDestinationError: if nothing can be landed there.
    :raises AgentyQualityError: if the result is not as ``required_fields`` or ``max_row_drop`` asks.
    :raises AirflowSkipException: if the result has no rows, and ``on_empty`` is ``skip``.
    """

    template_fields: Sequence[str] = (
        "job_id",
        "path",
        "agenty_conn_id",
        "storage_conn_id",
        "collection",
        "filename",
    )

    def __init__(
        self,
        *,
        job_id: Any,
        path: str | os.PathLike[str],
        agenty_conn_id: str = DEFAULT_CONNECTION,
        storage_conn_id: str | None = None,
        file_type: str = "result",
        collection: Any = 1,
        modified: bool = True,
        filename: str | None = None,
        overwrite: bool = True,
        verify_rows: bool = True,
        min_rows: int = 0,
        on_empty: str = "land",
        spool_folder: str | os.PathLike[str] | None = None,
        required_fields: Collection[str] | Mapping[str, float] | None = None,
        max_row_drop: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            job_id=job_id,
            path=path,
            agenty_conn_id=agenty_conn_id,
            storage_conn_id=storage_conn_id,
            collection=collection,
            modified=modified,
            overwrite=overwrite,
            verify_rows=verify_rows,
            min_rows=min_rows,
            on_empty=on_empty,
            spool_folder=spool_folder,
            required_fields=required_fields,
            max_row_drop=max_row_drop,
            **kwargs,
        )
        self.file_type = parameters.choice("file_type", file_type, parameters.FILE_TYPES)
        self.filename = filename
        self.check_templated_parameters()
        writes = "log" if self.file_type == "logs" else "csv"
        self.check_what_is_written(writes)
        if not self.is_template(filename):
            check_filename(filename, writes=writes)

    def execute(self, context: Context) -> dict[str, Any]:
        """Land the file."""
        exported = self.hook.download_export(
            file_type=self.file_type, filename=self.rendered("filename"), **self.landing_arguments(context)
        )
        return self.add_to_asset_events(exported, context)


class AgentyResultOperator(AgentyLandingTask):
    """
    Lands the rows of a job's result, whole or not at all, as :meth:`AgentyHook.download_result` does.

    It reads the result page by page (``GET /jobs/{job_id}/result``) and makes the file itself, while
    :class:`AgentyExportOperator` lands the CSV that Agenty makes.

    The parameters that are not named here are those of :class:`AgentyExportOperator`; ``file_type`` and ``filename``
    do not exist.

    :param job_id: The job (templated), which has to be completed.
    :param path: As for the export. Below a folder the file is named ``{agent_id}-{job_id}-{collection}.{format}``.
        Parquet, which is compressed inside, can't have a path that ends in ``.gz``.
    :param format: ``jsonl`` (default): each row on a line, with its values as they came. ``csv``: with the columns of
        all rows, in the order in which they first appear. ``parquet``: the same columns, with types where all of a
        column's values agree; needs the extra ``parquet``.
    :param column_types: ``infer`` (default): the values of this result decide. ``text``: each value but null is text,
        so that no later result has other types; numbers keep their text.
    :param spool_folder: As for the export. The rows for CSV and Parquet are kept there until all of them have come.
    :return: The landed file, as for the export.
    :raises AgentyExportError: as for the export.
    """

    template_fields: Sequence[str] = ("job_id", "path", "agenty_conn_id", "storage_conn_id", "collection")

    def __init__(
        self,
        *,
        job_id: Any,
        path: str | os.PathLike[str],
        format: str = "jsonl",  # noqa: A002 - what users call it
        column_types: str = "infer",
        agenty_conn_id: str = DEFAULT_CONNECTION,
        storage_conn_id: str | None = None,
        collection: Any = 1,
        modified: bool = True,
        overwrite: bool = True,
        verify_rows: bool = True,
        min_rows: int = 0,
        on_empty: str = "land",
        spool_folder: str | os.PathLike[str] | None = None,
        required_fields: Collection[str] | Mapping[str, float] | None = None,
        max_row_drop: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            job_id=job_id,
            path=path,
            agenty_conn_id=agenty_conn_id,
            storage_conn_id=storage_conn_id,
            collection=collection,
            modified=modified,
            overwrite=overwrite,
            verify_rows=verify_rows,
            min_rows=min_rows,
            on_empty=on_empty,
            spool_folder=spool_folder,
            required_fields=required_fields,
            max_row_drop=max_row_drop,
            **kwargs,
        )
        self.format = parameters.choice("format", format, parameters.FORMATS)
        self.column_types = parameters.choice("column_types", column_types, parameters.COLUMN_TYPES)
        self.check_templated_parameters()
        self.check_what_is_written(self.format)

    def execute(self, context: Context) -> dict[str, Any]:
        """Land the rows."""
        exported = self.hook.download_result(
            format=self.format, column_types=self.column_types, **self.landing_arguments(context)
        )
        return self.add_to_asset_events(exported, context)
