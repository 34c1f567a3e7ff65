"""What runs an example as a user would try it, with ``airflow dags test``, against a sandbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.airflow_commands import airflow_environment, run_python

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return airflow_environment(tmp_path_factory.mktemp("airflow"), EXAMPLES)


@pytest.fixture
def run_example(environment, agenty_sandbox, tmp_path):
    """Run an example with some of its params, and return the files that it landed in an empty folder."""

    def run(dag_id, *date, connections=None, **params):
        folder = tmp_path / "landed"
        here = {**environment, **(connections or {}), "AIRFLOW_CONN_AGENTY_DEFAULT": agenty_sandbox.connection_json}
        conf = json.dumps({**params, "folder": str(folder)})
        run_python(here, "-m", "airflow", "dags", "test", dag_id, *date, "--conf", conf)
        return sorted(path for path in folder.rglob("*") if path.is_file())

    return run
