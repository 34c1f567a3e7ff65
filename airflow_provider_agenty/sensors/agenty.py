"""The sensor that waits for a job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty import airflow_compat, parameters
from airflow_provider_agenty.airflow_compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    start_in_triggerer,
    triggerer_template_of,
)
from airflow_provider_agenty.base_operators import AgentyWaitingTask
from airflow_provider_agenty.connection import DEFAULT_CONNECTION
from airflow_provider_agenty.exceptions import AgentyError, AgentyInputError
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.waiting.task_state import ChangeMemory, LogMemory

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.waiting.job_watch import JobWatch
    from airflow_provider_agenty.waiting.outcome import Outcome


class AgentyJobSensor(AgentyWaitingTask, BaseSensorOperator):
    """
    Waits for a job (``GET /jobs/{job_id}``), in ``poke``, ``reschedule`` or deferrable mode, with one outcome in each.

    ``poke_interval``, ``timeout``, ``mode`` and ``soft_fail`` are Airflow's own. A timeout is Airflow's
    ``AirflowSensorTimeout``; the job goes on. ``soft_fail`` skips on whatever ends the wait other than well.

    :param job_id: The job (templated).
    :param agenty_conn_id: The Airflow connection (templated). Default ``agenty_default``.
    :param deferrable: Whether to wait in the triggerer, without a worker slot. Default: ``[operators]
        default_deferrable``.
    :param max_failed_ratio: The share of its pages, 0 to 1, above which failed pages make a completed job count as
        failed. Default: any share will do.
    :param on_stopped: Says what becomes of the task if somebody stops the job: ``fail`` (default) or ``skip``.
    :param cancel_on_kill: Whether the job is stopped when a user marks or clears the waiting task. Default false: the
        sensor did not start it. A deferred task's job is stopped from Airflow 3.3 on.
    :param stream_logs: Whether the job's log is copied into the task's. Default false.
    :param start_from_trigger: Whether a deferrable sensor starts in the triggerer, without a worker (Airflow 3.3 and
        later, elsewhere it changes nothing). Default false.
    :param end_from_trigger: Whether a deferrable sensor whose job succeeds ends in the triggerer, without a worker.
        Default false: callbacks, which need a worker, are lost.
    :param max_credits: The page credits above which the job is stopped (``GET /jobs/{job_id}/stop``). Default: any.
    :param stall_timeout: Seconds, or a ``timedelta``, for which the job's state, pages and credits may stay the same.
        In ``reschedule`` mode Airflow 3.3 or later is needed. Default: for ever.
    :param queue_timeout: Seconds, or a ``timedelta``, for which the job may wait for a worker of Agenty. Default: for
        ever.
    :return: The job's id.
    :raises AgentyJobFailedError: if the job was aborted, or too many of its pages failed.
    :raises AgentyJobStoppedError: if somebody stopped it.
    :raises AgentyBudgetError: if it cost more than ``max_credits``.
    :raises AgentyStalledError: if it stood still or waited for a worker for too long.
    :raises AgentyNotFoundError: if there is no such job.
    """

    template_fields: Sequence[str] = ("job_id", "agenty_conn_id")

    def __init__(
        self,
        *,
        job_id: Any,
        agenty_conn_id: str = DEFAULT_CONNECTION,
        deferrable: bool | None = None,
        max_failed_ratio: float | None = None,
        on_stopped: str = "fail",
        cancel_on_kill: bool = False,
        stream_logs: bool = False,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        max_credits: float | None = None,
        stall_timeout: float | timedelta | None = None,
        queue_timeout: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            agenty_conn_id=agenty_conn_id,
            deferrable=deferrable,
            max_failed_ratio=max_failed_ratio,
            on_stopped=on_stopped,
            cancel_on_kill=cancel_on_kill,
            stream_logs=stream_logs,
            max_credits=max_credits,
            stall_timeout=stall_timeout,
            queue_timeout=queue_timeout,
            **kwargs,
        )
        self.job_id = job_id
        self.check_templated_parameters()
        self.end_from_trigger = parameters.boolean("end_from_trigger", end_from_trigger)
        self._watch: JobWatch | None = None
        # Airflow takes what is no number too, and 0: in the triggerer there would be no pause at all.
        self.poke_interval = parameters.seconds("poke_interval", self.poke_interval, may_be_zero=not self.deferrable)
        self.timeout = parameters.seconds("timeout", self.timeout, may_be_zero=True)
        if self.stall_timeout is not None and self._is_rescheduled and not airflow_compat.HAS_TASK_STATE_STORE:
            raise AgentyInputError(
                "stall_timeout can't be used with mode='reschedule' before Airflow 3.3: between two pokes nothing "
                "remembers how the job was. Set deferrable=True or mode='poke'."
            )
        if parameters.boolean("start_from_trigger", start_from_trigger) and self.deferrable:
            self._start_in_triggerer()

    def _start_in_triggerer(self) -> None:
        """Let Airflow start the task in the triggerer, where it can with this job id."""
        job_id, agenty_conn_id = triggerer_template_of(self.job_id), triggerer_template_of(self.agenty_conn_id)
        if job_id is None or agenty_conn_id is None:
            return
        # There is no deadline yet: Airflow counts the timeout from the task's start, and the sensor takes its error.
        self.start_trigger_args = start_in_triggerer(
            "airflow_provider_agenty.triggers.agenty.AgentyJobTrigger",
            "execute_complete",
            {"job_id": job_id, "agenty_conn_id": agenty_conn_id, **self.trigger_arguments(self.poke_interval)},
            timedelta(seconds=self.timeout),
        )
        self.start_from_trigger = self.start_trigger_args is not None

    def execute(self, context: Context) -> int:
        """Wait, in whichever mode."""
        try:
            if not self.deferrable:
                super().execute(context)
            elif not self.poke(context):
                job_id = parameters.job_id(self.job_id)
                self.wait_in_triggerer(job_id, context, poll_interval=self.poke_interval, timeout=self.timeout)
        except AirflowSensorTimeout as error:
            # Airflow's own modes differ here: one that resumes from a deferral skips.
            if not self.never_fail:
                raise
            raise AirflowSkipException(f"Skipped because of never_fail: {error}") from None
        except AgentyError as error:
            raise self._softened(error) from None
        return parameters.job_id(self.job_id)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll the job once, and return whether waiting is over. An error that may pass is a "not yet"."""
        outcome = self._poll(parameters.job_id(self.job_id), context)
        if outcome is None:
            return False
        return PokeReturnValue(is_done=True, xcom_value=self.conclude(outcome, context).job_id)

    def execute_complete(self, context: Context, event: Any) -> int:
        """End the task as the event of the trigger says."""
        from airflow_provider_agenty.waiting.outcome import SUCCESS, TIMEOUT, Outcome

        if self.end_from_trigger and event == SUCCESS:
            # dag.test hands on no more than this of an event that ends a task: the job is polled instead.
            self.poke(context)
            return parameters.job_id(self.job_id)
        outcome = Outcome.from_event(event)
        # Before Airflow 3.1, a sensor that resumes knows soft_fail, and never_fail not.
        if outcome.status == TIMEOUT:
            raise self._softened(AirflowSensorTimeout(outcome.message))
        try:
            return self.conclude(outcome, context).job_id
        except AgentyError as error:
            raise self._softened(error) from None

    def _poll(self, job_id: int, context: Context) -> Outcome | None:
        from airflow_provider_agenty.api.deadline import time_limit
        from airflow_provider_agenty.waiting.job_watch import LAST_POLL_SECONDS, JobWatch

        if self._watch is None:
            memory = ChangeMemory(context, job_id) if self._is_rescheduled else None
            self._watch = JobWatch(job_id, log=self.log, **self.limits, poll_interval=self.poke_interval, memory=memory)
        if not self.deferrable:
            self.await_job(job_id, context)
        hook = self.hook
        # Airflow checks its timeout between two pokes only.
        with time_limit(max(self.timeout, LAST_POLL_SECONDS)):
            try:
                job = hook.get_job(job_id)
            except AgentyError as error:
                return self._watch.take(error)
            self.push(context, AgentyAgentLink.xcoms(job))
            self.log_job(job, timeout=self.timeout, poll_interval=self.poke_interval)
            self.show_progress(job, context)
            if job.is_terminal or self._remembers_the_copy(job, context):
                self.follow_log(job, context)
        return self._watch.take(job)

    @property
    def _is_rescheduled(self) -> bool:
        """Whether each poke is a process of its own."""
        return bool(self.reschedule and not self.deferrable)

    def _remembers_the_copy(self, job: Job, context: Context) -> bool:
        """Return whether the next poke knows how far this one copied the log; else it is copied at the job's end."""
        return not self._is_rescheduled or LogMemory(context, job.job_id).is_there

    def _softened(self, error: AgentyError | AirflowSensorTimeout) -> Exception:
        if self.soft_fail or self.never_fail:
            reason = "soft_fail" if self.soft_fail else "never_fail"
            return AirflowSkipException(f"Skipped because of {reason}: {error}")
        return error
