"""The book of requests, and what a test is refused."""

from __future__ import annotations

import json

import pytest
import requests

BOOKS = "45l0wewqzk"


def test_a_request_is_recorded_without_its_key(client, sandbox):
    client.get("/jobs", params={"agent_id": BOOKS}, headers={"User-Agent": "me/1"})
    requests.get(f"{sandbox.url}/jobs?apiKey={sandbox.key}&limit=5", timeout=10)
    first, second = sandbox.requests
    assert (first.host, first.method, first.path, first.query) == ("api", "GET", "/jobs", {"agent_id": BOOKS})
    assert (first.key_in, first.key_valid, first.status) == ("header", True, 200)
    assert first.headers["user-agent"] == "me/1"
    assert first.agent_id == BOOKS
    assert (second.query, second.key_in, second.key_valid) == ({"limit": "5"}, "query", True)
    assert sandbox.key not in str(sandbox.requests)


def test_a_wrong_key_is_not_recorded_either(sandbox):
    requests.get(f"{sandbox.url}/jobs", headers={"X-Agenty-ApiKey": "a mistyped key"}, timeout=10)
    requests.get(f"{sandbox.url}/jobs?apikey=another", timeout=10)
    header, query = sandbox.requests
    assert (header.key_in, header.key_valid, query.key_in, query.key_valid) == ("header", False, "query", False)
    assert "mistyped" not in str(header)
    assert "another" not in str(query)


def test_a_start_is_recorded_with_its_body_and_a_job_with_its_id(client, sandbox):
    job_id = client.start().json()["job_id"]
    client.get(f"/jobs/{job_id}/logs")
    start, logs = sandbox.requests
    assert json.loads(start.body) == {"agent_id": BOOKS}
    assert start.agent_id == BOOKS
    assert (logs.job_id, logs.agent_id) == (job_id, BOOKS)


def test_connections_are_counted(client, sandbox):
    before = sandbox.connections["api"]
    for _ in range(3):
        client.get("/jobs")
    assert sandbox.connections["api"] == before + 1
    assert len({request.client_port for request in sandbox.requests}) == 1
    requests.get(sandbox.url, timeout=10)
    assert sandbox.connections["api"] == before + 2


def test_starts_and_stops_are_counted_when_they_are_accepted(client, sandbox):
    client.start("nosuchone1")
    job_id = client.start().json()["job_id"]
    client.get("/jobs/5/stop")
    client.get(f"/jobs/{job_id}/stop")
    client.get(f"/jobs/{job_id}/stop")
    assert (sandbox.starts, sandbox.started_jobs) == (1, [job_id])
    assert (sandbox.stops, sandbox.stopped_jobs) == (2, [job_id, job_id])


def test_clear_forgets_everything_but_jobs(client, sandbox):
    client.start()
    sandbox.fault("GET", "/jobs", status=500, times=None)
    sandbox.clear()
    assert (sandbox.requests, sandbox.starts, sandbox.stops) == ([], 0, 0)
    assert client.get("/jobs").status_code == 200
    assert len(sandbox.jobs) == 1


def test_the_connection_is_what_airflow_takes(sandbox):
    assert sandbox.connection == {"conn_type": "agenty", "host": sandbox.url, "password": sandbox.key}
    assert json.loads(sandbox.connection_json) == sandbox.connection


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda sandbox: sandbox.script([]), ValueError),
        (lambda sandbox: sandbox.script([{"pages_total": 1}]), ValueError),
        (lambda sandbox: sandbox.start_job("nosuch"), LookupError),
        (lambda sandbox: sandbox.add_older_jobs("nosuch", 1), LookupError),
        (lambda sandbox: sandbox.set_agent("x", 5), TypeError),
        (lambda sandbox: sandbox.plan(colour=1), TypeError),
    ],
)
def test_calls_that_cannot_be_are_refused(sandbox, call, error):
    with pytest.raises(error):
        call(sandbox)
    assert sandbox.jobs == []
