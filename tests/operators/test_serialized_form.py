"""The serialized form of a DAG is the same from parse to parse: a change would make a new version of the DAG."""

from __future__ import annotations

import json
import os

import pytest

from airflow_provider_agenty.operators import agenty as operators
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from tests.airflow_commands import run_python

SERIALIZE = """
import json
from datetime import datetime, timedelta

try:
    from airflow.sdk import DAG, Asset, AssetWatcher
    from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger
    trigger = AgentyJobEventTrigger("45l0wewqzk", statuses={"completed", "failed", "aborted", "stopped"})
    schedule = Asset("agenty", watchers=[AssetWatcher(name="jobs", trigger=trigger)])
except ImportError:
    from airflow import DAG
    schedule = None
try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

from airflow_provider_agenty.operators.agenty import (
    AgentyExportOperator, AgentyResultOperator, AgentyStartJobOperator, AgentyStopJobOperator
)
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

COLUMNS = {"price", "title", "currency", "url", "stock", "rating"}

with DAG("stable", schedule=schedule, start_date=datetime(2026, 1, 1)) as dag:
    start = AgentyStartJobOperator(
        task_id="start", agent_id="45l0wewqzk", urls=["https://a.example/1", "https://a.example/2"],
        wait_for_completion=True, deferrable=True, max_credits=500, stall_timeout=timedelta(hours=1), retries=3,
    )
    starts = AgentyStartJobOperator.partial(task_id="starts", stall_timeout=timedelta(hours=1), pool="agenty").expand(
        agent_id=["45l0wewqzk", "w9qmlp5475"]
    )
    AgentyExportOperator.partial(task_id="exports", path="/tmp/{{ ds }}/", required_fields=COLUMNS).expand(
        job_id=starts.output
    )
    AgentyJobSensor(task_id="poke", job_id=start.output, deferrable=False, poke_interval=30)
    AgentyJobSensor(
        task_id="from_trigger", job_id="{{ params.job_id }}", deferrable=True, start_from_trigger=True, timeout=3600
    )
    AgentyExportOperator(task_id="export", job_id=start.output, path="/tmp/{{ ds }}.csv", required_fields=COLUMNS)
    AgentyResultOperator(task_id="result", job_id=start.output, path="/tmp/{{ ds }}.jsonl", required_fields=COLUMNS)
    AgentyStopJobOperator(task_id="stop", job_id=start.output)

# Airflow too sorts the names before it compares.
print("SERIALIZED " + json.dumps(DagSerialization.to_dict(dag), sort_keys=True))
"""

# Only against hanging: on a crowded machine Airflow's imports take a minute.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def parses(tmp_path_factory):
    """Serialize the DAG in processes of their own, in each of which sets have another order."""
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    found = []
    for seed in "01":
        output = run_python(environment | {"PYTHONHASHSEED": seed}, "-c", SERIALIZE)
        found.append(next(line for line in output.splitlines() if line.startswith("SERIALIZED ")))
    return found


def test_it_is_the_same_from_parse_to_parse(parses):
    assert parses[0] == parses[1]


def test_each_operator_and_the_sensor_is_in_it(parses):
    tasks = json.loads(parses[0].removeprefix("SERIALIZED "))["dag"]["tasks"]
    fields = [task.get("__var", task) for task in tasks]
    assert {each["_task_module"].split(".")[0] for each in fields} == {"airflow_provider_agenty"}
    assert {each.get("_task_type", each.get("task_type")) for each in fields} >= {
        *operators.__all__,
        AgentyJobSensor.__name__,
    }
