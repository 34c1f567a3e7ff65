"""The life of jobs: states in their order, slots, what tests can do to them."""

from __future__ import annotations

import re

import pytest

from airflow_provider_agenty.sandbox import Agent, Content, Plan, Sandbox

BOOKS = "45l0wewqzk"
RETAILERS = "w9qmlp5475"


def states_seen(client, clock, job_id, seconds):
    seen = []
    for _ in range(seconds):
        status = client.get(f"/jobs/{job_id}").json()["status"]
        if status not in seen[-1:]:
            seen.append(status)
        clock.now += 1
    return seen


def test_all_states_come_in_their_order(client, clock):
    job_id = client.start().json()["job_id"]
    states = states_seen(client, clock, job_id, 110)
    assert " ".join(states) == "submitted starting queued started running completing completed"


def test_pages_progress_while_running(client, clock):
    job_id = client.start().json()["job_id"]
    processed = []
    for _ in range(110):
        job = client.get(f"/jobs/{job_id}").json()
        if job["status"] == "running":
            processed.append(job["pages_processed"])
            assert job["pages_total"] == 60
        clock.now += 1
    assert processed == sorted(processed)
    assert len(set(processed)) > 40
    done = client.get(f"/jobs/{job_id}").json()
    assert (done["pages_processed"], done["pages_succeeded"], done["pages_failed"]) == (60, 60, 0)


def test_jobs_beyond_the_limit_are_queued_until_a_slot_is_free(clock, new_client):
    with Sandbox(seconds=100, parallel_jobs=2, clock=clock) as sandbox:
        client = new_client(sandbox)
        first, second, third = (client.start().json()["job_id"] for _ in range(3))
        clock.now += 50
        assert [sandbox.job(each)["status"] for each in (first, second, third)] == ["running", "running", "queued"]
        clock.now += 55
        assert [sandbox.job(each)["status"] for each in (first, second, third)] == ["completed", "completed", "running"]
        clock.now += 45
        assert sandbox.job(third)["status"] == "running"
        clock.now += 45
        assert sandbox.job(third)["status"] == "completed"


def test_a_stop_frees_the_slot(clock, new_client):
    with Sandbox(seconds=100, parallel_jobs=1, clock=clock) as sandbox:
        client = new_client(sandbox)
        first, second = (client.start().json()["job_id"] for _ in range(2))
        clock.now += 40
        assert sandbox.job(second)["status"] == "queued"
        client.get(f"/jobs/{first}/stop")
        clock.now += 6
        assert sandbox.job(first)["status"] == "stopped"
        assert sandbox.job(second)["status"] == "started"


def test_a_queued_job_that_is_stopped_never_runs(clock, new_client):
    with Sandbox(seconds=100, parallel_jobs=1, clock=clock) as sandbox:
        client = new_client(sandbox)
        client.start()
        second = client.start().json()["job_id"]
        clock.now += 40
        assert client.get(f"/jobs/{second}/stop").json()["status"] == "stopped"
        clock.now += 1000
        job = sandbox.job(second)
        assert (job["status"], job["started_at"], job["pages_total"]) == ("stopped", None, 0)


def test_stopping_comes_before_stopped_and_pages_stay(client, clock):
    job_id = client.start().json()["job_id"]
    clock.now += 55
    assert client.get(f"/jobs/{job_id}/stop").json()["status"] == "stopping"
    pages = client.get(f"/jobs/{job_id}").json()["pages_processed"]
    clock.now += 6
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["pages_processed"]) == ("stopped", pages)
    assert 0 < pages < 60


def test_a_stop_changes_nothing_about_a_finished_job(client, clock):
    job_id = client.start().json()["job_id"]
    clock.now += 100
    before = client.get(f"/jobs/{job_id}").json()
    answer = client.get(f"/jobs/{job_id}/stop")
    assert answer.status_code == 400
    assert answer.json() == before
    assert client.get(f"/jobs/{job_id}").json() == before


def test_an_aborted_job_has_an_error_and_says_so_in_its_log(client, clock, sandbox):
    sandbox.plan(agent_id=BOOKS, outcome="aborted", error="Page credits exhausted", log=[("WARN", "slow site")])
    job_id = client.start().json()["job_id"]
    states = states_seen(client, clock, job_id, 70)
    job = client.get(f"/jobs/{job_id}").json()
    assert states[-2:] == ["running", "aborted"]
    assert job["error"] == "Page credits exhausted"
    assert 0 < job["pages_processed"] < job["pages_total"]
    log = sandbox.log(job_id)
    assert any(line.endswith(f"ERROR Job {job_id} aborted: Page credits exhausted") for line in log)
    assert any(line.endswith("WARN slow site") for line in log)
    assert log[-1].startswith("    ")


def test_a_plan_holds_for_as_many_jobs_as_it_says(client, clock, sandbox):
    sandbox.plan(times=1, outcome="failed", error="broken", seconds=10)
    ids = [client.start().json()["job_id"] for _ in range(2)]
    clock.now += 100
    assert [sandbox.job(each)["status"] for each in ids] == ["failed", "completed"]


def test_failed_pages_cost_nothing(client, clock, sandbox):
    sandbox.plan(pages=20, failed_pages=5)
    job_id = client.start().json()["job_id"]
    clock.now += 100
    job = sandbox.job(job_id)
    assert (job["pages_processed"], job["pages_succeeded"], job["pages_failed"], job["pages_credit"]) == (20, 15, 5, 15)


def test_a_job_is_held_in_the_state_that_was_set(client, clock, sandbox):
    job_id = client.start().json()["job_id"]
    sandbox.set_status(job_id, "running", pages_processed=3, pages_total=9)
    clock.now += 10_000
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["pages_processed"], job["pages_total"]) == ("running", 3, 9)
    sandbox.set_status(job_id, "some new state")
    assert client.get(f"/jobs/{job_id}").json()["status"] == "some new state"
    sandbox.set_status(job_id, "completed")
    assert client.get(f"/jobs/{job_id}/result").json()["total"] == 60


def test_a_job_that_is_put_into_a_state_has_been_through_those_before(client, sandbox):
    job_id = client.start().json()["job_id"]
    sandbox.set_status(job_id, "completed")
    job = sandbox.job(job_id)
    assert (job["pages_total"], job["pages_succeeded"]) == (60, 60)
    assert None not in (job["started_at"], job["completed_at"])
    assert client.get("/jobs").json()["result"][0]["run_duration"] == "00:00:00"
    assert any("Total inputs: 60" in line for line in sandbox.log(job_id))


def test_manual_jobs_stay_submitted_and_stop_at_once(new_client, clock):
    with Sandbox(manual=True, clock=clock) as sandbox:
        client = new_client(sandbox)
        job_id = client.start().json()["job_id"]
        clock.now += 10_000
        assert sandbox.job(job_id)["status"] == "submitted"
        sandbox.set_status(job_id, "running")
        assert client.get(f"/jobs/{job_id}/stop").json()["status"] == "stopped"


def test_a_script_takes_a_step_each_time_the_job_is_shown(client, sandbox):
    sandbox.script(["queued", {"status": "running", "pages_processed": 7}, "completed"], agent_id=BOOKS)
    other = client.start(RETAILERS).json()["job_id"]
    job_id = client.start().json()["job_id"]
    assert sandbox.job(job_id)["status"] == "submitted"
    seen = [client.get(f"/jobs/{job_id}").json() for _ in range(2)]
    listed = client.get("/jobs", params={"agent_id": BOOKS, "limit": 1}).json()["result"][0]
    assert [job["status"] for job in (*seen, listed)] == ["queued", "running", "completed"]
    assert seen[1]["pages_processed"] == 7
    assert client.get(f"/jobs/{job_id}").json()["status"] == "completed"
    assert sandbox.job(other)["status"] == "submitted"
    without_script = client.start().json()["job_id"]
    assert client.get(f"/jobs/{without_script}").json()["status"] == "submitted"


def test_a_stop_ends_a_script(client, sandbox):
    sandbox.script(["running", "completed"])
    job_id = client.start().json()["job_id"]
    assert client.get(f"/jobs/{job_id}").json()["status"] == "running"
    client.get(f"/jobs/{job_id}/stop")
    assert client.get(f"/jobs/{job_id}").json()["status"] == "stopped"


def test_jobs_behind_the_clients_back_are_not_counted_as_starts(client, sandbox):
    ours = client.start().json()["job_id"]
    theirs = sandbox.start_job(BOOKS, is_scheduled=True)
    assert sandbox.starts == 1
    assert sandbox.started_jobs == [ours]
    assert theirs > ours
    assert [job["is_scheduled"] for job in sandbox.jobs] == [False, True]


def test_thousands_of_older_jobs_lie_below_the_others(client, sandbox):
    newest = client.start().json()["job_id"]
    added = sandbox.add_older_jobs(BOOKS, 3000)
    added += sandbox.add_older_jobs(BOOKS, 2000, status="stopped")
    assert len(set(added)) == 5000
    assert newest > max(added)
    page = client.get("/jobs", params={"limit": 2}).json()
    assert page["total"] == 5001
    assert [job["job_id"] for job in page["result"]] == [newest, added[0]]
    last = client.get("/jobs", params={"offset": 5000}).json()["result"]
    assert [(job["job_id"], job["status"]) for job in last] == [(added[-1], "stopped")]
    ids = [each["job_id"] for each in sandbox.jobs]
    assert ids == sorted(ids)
    created = [each["created_at"] for each in sandbox.jobs]
    assert created == sorted(created)


def test_a_running_job_has_a_part_of_its_result(client, clock):
    job_id = client.start().json()["job_id"]
    clock.now += 55
    total = client.get(f"/jobs/{job_id}/result").json()["total"]
    assert 0 < total < 60
    clock.now += 50
    assert client.get(f"/jobs/{job_id}/result").json()["total"] == 60


def test_the_result_is_not_final_while_completing(client, clock):
    job_id = client.start(RETAILERS).json()["job_id"]
    clock.now += 95
    assert client.get(f"/jobs/{job_id}").json()["status"] == "completing"
    completing = client.get(f"/jobs/{job_id}/result").json()
    clock.now += 10
    completed = client.get(f"/jobs/{job_id}/result").json()
    assert completing["total"] == completed["total"] + 1
    assert completing["result"][-1]["Retailer Name"] == "TOTAL"


def test_lines_of_a_log_stay_where_they_are(client, clock, sandbox):
    job_id = client.start().json()["job_id"]
    before: list[str] = []
    for step in range(60):
        clock.now += 1
        if step == 30:
            sandbox.add_log(job_id, "Unexpected page\n  <html>", level="WARN")
        if step == 40:
            client.get(f"/jobs/{job_id}/stop")
        log = sandbox.log(job_id)
        assert log[: len(before)] == before
        before = log
    entry = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARN|ERROR) .+")
    assert [line for line in before if not entry.fullmatch(line)] == ["  <html>"]
    assert before[-1].endswith(f"INFO Job {job_id} stopped")


def test_lines_of_a_held_jobs_log_stay_where_they_are(client, clock, sandbox):
    job_id = client.start().json()["job_id"]
    before: list[str] = []
    for status in ("started", "running", "completing", "completed"):
        sandbox.add_log(job_id, f"before {status}")
        assert sandbox.log(job_id)[: len(before)] == before
        sandbox.set_status(job_id, status)
        assert sandbox.log(job_id)[: len(before)] == before
        before = sandbox.log(job_id)
    assert before[-1].endswith("completed successfully")


def test_a_running_job_that_is_held_keeps_its_pages_and_its_log(client, clock, sandbox):
    job_id = client.start().json()["job_id"]
    clock.now += 55
    before, log = sandbox.job(job_id), sandbox.log(job_id)
    sandbox.set_status(job_id, "running")
    clock.now += 1000
    assert sandbox.job(job_id) == before
    assert sandbox.log(job_id) == log
    sandbox.set_status(job_id, "aborted", error="Broken")
    assert sandbox.job(job_id)["pages_processed"] == before["pages_processed"] > 0
    assert sandbox.log(job_id)[: len(log)] == log
    assert any("aborted: Broken" in line for line in sandbox.log(job_id))


def test_agents_in_code_may_say_how_their_jobs_go(clock, new_client):
    agent = Agent("q1w2e3r4t5", {1: Content(b"a\n1\n")}, name="One", type="crawling", plan=Plan(pages=3, seconds=10))
    with Sandbox({"q1w2e3r4t5": agent}, seconds=100, clock=clock) as sandbox:
        client = new_client(sandbox)
        job_id = client.start("q1w2e3r4t5").json()["job_id"]
        clock.now += 10
        job = client.get(f"/jobs/{job_id}").json()
        assert (job["status"], job["pages_total"], job["type"]) == ("completed", 3, "crawling")


@pytest.mark.parametrize("command", [("set_status", 1, "running"), ("add_log", 1, "x"), ("job", 1), ("log", 1)])
def test_an_unknown_job_is_named(sandbox, command):
    name, *arguments = command
    with pytest.raises(LookupError, match="no job 1"):
        getattr(sandbox, name)(*arguments)


@pytest.mark.parametrize("plan", [{"outcome": "won"}, {"pages": -1}, {"pages": 2, "failed_pages": 3}])
def test_a_plan_that_cannot_be_is_refused(sandbox, plan):
    with pytest.raises(ValueError, match=r"completed|pages"):
        sandbox.plan(**plan)


HALF = "Could not read: \ud83d"
HUGE = 2**70


def put_bad_text(sandbox, client, way):
    """Let a job have half an emoji in its error, and a number that no 64 bits hold."""
    if way == "plan":
        sandbox.plan(outcome="aborted", error=HALF, seconds=0)
        return client.start().json()["job_id"]
    if way == "script":
        sandbox.script([{"status": "aborted", "error": HALF, "pages_processed": HUGE}])
        return client.start().json()["job_id"]
    job_id = client.start().json()["job_id"]
    sandbox.set_status(job_id, "aborted", error=HALF, pages_processed=HUGE)
    return job_id


@pytest.mark.parametrize("way", ["plan", "script", "set_status"])
def test_text_that_is_none_is_sent_as_json_can_say_it(sandbox, client, way):
    job_id = put_bad_text(sandbox, client, way)
    for path in (f"/jobs/{job_id}", "/jobs", f"/jobs/{job_id}/stop"):
        answer = client.get(path)
        assert b'"error":"Could not read: \\ud83d"' in answer.content
        job = answer.json()
        assert job.get("result", [job])[0]["error"] == HALF
    assert [each["error"] for each in sandbox.jobs] == [sandbox.job(job_id)["error"]] == [HALF]
    if way != "plan":
        assert client.get(f"/jobs/{job_id}").json()["pages_processed"] == HUGE


def test_text_that_is_none_is_in_the_log_too(sandbox, client):
    job_id = put_bad_text(sandbox, client, "plan")
    sandbox.add_log(job_id, HALF)
    assert b"Could not read: \xed\xa0\xbd\n" in client.get(f"/jobs/{job_id}/logs").content
    exported = client.session.get(client.link(job_id, type="logs"), headers={"X-Agenty-ApiKey": None}, timeout=10)
    assert exported.content == client.get(f"/jobs/{job_id}/logs").content
    assert any(line.endswith(HALF) for line in sandbox.log(job_id))


def test_other_text_is_sent_as_it_is(client, sandbox):
    sandbox.plan(outcome="aborted", error="£ 😀", seconds=0)
    assert "£ 😀".encode() in client.get(f"/jobs/{client.start().json()['job_id']}").content


@pytest.mark.parametrize("value", [object(), b"bytes", 10**5000, {1, 2}], ids=["object", "bytes", "digits", "set"])
def test_what_json_can_not_say_is_refused_where_it_is_given(sandbox, client, value):
    job_id = client.start().json()["job_id"]
    with pytest.raises((TypeError, ValueError)):
        sandbox.set_status(job_id, "running", error=value)
    with pytest.raises((TypeError, ValueError)):
        sandbox.script([{"status": "running", "error": value}])
    with pytest.raises((TypeError, ValueError)):
        sandbox.plan(error=value)
    assert client.get("/jobs").status_code == 200


def test_the_log_of_a_job_with_more_pages_than_can_be_logged_ends(sandbox, client):
    sandbox.plan(pages=HUGE, seconds=0)
    job_id = client.start().json()["job_id"]
    assert client.get(f"/jobs/{job_id}").json()["pages_total"] == HUGE
    assert "Running page 1 of" in client.get(f"/jobs/{job_id}/logs").text
