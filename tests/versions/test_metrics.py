"""What reaches a StatsD server, from the Airflow that is installed."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.airflow_commands import airflow_environment, run_python

DAGS = Path(__file__).with_name("dags")
AGENT, OTHER_AGENT, LONG_AGENT = "45l0wewqzk", "w9qmlp5475", "l0ng45wewq"

# Only against hanging: on a crowded machine an Airflow takes minutes for what is done in seconds otherwise.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Give the environment of an Airflow with a database."""
    return airflow_environment(tmp_path_factory.mktemp("airflow"), DAGS)


class StatsD:
    """A StatsD server: what it was sent, each metric as ``(name, value, type)``."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self.socket.bind(("127.0.0.1", 0))
        self.settings = {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self.socket.getsockname()[1]),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }

    def received(self):
        """Read what has arrived: it waits in the socket."""
        self.socket.setblocking(False)
        texts = []
        try:
            while True:
                texts += self.socket.recv(65536).decode().splitlines()
        except BlockingIOError:
            return [re.fullmatch(r"(.*):([^:|]*)\|(.*)", text).groups() for text in texts]


@pytest.fixture
def statsd():
    server = StatsD()
    yield server
    server.socket.close()


@pytest.mark.agenty_sandbox(seconds=1)
def test_statsd_gets_what_happens_to_jobs(environment, agenty_sandbox, statsd, tmp_path):
    agenty_sandbox.set_agent(LONG_AGENT, [{"name": "one"}])
    agenty_sandbox.script(["running"] * 1000, agent_id=LONG_AGENT)
    run = {
        **environment,
        **statsd.settings,
        "AGENTY_SMOKE_FOLDER": str(tmp_path),
        "AIRFLOW_CONN_AGENTY_DEFAULT": agenty_sandbox.connection_json,
    }
    output = run_python(run, "-m", "airflow", "dags", "test", "versions_metrics")

    received = [metric for metric in statsd.received() if metric[0].startswith("airflow.agenty.")]
    jobs = {job["agent_id"]: job for job in agenty_sandbox.jobs}

    def name(metric, agent_id):
        return f"airflow.agenty.{metric},agent_id={agent_id},conn_id=agenty_default"

    counters = Counter()
    for metric, value, kind in received:
        if kind == "c":
            counters[metric] += int(value)
    of_pollers = {each: counters.pop(each) for each in list(counters) if ".poller." in each}
    assert counters == {
        name("jobs.started", AGENT): 1,
        name("jobs.started", OTHER_AGENT): 1,
        name("jobs.started", LONG_AGENT): 1,
        name("jobs.reused", AGENT): 1,
        name("jobs.joined", LONG_AGENT): 1,
        name("jobs.stopped", LONG_AGENT): 1,
        name("jobs.ended.completed", AGENT): 1,
        name("jobs.ended.completed", OTHER_AGENT): 1,
        name("jobs.credits", AGENT): jobs[AGENT]["pages_credit"],
        name("jobs.credits", OTHER_AGENT): jobs[OTHER_AGENT]["pages_credit"],
        name("landing.files", AGENT): 1,
        name("landing.rows", AGENT): (tmp_path / "landed.csv").read_text().count("\n") - 1,
        name("landing.bytes", AGENT): (tmp_path / "landed.csv").stat().st_size,
    }, output
    timers = Counter(metric for metric, _, kind in received if kind == "ms")
    assert timers == {
        name("landing.duration", AGENT): 1,
        **{name(f"jobs.{each}", agent): 1 for each in ("duration", "queue_time") for agent in (AGENT, OTHER_AGENT)},
    }
    poller = ",conn_id=agenty_default,poll_interval=0.2,poller=JobPoller"
    assert of_pollers[f"airflow.agenty.poller.polls{poller}"] >= 1
    assert of_pollers["airflow.agenty.poller.requests,conn_id=agenty_default"] >= 1
    waiters = [value for metric, value, kind in received if "agenty.poller.waiters" in metric and kind == "g"]
    assert waiters[0] == "1"
    assert waiters[-1] == "0"
