"""
What has to hold in every supported Airflow, run in the one that is installed.

In an environment made from one of the files in ``constraints/``, with this package installed in it::

    python -m pytest tests/versions
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import airflow_provider_agenty
from airflow_provider_agenty import sandbox
from airflow_provider_agenty.airflow_compat import HAS_TASK_STATE_STORE
from tests.airflow_commands import airflow_environment, run_python

DAGS = Path(__file__).with_name("dags")
AGENT, OTHER_AGENT, LONG_AGENT, AGENT_WITH_URLS = "45l0wewqzk", "w9qmlp5475", "l0ng45wewq", "lmqdjwd972"

# Only against hanging: on a crowded machine an Airflow takes minutes for what is done in seconds otherwise.
pytestmark = pytest.mark.timeout(1200)

IMPORT_ALL = """
import importlib, pkgutil, sys, warnings

# What these bring with them is not ours to mend.
import airflow.models, airflow.triggers.base, fsspec, requests, starlette.applications, uvicorn
try:
    import airflow.sdk
    from airflow.sdk import BaseOperator, BaseOperatorLink, BaseSensorOperator
except ImportError:
    import airflow.models.baseoperator, airflow.sensors.base

warnings.resetwarnings()
warnings.simplefilter("error", DeprecationWarning)
warnings.simplefilter("error", FutureWarning)
import airflow_provider_agenty

names = [m.name for m in pkgutil.walk_packages(airflow_provider_agenty.__path__, "airflow_provider_agenty.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
airflow_provider_agenty.airflow_compat.file_system("file", None)
warnings.resetwarnings()
warnings.simplefilter("ignore")
print("imported:", len(names))
"""

WITHOUT_FORM_PACKAGES = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("flask_appbuilder", "flask_babel", "wtforms"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import airflow.models
sys.meta_path.insert(0, Missing())
for name in [name for name in sys.modules if name.startswith(("flask_appbuilder", "flask_babel", "wtforms"))]:
    del sys.modules[name]

import importlib, pkgutil
import airflow_provider_agenty
names = [m.name for m in pkgutil.walk_packages(airflow_provider_agenty.__path__, "airflow_provider_agenty.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
from airflow_provider_agenty.hooks.agenty import AgentyHook
assert AgentyHook.get_ui_field_behaviour()
print("imported:", len(names))
"""

FIND_PROVIDER = """
import json
from airflow.providers_manager import ProvidersManager

manager = ProvidersManager()
version, hook = manager.providers["airflow-provider-agenty"].version, manager.hooks["agenty"]
print("found:", json.dumps([version, hook.hook_class_name, hook.hook_name]))
"""


OBJECT_STORES = """
import json
import os
try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach
from fsspec.implementations.memory import MemoryFileSystem
from airflow_provider_agenty.landing.destinations import open_destination

class Store(MemoryFileSystem):
    cachable = False
    asked = []

    def __init__(self, name):
        super().__init__()
        self.name = name

    def info(self, path, **_):
        self.asked.append(self.name)
        raise FileNotFoundError(path)

for conn_id in (None, "in_url", "given"):
    attach("memory", conn_id, fs=Store(conn_id))
    os.environ[f"AIRFLOW_CONN_{conn_id}".upper()] = "generic://"
for path, conn_id in (("memory://lake/x", None), ("memory://in_url@lake/x", None), ("memory://lake/x", "given")):
    open_destination(path, default_name="unused", storage_conn_id=conn_id)
print("connections:", json.dumps(Store.asked))
"""


FORGOTTEN_STARTS = """
import json, time
from airflow.models.variable import Variable
from airflow.utils.session import create_session

def start(days):
    return json.dumps({"agenty_start": {"agent_id": "a", "at": time.time() - days * 86400}})

with create_session() as session:
    for key, value, description in [
        ("agenty_start_old", start(31), "the old one"),
        ("agenty_start_new", start(29), "the new one"),
        ("agenty_start_unreadable", "{", "unreadable"),
        ("agentyXstartXold", start(31), "somebody else's"),
        ("other", start(31), "other"),
    ]:
        session.add(Variable(key=key, val=value, description=description))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return airflow_environment(tmp_path_factory.mktemp("airflow"), DAGS)


def said(output, what):
    """Return what a script printed after its keyword, whatever Airflow printed around it."""
    return next(line.split(": ", 1)[1] for line in output.splitlines() if line.startswith(f"{what}: "))


def test_every_module_is_imported_without_a_deprecated_name(environment):
    assert int(said(run_python(environment, "-c", IMPORT_ALL), "imported")) > 30


def test_nothing_but_the_form_needs_the_packages_of_the_form(environment):
    assert int(said(run_python(environment, "-c", WITHOUT_FORM_PACKAGES), "imported")) > 30


def test_the_connection_of_an_object_store_may_be_in_the_url(environment):
    assert json.loads(said(run_python(environment, "-c", OBJECT_STORES), "connections")) == [None, "in_url", "given"]


def test_airflow_finds_the_provider_and_its_hook(environment):
    assert json.loads(said(run_python(environment, "-c", FIND_PROVIDER), "found")) == [
        airflow_provider_agenty.__version__,
        "airflow_provider_agenty.hooks.agenty.AgentyHook",
        "Agenty",
    ]


def test_airflow_knows_the_options_of_the_provider_and_their_defaults(environment):
    told = run_python(environment, "-m", "airflow", "config", "get-value", "agenty", "start_memory")

    assert told.splitlines()[-1] == "auto"


@pytest.mark.agenty_sandbox(seconds=1)
def test_jobs_are_started_waited_for_and_landed(environment, agenty_sandbox, tmp_path):
    agenty_sandbox.set_agent(LONG_AGENT, [{"name": "one"}])
    agenty_sandbox.script(["running", "running", "completed"], agent_id=LONG_AGENT)
    dags_test = run_python(
        {
            **environment,
            "AGENTY_SMOKE_FOLDER": str(tmp_path),
            "AIRFLOW_CONN_AGENTY_DEFAULT": agenty_sandbox.connection_json,
        },
        *("-m", "airflow", "dags", "test", "versions_smoke"),
    )

    # `dags test` may end well where a task failed: what it left behind tells.
    assert (tmp_path / "landed.csv").read_bytes() == result_of(AGENT), dags_test
    mapped = {path.name.split("-")[0]: path.read_bytes() for path in (tmp_path / "mapped").iterdir()}
    assert mapped == {agent_id: result_of(agent_id) for agent_id in (AGENT, OTHER_AGENT)}
    started = Counter(job["agent_id"] for job in agenty_sandbox.jobs)
    assert started == {AGENT: 3, OTHER_AGENT: 1, LONG_AGENT: 1, AGENT_WITH_URLS: 2}
    of_urls = sorted(
        re.findall(r"https://example\.com/\d", path.read_text()) for path in (tmp_path / "of_urls").iterdir()
    )
    assert of_urls == [["https://example.com/1", "https://example.com/2"], ["https://example.com/3"]]
    assert agenty_sandbox.stops == 1
    told = json.loads((tmp_path / "told.json").read_text())
    # Airflow 2 sets no state in `dags test`: a task that runs is still what it was before.
    assert told in ({"state": state, "is_retry": False} for state in ("running", "scheduled"))


def test_a_start_is_remembered_in_a_variable_until_its_task_has_ended(environment, agenty_sandbox):
    """On 3.3 the task state store remembers it, and no Variable is ever made."""
    environment = {
        **environment,
        "AIRFLOW_CONN_AGENTY_DEFAULT": agenty_sandbox.connection_json,
        "AIRFLOW__AGENTY__START_MEMORY": "variables",
    }

    told = run_python(environment, "-m", "airflow", "dags", "test", "versions_memory")

    remembered = json.loads(said(told, "remembered"))
    if HAS_TASK_STATE_STORE:
        assert remembered == {}
    else:
        assert remembered["agenty_job"]["job_id"] == agenty_sandbox.started_jobs[0]
        assert remembered["agenty_start"]["agent_id"] == AGENT
    assert agenty_sandbox.starts == 1
    assert variables_of(environment) == set()


def test_forget_starts_removes_what_is_old_and_nothing_else(environment):
    run_python(environment, "-c", FORGOTTEN_STARTS)

    command = ("-m", "airflow_provider_agenty", "forget-starts", "--older-than", "30d")
    shown = run_python(environment, *command, "--dry-run")
    assert "the old one\n1 would be removed" in shown
    assert "agenty_start_old" in variables_of(environment)

    assert "the old one\n1 removed" in run_python(environment, *command)
    assert variables_of(environment) == {"agenty_start_new", "agenty_start_unreadable", "agentyXstartXold", "other"}


def variables_of(environment):
    listed = run_python(environment, "-m", "airflow", "variables", "list", "--output", "json")
    return {each["key"] for each in json.loads(listed[listed.index("[") :])}


def result_of(agent_id):
    return Path(sandbox.__file__).with_name("agents").joinpath(f"{agent_id}.csv").read_bytes()
