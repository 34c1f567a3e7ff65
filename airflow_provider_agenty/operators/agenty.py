"""Operators that start, stop and land jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty import parameters
from airflow_provider_agenty.airflow_compat import AirflowTaskTimeout, ResumableJobMixin, class_of
from airflow_provider_agenty.base_operators import AgentyLandingTask, AgentyTask, AgentyWaitingTask
from airflow_provider_agenty.exceptions import (
    AgentyAmbiguousStartError,
    AgentyNotFoundError,
    AgentyTimeoutError,
    AgentyUnavailableError,
)
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.waiting.task_state import (
    JOB_KEY,
    StartMemory,
    VariableState,
    forget_when_it_ends,
    is_retry,
    open_task_state,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.waiting.outcome import Outcome

WEEK = 7 * 24 * 3600

JOB_ID_XCOM = "job_id"
"""The XCom with the id of the job, there as soon as it is known: a task that fails returns nothing."""

GONE = "gone"
"""Stands for the state of a job that a retry does not go on with, whatever its state."""


class AgentyStartJobOperator(ResumableJobMixin, AgentyWaitingTask):
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
        wait_for_completion: bool = False,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta = WEEK,
        durable: bool = True,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(durable=parameters.boolean("durable", durable), cancel_on_kill=cancel_on_kill, **kwargs)
        self.agent_id = agent_id
        self.urls = urls
        self.check_templated_parameters()
        self.wait_for_completion = parameters.boolean("wait_for_completion", wait_for_completion)
        self.poll_interval = parameters.seconds("poll_interval", poll_interval)
        self.timeout = parameters.seconds("timeout", timeout)
        self.cancel_on_timeout = parameters.boolean("cancel_on_timeout", cancel_on_timeout)
        self._submitted: Job | None = None
        self._outcome: Outcome | None = None

    def execute(self, context: Context) -> int:
        """
        Start the job, or find that of an earlier try, and wait for it if wanted.

        :param context: The context of the task.
        """
        # As it is stored: a retry compares what it is given with it.
        self.agent_id = parameters.agent_id(self.agent_id)
        self._open_task_state(context)
        job_id: int = self.execute_resumable(context)
        return job_id

    def _open_task_state(self, context: Context) -> None:
        state = open_task_state(context) if self.durable else None
        if isinstance(state, VariableState):
            context["task_state_store"] = state  # type: ignore[typeddict-item]
            forget_when_it_ends(state, self)

    # What Airflow's ResumableJobMixin asks for. What it stores, and what that means, is in task_state.py.

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
        intent = memory.read_intent()
        if intent is not None:
            self.log.info("An earlier try was about to start agent %s. Looking for its job", self.agent_id)
            return self.hook.find_started_job(
                self.agent_id,
                newer_than=intent.newest_job_id,
                patience=max(self.hook.settings.read_timeout - intent.age, 0.0),
            )
        run_began = context["dag_run"].start_date
        if memory.is_there or not is_retry(context) or run_began is None:
            return None
        return self._find_job_of_this_run(run_began, context)

    def _find_job_of_this_run(self, run_began: datetime, context: Context) -> Job | None:
        from airflow_provider_agenty.operators.existing_job import find_job_of_run

        urls = self.rendered("urls")
        return find_job_of_run(
            self.hook,
            self.agent_id,
            run_began=run_began,
            of_other_tasks=self._jobs_of_other_tasks(context),
            urls=None if urls is None else parameters.urls(urls),
            max_failed_ratio=self.max_failed_ratio if self.wait_for_completion else None,
        )

    def _jobs_of_other_tasks(self, context: Context) -> set[int]:
        """Return the jobs that other start tasks of this run hold: a run may start an agent twice on purpose."""
        dag = context["task"].dag if context["task"].has_dag() else None
        starts = [
            task.task_id for task in (dag.tasks if dag else []) if issubclass(class_of(task), AgentyStartJobOperator)
        ]
        held = context["ti"].xcom_pull(task_ids=starts, key=JOB_ID_XCOM) if starts else []
        return {job_id for job_id in held or [] if isinstance(job_id, int)}

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
        from airflow_provider_agenty.waiting.job_watch import judge
        from airflow_provider_agenty.waiting.outcome import FAILED

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
        """Wait for the job, or defer, if it is to be waited for; return its id, which a re-attached task returns."""
        job_id = int(external_id["job_id"])
        # Not earlier: nothing comes between the start and the storing of its job.
        self.push(context, {JOB_ID_XCOM: job_id})
        if self._submitted is not None:
            self.push(context, AgentyAgentLink.xcoms(self._submitted))
        if self.wait_for_completion and self.deferrable:
            self.wait_in_triggerer(job_id, context, poll_interval=self.poll_interval, timeout=self.timeout)
        if self.wait_for_completion:
            self._outcome = self._wait(job_id, context)
        return self.get_job_result(external_id, context)

    def _wait(self, job_id: int, context: Context) -> Outcome:
        from airflow_provider_agenty.waiting.job_watch import JobWatch, wait

        watch = JobWatch(job_id, deadline=time.time() + self.timeout, log=self.log, **self.limits)
        self.await_job(job_id, context)
        try:
            return wait(
                lambda: self.hook.get_job(job_id),
                watch,
                poll_interval=self.poll_interval,
                before_decision=lambda job: self.follow_log(job, context),
            )
        except AirflowTaskTimeout:
            # Airflow calls on_kill next, which has nothing left to do.
            self._awaited_job_id = None
            if self.cancel_on_timeout:
                self.stop_job(job_id)
            raise

    def get_job_result(self, external_id: Any, context: Context) -> int:
        """Return the job's id once its outcome, if it was waited for, is a good one."""
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            self._end(outcome, context)
        return int(external_id["job_id"])

    def execute_complete(self, context: Context, event: Any) -> int:
        """End the task as the event of the trigger says."""
        from airflow_provider_agenty.waiting.outcome import Outcome

        self._open_task_state(context)
        return self._end(Outcome.from_event(event), context)

    def _end(self, outcome: Outcome, context: Context) -> int:
        try:
            return self.conclude(outcome, context).job_id
        except AgentyTimeoutError:
            if self.cancel_on_timeout:
                self.stop_job(outcome.job_id)
            raise


class AgentyStopJobOperator(AgentyTask):
    """
    Asks Agenty to stop a job (``GET /jobs/{job_id}/stop``). On a job that is over it changes nothing.

    :param job_id: The job (templated).
    :param agenty_conn_id: The Airflow connection (templated). Default ``agenty_default``.
    :return: The job's state as Agenty answered, in lower case: often still ``stopping``.
    :raises AgentyNotFoundError: if there is no such job.
    """

    template_fields: Sequence[str] = ("job_id", "agenty_conn_id")

    def __init__(self, *, job_id: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.check_templated_parameters()

    def execute(self, context: Context) -> str:
        """Stop the job."""
        job = self.hook.stop_job(self.job_id)
        self.push(context, AgentyAgentLink.xcoms(job))
        if job.is_terminal and not job.is_stopped:
            self.log.info("Job %d was over before it could be stopped: it is %s", job.job_id, job.status)
        else:
            self.log.info("Asked Agenty to stop job %d: it is %s", job.job_id, job.status)
        return job.status


class AgentyExportOperator(AgentyLandingTask):
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

    def __init__(self, *, file_type: str = "result", filename: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file_type = parameters.choice("file_type", file_type, parameters.FILE_TYPES)
        self.filename = filename
        self.check_templated_parameters()
        self.check_unrendered_path(writes="log" if self.file_type == "logs" else "csv")

    def execute(self, context: Context) -> dict[str, Any]:
        """Land the file."""
        exported = self.hook.download_export(
            file_type=self.file_type, filename=self.rendered("filename"), **self.landing_arguments(context)
        )
        return self.add_to_asset_events(exported, context)


class AgentyResultOperator(AgentyLandingTask):
    """
    Lands the rows of a job's result, whole or not at all, as :meth:`AgentyHook.download_result` does.

    Where :class:`AgentyExportOperator` lands the CSV that Agenty makes, this reads the result page by page (``GET
    /jobs/{job_id}/result``) and makes the file itself.

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

    def __init__(self, *, format: str = "jsonl", column_types: str = "infer", **kwargs: Any) -> None:  # noqa: A002 - what users call it
        super().__init__(**kwargs)
        self.format = parameters.choice("format", format, parameters.FORMATS)
        self.column_types = parameters.choice("column_types", column_types, parameters.COLUMN_TYPES)
        self.check_templated_parameters()
        self.check_unrendered_path(writes=self.format)

    def execute(self, context: Context) -> dict[str, Any]:
        """Land the rows."""
        exported = self.hook.download_result(
            format=self.format, column_types=self.column_types, **self.landing_arguments(context)
        )
        return self.add_to_asset_events(exported, context)
