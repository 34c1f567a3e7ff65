"""DAGs that are told things which no API should say, and one that keeps its secrets meanwhile."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_agenty.operators.agenty import (
    AgentyExportOperator,
    AgentyResultOperator,
    AgentyStartJobOperator,
)
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger

JOB = "{{ dag_run.conf['job_id'] }}"
AGENT = "{{ dag_run.conf['agent_id'] }}"
CONNECTION = "{{ dag_run.conf['connection'] }}"
FOLDER = "{{ dag_run.conf['folder'] }}"

with DAG("told_in_the_triggerer"):
    AgentyJobSensor(task_id="wait", job_id=JOB, deferrable=True, poke_interval=0.3)

with DAG("ended_in_the_triggerer"):
    AgentyJobSensor(task_id="wait", job_id=JOB, deferrable=True, poke_interval=0.3, end_from_trigger=True)

with DAG("told_in_a_worker"):
    AgentyJobSensor(task_id="wait", job_id=JOB, deferrable=False, poke_interval=0.3)


@task
def payloads(triggering_asset_events):
    return [event.extra["payload"] for events in triggering_asset_events.values() for event in events]


watcher = AssetWatcher(name="jobs", trigger=AgentyJobEventTrigger("watched", poll_interval=0.5))
with DAG("told_by_a_watcher", schedule=[Asset("jobs_of_watched", watchers=[watcher])]):
    payloads()

with DAG("secrets"):
    in_triggerer = AgentyStartJobOperator(
        task_id="in_triggerer",
        agent_id=AGENT,
        agenty_conn_id=CONNECTION,
        wait_for_completion=True,
        deferrable=True,
        poll_interval=0.3,
        stream_logs=True,
    )
    land = AgentyExportOperator(
        task_id="land", job_id=in_triggerer.output, path=FOLDER + "/export.csv", agenty_conn_id=CONNECTION
    )
    in_worker = AgentyJobSensor(
        task_id="in_worker", job_id=in_triggerer.output, deferrable=False, agenty_conn_id=CONNECTION
    )
    rows = AgentyResultOperator(
        task_id="rows", job_id=in_triggerer.output, path=FOLDER + "/rows.jsonl", agenty_conn_id=CONNECTION
    )
    in_worker >> [land, rows]
