"""Operators that start, stop and land jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_agenty import metrics, parameters
from airflow_provider_agenty.airflow_compat import AirflowTaskTimeout, ResumableJobMixin
from airflow_provider_agenty.base_operators import AgentyTask, AgentyWaitingTask
from airflow_provider_agenty.connection import DEFAULT_CONNECTION
from airflow_provider_agenty.exceptions import (
    AgentyInputError,
    AgentyNotFoundError,
    AgentyTimeoutError,
)
from airflow_provider_agenty.links.agenty import AgentyAgentLink
from airflow_provider_agenty.operators.landing import AgentyExportOperator, AgentyResultOperator
from airflow_provider_agenty.parameters import JOIN, START
from airflow_provider_agenty.waiting.task_state import (
    JOB_ID_XCOM,
    JOB_KEY,
    StartMemory,
    VariableState,
    forget_when_it_ends,
    open_task_state,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.waiting.outcome import Outcome

WEEK = 7 * 24 * 3600

GONE = "gone"
"""Stands for the state of a job that a retry does not go on with, whatever its state."""


__all__ = ["AgentyExportOperator", "AgentyResultOperator", "AgentyStartJobOperator", "AgentyStopJobOperator"]


class AgentyStartJobOperator(ResumableJobMixin, AgentyWaitingTask):
    """
    Starts a job of an agent (``POST /jobs/start``), once for each task run, and waits for it if wanted.

    It waits by ``GET /jobs/{job_id}``, or by ``GET /jobs`` where triggers share their polls.

    :param agent_id: The agent (templated).
    :param agent_name: Its name (templated), in place of ``agent_id``: a try that goes on with no job looks it up (``GET
        /agents``). Upper and lower case count.
    :param urls: The URLs that the agent is to scrape (templated): a list, or a text with one on each line or with a
        list in JSON. It is set as the agent's input (``PUT /inputs/{agent_id}``) right before a job is started, not
        where a retry goes on with one. All jobs of the agent share it: docs/start-and-wait.md says how to keep runs
        apart. Default: the input is left as it is.
    :param agenty_conn_id: The Airflow connection (templated). Default ``agenty_default``.
    :param wait_for_completion: Whether to wait until the job is over. Default false: return once it is started.
    :param deferrable: Whether to wait in the triggerer, without a worker slot. Default: ``[operators]
        default_deferrable``. Without ``wait_for_completion`` it changes nothing.
    :param poll_interval: Seconds between two polls, or a ``timedelta``. Default 10.
    :param timeout: Seconds to wait at most, or a ``timedelta``. Default: a week.
    :param durable: Whether a retry looks for the job of the try before, and goes on with it. Default true.
    :param cancel_on_kill: Whether the job is stopped when a user marks or clears the task while it waits. Default true.
        A deferred task's job is stopped from Airflow 3.3 on.
    :param cancel_on_timeout: Whether the job is stopped when it is not done within ``timeout``, or Airflow's
        ``execution_timeout``. Default true.
    :param max_failed_ratio: The share of its pages, 0 to 1, above which failed pages make a completed job count as
        failed. Default: any share will do.
    :param on_stopped: Says what becomes of the task if somebody stops the job: ``fail`` (default) or ``skip``.
    :param stream_logs: Whether the job's log is copied into the task's while it waits. Default false.
    :param max_credits: The page credits above which the job that is waited for is stopped. Default: any.
    :param stall_timeout: Seconds, or a ``timedelta``, for which the job's state, pages and credits may stay the same.
        Default: for ever.
    :param queue_timeout: Seconds, or a ``timedelta``, for which the job may wait for a worker of Agenty. Default: for
        ever.
    :param if_running: Says what to do if the agent has a job that goes on, whoever started it. ``start`` (default):
        start another one. ``join``: take it. ``skip`` or ``fail``: end the task so. ``stop``: stop it, and start one
        once it is over; after a minute the task fails.
    :param reuse_completed_within: Seconds, or a ``timedelta``. A job of the agent that completed within them is taken
        in place of a new one. Default: none is taken.
    :return: The job's id.
    :raises AgentyInputError: if no agent has that name, or several have it; nothing is started.
    :raises AgentyAlreadyRunningError: if the agent has a job that goes on, and ``if_running`` is ``fail``.
    :raises AgentyAmbiguousStartError: if it can't be told whether there is a job, or which one it is.
    :raises AgentyNotFoundError: if there is no such agent.
    :raises AgentyJobFailedError: if the job was aborted, or too many of its pages failed.
    :raises AgentyJobStoppedError: if somebody stopped it.
    :raises AgentyBudgetError: if it cost more than ``max_credits``.
    :raises AgentyStalledError: if it stood still or waited for a worker for too long.
    :raises AgentyTimeoutError: if it is not done in time.
    """

    template_fields: Sequence[str] = ("agent_id", "agent_name", "urls", "agenty_conn_id")
    external_id_key = JOB_KEY

    _job: Job | None = None
    _outcome: Outcome | None = None

    def __init__(
        self,
        *,
        agent_id: Any = None,
        agent_name: Any = None,
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
        max_credits: float | None = None,
        stall_timeout: float | timedelta | None = None,
        queue_timeout: float | timedelta | None = None,
        if_running: str = START,
        reuse_completed_within: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            agenty_conn_id=agenty_conn_id,
            deferrable=deferrable,
            durable=parameters.boolean("durable", durable),
            cancel_on_kill=cancel_on_kill,
            max_failed_ratio=max_failed_ratio,
            on_stopped=on_stopped,
            stream_logs=stream_logs,
            max_credits=max_credits,
            stall_timeout=stall_timeout,
            queue_timeout=queue_timeout,
            **kwargs,
        )
        self.agent_id = agent_id
        self.agent_name = agent_name
        self.urls = urls
        self.check_templated_parameters()
        self.wait_for_completion = parameters.boolean("wait_for_completion", wait_for_completion)
        self.poll_interval = parameters.seconds("poll_interval", poll_interval)
        self.timeout = parameters.seconds("timeout", timeout)
        self.cancel_on_timeout = parameters.boolean("cancel_on_timeout", cancel_on_timeout)
        self.if_running = parameters.choice("if_running", if_running, parameters.IF_RUNNING)
        self.reuse_completed_within = parameters.optional_seconds("reuse_completed_within", reuse_completed_within)
        self._refuse_combinations()

    def _refuse_combinations(self) -> None:
        if (self.agent_id is None) == (self.agent_name is None):
            problem = "are both missing: give one" if self.agent_id is None else "can't be combined: leave out one"
            raise AgentyInputError(f"agent_id and agent_name {problem} of them.")
        for name, given in (("join", self.if_running == JOIN), ("", self.reuse_completed_within is not None)):
            if given and self.urls is not None:
                what = f"if_running={name!r}" if name else "reuse_completed_within"
                raise AgentyInputError(
                    f"{what} can't be combined with urls: the job that is taken may have scraped others. Leave one of "
                    "them out."
                )

    def execute(self, context: Context) -> int:
        """Start the job, or find that of an earlier try, and wait for it if wanted."""
        from airflow_provider_agenty.operators.job_start import find_agent_id

        self._open_task_state(context)
        # As it is stored: a retry compares what it is given with it.
        self.agent_id = find_agent_id(self, context)
        job_id: int = self.execute_resumable(context)
        return job_id

    def _open_task_state(self, context: Context) -> None:
        state = open_task_state(context) if self.durable else None
        if isinstance(state, VariableState):
            context["task_state_store"] = state  # type: ignore[typeddict-item]
            forget_when_it_ends(state, self)

    # Airflow's ResumableJobMixin calls these methods. task_state.py says what is stored, and what that means.

    def submit_job(self, context: Context) -> dict[str, Any]:
        """
        Start a job, unless an earlier try did so without getting to store it.

        :return: What is stored of the job.
        """
        from airflow_provider_agenty.operators.job_start import find_or_start_job

        memory = StartMemory(context, self.agent_id, self.agent_name)
        self._job = find_or_start_job(self, context, memory)
        return memory.describe_job(self._job.job_id)

    def get_job_status(self, external_id: Any, context: Context) -> str:
        """Return the state of the job of an earlier try, or :data:`GONE` if it is none to go on with."""
        from airflow_provider_agenty.waiting.job_watch import judge
        from airflow_provider_agenty.waiting.outcome import BUDGET, FAILED

        job_id = StartMemory(context, self.agent_id).read_job_id(external_id)
        if job_id is None:
            self.log.info("The task was cleared, or had another agent: a new job is started")
            return GONE
        self.push(context, {JOB_ID_XCOM: job_id})
        try:
            job = self._job = self.hook.get_job(job_id)
        except AgentyNotFoundError:
            self.log.info("An earlier try started job %d, which is no longer there: a new one is started", job_id)
            return GONE
        self.push(context, AgentyAgentLink.xcoms(job))
        self.log.info("An earlier try started job %d: it is %s", job_id, job.describe())
        if self.wait_for_completion:
            self._outcome = judge(job, max_failed_ratio=self.max_failed_ratio, max_credits=self.max_credits)
            if self._outcome is not None and self._outcome.status == BUDGET:
                self.conclude(self._outcome, context)
            if self._outcome is not None and self._outcome.status == FAILED:
                self._outcome = None
                return GONE
            if self._outcome is not None and job.is_successful:
                # It completed between two tries: the rest of its log is still missing.
                self.follow_log(job, context)
        if self.is_job_active(job.status) or job.is_successful:
            metrics.count(metrics.JOBS_REATTACHED, agent_id=self.agent_id, conn_id=self.agenty_conn_id)
        return job.status

    def is_job_active(self, status: str) -> bool:
        """
        Return whether a retry goes on with a job in this state.

        A job in a state that is not known may still run: starting another could be paid twice. A job that is being
        stopped will not complete.
        """
        from airflow_provider_agenty.api.models import ACTIVE_STATES, KNOWN_STATES

        return status in ACTIVE_STATES or (status != GONE and status not in KNOWN_STATES)

    def is_job_succeeded(self, status: str) -> bool:
        """Return whether a retry takes a job in this state as it is."""
        from airflow_provider_agenty.api.models import SUCCESSFUL_STATES

        return status in SUCCESSFUL_STATES

    def poll_until_complete(self, external_id: Any, context: Context) -> int:  # type: ignore[override]
        """Wait for the job, or defer, if it is to be waited for; return its id, which a re-attached task returns."""
        job_id = int(external_id["job_id"])
        # Not earlier: nothing comes between the start and the storing of its job.
        self.push(context, {JOB_ID_XCOM: job_id})
        if self._job is not None:
            self.push(context, AgentyAgentLink.xcoms(self._job))
            waits = self.timeout if self.wait_for_completion else None
            self.log_job(self._job, timeout=waits, poll_interval=self.poll_interval)
        if self.wait_for_completion and self.deferrable:
            self.wait_in_triggerer(job_id, context, poll_interval=self.poll_interval, timeout=self.timeout)
        if self.wait_for_completion:
            self._outcome = self._wait(job_id, context)
        return self.get_job_result(external_id, context)

    def _wait(self, job_id: int, context: Context) -> Outcome:
        from airflow_provider_agenty.waiting.job_watch import JobWatch, wait

        watch = JobWatch(
            job_id, deadline=time.time() + self.timeout, log=self.log, **self.limits, poll_interval=self.poll_interval
        )
        self.await_job(job_id, context)
        try:
            return wait(
                lambda: self.hook.get_job(job_id),
                watch,
                poll_interval=self.poll_interval,
                before_decision=lambda job: self.follow(job, context),
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

    def __init__(self, *, job_id: Any, agenty_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any) -> None:
        super().__init__(agenty_conn_id=agenty_conn_id, **kwargs)
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
