"""As many jobs as a run's conf names agents: each is started, waited for in the triggerer, and landed in a bucket."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task, task_group

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator


@task
def list_agents(params):
    return params["agent_ids"]


@task_group
def one_agent(agent_id):
    start = AgentyStartJobOperator(
        task_id="start",
        agent_id=agent_id,
        wait_for_completion=True,
        deferrable=True,
        poll_interval=2,
        pool="agenty",
    )
    AgentyExportOperator(
        task_id="land",
        job_id=start.output,
        path="s3://lake/books/{{ ti.map_index }}.csv",
        storage_conn_id="lake",
    )


with DAG(
    "many_jobs",
    schedule=None,
    params={"agent_ids": []},
    # A file is landed as soon as its job is over, rather than when all jobs are started.
    default_args={"weight_rule": "upstream", "retries": 3, "retry_delay": timedelta(seconds=2)},
):
    one_agent.expand(agent_id=list_agents())
