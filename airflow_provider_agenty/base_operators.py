"""
The base of the operators and the sensor: the hook, the link, how waiting ends, and what is landed.

Nothing heavy is imported here at module level: DAG files are parsed over and over.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_agenty import metrics, parameters, templates
from airflow_provider_agenty.airflow_compat import (
    AirflowSkipException,
    BaseOperator,
    conf,
    current_task_state,
    is_mapped_to,
)
from airflow_provider_agenty.exceptions import (
    AgentyInputError,
    AgentyJobFailedError,
    AgentyJobStoppedError,
)
from airflow_provider_agenty.links.agenty import AgentyAgentLink, agent_url
from airflow_provider_agenty.waiting.task_state import LogMemory, ShownProgress

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.hooks.agenty import AgentyHook
    from airflow_provider_agenty.waiting.log_copy import LogCopy
    from airflow_provider_agenty.waiting.outcome import Outcome

KILL_SECONDS = 4.0
"""Seconds that all of ``on_kill`` may take: Airflow kills the process 5 s after the SIGTERM."""

ENDED_BY_A_USER = frozenset({"failed", "success", "skipped", "restarting", "removed"})
"""
The states of a task instance that a user has marked or cleared.

Only these mean that a user acted. After a shutdown or a lost heartbeat the retry re-attaches, so the job must go on.
"""


class AgentyTask(BaseOperator):
    """Base of all operators and the sensor: they have a connection, and a link to the agent."""

    template_ext = ()
    ui_color = "#e0f4ec"
    operator_extra_links = (AgentyAgentLink(),)

    _left_out: frozenset[str] = frozenset()
    """The templated parameters that the DAG leaves out, so that their defaults are meant."""

    _pushed: tuple[Context | None, list[tuple[str, Any]]] = (None, [])
    """The context of this execution of the task, and the XComs that were pushed in it."""

    def __init__(self, *, agenty_conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.agenty_conn_id = agenty_conn_id

    def check_templated_parameters(self) -> None:
        """Refuse templated parameters that can't be used, as far as it shows when the DAG file is read."""
        starts = self._jinja_starts()
        # A user's subclass may have more of them, which are not there yet.
        given = {name: value for name, value in vars(self).items() if name in self.template_fields}
        for name in given.keys() & templates.TEMPLATED.keys():
            templates.check_unrendered(name, given[name], starts)
        self._left_out = frozenset(name for name, value in given.items() if value is None)

    def is_template(self, value: Any) -> bool:
        """Return whether a parameter's value is a template that Airflow renders before the task runs."""
        return templates.is_template(value, self._jinja_starts())

    def _jinja_starts(self) -> Collection[str]:
        return templates.jinja_starts(self.dag.jinja_environment_kwargs if self.has_dag() else None)  # type: ignore[no-untyped-call]

    def rendered(self, name: str) -> Any:
        """Return a templated parameter that may be left out, rendered; ``None`` only if the DAG leaves it out."""
        value = getattr(self, name)
        # A mapped task gets each value as if the DAG gave it. None for urls would start a job with the URLs of another.
        is_given = name not in self._left_out or (name == "urls" and is_mapped_to(self, name))
        if value is None and is_given:
            raise AgentyInputError(
                f"{name} of task {self.task_id} is None now that its template is rendered. Check that the task it "
                "comes from ran and returned a value. To get the default, leave the parameter out."
            )
        return value

    def push(self, context: Context, xcoms: Mapping[str, Any]) -> None:
        """Push XComs, each once per execution of the task: each push is an object of its own in an XCom backend."""
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
    """Base of what waits for a job."""

    end_from_trigger = False

    _awaited_job_id: int | None = None
    """The job that this process waits for, and that on_kill may have to stop."""

    _log_copy: LogCopy | None = None
    """The copy of the job's log, once this process has begun or resumed it."""

    _logged_job_id: int | None = None
    """The job that this execution has told of in its log."""

    _progress: ShownProgress | None = None
    """The job's progress in Airflow's UI, once this process has polled it."""

    def __init__(
        self,
        *,
        deferrable: bool | None,
        max_failed_ratio: float | None,
        on_stopped: str,
        cancel_on_kill: bool,
        stream_logs: bool,
        max_credits: float | None,
        stall_timeout: float | timedelta | None,
        queue_timeout: float | timedelta | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if deferrable is None:
            deferrable = bool(conf.getboolean("operators", "default_deferrable", fallback=False))
        self.deferrable = parameters.boolean("deferrable", deferrable)
        self.max_failed_ratio = parameters.share("max_failed_ratio", max_failed_ratio)
        self.on_stopped = parameters.choice("on_stopped", on_stopped, parameters.ON_STOPPED)
        self.cancel_on_kill = parameters.boolean("cancel_on_kill", cancel_on_kill)
        self.stream_logs = parameters.boolean("stream_logs", stream_logs)
        self.max_credits = parameters.page_credits("max_credits", max_credits)
        self.stall_timeout = parameters.optional_seconds("stall_timeout", stall_timeout)
        self.queue_timeout = parameters.optional_seconds("queue_timeout", queue_timeout)

    def wait_in_triggerer(self, job_id: int, context: Context, *, poll_interval: float, timeout: float) -> NoReturn:
        """
        Defer until the job is over.

        Airflow does not look at ``execution_timeout`` while a task is deferred, so the trigger's deadline counts it in.
        """
        from airflow_provider_agenty.triggers.agenty import AgentyJobTrigger

        deadline = time.time() + timeout
        started = getattr(context["ti"], "start_date", None)
        if self.execution_timeout is not None and started is not None:
            deadline = min(deadline, started.timestamp() + self.execution_timeout.total_seconds())
        trigger = AgentyJobTrigger(
            job_id=job_id,
            agenty_conn_id=self.agenty_conn_id,
            deadline=deadline,
            log_offset=self._copy_of_the_log(job_id, context).offset if self.stream_logs else 0,
            **self.trigger_arguments(poll_interval),
        )
        self.defer(trigger=trigger, method_name="execute_complete")

    @property
    def limits(self) -> dict[str, Any]:
        """The limits that end the wait besides the job's own end: arguments of the job watch and the trigger."""
        return {
            "max_failed_ratio": self.max_failed_ratio,
            "max_credits": self.max_credits,
            "stall_timeout": self.stall_timeout,
            "queue_timeout": self.queue_timeout,
        }

    def trigger_arguments(self, poll_interval: float) -> dict[str, Any]:
        """Return the trigger's arguments that are known when the DAG file is read."""
        return {
            "poll_interval": poll_interval,
            **self.limits,
            "cancel_on_kill": self.cancel_on_kill,
            "stream_logs": self.stream_logs,
            "end_from_trigger": self.end_from_trigger,
        }

    def log_job(self, job: Job, *, timeout: float | None, poll_interval: float) -> None:
        """Log which job this is and how long it is waited for, ``None``: not at all. It is said once per execution."""
        if self._logged_job_id == job.job_id:
            return
        self._logged_job_id = job.job_id
        if job.is_terminal:
            waiting = "over already"
        elif timeout is None:
            waiting = "not waited for"
        else:
            waiting = f"waiting at most {readable_seconds(timeout)}, polling every {readable_seconds(poll_interval)}"
        agent = job.agent_id or getattr(self, "agent_id", None) or "unknown"
        name = getattr(self, "agent_name", None)
        self.log.info(
            "Job %d of agent %s: %s%s",
            job.job_id,
            f"{name} ({agent})" if name else agent,
            waiting,
            f"; {agent_url(job)}" if job.agent_id else "",
        )

    def follow(self, job: Job, context: Context) -> None:
        """Show how far the job is, and copy what is new in its log."""
        self.show_progress(job, context)
        self.follow_log(job, context)

    def show_progress(self, job: Job, context: Context) -> None:
        """Show in Airflow's UI how far the job is."""
        self._progress = self._progress or ShownProgress(context)
        self._progress.show(job)

    def follow_log(self, job: Job, context: Context) -> None:
        """Copy what is new in the job's log, or all that is left if it is over; nothing without ``stream_logs``."""
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
        Stop the job if a user ended the task.

        Airflow calls this also where nobody did, so it is asked first. That takes a thread: the signal may have
        interrupted a call to Airflow that holds the lock which another one needs. No answer means no stop.
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
            self.log.warning(
                "Job %d is not stopped: Airflow did not say whether a user ended the task (%s). Stop the job in Agenty "
                "if nobody wants it",
                job_id,
                type(error).__name__,
            )

    def stop_job(self, job_id: int, *, seconds: float | None = None) -> None:
        """Send one stop, and raise nothing. It may take 20 seconds by default."""
        from airflow_provider_agenty.waiting.job_watch import stop_job

        stop_job(self.hook, job_id, self.log, seconds=seconds)

    def await_job(self, job_id: int, context: Context) -> None:
        """Remember the job for :meth:`on_kill`."""
        self._task_instance = context["ti"]
        self._awaited_job_id = job_id

    def conclude(self, outcome: Outcome, context: Context) -> Job:
        """
        Return the job of a successful outcome, raise the error of any other, once a job over its budget is stopped.

        :raises AirflowSkipException: if the job was stopped and ``on_stopped`` is ``skip``.
        :raises AgentyError: as :func:`airflow_provider_agenty.waiting.outcome.conclude` does.
        """
        from airflow_provider_agenty.waiting.job_watch import stop_spending
        from airflow_provider_agenty.waiting.outcome import BUDGET, JOB_XCOM, conclude

        self._awaited_job_id = None
        if outcome.status == BUDGET:
            outcome = stop_spending(self.hook, outcome, self.log)
        if outcome.log_offset:
            LogMemory(context, outcome.job_id).keep_offset(outcome.log_offset)
        if outcome.job is not None:
            self.push(context, AgentyAgentLink.xcoms(outcome.job))
            metrics.count_end(outcome.job, self.agenty_conn_id)
            self.show_progress(outcome.job, context)
            if outcome.job.is_terminal:
                self.push(context, {JOB_XCOM: outcome.job.to_dict()})
        try:
            return conclude(outcome, log_entries=lambda: self.hook.last_log_entries(outcome.job_id))
        except AgentyJobStoppedError as error:
            if self.on_stopped != "skip":
                raise
            raise AirflowSkipException(str(error)) from None
        except AgentyJobFailedError as error:
            self._log_last_entries(error)
            raise

    def _log_last_entries(self, error: AgentyJobFailedError) -> None:
        from airflow_provider_agenty.waiting.log_copy import copy_entry

        if self.stream_logs or not error.log_entries:
            return
        self.log.info("The end of the log of job %d in Agenty:", error.job.job_id)
        for entry in error.log_entries:
            copy_entry(entry, self.log)


def readable_seconds(seconds: float) -> str:
    """Return a time as people write it: ``7 days``, ``90 s``."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds and seconds % size == 0:
            number = int(seconds // size)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds:.10g} s"
