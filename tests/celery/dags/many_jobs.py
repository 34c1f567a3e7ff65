"""As many jobs as a run's conf names agents, waited for in three ways: each one's file lands in a bucket."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task, task_group

from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyStartJobOperator

WAITS = {
    "deferred": {"deferrable": True},
    "streamed": {"deferrable": True, "stream_logs": True},
    "worker": {"deferrable": False, "stream_logs": True},
}


@task
def agents_of(kind, params):
    return params["agents"][kind]


def start_and_land(kind):
    @task_group(group_id=kind)
    def one_agent(agent_id):
        start = AgentyStartJobOperator(
            task_id="start",
            agent_id=agent_id,
            wait_for_completion=True,
            poll_interval=2,
            pool="agenty",
            **WAITS[kind],
        )
        AgentyExportOperator(
            task_id="land",
            job_id=start.output,
            path=f"s3://lake/{{{{ run_id }}}}/{kind}/{{{{ ti.map_index }}}}.csv",
            storage_conn_id="lake",
        )

    one_agent.expand(agent_id=agents_of.override(task_id=f"agents_{kind}")(kind))


with DAG(
    "many_jobs",
    schedule=None,
    params={"agents": {}},
    # A file is landed as soon as its job is over, rather than when all jobs are started. While the API server is away
    # each start of a task costs a try.
    default_args={"weight_rule": "upstream", "retries": 5, "retry_delay": timedelta(seconds=5)},
):
    for kind in WAITS:
        start_and_land(kind)
