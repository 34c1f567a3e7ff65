"""
What the operators and the sensor have in common: the hook, the link, and how waiting ends.

Nothing heavy is imported here at module level: DAG files are parsed over and over.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty import parameters
from airflow_provider_agenty.airflow_compat import AirflowSkipException, conf, current_task_state
from airflow_provider_agenty.exceptions import (
    AgentyInputError,
    AgentyJobFailedError,
    AgentyJobStoppedError,
)
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.waiting.task_state import LogMemory

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.airflow_compat import BaseOperator
    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.hooks.agenty import AgentyHook
    from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger
    from airflow_provider_agenty.waiting.log_copy import LogCopy
    from airflow_provider_agenty.waiting.outcome import Outcome

    _Base = BaseOperator
else:
    _Base = object

KILL_SECONDS = 4.0
"""How long all of ``on_kill`` may take: Airflow kills the process 5 s after the SIGTERM."""

ENDED_BY_A_USER = frozenset({"failed", "success", "skipped", "restarting", "removed"})
"""
The states a task instance is in once a user has marked or cleared it.

While a worker shuts down it still is ``running``, and after a lost heartbeat it waits for its retry, which goes on with
the job: stopping it then would make the retry start, and pay for, another one.
"""


class AgentyTask(_Base):
    """Mixed into each operator and the sensor: they have a connection, and a link to the agent."""

    template_ext = ()
    ui_color = "#e0f4ec"
    operator_extra_links = (AgentyAgentLink(),)

    agenty_conn_id: str

    _left_out: frozenset[str] = frozenset()
    """The templated parameters for which the DAG gives nothing, so that their defaults are meant."""

    _pushed: tuple[Context | None, list[tuple[str, Any]]] = (None, [])
    """The context of this execution of the task, and the XComs that were pushed in it."""

    def check_templated_parameters(self) -> None:
        """
        Refuse templated parameters that can't be used, as far as it shows when the DAG file is read.

        :raises AgentyInputError: naming the parameter.
        """
        starts = self._jinja_starts()
        # A subclass may have more of them, which are not there yet.
        given = {name: value for name, value in vars(self).items() if name in self.template_fields}
        for name in given.keys() & parameters.TEMPLATED.keys():
            parameters.check_unrendered(name, given[name], starts)
        self._left_out = frozenset(name for name, value in given.items() if value is None)

    def is_template(self, value: Any) -> bool:
        """
        Return whether Airflow makes another value of one before the task runs.

        :param value: The value of a templated parameter.
        """
        return parameters.is_template(value, self._jinja_starts())

    def _jinja_starts(self) -> Collection[str]:
        return parameters.jinja_starts(self.dag.jinja_environment_kwargs if self.has_dag() else None)  # type: ignore[no-untyped-call]

    def rendered(self, name: str) -> Any:
        """
        Return a templated parameter that may be left out, rendered; ``None`` only if the DAG leaves it out.

        :param name: The parameter.
        :raises AgentyInputError: if its template came out as ``None``.
        """
        value = getattr(self, name)
        if value is None and name not in self._left_out:
            raise AgentyInputError(
                f"{name} of task {self.task_id} came out as None, and a default is not meant: that is for a parameter "
                "that is left out. Check that what it comes from ran and has a value."
            )
        return value

    def push(self, context: Context, xcoms: Mapping[str, Any]) -> None:
        """
        Push XComs, each once per execution of the task: each push is an object of its own in an XCom backend.

        :param context: The context of the task.
        :param xcoms: The values, by key.
        """
        # Airflow removes XComs when it executes a task again, with another context.
        if self._pushed[0] is not context:
            self._pushed = context, []
        for each in xcoms.items():
            if each not in self._pushed[1]:
                context["ti"].xcom_push(key=each[0], value=each[1])
                self._pushed[1].append(each)

    @cached_property
    def hook(self) -> AgentyHook:
        """The hook; the connection is read when it is first needed."""
        from airflow_provider_agenty.hooks.agenty import AgentyHook

        return AgentyHook(self.agenty_conn_id)


class AgentyWaitingTask(AgentyTask):
    """Mixed into what waits for a job."""

    deferrable: bool
    max_failed_ratio: float | None
    on_stopped: str
    cancel_on_kill: bool
    stream_logs: bool
    end_from_trigger: bool = False

    _awaited_job_id: int | None = None
    """The job that this process waits for, and that on_kill may have to stop."""

    _log_copy: LogCopy | None = None
    """The copy of the job's log, once this process has begun or resumed it."""

    def take_waiting_parameters(
        self,
        *,
        deferrable: bool | None,
        max_failed_ratio: float | None,
        on_stopped: str,
        cancel_on_kill: bool,
        stream_logs: bool,
    ) -> None:
        """
        Take the parameters that all waiting has, when the DAG file is read.

        :param deferrable: Whether to wait in the triggerer; ``None``: as Airflow's configuration says.
        :param max_failed_ratio: The share of failed pages above which a completed job counts as failed; ``None``: any.
        :param on_stopped: What becomes of the task if somebody stops the job.
        :param cancel_on_kill: Whether the job is stopped when a user ends the task.
        :param stream_logs: Whether the job's log is copied into the task's.
        :raises AgentyInputError: naming the parameter.
        """
        self.deferrable = default_deferrable() if deferrable is None else parameters.boolean("deferrable", deferrable)
        self.max_failed_ratio = parameters.share("max_failed_ratio", max_failed_ratio)
        self.on_stopped = parameters.choice("on_stopped", on_stopped, parameters.ON_STOPPED)
        self.cancel_on_kill = parameters.boolean("cancel_on_kill", cancel_on_kill)
        self.stream_logs = parameters.boolean("stream_logs", stream_logs)

    def make_trigger(
        self, job_id: int, context: Context, *, poll_interval: float, deadline: float | None
    ) -> AgentyJobTrigger:
        """
        Return the trigger that waits in this task's place.

        :param job_id: The job.
        :param context: The context of the task.
        :param poll_interval: Seconds between two polls.
        :param deadline: When to give up, in seconds since the epoch; ``None``: never.
        """
        from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

        return AgentyJobTrigger(
            job_id=job_id,
            agenty_conn_id=self.agenty_conn_id,
            poll_interval=poll_interval,
            deadline=deadline,
            max_failed_ratio=self.max_failed_ratio,
            cancel_on_kill=self.cancel_on_kill,
            stream_logs=self.stream_logs,
            log_offset=self._copy_of_the_log(job_id, context).offset if self.stream_logs else 0,
            end_from_trigger=self.end_from_trigger,
        )

    def follow_log(self, job: Job, context: Context) -> None:
        """
        Copy what is new in the job's log, of a job that is over all that is left; nothing without ``stream_logs``.

        :param job: The job as it is now.
        :param context: The context of the task.
        """
        if self.stream_logs:
            self._copy_of_the_log(job.job_id, context).follow(job)

    def _copy_of_the_log(self, job_id: int, context: Context) -> LogCopy:
        from airflow_provider_agenty.waiting.log_copy import LogCopy

        if self._log_copy is None:
            memory = LogMemory(context, job_id)
            self._log_copy = LogCopy(
                self.hook.iter_logs, job_id, self.log, offset=memory.read_offset(), store=memory.keep_offset
            )
        return self._log_copy

    def on_kill(self) -> None:
        """
        Stop the job if a user ended the task; Airflow calls this also where nobody did.

        So Airflow is asked first. That takes a thread: the signal may have interrupted a call to Airflow which holds
        the lock that another one needs. No answer means no stop, and so does an error.
        """
        from threading import Thread

        job_id = self._awaited_job_id
        if not self.cancel_on_kill or job_id is None:
            return
        ends = time.monotonic() + KILL_SECONDS
        stopping = Thread(target=self._stop_if_ended_by_a_user, args=(job_id, ends), daemon=True, name="agenty-stop")
        stopping.start()
        stopping.join(KILL_SECONDS)

    def _stop_if_ended_by_a_user(self, job_id: int, ends: float) -> None:
        try:
            state = current_task_state(self._task_instance)
            if state in ENDED_BY_A_USER:
                self._awaited_job_id = None
                self.stop_job(job_id, seconds=max(ends - time.monotonic(), 0.1))
            else:
                self.log.info("Job %d is not stopped: the task is %s, no user ended it", job_id, state)
        except Exception as error:
            self.log.warning("Job %d is not stopped: %s", job_id, type(error).__name__)

    def stop_job(self, job_id: int, *, seconds: float | None = None) -> None:
        """
        Send one stop, and raise nothing.

        :param job_id: The job.
        :param seconds: How long it may take as a whole. Default 20.
        """
        from airflow_provider_agenty.waiting.job_watch import stop_job

        stop_job(self.hook, job_id, self.log, seconds=seconds)

    def await_job(self, job_id: int, context: Context) -> None:
        """
        Remember the job for :meth:`on_kill`.

        :param job_id: The job.
        :param context: The context of the task.
        """
        self._task_instance = context["ti"]
        self._awaited_job_id = job_id

    def conclude(self, outcome: Outcome, context: Context) -> Job:
        """
        Return the job of a successful outcome, raise what any other means.

        :param outcome: How waiting ended.
        :param context: The context of the task.
        :raises AirflowSkipException: if the job was stopped and ``on_stopped`` is ``skip``.
        :raises AgentyError: as :func:`airflow_provider_agenty.waiting.outcome.conclude` does.
        """
        from airflow_provider_agenty.waiting.outcome import JOB_XCOM, conclude

        self._awaited_job_id = None
        if outcome.log_offset:
            LogMemory(context, outcome.job_id).keep_offset(outcome.log_offset)
        if outcome.job is not None:
            self.push(context, AgentyAgentLink.xcoms(outcome.job))
            if outcome.job.is_terminal:
                self.push(context, {JOB_XCOM: outcome.job.to_dict()})
        try:
            job = conclude(outcome, log_entries=lambda: self.hook.last_log_entries(outcome.job_id))
        except AgentyJobStoppedError as error:
            if self.on_stopped != "skip":
                raise
            raise AirflowSkipException(str(error)) from None
        except AgentyJobFailedError as error:
            self._tell_last_entries(error)
            raise
        return job

    def _tell_last_entries(self, error: AgentyJobFailedError) -> None:
        from airflow_provider_agenty.waiting.log_copy import copy_entry

        if self.stream_logs or not error.log_entries:
            return
        self.log.info("The end of the log of job %d in Agenty:", error.job.job_id)
        for entry in error.log_entries:
            copy_entry(entry, self.log)


def default_deferrable() -> bool:
    """Return whether operators defer where a DAG says nothing: ``[operators] default_deferrable``."""
    return bool(conf.getboolean("operators", "default_deferrable", fallback=False))


def deadline_of(task: BaseOperator, context: Context, *, timeout: float) -> float:
    """
    Return when a deferred task has to give up, in seconds since the epoch.

    Airflow does not look at ``execution_timeout`` while a task is deferred, so it is counted in here.

    :param task: The task.
    :param context: Its context.
    :param timeout: Seconds that it may wait from now on.
    """
    deadline = time.time() + timeout
    started = getattr(context["ti"], "start_date", None)
    if task.execution_timeout is not None and started is not None:
        deadline = min(deadline, started.timestamp() + task.execution_timeout.total_seconds())
    return deadline
