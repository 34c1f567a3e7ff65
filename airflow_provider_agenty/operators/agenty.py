"""Operators that start, stop and land jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty import parameters
from airflow_provider_agenty.airflow_compat import (
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    ResumableJobMixin,
)
from airflow_provider_agenty.base_operators import (
    AgentyTask,
    AgentyWaitingTask,
    deadline_of,
)
from airflow_provider_agenty.connection_form import DEFAULT_CONNECTION
from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyExportError,
    AgentyNotFoundError,
    AgentyTimeoutError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.paths import check_path
from airflow_provider_agenty.waiting.task_state import JOB_KEY, StartMemory, is_retry

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.landing.land import ExportedFile
    from airflow_provider_agenty.waiting.job_watch import Outcome

WEEK = 7 * 24 * 3600

JOB_ID_XCOM = "job_id"
"""The XCom with the id of the job, there as soon as it is known: a task that fails returns nothing."""

GONE = "gone"
"""Stands for the state of a job that a retry does not go on with, whatever its state."""


class AgentyStartJobOperator(ResumableJobMixin, AgentyWaitingTask, BaseOperator):
    """
    Starts a job of an agent (``POST /jobs/start``), once for each task run, and waits for it if wanted.

    It waits by ``GET /jobs/{job_id}``, or by ``GET /jobs`` where triggers share their polls.

    :param agent_id: The agent (templated).
    :param urls: What the agent is to scrape (templated): a list of URLs, or a text with one on each line or with a list
        in JSON. It is set as the agent's input (``PUT /inputs/{agent_id}``) right before a job is started, not where a
        retry goes on with one. The input is the agent's: docs/inputs.md says how to keep runs apart. Default: the input
        is left as it is.
    :param agenty_conn_id: The Airflow connection (templated). Default ``agenty_default``.
    :param wait_for_completion: Whether to wait until the job is over. Default false: return once it is started.
    :param deferrable: Whether to wait in the triggerer, without a worker slot. Default: ``[operators]
        default_deferrable``. Without ``wait_for_completion`` it changes nothing.
    :param poll_interval: Seconds between two polls, or a ``timedelta``. Default 10.
    :param timeout: Seconds to wait at most, or a ``timedelta``. Default: a week.
    :param durable: Whether a retry goes on with the job of the try before (Airflow 3.3 and later). Default true.
    :param cancel_on_kill: Whether the job is stopped when a user marks or clears the task while it waits. Default true.
    :param cancel_on_timeout: Whether the job is stopped when it is not done within ``timeout``, or Airflow's
        ``execution_timeout``. Default true.
    :param max_failed_ratio: The share of its pages, 0 to 1, above which failed pages make a completed job count as
        failed. Default: any share will do.
    :param on_stopped: What becomes of the task if somebody stops the job: ``fail`` (default) or ``skip``.
    :param stream_logs: Whether the job's log is copied into the task's while it waits. Default false.
    :return: The job's id.
    :raises AgentyAmbiguousStartError: if it can't be told whether there is a job, or which one it is.
    :raises AgentyNotFoundError: if there is no such agent.
    :raises AgentyJobFailedError: if the job was aborted, or too many of its pages failed.
    :raises AgentyJobStoppedError: if somebody stopped it.
    :raises AgentyTimeoutError: if it is not done in time.
    """

    template_fields: Sequence[str] = ("agent_id", "urls", "agenty_conn_id")
    external_id_key = JOB_KEY

    def __init__(
        self,
        *,
        agent_id: Any,
        urls: Any = None,
        agenty_conn_id: str = DEFAULT_CONNECTION,
        wait_for_completion: bool = False,
        deferrable: bool | None = None,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta = WEEK,
        durable: bool = True,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        max_failed_ratio: float | None = None,
        on_stopped: str = "fail",
        stream_logs: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(durable=parameters.boolean("durable", durable), **kwargs)
        self.agent_id = agent_id
        self.urls = urls
        self.agenty_conn_id = agenty_conn_id
        self.check_templated_parameters()
        self.wait_for_completion = parameters.boolean("wait_for_completion", wait_for_completion)
        self.poll_interval = parameters.seconds("poll_interval", poll_interval)
        self.timeout = parameters.seconds("timeout", timeout)
        self.cancel_on_timeout = parameters.boolean("cancel_on_timeout", cancel_on_timeout)
        self.take_waiting_parameters(
            deferrable=deferrable,
            max_failed_ratio=max_failed_ratio,
            on_stopped=on_stopped,
            cancel_on_kill=cancel_on_kill,
            stream_logs=stream_logs,
        )
        self._submitted: Job | None = None
        self._outcome: Outcome | None = None

    def execute(self, context: Context) -> int:
        """
        Start the job, or find that of an earlier try, and wait for it if wanted.

        :param context: The context of the task.
        """
        # As it is stored: a retry compares what it is given with it.
        self.agent_id = parameters.agent_id(self.agent_id)
        job_id: int = self.execute_resumable(context)
        return job_id

    # What Airflow's ResumableJobMixin asks for. What it stores, and what that means, is in durable.py.

    def submit_job(self, context: Context) -> dict[str, Any]:
        """
        Start a job, unless an earlier try did so without getting to store it.

        :param context: The context of the task.
        :return: What is stored of the job.
        """
        memory = StartMemory(context, self.agent_id)
        try:
            job = self._find_unremembered_job(memory, context) if self.durable else None
            if job is None:
                job = self._start(memory)
        except AgentyAmbiguousStartError as error:
            if not (error.may_clear_up and self.durable and memory.is_there):
                raise
            unknown = str(error)
        else:
            self._submitted = job
            return memory.describe_job(job.job_id)
        raise AgentyUnavailableError(f"{unknown} A retry of this task looks for it before it starts anything.")

    def _find_unremembered_job(self, memory: StartMemory, context: Context) -> Job | None:
        if memory.is_there:
            intent = memory.read_intent()
            if intent is None:
                return None
            self.log.info("An earlier try was about to start agent %s. Looking for its job", self.agent_id)
            return self.hook.find_started_job(
                self.agent_id,
                newer_than=intent.newest_job_id,
                patience=max(self.hook.settings.read_timeout - intent.age, 0.0),
            )
        if not is_retry(context):
            return None
        run_began = context["dag_run"].start_date
        return self.hook.find_active_job(self.agent_id, since=run_began) if run_began else None

    def _start(self, memory: StartMemory) -> Job:
        return self.hook.start_job(
            self.agent_id, urls=self.rendered("urls"), prepare=memory.keep_intent if self.durable else None
        )

    def get_job_status(self, external_id: Any, context: Context) -> str:
        """
        Return the state of the job of an earlier try, or :data:`GONE` if it is none to go on with.

        :param external_id: What is stored of the job.
        :param context: The context of the task.
        """
        from airflow_provider_agenty.waiting.job_watch import FAILED, judge

        job_id = StartMemory(context, self.agent_id).read_job_id(external_id)
        if job_id is None:
            self.log.info("The task was cleared, or had another agent: a new job is started")
            return GONE
        self.push(context, {JOB_ID_XCOM: job_id})
        try:
            job = self.hook.get_job(job_id)
        except AgentyNotFoundError:
            self.log.info("An earlier try started job %d, which is no longer there: a new one is started", job_id)
            return GONE
        self.push(context, AgentyAgentLink.xcoms(job))
        self.log.info("An earlier try started job %d: it is %s", job_id, job.describe())
        if self.wait_for_completion:
            self._outcome = judge(job, max_failed_ratio=self.max_failed_ratio)
            if self._outcome is not None and self._outcome.status == FAILED:
                self._outcome = None
                return GONE
            if self._outcome is not None and job.is_successful:
                # It completed between two tries: the rest of its log is still missing.
                self.follow_log(job, context)
        return job.status

    def is_job_active(self, status: str) -> bool:
        """
        Return whether a retry goes on with a job in this state.

        One in a state that is not known may still run: starting another could be paid twice. One that is being stopped
        will not complete.

        :param status: The state.
        """
        from airflow_provider_agenty.api.models import ACTIVE_STATES, KNOWN_STATES

        return status in ACTIVE_STATES or (status != GONE and status not in KNOWN_STATES)

    def is_job_succeeded(self, status: str) -> bool:
        """
        Return whether a retry takes a job in this state as it is.

        :param status: The state.
        """
        from airflow_provider_agenty.api.models import SUCCESSFUL_STATES

        return status in SUCCESSFUL_STATES

    def poll_until_complete(self, external_id: Any, context: Context) -> int:  # type: ignore[override]
        """
        Wait for the job, or defer, if it is to be waited for.

        :param external_id: What is stored of the job.
        :param context: The context of the task.
        :return: The job's id: on a re-attach this is what the task returns.
        """
        job_id = int(external_id["job_id"])
        # Not earlier: nothing comes between the start and the storing of its job.
        self.push(context, {JOB_ID_XCOM: job_id})
        if self._submitted is not None:
            self.push(context, AgentyAgentLink.xcoms(self._submitted))
        if self.wait_for_completion and self.deferrable:
            self.defer(
                trigger=self.make_trigger(
                    job_id,
                    context,
                    poll_interval=self.poll_interval,
                    deadline=deadline_of(self, context, timeout=self.timeout),
                ),
                method_name="execute_complete",
            )
        if self.wait_for_completion:
            self._outcome = self._wait(job_id, context)
        return self.get_job_result(external_id, context)

    def _wait(self, job_id: int, context: Context) -> Outcome:
        from airflow_provider_agenty.waiting.job_watch import JobWatch, wait

        watch = JobWatch(
            job_id, deadline=time.time() + self.timeout, max_failed_ratio=self.max_failed_ratio, log=self.log
        )
        self.await_job(job_id, context)
        try:
            return wait(
                lambda: self.hook.get_job(job_id),
                watch,
                poll_interval=self.poll_interval,
                between=lambda job: self.follow_log(job, context),
            )
        except AirflowTaskTimeout:
            # Airflow calls on_kill next, which has nothing left to do.
            self._awaited_job_id = None
            if self.cancel_on_timeout:
                self.stop_job(job_id)
            raise

    def get_job_result(self, external_id: Any, context: Context) -> int:
        """
        Return the job's id once its outcome, if it was waited for, is a good one.

        :param external_id: What is stored of the job.
        :param context: The context of the task.
        """
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            self._end(outcome, context)
        return int(external_id["job_id"])

    def execute_complete(self, context: Context, event: Any) -> int:
        """
        Take what the trigger sent.

        :param context: The context of the task.
        :param event: The payload of the trigger's event.
        """
        from airflow_provider_agenty.waiting.job_watch import Outcome

        return self._end(Outcome.from_event(event), context)

    def _end(self, outcome: Outcome, context: Context) -> int:
        try:
            return self.conclude(outcome, context).job_id
        except AgentyTimeoutError:
            if self.cancel_on_timeout:
                self.stop_job(outcome.job_id)
            raise


class AgentyStopJobOperator(AgentyTask, BaseOperator):
    """
    Asks Agenty to stop a job (``GET /jobs/{job_id}/stop``). On a job that is over it changes nothing.

    :param job_id: The job (templated).
    :param agenty_conn_id: The Airflow connection (templated). Default ``agenty_default``.
    :return: The job's state as Agenty answered, in lower case: often still ``stopping``.
    :raises AgentyNotFoundError: if there is no such job.
    """

    template_fields: Sequence[str] = ("job_id", "agenty_conn_id")

    def __init__(self, *, job_id: Any, agenty_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.agenty_conn_id = agenty_conn_id
        self.check_templated_parameters()

    def execute(self, context: Context) -> str:
        """
        Stop the job.

        :param context: The context of the task.
        """
        job = self.hook.stop_job(self.job_id)
        self.push(context, AgentyAgentLink.xcoms(job))
        if job.is_terminal and not job.is_stopped:
            self.log.info("Job %d was over before it could be stopped: it is %s", job.job_id, job.status)
        else:
            self.log.info("Asked Agenty to stop job %d: it is %s", job.job_id, job.status)
        return job.status


class AgentyLandingTask(AgentyTask):
    """Mixed into what lands files: how many rows they must have, and what the task's outlets are told of them."""

    path: Any

    def take_landing_parameters(
        self,
        *,
        writes: str,
        modified: bool,
        overwrite: bool,
        verify_rows: bool,
        min_rows: int,
        on_empty: str,
        spool_folder: str | os.PathLike[str] | None,
    ) -> None:
        """
        Take the parameters that all landing has, when the DAG file is read.

        :param writes: What is landed: ``csv``, ``jsonl``, ``parquet`` or ``log``.
        :param modified: Whether the result after post-processing is meant.
        :param overwrite: Whether a file that exists is replaced.
        :param verify_rows: Whether the rows are compared with what Agenty says the result has.
        :param min_rows: The least rows that are landed.
        :param on_empty: What becomes of a result without rows.
        :param spool_folder: Where a file is kept until it is verified; ``None``: with the temporary files.
        :raises AgentyInputError: naming the parameter.
        """
        # As text, in which Airflow finds a template.
        self.path = parameters.path_text(self.path)
        self.check_templated_parameters()
        if not self.is_template(self.path):
            check_path(self.path, writes=writes)
        self.modified = parameters.boolean("modified", modified)
        self.overwrite = parameters.boolean("overwrite", overwrite)
        self.verify_rows = parameters.boolean("verify_rows", verify_rows)
        self.min_rows = parameters.whole_number("min_rows", min_rows)
        self.on_empty = parameters.choice("on_empty", on_empty, parameters.ON_EMPTY)
        self.spool_folder = parameters.folder("spool_folder", spool_folder)

    def check_rows(self, exported: ExportedFile) -> None:
        """
        Decide on a verified file before it is published.

        :param exported: The file.
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

    def tell_of(self, exported: ExportedFile, context: Context) -> dict[str, Any]:
        """
        Tell the task's asset outlets of a landed file, and return it as XCom takes it.

        :param exported: The file.
        :param context: The context of the task.
        """
        if self.outlets:
            from airflow_provider_agenty.landing.lineage import tell_outlets

            tell_outlets(self.outlets, context["outlet_events"], exported, self.log)
        return exported.to_dict()


class AgentyExportOperator(AgentyLandingTask, BaseOperator):
    """
    Lands a file of a job, whole or not at all, as :meth:`AgentyHook.download_export` does.

    The file is that of ``GET /jobs/{job_id}/export``.

    :param job_id: The job (templated). A result is landed from a completed job only, logs from any that is over.
    :param path: Where to (templated): a local path, ``file://…``, or a URL that Airflow's ``ObjectStoragePath`` knows.
        Below a folder (a path that ends in ``/``) the file is named ``{agent_id}-{job_id}-{collection}.csv``. A path
        that ends in ``.gz`` is compressed.
    :param agenty_conn_id: The Airflow connection (templated). Default ``agenty_default``.
    :param storage_conn_id: The Airflow connection of the object store (templated). Default: that in the URL, if any,
        else the worker's own credentials.
    :param file_type: ``result`` (default) or ``logs``.
    :param collection: The collection of the agent (templated), counted from 1. Default 1.
    :param modified: Whether the result after post-processing is meant, where there is one. Default true.
    :param filename: The file's name in Agenty's link (templated). Default: Agenty's own.
    :param overwrite: Whether a file that exists is replaced. Default true.
    :param verify_rows: Whether the rows are compared with what Agenty says the result has. Default true.
    :param min_rows: The least rows, the header not counted, that are landed; fewer fail the task. Default 0.
    :param on_empty: What becomes of a result without rows: ``land`` it (default), ``fail`` or ``skip``.
    :param spool_folder: Where a file for an object store is kept on the worker until it is verified. Default: the
        system's folder for temporary files.
    :return: The landed file, a dict: ``path``, ``size`` (bytes), ``rows``, ``sha256``, ``job_id``, ``collection``.
    :raises AgentyExportError: if the job is not over, or the file can't be landed whole; what was at the path before is
        still there.
    :raises AgentyDestinationError: if nothing can be landed there.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.path = path
        self.agenty_conn_id = agenty_conn_id
        self.storage_conn_id = storage_conn_id
        self.file_type = parameters.choice("file_type", file_type, parameters.FILE_TYPES)
        self.collection = collection
        self.filename = filename
        self.take_landing_parameters(
            writes="log" if self.file_type == "logs" else "csv",
            modified=modified,
            overwrite=overwrite,
            verify_rows=verify_rows,
            min_rows=min_rows,
            on_empty=on_empty,
            spool_folder=spool_folder,
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Land the file.

        :param context: The context of the task.
        """
        exported = self.hook.download_export(
            self.job_id,
            self.path,
            file_type=self.file_type,
            collection=self.collection,
            modified=self.modified,
            filename=self.rendered("filename"),
            storage_conn_id=self.rendered("storage_conn_id"),
            overwrite=self.overwrite,
            verify_rows=self.verify_rows,
            check=self.check_rows,
            spool_folder=self.spool_folder,
            job_seen=lambda job: self.push(context, AgentyAgentLink.xcoms(job)),
        )
        return self.tell_of(exported, context)


class AgentyResultOperator(AgentyLandingTask, BaseOperator):
    """
    Lands the rows of a job's result, whole or not at all, as :meth:`AgentyHook.download_result` does.

    Where :class:`AgentyExportOperator` lands the CSV that Agenty makes, this reads the result page by page (``GET
    /jobs/{job_id}/result``) and makes the file itself.

    :param job_id: The job (templated), which has to be completed.
    :param path: Where to (templated): a local path, ``file://…``, or a URL that Airflow's ``ObjectStoragePath`` knows.
        Below a folder (a path that ends in ``/``) the file is named ``{agent_id}-{job_id}-{collection}.{format}``. A
        path that ends in ``.gz`` is compressed; Parquet, which is compressed inside, can't have one.
    :param format: ``jsonl`` (default): each row on a line, with its values as they came. ``csv``: with the columns of
        all rows, in the order in which they first appear. ``parquet``: the same columns, with types where all of a
        column's values agree; needs the extra ``parquet``.
    :param column_types: ``infer`` (default): the values of this result decide. ``text``: each value but null is text,
        so that no later result has other types; numbers keep their text.
    :param collection: The collection of the agent (templated), counted from 1. Default 1.
    :param modified: Whether the result after post-processing is meant, where there is one. Default true.
    :param agenty_conn_id: The Airflow connection (templated). Default ``agenty_default``.
    :param storage_conn_id: The Airflow connection of the object store (templated). Default: that in the URL, if any,
        else the worker's own credentials.
    :param overwrite: Whether a file that exists is replaced. Default true.
    :param verify_rows: Whether the rows of the file are compared with what Agenty says the result has. Default true.
    :param min_rows: The least rows that are landed; fewer fail the task. Default 0.
    :param on_empty: What becomes of a result without rows: ``land`` it (default), ``fail`` or ``skip``.
    :param spool_folder: Where a file for an object store is kept on the worker until it is verified, and the rows for
        CSV and Parquet until all of them are there. Default: the system's folder for temporary files.
    :return: The landed file, a dict: ``path``, ``size`` (bytes), ``rows``, ``sha256``, ``job_id``, ``collection``.
    :raises AgentyExportError: if the job is not over, or the file can't be landed whole; what was at the path before is
        still there.
    :raises AgentyDestinationError: if nothing can be landed there.
    :raises AirflowSkipException: if the result has no rows, and ``on_empty`` is ``skip``.
    """

    template_fields: Sequence[str] = ("job_id", "path", "agenty_conn_id", "storage_conn_id", "collection")

    def __init__(
        self,
        *,
        job_id: Any,
        path: str | os.PathLike[str],
        format: str = "jsonl",  # noqa: A002 - what users call it
        column_types: str = "infer",
        collection: Any = 1,
        modified: bool = True,
        agenty_conn_id: str = DEFAULT_CONNECTION,
        storage_conn_id: str | None = None,
        overwrite: bool = True,
        verify_rows: bool = True,
        min_rows: int = 0,
        on_empty: str = "land",
        spool_folder: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.path = path
        self.format = parameters.choice("format", format, parameters.FORMATS)
        self.column_types = parameters.choice("column_types", column_types, parameters.COLUMN_TYPES)
        self.collection = collection
        self.agenty_conn_id = agenty_conn_id
        self.storage_conn_id = storage_conn_id
        self.take_landing_parameters(
            writes=self.format,
            modified=modified,
            overwrite=overwrite,
            verify_rows=verify_rows,
            min_rows=min_rows,
            on_empty=on_empty,
            spool_folder=spool_folder,
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Land the rows.

        :param context: The context of the task.
        """
        exported = self.hook.download_result(
            self.job_id,
            self.path,
            format=self.format,
            column_types=self.column_types,
            collection=self.collection,
            modified=self.modified,
            storage_conn_id=self.rendered("storage_conn_id"),
            overwrite=self.overwrite,
            verify_rows=self.verify_rows,
            check=self.check_rows,
            spool_folder=self.spool_folder,
            job_seen=lambda job: self.push(context, AgentyAgentLink.xcoms(job)),
        )
        return self.tell_of(exported, context)
