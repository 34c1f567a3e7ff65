"""Faults: each kind does to a client what it says, and to nobody else."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import requests
import urllib3

from tests.sandbox.conftest import fetch
from tests.sandbox_faults import Reset, SlowBody

BOOKS = "45l0wewqzk"


def wait_for_start(sandbox):
    deadline = time.monotonic() + 10
    while sandbox.starts == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sandbox.starts == 1


class TestWhich:
    def test_only_as_many_as_it_says_after_as_many_as_it_says(self, client, sandbox):
        fault = sandbox.fault("GET", "/jobs", status=503, times=2, after=1)
        assert [client.get("/jobs").status_code for _ in range(5)] == [200, 503, 503, 200, 200]
        assert (fault.seen, fault.hits) == (5, 2)

    def test_all_of_them_until_it_is_removed(self, client, sandbox):
        fault = sandbox.fault("*", "/**", status=500, times=None)
        assert [client.get("/jobs").status_code for _ in range(3)] == [500] * 3
        assert client.start().status_code == 500
        fault.remove()
        assert client.get("/jobs").status_code == 200
        assert fault.hits == 4

    @pytest.mark.parametrize(
        ("path", "hit"),
        [
            ("/jobs/{id}", True),
            ("/jobs/*", True),
            ("/**", True),
            ("/jobs", False),
            ("/jobs/{id}/logs", False),
            ("/*", False),
            ("/jobs/.*", False),
        ],
    )
    def test_the_path_is_a_pattern(self, client, sandbox, finished, path, hit):
        sandbox.fault("GET", path, status=503, times=None)
        assert client.get(f"/jobs/{finished}").status_code == (503 if hit else 200)

    def test_only_one_job_or_agent(self, client, sandbox, finished):
        other = client.start("w9qmlp5475").json()["job_id"]
        sandbox.fault("GET", f"/jobs/{other}/**", status=503, times=None)
        assert client.get(f"/jobs/{finished}").status_code == 200
        assert client.get(f"/jobs/{other}/logs").status_code == 503
        sandbox.clear()
        sandbox.fault("*", "/**", agent_id=BOOKS, status=502, times=None)
        assert client.get(f"/jobs/{other}").status_code == 200
        assert client.get(f"/jobs/{finished}/logs").status_code == 502
        assert client.get(f"/jobs?agent_id={BOOKS}").status_code == 502
        assert client.get(f"/agents/{BOOKS}").status_code == 502
        assert client.start().status_code == 502
        assert client.start("w9qmlp5475").status_code == 200

    def test_ports_are_apart(self, client, sandbox, finished):
        link = client.link(finished)
        sandbox.fault("GET", "/**", status=503, times=None)
        assert fetch(link).status_code == 200
        sandbox.clear()
        sandbox.download_fault(status=503)
        assert client.get("/jobs").status_code == 200
        assert fetch(link).status_code == 503

    def test_several_apply_at_once(self, client, sandbox):
        slow = sandbox.fault("GET", "/jobs", delay_before=0.05, times=None)
        wrong = sandbox.fault("GET", "/jobs", status=503)
        began = time.monotonic()
        assert client.get("/jobs").status_code == 503
        assert time.monotonic() - began >= 0.05
        assert client.get("/jobs").status_code == 200
        assert (slow.hits, wrong.hits) == (2, 1)

    @pytest.mark.parametrize(
        "what",
        [{}, {"drop": "now"}, {"hold": "x"}, {"cut": -1}, {"after": -1, "status": 500}, {"host": "x", "status": 500}],
    )
    def test_what_makes_no_sense_is_refused(self, sandbox, what):
        with pytest.raises(ValueError, match=r"nothing|before|negative|host"):
            sandbox.fault("GET", "/jobs", **what)

    def test_an_unknown_kind_is_refused(self, sandbox):
        with pytest.raises(TypeError):
            sandbox.fault("GET", "/jobs", explode=True)


class TestDrops:
    def test_before_it_is_acted_on(self, client, sandbox):
        fault = sandbox.fault("POST", "/jobs/start", drop="before")
        with pytest.raises(requests.ConnectionError, match="Remote end closed"):
            client.start()
        assert (sandbox.starts, fault.hits) == (0, 1)
        assert client.start().status_code == 200

    def test_after_it_was_acted_on(self, client, sandbox):
        fault = sandbox.fault("POST", "/jobs/start", drop="after")
        with pytest.raises(requests.ConnectionError, match="Remote end closed"):
            client.start()
        assert (sandbox.starts, fault.hits) == (1, 1)
        assert sandbox.requests[-1].status is None

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_with_a_reset(self, client, sandbox, moment):
        sandbox.add_fault(Reset("POST", "/jobs/start", drop=moment))
        with pytest.raises(requests.ConnectionError, match="reset by peer"):
            client.start()
        assert sandbox.starts == (moment == "after")

    def test_on_a_connection_that_was_kept_alive(self, client, sandbox):
        client.get("/jobs")
        sandbox.fault("GET", "/jobs", drop="before")
        with pytest.raises(requests.ConnectionError):
            client.get("/jobs")
        assert client.get("/jobs").status_code == 200
        assert len({request.client_port for request in sandbox.requests}) == 2


class TestAnswers:
    def test_with_headers_and_json_and_not_acted_on(self, client, sandbox):
        sandbox.fault("POST", "/jobs/start", status=429, headers={"Retry-After": "2"}, body={"message": "Slow down"})
        answer = client.start()
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
        assert answer.json() == {"message": "Slow down"}
        assert sandbox.starts == 0

    def test_acted_on_all_the_same(self, client, sandbox):
        sandbox.fault("POST", "/jobs/start", status=502, body="<html>Bad gateway</html>", acted=True)
        answer = client.start()
        assert (answer.status_code, answer.text) == (502, "<html>Bad gateway</html>")
        assert answer.headers["content-type"].startswith("text/html")
        assert sandbox.starts == 1

    def test_an_html_page_with_200(self, client, sandbox, finished):
        sandbox.download_fault(body="<!doctype html><title>Sign in</title>")
        answer = fetch(client.link(finished))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")

    def test_bytes(self, client, sandbox):
        sandbox.fault("GET", "/jobs", body=b"\xff\xfe\x00")
        assert client.get("/jobs").content == b"\xff\xfe\x00"

    def test_text_that_is_none(self, client, sandbox):
        sandbox.fault("GET", "/jobs", body={"message": "half: \ud83d"}, status=500)
        assert client.get("/jobs").json() == {"message": "half: \ud83d"}
        sandbox.fault("GET", "/jobs", body='{"message": "half: \ud83d"}', status=500)
        assert client.get("/jobs").json() == {"message": "half: \ud83d"}

    def test_a_redirect(self, client, sandbox):
        sandbox.fault("GET", "/jobs", redirect="http://127.0.0.1:9/elsewhere")
        answer = client.get("/jobs", allow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (302, "http://127.0.0.1:9/elsewhere")
        sandbox.fault("GET", "/jobs", redirect="/v2/jobs/1", status=308)
        assert client.get("/jobs", allow_redirects=False).status_code == 308


class TestWaits:
    @pytest.mark.parametrize(("moment", "starts"), [("before", 0), ("after", 1)])
    def test_held_until_released(self, client, sandbox, moment, starts):
        fault = sandbox.fault("POST", "/jobs/start", hold=moment)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(client.start()))
        thread.start()
        fault.wait()
        assert (fault.holding, sandbox.starts, answers) == (1, starts, [])
        fault.release()
        thread.join()
        assert (answers[0].status_code, sandbox.starts, fault.holding) == (200, 1, 0)

    def test_a_held_request_is_acted_on_though_its_client_has_gone(self, client, sandbox):
        fault = sandbox.fault("POST", "/jobs/start", hold="before")
        with pytest.raises(requests.ReadTimeout):
            client.session.post(f"{sandbox.url}/jobs/start", json={"agent_id": BOOKS}, timeout=0.05)
        assert sandbox.starts == 0
        fault.release()
        wait_for_start(sandbox)

    @pytest.mark.parametrize(("what", "starts"), [({"delay_before": 0.4}, 0), ({"delay_after": 0.4}, 1)])
    def test_a_delay_outlasts_a_timeout(self, client, sandbox, what, starts):
        sandbox.fault("POST", "/jobs/start", **what)
        with pytest.raises(requests.ReadTimeout):
            client.session.post(f"{sandbox.url}/jobs/start", json={"agent_id": BOOKS}, timeout=0.05)
        if starts:
            wait_for_start(sandbox)
        else:
            assert sandbox.starts == 0

    def test_what_is_held_goes_on_when_the_fault_is_removed(self, client, sandbox):
        fault = sandbox.fault("GET", "/jobs", hold="before")
        answers = []
        thread = threading.Thread(target=lambda: answers.append(client.get("/jobs").status_code))
        thread.start()
        fault.wait()
        sandbox.clear()
        thread.join()
        assert answers == [200]

    def test_waiting_for_a_fault_ends(self, sandbox):
        with pytest.raises(TimeoutError, match="has not struck"):
            sandbox.fault("GET", "/jobs", status=500).wait(timeout=0.05)

    def test_waiting_for_a_request(self, client, sandbox, finished):
        client.get(f"/jobs/{finished}")
        sandbox.wait_for_request("GET", "/jobs/*", timeout=10)
        with pytest.raises(TimeoutError, match="fewer than 2"):
            sandbox.wait_for_request("GET", "/jobs/{id}", count=2, timeout=0.05)


class TestBodies:
    @pytest.fixture
    def link(self, client, finished):
        return client.link(finished)

    @pytest.fixture
    def whole(self, link):
        return fetch(link).content

    @pytest.mark.parametrize("count", [0, 1, 1000])
    def test_cut(self, sandbox, link, whole, count):
        sandbox.download_fault(cut=count)
        answer = requests.get(link, stream=True, timeout=10)
        assert answer.headers["content-length"] == str(len(whole))
        assert answer.raw.read(count) == whole[:count]
        with pytest.raises(urllib3.exceptions.ProtocolError):
            answer.raw.read(1)
        assert fetch(link).content == whole

    def test_cut_while_much_is_still_to_be_written(self, sandbox, new_client, caplog):
        sandbox.set_agent(BOOKS, "a\n" + "1\n" * 6_000_000)
        link = new_client(sandbox).link(sandbox.add_older_jobs(BOOKS, 1)[0])
        sandbox.download_fault(cut=10_000_000)
        answer = requests.get(link, stream=True, timeout=10)
        time.sleep(0.2)
        assert len(answer.raw.read(10_000_000)) == 10_000_000
        with pytest.raises(urllib3.exceptions.ProtocolError):
            answer.raw.read(1)
        assert not [record for record in caplog.records if record.name.startswith("uvicorn")]

    def test_cut_of_a_body_without_a_length(self, sandbox, link):
        sandbox.downloads(gzip=True)
        sandbox.download_fault(cut=100)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.get(link, timeout=10)

    def test_cut_of_a_range(self, sandbox, link, whole):
        sandbox.download_fault(cut=50, after=1)
        fetch(link)
        answer = requests.get(link, headers={"Range": "bytes=100-"}, stream=True, timeout=10)
        assert answer.status_code == 206
        assert answer.raw.read(50) == whole[100:150]

    def test_slow(self, sandbox, link, whole):
        sandbox.add_fault(SlowBody("GET", "/**", host="downloads", bytes_per_second=40_000))
        began = time.monotonic()
        assert fetch(link).content == whole
        assert time.monotonic() - began >= len(whole) / 40_000 * 0.8


def test_the_server_complains_about_nothing(client, sandbox, finished, caplog):
    link = client.link(finished)
    for what in ({"drop": "after"}, {"cut": 5}):
        sandbox.download_fault(**what)
        with contextlib.suppress(requests.RequestException):
            fetch(link)
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("uvicorn", "asyncio"))] == []


def test_nothing_is_logged_about_requests(client, sandbox, caplog):
    # The log of whoever embeds the sandbox is no place for a key in a query.
    caplog.set_level("DEBUG")
    requests.get(f"{sandbox.url}/jobs?apikey={sandbox.key}", timeout=10)
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
