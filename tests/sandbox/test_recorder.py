"""The book of requests, here and over the control routes."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_agenty.sandbox import RemoteSandbox

BOOKS = "45l0wewqzk"


def test_a_request_is_recorded_without_its_key(client, controls):
    client.get("/jobs", params={"agent_id": BOOKS}, headers={"User-Agent": "me/1"})
    requests.get(f"{controls.url}/jobs?apiKey={controls.key}&limit=5", timeout=10)
    first, second = controls.requests
    assert (first.host, first.method, first.path, first.query) == ("api", "GET", "/jobs", {"agent_id": BOOKS})
    assert (first.key_in, first.key_valid, first.status) == ("header", True, 200)
    assert first.headers["user-agent"] == "me/1"
    assert first.agent_id == BOOKS
    assert (second.query, second.key_in, second.key_valid) == ({"limit": "5"}, "query", True)
    assert controls.key not in str(controls.requests)


def test_a_wrong_key_is_not_recorded_either(controls):
    requests.get(f"{controls.url}/jobs", headers={"X-Agenty-ApiKey": "a mistyped key"}, timeout=10)
    requests.get(f"{controls.url}/jobs?apikey=another", timeout=10)
    header, query = controls.requests
    assert (header.key_in, header.key_valid, query.key_in, query.key_valid) == ("header", False, "query", False)
    assert "mistyped" not in str(header)
    assert "another" not in str(query)


def test_a_start_is_recorded_with_its_body_and_a_job_with_its_id(client, controls):
    job_id = client.start().json()["job_id"]
    client.get(f"/jobs/{job_id}/logs")
    start, logs = controls.requests
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


def test_starts_and_stops_are_counted_when_they_are_accepted(client, controls):
    client.start("nosuchone1")
    job_id = client.start().json()["job_id"]
    client.get("/jobs/5/stop")
    client.get(f"/jobs/{job_id}/stop")
    client.get(f"/jobs/{job_id}/stop")
    assert (controls.starts, controls.started_jobs) == (1, [job_id])
    assert (controls.stops, controls.stopped_jobs) == (2, [job_id, job_id])


def test_clear_forgets_everything_but_jobs(client, controls):
    client.start()
    controls.fault("GET", "/jobs", status=500, times=None)
    controls.clear()
    assert (controls.requests, controls.starts, controls.stops) == ([], 0, 0)
    assert client.get("/jobs").status_code == 200
    assert len(controls.jobs) == 1


def test_the_connection_is_what_airflow_takes(controls):
    assert controls.connection == {"conn_type": "agenty", "host": controls.url, "password": controls.key}
    assert json.loads(controls.connection_json) == controls.connection


@pytest.mark.parametrize("suffix", ["", "/", "/v2"])
def test_a_remote_sandbox_finds_out_the_rest(sandbox, suffix):
    remote = RemoteSandbox(sandbox.url.removesuffix("/v2") + suffix)
    for name in ("url", "key", "forbidden_key", "download_url", "connection"):
        assert getattr(remote, name) == getattr(sandbox, name)


def control(sandbox, path, body=None, method="POST"):
    parts = urlsplit(sandbox.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request(method, path, body)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def test_control_routes_need_no_key_and_are_not_recorded(sandbox):
    assert control(sandbox, "/_sandbox", method="GET")[1]["result"]["url"] == sandbox.url
    assert control(sandbox, "/_sandbox/started_jobs", method="GET") == (200, {"result": []})
    status, answer = control(sandbox, "/_sandbox/fault", b'{"method": "get", "path": "/jobs", "status": 503}')
    assert (status, answer) == (200, {"result": 1})
    assert control(sandbox, "/_sandbox/faults")[1]["result"][0]["method"] == "GET"
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/_sandbox/nothing", b"{}", 404),
        ("/_sandbox/run", b"{}", 404),
        ("/_sandbox/_find", b"{}", 404),
        ("/_sandbox/__init__", b"{}", 404),
        ("/_sandbox/job", b'{"job_id": 1}', 404),
        ("/_sandbox/job", b"{}", 400),
        ("/_sandbox/job", b"{", 400),
        ("/_sandbox/job", b"[]", 400),
        ("/_sandbox/script", b'{"statuses": []}', 400),
        ("/_sandbox/script", b'{"statuses": [{"pages_total": 1}]}', 400),
        ("/_sandbox/start_job", b'{"agent_id": "nosuch"}', 404),
        ("/_sandbox/set_agent", b'{"agent_id": "x", "data": 5}', 400),
        ("/_sandbox/set_agent", b'{"agent_id": "x", "data": {"base64": "%"}}', 400),
        ("/_sandbox/plan", b'{"plan": {"colour": 1}}', 400),
        ("/_sandbox/fault", b'{"method": "GET", "path": "/", "cut": "x"}', 400),
    ],
)
def test_control_calls_that_cannot_be_are_refused(sandbox, path, body, status):
    got, answer = control(sandbox, path, body)
    assert got == status
    assert answer["message"]
