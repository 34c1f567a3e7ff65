"""The Jobs API as documented, with what is odd about it."""

from __future__ import annotations

import json
import re

import pytest
import requests

from airflow_provider_agenty.sandbox import Sandbox

BOOKS = "45l0wewqzk"
RETAILERS = "w9qmlp5475"
JOB_FIELDS = (
    "job_id account_id agent_id type status priority pages_total pages_processed pages_succeeded pages_failed "
    "pages_credit created_at started_at completed_at stopped_at is_scheduled queue_time run_duration error ping_at "
    "assigned_worker_id running_worker_id"
)
SEVEN_DIGITS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z")
NO_DIGITS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_start_answers_with_the_documented_job_object(client):
    answer = client.start()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    job = answer.json()
    assert " ".join(job) == JOB_FIELDS
    assert isinstance(job["job_id"], int)
    assert (job["agent_id"], job["type"], job["status"], job["priority"]) == (BOOKS, "scraping", "submitted", 5)
    assert [job[name] for name in job if name.startswith("pages_")] == [0] * 5
    assert SEVEN_DIGITS.fullmatch(job["created_at"])
    assert job["is_scheduled"] is False
    assert job["running_worker_id"] == 1
    for name in ("started_at", "completed_at", "stopped_at", "queue_time", "run_duration", "error", "ping_at"):
        assert job[name] is None


def test_status_has_no_digits_after_the_seconds_and_no_durations(client, clock):
    job_id = client.start().json()["job_id"]
    clock.now += 200
    job = client.get(f"/jobs/{job_id}").json()
    assert " ".join(job) == JOB_FIELDS
    for name in ("created_at", "started_at", "completed_at"):
        assert NO_DIGITS.fullmatch(job[name])
    assert (job["stopped_at"], job["queue_time"], job["run_duration"]) == (None, None, None)


def test_stop_answers_400_with_the_complete_job_object(client):
    job_id = client.start().json()["job_id"]
    answer = client.get(f"/jobs/{job_id}/stop")
    assert answer.status_code == 400
    job = answer.json()
    assert " ".join(job) == JOB_FIELDS
    assert job["status"] == "stopped"
    assert NO_DIGITS.fullmatch(job["created_at"])
    assert SEVEN_DIGITS.fullmatch(job["stopped_at"])
    assert SEVEN_DIGITS.fullmatch(job["completed_at"])


def test_lists_have_durations_and_no_worker(client, clock):
    client.start()
    clock.now += 200
    page = client.get("/jobs").json()
    assert list(page) == ["total", "limit", "offset", "returned", "result"]
    job = page["result"][0]
    assert " ".join(job) == JOB_FIELDS
    assert job["queue_time"] == "00:00:15"
    assert job["run_duration"] == "00:01:25"
    assert job["running_worker_id"] is None


def test_jobs_are_listed_newest_first_in_pages(client):
    ids = [client.start(agent).json()["job_id"] for agent in (BOOKS, RETAILERS, BOOKS, BOOKS)]
    assert [job["job_id"] for job in client.get("/jobs").json()["result"]] == ids[::-1]
    assert client.get("/jobs").json()["limit"] == 1000
    page = client.get("/jobs", params={"agent_id": BOOKS, "limit": 2, "offset": 1}).json()
    assert (page["total"], page["limit"], page["offset"], page["returned"]) == (3, 2, 1, 2)
    assert [job["job_id"] for job in page["result"]] == [ids[2], ids[0]]
    oldest_first = client.get("/jobs", params={"sort": "job_id", "order": "asc"}).json()["result"]
    assert [job["job_id"] for job in oldest_first] == ids
    by_agent = client.get("/jobs", params={"sort": "agent_id", "order": "asc"}).json()["result"]
    assert [job["agent_id"] for job in by_agent] == [BOOKS, BOOKS, BOOKS, RETAILERS]
    by_start = client.get("/jobs", params={"sort": "started_at"}).json()
    assert by_start["returned"] == 4


def test_job_ids_of_an_account_are_not_next_to_each_other(client):
    first, second = (client.start().json()["job_id"] for _ in range(2))
    assert second > first + 1


def test_result_rows_are_the_agents_fields(client, finished):
    answer = client.get(f"/jobs/{finished}/result")
    page = answer.json()
    assert list(page) == ["total", "limit", "offset", "returned", "result"]
    assert (page["total"], page["limit"], page["offset"], page["returned"]) == (60, 1000, 0, 60)
    assert list(page["result"][0]) == ["name", "price", "image", "details_page_url"]
    assert page["result"][0]["price"].startswith("£")
    assert "£".encode() in answer.content


def test_result_has_headers_with_spaces_and_quoted_line_ends_and_collections(client, sandbox):
    job_id = client.start(RETAILERS).json()["job_id"]
    sandbox.set_status(job_id, "completed")
    rows = client.get(f"/jobs/{job_id}/result").json()["result"]
    assert list(rows[0]) == ["Rank", "Retailer Name", "# Stores", "Revenue", "Note"]
    assert any("\n" in row["Note"] for row in rows)
    second = client.get(f"/jobs/{job_id}/result", params={"collection": 2}).json()
    assert list(second["result"][0]) == ["Retailer Name", "Town", "Opens at"]
    default = client.get(f"/jobs/{job_id}/result", params={"modified": 0}).json()
    assert default["total"] == len(rows) + 1


def test_the_servers_page_cap_is_below_the_limit_that_it_accepts(new_client):
    rows = [{"n": str(number)} for number in range(2600)]
    with Sandbox({"q1w2e3r4t5": rows}) as sandbox:
        client = new_client(sandbox)
        job_id = client.start("q1w2e3r4t5").json()["job_id"]
        sandbox.set_status(job_id, "completed")
        page = client.get(f"/jobs/{job_id}/result", params={"limit": 2500}).json()
        assert (page["total"], page["limit"], page["returned"]) == (2600, 1000, 1000)
        last = client.get(f"/jobs/{job_id}/result", params={"limit": 2500, "offset": 2000}).json()
        assert (last["returned"], last["result"][-1]) == (600, {"n": "2599"})
        beyond = client.get(f"/jobs/{job_id}/result", params={"offset": 5000}).json()
        assert (beyond["total"], beyond["returned"], beyond["result"]) == (2600, 0, [])
    with Sandbox({"q1w2e3r4t5": rows}, page_cap=2500) as sandbox:
        client = new_client(sandbox)
        job_id = client.start("q1w2e3r4t5").json()["job_id"]
        sandbox.set_status(job_id, "completed")
        assert client.get(f"/jobs/{job_id}/result", params={"limit": 2500}).json()["returned"] == 2500


def test_rows_of_one_result_may_have_different_keys(new_client):
    with Sandbox({"q1w2e3r4t5": b"\xef\xbb\xbfa,b\r\n1\r\n\r\n2,3,4\r\n"}) as sandbox:
        client = new_client(sandbox)
        job_id = client.start("q1w2e3r4t5").json()["job_id"]
        sandbox.set_status(job_id, "completed")
        assert client.get(f"/jobs/{job_id}/result").json()["result"] == [{"a": "1"}, {"a": "2", "b": "3"}]


def test_logs_are_plain_text_counted_in_lines(client, clock):
    job_id = client.start().json()["job_id"]
    clock.now += 200
    answer = client.get(f"/jobs/{job_id}/logs")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert len(lines) > 100
    page = client.get(f"/jobs/{job_id}/logs", params={"offset": 3, "limit": 5}).text.splitlines()
    assert page == lines[3:8]
    assert client.get(f"/jobs/{job_id}/logs", params={"offset": 10_000}).text == ""
    described = next(line for line in lines if " INFO Job: " in line)
    assert json.loads(described.partition("Job: ")[2])["job_id"] == job_id


def test_agents_have_a_name_and_a_type(client):
    agent = client.get(f"/agents/{BOOKS}").json()
    assert (agent["agent_id"], agent["name"], agent["type"]) == (BOOKS, "Books", "scraping")
    assert client.get("/agents").json()["total"] == 3


def test_agents_come_in_pages_with_project_and_tags(client, sandbox):
    sandbox.set_agent(BOOKS, project_id=7, tags=["daily"])
    sandbox.set_agent("new", [{"a": "1"}], name="New", type="crawling", project_id=7)
    page = client.get("/agents", params={"limit": 2, "offset": 2}).json()
    assert (page["total"], page["limit"], page["offset"], page["returned"]) == (4, 2, 2, 2)
    agent = client.get("/agents/new").json()
    assert page["result"][-1] == agent
    assert (agent["name"], agent["type"], agent["project_id"], agent["tags"]) == ("New", "crawling", 7, [])
    assert agent["config"]["collections"] == [{"name": "Collection 1", "fields": [{"name": "a"}]}]
    assert client.get(f"/agents/{BOOKS}").json()["tags"] == ["daily"]


def test_projects_are_those_of_the_agents(client, sandbox):
    assert client.get("/projects").json()["total"] == 0
    sandbox.set_agent(BOOKS, project_id=7)
    assert [project["project_id"] for project in client.get("/projects").json()["result"]] == [7]
    project = client.get("/projects/7").json()
    assert project["name"] == "Project 7"
    assert [agent["agent_id"] for agent in project["agents"]] == [BOOKS]
    assert client.get("/projects/8").status_code == 404


def test_what_is_not_said_of_an_agent_stays(client, sandbox):
    sandbox.set_agent(BOOKS, tags=["daily"])
    sandbox.set_agent(BOOKS, b"a\r\n1\r\n")
    agent = client.get(f"/agents/{BOOKS}").json()
    assert (agent["name"], agent["tags"]) == ("Books", ["daily"])
    assert agent["config"]["collections"][0]["fields"] == [{"name": "a"}]
    with pytest.raises(TypeError):
        sandbox.set_agent(BOOKS, colour="red")


@pytest.mark.parametrize("kind", ["manual", "url"])
def test_urls_as_input_become_pages_and_rows(client, clock, kind):
    urls = [f"https://example.com/{number}" for number in range(70)]
    answer = client.put(f"/inputs/{BOOKS}", {"type": kind, "data": urls})
    assert (answer.status_code, answer.json()["status_code"]) == (200, 200)
    assert client.get(f"/inputs/{BOOKS}").json() == {"type": kind, "data": urls}
    job_id = client.start().json()["job_id"]
    client.put(f"/inputs/{BOOKS}", {"type": "manual", "data": ["https://example.com/later"]})
    clock.now += 200
    assert client.get(f"/jobs/{job_id}").json()["pages_total"] == 70
    rows = client.get(f"/jobs/{job_id}/result").json()["result"]
    assert [row["url"] for row in rows] == urls
    assert rows[0]["price"].startswith("£")
    landed = requests.get(client.link(job_id), timeout=10).text
    assert landed.count("https://example.com/") == 70
    assert any(urls[69] in line for line in client.get(f"/jobs/{job_id}/logs").text.splitlines())


def test_another_agents_result_can_be_the_input(client, clock):
    body = {"type": "agent", "id": BOOKS, "collection": 1, "field": "details_page_url"}
    assert client.put(f"/inputs/{RETAILERS}", body).status_code == 200
    assert client.get(f"/inputs/{RETAILERS}").json() == {"data": [], **body}
    job_id = client.start(RETAILERS).json()["job_id"]
    clock.now += 200
    page = client.get(f"/jobs/{job_id}/result").json()
    assert page["total"] == 60
    assert page["result"][0]["url"].startswith("https://books.example.com/catalogue/")


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"type": "psychic"},
        {"type": "manual"},
        {"type": "manual", "data": [1]},
        {"type": "manual", "data": ["  "]},
        {"type": "list", "id": "x"},
        {"type": "agent", "id": "x", "field": "y", "collection": 11},
    ],
)
def test_an_input_that_cannot_be_is_refused(client, body):
    answer = client.put(f"/inputs/{BOOKS}", body)
    assert answer.status_code == 400
    assert answer.json()["details"][0]["error_message"]


class TestAuthentication:
    @pytest.mark.parametrize("name", ["apikey", "apiKey", "APIKEY"])
    def test_the_key_may_be_a_query_parameter(self, sandbox, name):
        answer = requests.get(f"{sandbox.url}/jobs", params={name: sandbox.key}, timeout=10)
        assert answer.status_code == 200
        assert sandbox.requests[-1].key_in == "query"

    @pytest.mark.parametrize("name", ["X-Agenty-ApiKey", "x-agenty-apikey"])
    def test_the_key_may_be_a_header(self, sandbox, name):
        assert requests.get(f"{sandbox.url}/jobs", headers={name: sandbox.key}, timeout=10).status_code == 200
        assert sandbox.requests[-1].key_in == "header"

    @pytest.mark.parametrize("headers", [{}, {"X-Agenty-ApiKey": "wrong"}, {"Authorization": "Bearer x"}])
    def test_no_key_and_a_wrong_one_are_401(self, sandbox, headers):
        for method, path in (("GET", "/jobs"), ("POST", "/jobs/start"), ("GET", "/nowhere")):
            answer = requests.request(method, sandbox.url + path, headers=headers, timeout=10)
            assert answer.status_code == 401
            assert answer.json()["message"]
        assert sandbox.starts == 0

    def test_every_sandbox_has_a_key_of_its_own(self):
        assert Sandbox().key != Sandbox().key


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("/jobs/abc", "job_id"),
            ("/jobs/1e3", "job_id"),
            ("/jobs/-1/stop", "job_id"),
            ("/jobs?limit=0", "limit"),
            ("/jobs?limit=1001", "limit"),
            ("/jobs?limit=x", "limit"),
            ("/jobs?offset=-1", "offset"),
            ("/jobs?offset=%D9%A3", "offset"),
            ("/jobs?order=up", "order"),
            ("/jobs?agent_id=a/b", "agent_id"),
            ("/jobs/JOB/result?limit=2501", "limit"),
            ("/jobs/JOB/result?offset=1.5", "offset"),
            ("/jobs/JOB/result?collection=0", "collection"),
            ("/jobs/JOB/result?collection=11", "collection"),
            ("/jobs/JOB/result?modified=2", "modified"),
            ("/jobs/JOB/logs?limit=0", "limit"),
            ("/jobs/JOB/export?type=cake", "type"),
            ("/jobs/JOB/export?collection=0", "collection"),
            ("/jobs/JOB/export?filename=a/b", "filename"),
            ("/jobs/JOB/export?filename=%00", "filename"),
        ],
    )
    def test_bad_parameters_are_400_and_named(self, client, finished, path, says):
        answer = client.get(path.replace("JOB", str(finished)))
        assert answer.status_code == 400
        assert says in answer.json()["details"][0]["error_message"]

    def test_sorting_by_what_is_no_field_is_400(self, client, finished):
        assert client.get("/jobs?sort=cake").status_code == 400

    @pytest.mark.parametrize(
        "path",
        [
            "/jobs/5",
            "/jobs/5/stop",
            "/jobs/999999999999999999/result",
            "/jobs/JOB/result?collection=3",
            "/jobs/JOB/export?collection=3",
            "/jobs/JOB/nothing",
            "/agents/nosuch",
            "/inputs/nosuch",
            "/apikeys",
            "/apikeys/1/reset",
            "/",
            "",
        ],
    )
    def test_what_does_not_exist_is_404(self, client, finished, path):
        answer = client.get(path.replace("JOB", str(finished)))
        assert answer.status_code == 404
        assert answer.json()["message"]

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"agent_id": 5}', b'{"agent_id": "a b"}'])
    def test_a_start_without_a_usable_agent_id_is_400(self, client, sandbox, data):
        answer = client.session.post(f"{sandbox.url}/jobs/start", data=data, timeout=10)
        assert answer.status_code == 400
        assert sandbox.starts == 0

    def test_a_start_of_an_unknown_agent_is_404(self, client, sandbox):
        assert client.start("nosuchone1").status_code == 404
        assert sandbox.starts == 0

    def test_a_method_that_is_not_meant_is_405(self, client, sandbox):
        answer = client.session.delete(f"{sandbox.url}/jobs/start", timeout=10)
        assert (answer.status_code, answer.json()["status_code"]) == (405, 405)


class TestStop:
    def test_stop_may_answer_200(self, new_client):
        with Sandbox(stop_status=200) as sandbox:
            client = new_client(sandbox)
            job_id = client.start().json()["job_id"]
            assert client.get(f"/jobs/{job_id}/stop").status_code == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seconds": -1}, "seconds"),
        ({"parallel_jobs": 0}, "parallel_jobs"),
        ({"page_cap": 0}, "page_cap"),
        ({"agents": "/nonexistent"}, "folder"),
        ({"agents": {"a b": b""}}, "agent id"),
        ({"agents": {"a": {11: b""}}}, "collection"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Sandbox(**options)
