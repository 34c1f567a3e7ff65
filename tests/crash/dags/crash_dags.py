"""The DAGs that crash: what a run is about comes in its conf."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

AGENT = "{{ dag_run.conf['agent_id'] }}"
JOB = "{{ dag_run.conf['job_id'] }}"
ONE_RETRY = {"retries": 1, "retry_delay": timedelta(seconds=1)}
SYNC = {"wait_for_completion": True, "deferrable": False, "poll_interval": 0.3}
DEFERRED = {"wait_for_completion": True, "deferrable": True, "poll_interval": 0.3}

with DAG("sync", default_args=ONE_RETRY):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, **SYNC)

with DAG("deferred", default_args=ONE_RETRY):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, **DEFERRED)

with DAG("start_only", default_args=ONE_RETRY):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT)

with DAG("with_urls", default_args=ONE_RETRY):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, urls=["https://example.com/{{ run_id }}"], **SYNC)

with DAG("mapped", default_args=ONE_RETRY):
    AgentyStartJobOperator.partial(task_id="start", **SYNC).expand_kwargs(
        [{"agent_id": "{{ dag_run.conf['agent_ids'][0] }}"}, {"agent_id": "{{ dag_run.conf['agent_ids'][1] }}"}]
    )

with DAG("sync_execution_timeout"):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, execution_timeout=timedelta(seconds=12), **SYNC)

with DAG("deferred_execution_timeout"):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, execution_timeout=timedelta(seconds=12), **DEFERRED)

with DAG("deferred_timeout"):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, timeout=2, **DEFERRED)

with DAG("deferred_timeout_and_retry", default_args=ONE_RETRY):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, timeout=6, **DEFERRED)

with DAG("deferred_timeout_that_stops_nothing", default_args=ONE_RETRY):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, timeout=6, cancel_on_timeout=False, **DEFERRED)

with DAG("deferred_streaming", default_args=ONE_RETRY):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, stream_logs=True, cancel_on_timeout=False, **DEFERRED)

with DAG("budget", default_args=ONE_RETRY):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, max_credits=5, **DEFERRED)

with DAG("stall"):
    AgentyStartJobOperator(task_id="start", agent_id=AGENT, stall_timeout=20, **DEFERRED)

with DAG("sensor_deferred", default_args=ONE_RETRY):
    AgentyJobSensor(task_id="wait", job_id=JOB, deferrable=True, poke_interval=0.3)

with DAG("zero_slot"):
    start = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
    AgentyJobSensor(
        task_id="wait",
        job_id=start.output,
        deferrable=True,
        poke_interval=0.3,
        start_from_trigger=True,
        end_from_trigger=True,
    )

with DAG("zero_slot_timeout"):
    start = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
    AgentyJobSensor(
        task_id="wait",
        job_id=start.output,
        deferrable=True,
        poke_interval=0.3,
        timeout=3,
        soft_fail=True,
        start_from_trigger=True,
        end_from_trigger=True,
    )

with DAG("export", default_args=ONE_RETRY):
    AgentyExportOperator(task_id="land", job_id=JOB, path="{{ dag_run.conf['path'] }}", outlets=[Asset("landed")])
