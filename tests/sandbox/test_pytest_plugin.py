"""The fixture ``agenty_sandbox``, as the tests of somebody else's project meet it."""

from __future__ import annotations

import os
import subprocess
import sys

PLUGIN = "airflow_provider_agenty.sandbox.pytest"


def run(folder, tests, *options):
    (folder / "test_theirs.py").write_text(tests)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider", "--strict-markers", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_it_serves_the_samples_and_sets_the_connection(tmp_path):
    done = run(
        tmp_path,
        """
import json, os, requests
def test_one(agenty_sandbox):
    connection = json.loads(os.environ["AIRFLOW_CONN_AGENTY_DEFAULT"])
    assert connection["host"] == agenty_sandbox.url
    answer = requests.get(connection["host"] + "/agents/45l0wewqzk", headers={"X-Agenty-ApiKey": agenty_sandbox.key})
    assert answer.json()["name"] == "Books"
def test_two():
    assert "AIRFLOW_CONN_AGENTY_DEFAULT" not in os.environ
""",
    )
    assert "2 passed" in done.stdout, done.stdout


def test_agents_come_from_a_marker_a_folder_or_a_parameter(tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "q1w2e3r4t5.csv").write_bytes(b"a\n1\n")
    done = run(
        tmp_path,
        """
import pytest
pytestmark = pytest.mark.agenty_sandbox(key="from the module", parallel_jobs=1)
@pytest.mark.agenty_sandbox(agents={"mine000001": [{"name": "x"}]}, seconds=0)
def test_marker(agenty_sandbox):
    assert agenty_sandbox.agent_ids == ["mine000001"]
    assert agenty_sandbox.key == "from the module"
    job = agenty_sandbox.start_job("mine000001")
    assert agenty_sandbox.job(job)["status"] == "completed"
@pytest.mark.agenty_sandbox(agents="agents")
def test_folder(agenty_sandbox):
    assert agenty_sandbox.agent_ids == ["q1w2e3r4t5"]
@pytest.mark.parametrize("agenty_sandbox", ["agents", {"manual": True, "agents": "agents"}], indirect=True)
def test_parameter(agenty_sandbox):
    assert agenty_sandbox.agent_ids == ["q1w2e3r4t5"]
""",
    )
    assert "4 passed" in done.stdout, done.stdout


def test_a_wrong_option_is_an_error_of_the_test(tmp_path):
    done = run(
        tmp_path,
        """
import pytest
@pytest.mark.agenty_sandbox(colour="red")
def test_marker(agenty_sandbox):
    pass
""",
    )
    assert "unexpected keyword argument 'colour'" in done.stdout
    assert done.returncode == 1


def test_the_agents_may_be_the_markers_first_argument(tmp_path):
    done = run(
        tmp_path,
        """
import pytest
@pytest.mark.agenty_sandbox({"mine": [{"name": "A book"}]})
def test_one(agenty_sandbox):
    assert agenty_sandbox.agent_ids == ["mine"]
""",
    )
    assert "1 passed" in done.stdout, done.stdout
