"""``agents``, ``jobs``, ``job``, ``stop`` and ``land``, against the sandbox."""

from __future__ import annotations

import pytest

BOOKS, RETAILERS = "45l0wewqzk", "w9qmlp5475"


def test_agents_are_listed_in_columns(sandbox, command):
    sandbox.set_agent(BOOKS, project_id=7, tags=["daily", "prices"])

    ran = command("agents")

    header, *lines = ran.out.splitlines()
    assert ran.status == 0
    assert header.split() == ["AGENT", "NAME", "TYPE", "PROJECT", "TAGS"]
    assert lines[0].split() == [BOOKS, "Books", "scraping", "7", "daily,", "prices"]
    assert len(lines) == 3


def test_agents_are_chosen_by_project_and_tag(sandbox, command):
    sandbox.set_agent(BOOKS, project_id=7, tags=["daily"])
    sandbox.set_agent(RETAILERS, project_id=7)

    def listed(*arguments):
        return [agent["agent_id"] for agent in command("agents", "--json", *arguments).json]

    assert listed("--project", "7") == [BOOKS, RETAILERS]
    assert listed("--tag", "daily") == [BOOKS]
    assert listed("--project", "7", "--tag", "weekly") == []
    assert command("agents", "--json", "--tag", "daily").json[0]["tags"] == ["daily"]


def test_jobs_are_listed_in_columns_newest_first(sandbox, command):
    older = sandbox.add_older_jobs(BOOKS, 2)

    ran = command("jobs")

    header, *lines = ran.out.splitlines()
    assert ran.status == 0
    assert header.split()[:6] == ["JOB", "AGENT", "STATUS", "PAGES", "PROCESSED", "FAILED"]
    assert [line.split()[:6] for line in lines] == [[str(job), BOOKS, "completed", "60", "60", "0"] for job in older]
    assert len({line.index(BOOKS) for line in lines}) == 1


def test_no_job_is_a_header_alone_and_an_empty_list(sandbox, command):
    assert len(command("jobs").out.splitlines()) == 1
    assert command("jobs", "--json").json == []


def test_jobs_are_chosen_by_agent_state_and_number(sandbox, command):
    older = sandbox.add_older_jobs(BOOKS, 3)
    active = sandbox.start_job(RETAILERS)
    sandbox.set_status(active, "running")

    def listed(*arguments):
        return [job["job_id"] for job in command("jobs", "--json", *arguments).json]

    assert listed() == [active, *older]
    assert listed("--agent", BOOKS) == older
    assert listed("--active") == [active]
    assert listed("--limit", "2") == [active, older[0]]


def test_a_job_is_shown_with_its_log(sandbox, command, finished_job):
    sandbox.add_log(finished_job, "ninety-nine of the pages", level="WARN")

    shown = command("job", finished_job)
    with_log = command("job", finished_job, "--logs")

    assert f"job_id: {finished_job}\nstatus: completed\n" in shown.out
    assert "ninety-nine" not in shown.out
    assert with_log.out.startswith(shown.out)
    assert "WARN ninety-nine of the pages" in with_log.out
    assert "logs" not in command("job", finished_job, "--json").json
    entries = command("job", finished_job, "--json", "--logs").json["logs"]
    assert (entries[-1]["level"], entries[-1]["message"]) == ("WARN", "ninety-nine of the pages")


def test_a_job_is_stopped(sandbox, command):
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(job_id, "running")

    ran = command("stop", job_id)

    assert ran.status == 0
    assert ran.out.startswith(f"Job {job_id} is stop")
    assert sandbox.stopped_jobs == [job_id]
    assert command("stop", job_id, "--json").json["job_id"] == job_id


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("a.csv", b"name,price"),
        ("a", b"name,price"),
        ("a.csv.gz", b"\x1f\x8b"),
        ("a.jsonl", b'{"name":'),
        ("a.parquet", b"PAR1"),
        ("a.log", b"20"),
    ],
)
def test_the_end_of_the_path_says_what_is_landed(sandbox, command, finished_job, tmp_path, name, begins):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")

    ran = command("land", finished_job, tmp_path / name)

    assert ran.status == 0, ran.err
    assert f"path: {tmp_path / name}\n" in ran.out
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert ("rows: 60\n" in ran.out) == (name != "a.log")


def test_a_collection_is_landed_in_a_folder(sandbox, command, tmp_path):
    [job_id] = sandbox.add_older_jobs(RETAILERS, 1)

    landed = command("land", job_id, f"{tmp_path}/", "--collection", "2", "--json").json

    assert landed["path"] == f"{tmp_path}/{RETAILERS}-{job_id}-2.csv"
    assert landed["collection"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("job", "7"), "job: GET /jobs/7: HTTP 404"),
        (("job", "seven"), "job: job_id 'seven' is not the id of a job"),
        (("agents", "--project", "7"), "agents: GET /projects/7: HTTP 404"),
        (("agents", "--project", "x"), "agents: project_id 'x' is not a whole number of at least 1"),
        (("jobs", "--limit", "0"), "jobs: --limit '0' is not a whole number of at least 1"),
        (("jobs", "--conn-id", "nowhere"), "jobs: There is no connection 'nowhere'"),
        (("land", "7", "a.xlsx"), "land: path a.xlsx ends in .xlsx"),
        (("land", "7", "a.csv"), "land: GET /jobs/7: HTTP 404"),
    ],
)
def test_an_error_is_a_line_on_stderr_and_status_1(sandbox, command, arguments, said):
    ran = command(*arguments)

    assert (ran.status, ran.out) == (1, "")
    [line] = [line for line in ran.err.splitlines() if line.startswith(f"{arguments[0]}: ")]  # beside Airflow's log
    assert line.startswith(said)


@pytest.mark.parametrize(
    "value", ["agenty://:s3cr3t-key@api.agenty.com:p0rt", '{"conn_type": "agenty", "password": "s3cr3t-key']
)
def test_a_connection_that_airflow_can_not_read_is_not_shown(sandbox, command, monkeypatch, value):
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", value)

    ran = command("jobs")

    assert ran.status == 1
    assert "jobs: " in ran.err
    assert "s3cr3t" not in ran.out + ran.err


def test_what_is_asked_wrongly_is_shown_with_the_usage(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command("job")

    assert ended.value.code == 2
    assert "usage: python -m airflow_provider_agenty job" in capsys.readouterr().err
