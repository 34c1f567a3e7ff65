"""How a start task gets its job: from an earlier try, from what the agent has already, or by a start."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_agenty import metrics, parameters
from airflow_provider_agenty.airflow_compat import class_of
from airflow_provider_agenty.exceptions import AgentyAmbiguousStartError, AgentyUnavailableError
from airflow_provider_agenty.operators.existing_job import find_job_of_run, take_existing_job
from airflow_provider_agenty.waiting.task_state import JOB_ID_XCOM, StartMemory, is_retry, remembered_agent_id

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_agenty.api.models import Job
    from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator


def find_agent_id(task: AgentyStartJobOperator, context: Context) -> str:
    """Return the id of the task's agent: looked up in Agenty by its name, unless an earlier try began to start it."""
    name = task.rendered("agent_name")
    if name is None:
        return parameters.agent_id(task.agent_id)
    name = parameters.text("agent_name", name)
    remembered = remembered_agent_id(context, name) if task.durable else None
    agent_id = remembered or task.hook.find_agent(name).agent_id
    task.log.debug("The agent called %r is %s", name, agent_id)
    return agent_id


def find_or_start_job(task: AgentyStartJobOperator, context: Context, memory: StartMemory) -> Job:
    """
    Return the task's job.

    First comes the job of an earlier try, whose id nobody stored. Then ``reuse_completed_within`` decides, then
    ``if_running``. Else a job is started.

    :param memory: The memory of the start, across the tries.
    """
    try:
        job, metric = _find_or_start(task, context, memory)
    except AgentyAmbiguousStartError as error:
        if not (error.may_clear_up and task.durable and memory.is_there):
            raise
        unknown = str(error)
    else:
        metrics.count(metric, agent_id=task.agent_id, conn_id=task.agenty_conn_id)
        return job
    raise AgentyUnavailableError(f"{unknown} A retry of this task looks for the job before it starts another one.")


def _find_or_start(task: AgentyStartJobOperator, context: Context, memory: StartMemory) -> tuple[Job, str]:
    """Return the job, and the metric that counts how it was got."""
    job = _find_unremembered_job(task, context, memory) if task.durable else None
    if job is not None:
        return job, metrics.JOBS_REATTACHED
    job = take_existing_job(
        task.hook,
        task.agent_id,
        if_running=task.if_running,
        reuse_completed_within=task.reuse_completed_within,
        max_failed_ratio=_accepted_ratio(task),
    )
    if job is not None:
        return job, metrics.JOBS_REUSED if job.is_terminal else metrics.JOBS_JOINED
    prepare = memory.keep_intent if task.durable else None
    try:
        return task.hook.start_job(task.agent_id, urls=task.rendered("urls"), prepare=prepare), metrics.JOBS_STARTED
    except AgentyUnavailableError as error:
        if task.durable and not error.acted_on:
            memory.drop_intent()
        raise


def _find_unremembered_job(task: AgentyStartJobOperator, context: Context, memory: StartMemory) -> Job | None:
    intent = memory.read_intent()
    if intent is not None:
        task.log.info("An earlier try was about to start agent %s: looking for its job", task.agent_id)
        return task.hook.find_started_job(
            task.agent_id,
            newer_than=intent.newest_job_id,
            patience=max(task.hook.settings.read_timeout - intent.age, 0.0),
        )
    run_began: datetime | None = context["dag_run"].start_date
    if memory.is_there or not is_retry(context) or run_began is None:
        return None
    urls = task.rendered("urls")
    return find_job_of_run(
        task.hook,
        task.agent_id,
        run_began=run_began,
        of_other_tasks=_jobs_of_other_tasks(context),
        urls=None if urls is None else parameters.urls(urls),
        max_failed_ratio=_accepted_ratio(task),
        max_credits=task.max_credits if task.wait_for_completion else None,
    )


def _jobs_of_other_tasks(context: Context) -> set[int]:
    """Return the jobs that other start tasks of this run hold: a run may start an agent twice on purpose."""
    from airflow_provider_agenty.operators.agenty import AgentyStartJobOperator

    dag = context["task"].dag if context["task"].has_dag() else None
    tasks = dag.tasks if dag else []
    starts = [each.task_id for each in tasks if issubclass(class_of(each), AgentyStartJobOperator)]
    held = context["ti"].xcom_pull(task_ids=starts, key=JOB_ID_XCOM) if starts else []
    return {job_id for job_id in held or [] if isinstance(job_id, int)}


def _accepted_ratio(task: AgentyStartJobOperator) -> float | None:
    """Return the share of failed pages that a job may have: a task that does not wait takes any."""
    return task.max_failed_ratio if task.wait_for_completion else None
