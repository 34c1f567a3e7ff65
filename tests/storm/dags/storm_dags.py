"""The DAGs of the storm, one for each kind of run. Which agents a run is about, and where it lands, is in its conf."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

AGENT = "{{ dag_run.conf['agent_ids'][0] }}"
PATH = "{{ dag_run.conf['path'] }}"
URLS = [f"https://example.com/{{{{ run_id }}}}/{number}" for number in range(5)]
# Each kill uses up a try, and so does each call that Agenty has refused for too long.
RETRIES = {"retries": 40, "retry_delay": timedelta(seconds=1)}
DEFERRED = {"wait_for_completion": True, "deferrable": True, "poll_interval": 1}
IN_WORKER = {"wait_for_completion": True, "deferrable": False, "poll_interval": 1}
GUARDED = {"max_credits": 5000, "stall_timeout": 300, "queue_timeout": 300}


def dag(dag_id: str, fill: Callable[[], Any]) -> None:
    with DAG(
        dag_id,
        schedule=None,
        start_date=datetime(2026, 1, 1),
        catchup=False,
        max_active_runs=100,
        max_active_tasks=100,
        default_args=RETRIES,
    ) as made:
        fill()
    globals()[dag_id] = made


def start(**how: Any) -> AgentyStartJobOperator:
    return AgentyStartJobOperator(task_id="start", agent_id=AGENT, **how)


def land(job: AgentyStartJobOperator, **how: Any) -> AgentyExportOperator:
    how = {"required_fields": {"name": 1, "price": 0.9}, "max_row_drop": 0.5, **how}
    return AgentyExportOperator(task_id="land", job_id=job.output, path=PATH, **how)


def start_and_land(**how: Any) -> Callable[[], Any]:
    def fill() -> None:
        land(start(**how))

    return fill


def start_wait_and_land(**how: Any) -> Callable[[], Any]:
    def fill() -> None:
        job = start()
        wait = AgentyJobSensor(task_id="wait", job_id=job.output, poke_interval=1, **how)
        wait >> land(job)

    return fill


def mapped() -> None:
    AgentyStartJobOperator.partial(task_id="start", **DEFERRED).expand_kwargs(
        [{"agent_id": AGENT.replace("0", str(number))} for number in range(3)]
    )


dag("deferred", start_and_land(**DEFERRED, **GUARDED, stream_logs=True))
dag("in_worker", start_and_land(**IN_WORKER, **GUARDED, stream_logs=True))
dag("with_urls", start_and_land(urls=URLS, **DEFERRED))
dag("apart_poked", start_wait_and_land(deferrable=False, mode="poke", **GUARDED))
dag("apart_rescheduled", start_wait_and_land(deferrable=False, mode="reschedule", max_credits=5000, queue_timeout=300))
dag("apart_deferred", start_wait_and_land(deferrable=True, stream_logs=True, **GUARDED))
dag("without_worker", start_wait_and_land(deferrable=True, start_from_trigger=True, end_from_trigger=True, **GUARDED))
dag("mapped", mapped)

# What goes wrong with the job, or with its result.
dag("over_budget", start_and_land(**DEFERRED, max_credits=5))
dag("over_budget_in_worker", start_and_land(**IN_WORKER, max_credits=5))
dag("over_budget_apart", start_wait_and_land(deferrable=True, max_credits=5))
dag("stalls", start_and_land(**DEFERRED, stall_timeout=8))
dag("stalls_in_worker", start_and_land(**IN_WORKER, stall_timeout=8))
dag("queued_for_too_long", start_and_land(**DEFERRED, queue_timeout=8))
dag("is_aborted", start_and_land(**DEFERRED))
dag("is_not_filled", start_and_land(**DEFERRED))
dag("has_too_few_rows", start_and_land(**DEFERRED))

# What the agent has already when the run begins.
dag("joins", start_and_land(**DEFERRED, if_running="join"))
dag("skips", start_and_land(**DEFERRED, if_running="skip"))
dag("refuses", start_and_land(**DEFERRED, if_running="fail"))
dag("stops_first", start_and_land(**DEFERRED, if_running="stop"))
dag("reuses", start_and_land(**IN_WORKER, reuse_completed_within=timedelta(hours=1)))
