"""DAG files are parsed over and over: what operators and the sensor import at module level is small."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROBE = """
import json, sys
try:
    from airflow.sdk import DAG, BaseHook, BaseOperator, BaseSensorOperator
except ImportError:
    from airflow import DAG
    from airflow.hooks.base import BaseHook
    from airflow.models.baseoperator import BaseOperator
    from airflow.sensors.base import BaseSensorOperator
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize("module", ["operators", "sensors", "links"])
def test_a_dag_file_pays_little_for_its_imports(module):
    code = PROBE.format(module=f"airflow_provider_agenty.{module}.agenty")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = json.loads(done.stdout.splitlines()[-1])

    assert len(new) <= 25, new
    heavy = ("requests", "urllib3", "fsspec", "tenacity", "asyncio", "airflow.triggers", "starlette", "pyarrow")
    assert not [name for name in new if name.startswith(heavy)]


def test_the_provider_info_imports_nothing_of_airflow():
    code = (
        "import json, sys, airflow_provider_agenty as a; a.get_provider_info(); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not [name for name in json.loads(done.stdout) if name.partition(".")[0] in {"airflow", "requests"}]
