"""The traps in Agenty's documented answers, by number."""

from __future__ import annotations

import ast
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_agenty
from airflow_provider_agenty.exceptions import AgentyError, AgentyRequestError, AgentyUnavailableError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox
from tests.sandbox_faults import Reworded

BOOKS = "45l0wewqzk"


def page(total: int, *result: Any) -> dict[str, Any]:
    return {"total": total, "limit": 1000, "offset": 0, "returned": len(result), "result": list(result)}


@pytest.mark.agenty_sandbox(seconds=60)
def test_trap_01_stop_answers_400_with_a_job(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = sandbox.start_job(BOOKS)

    job = hook.stop_job(job_id)

    assert sandbox.requests[-1].status == 400
    assert (job.job_id, job.status) == (job_id, "stopped")


def test_trap_01_stop_that_answers_400_without_a_job_is_an_error(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int
) -> None:
    sandbox.fault("GET", "/jobs/{id}/stop", status=400, body={"message": "Validation failed"})

    with pytest.raises(AgentyRequestError, match="Validation failed"):
        hook.stop_job(finished_job)


@pytest.mark.parametrize("status", [200, 202, 409, 422])
def test_trap_01_stop_may_answer_with_a_job_and_another_status(status: int, connect: Any) -> None:
    with Sandbox(stop_status=status) as sandbox:
        job_id = sandbox.add_older_jobs(BOOKS, 1)[0]

        assert connect(host=sandbox.url, password=sandbox.key).stop_job(job_id).job_id == job_id


def test_trap_02_created_at_has_seven_fractional_digits_or_none(sandbox: Sandbox, hook: AgentyHook) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    started = hook.start_job(BOOKS)
    seen = hook.get_job(started.job_id)

    assert len(started.raw["created_at"].partition(".")[2]) == len("2362494Z")
    assert "." not in seen.raw["created_at"]
    assert started.created_at is not None
    assert seen.created_at is not None
    assert before <= started.created_at <= datetime.now(UTC)
    assert seen.created_at == started.created_at.replace(microsecond=0)


def test_trap_03_durations_are_clock_times_or_null(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    sandbox.set_status(finished_job, "completed", queue_time="00:03:18", run_duration=None)
    [job] = hook.list_jobs()

    assert job.queue_time == timedelta(minutes=3, seconds=18)
    assert job.run_duration is None


@pytest.mark.agenty_sandbox(page_cap=1000, agents={BOOKS: [{"n": str(number)} for number in range(2300)]})
def test_trap_04_the_server_caps_the_page_of_a_result(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    rows = list(hook.iter_result(finished_job))

    assert [row["n"] for row in rows] == [str(number) for number in range(2300)]
    assert sandbox.requests[0].query["limit"] == "2500"


def test_trap_04_an_empty_page_before_the_total_is_an_error(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int
) -> None:
    sandbox.fault("GET", "/jobs/{id}/result", body=page(2), times=None)

    with pytest.raises(AgentyError, match="ended at row 0 of 2"):
        list(hook.iter_result(finished_job))


def test_trap_05_rows_have_the_agents_own_keys_and_not_all_the_same(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int
) -> None:
    rows = [{"Retailer Name": "Wal-Mart", "# Stores": "4,400"}, {"price": "£51.77"}]
    sandbox.fault("GET", "/jobs/{id}/result", body=page(2, *rows))

    assert list(hook.iter_result(finished_job)) == rows


def test_trap_06_the_log_is_plain_text_with_json_and_continuations_in_it(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int
) -> None:
    lines = [
        "2022-01-10T07:46:08.145Z INFO Worker id: 2",
        '2022-01-10T07:46:08.169Z INFO Job: {"job_id":3683463}',
        '{"continued": true}',
        "2022-01-10T07:46:10.246Z INFO Job 3683463 completed successfully",
    ]
    sandbox.fault("GET", "/jobs/{id}/logs", body="\n".join(lines) + "\n")
    sandbox.fault("GET", "/jobs/{id}/logs", body="", after=1)

    first, second, third = hook.iter_logs(finished_job)

    assert first.timestamp == datetime(2022, 1, 10, 7, 46, 8, 145000, tzinfo=UTC)
    assert second.message == 'Job: {"job_id":3683463}\n{"continued": true}'
    assert (third.level, third.next_offset) == ("INFO", 4)
    assert sandbox.requests[-1].query["offset"] == "4"


@pytest.mark.agenty_sandbox(page_cap=2)
def test_trap_07_no_job_comes_twice_when_new_ones_arrive_while_paging(sandbox: Sandbox, hook: AgentyHook) -> None:
    older = sandbox.add_older_jobs(BOOKS, 5)
    jobs = hook.list_jobs()
    found = [next(jobs).job_id, next(jobs).job_id]
    sandbox.start_job(BOOKS)

    assert [*found, *(job.job_id for job in jobs)] == older


def test_trap_08_the_figures_of_pages_need_not_add_up(sandbox: Sandbox, hook: AgentyHook) -> None:
    job_id = sandbox.start_job(BOOKS)
    sandbox.set_status(
        job_id, "completed", pages_total=1, pages_processed=1, pages_succeeded=1, pages_failed=1, pages_credit=1
    )

    job = hook.wait_for_job(job_id, poll_interval=0.01)

    assert (job.pages_processed, job.pages_succeeded, job.pages_failed) == (1, 1, 1)
    assert job.progress == 1.0
    assert job.failed_ratio == 1.0


def test_trap_09_the_link_leads_to_another_host_and_is_not_sent_the_key(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, tmp_path: Path
) -> None:
    assert hook.get_export_link(finished_job).startswith(sandbox.download_url)
    hook.download_export(finished_job, str(tmp_path / "books.csv"))

    [download] = [request for request in sandbox.requests if request.host == "downloads"]
    assert download.key_in is None


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_trap_09_a_link_that_has_expired_is_fetched_anew(
    sandbox: Sandbox,
    hook: AgentyHook,
    finished_job: int,
    tmp_path: Path,
    status: int,
) -> None:
    sandbox.download_fault(status=status, body="<Error><Code>AccessDenied</Code></Error>")

    hook.download_export(finished_job, str(tmp_path / "books.csv"))

    exports = [request for request in sandbox.requests if request.path.endswith("/export")]
    assert len(exports) == 2


def test_trap_10_a_start_whose_answer_was_lost_is_not_paid_twice(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.fault("POST", "/jobs/start", drop="after")

    job = hook.start_job(BOOKS)

    assert sandbox.started_jobs == [job.job_id]


@pytest.mark.parametrize(("modified", "expected"), [(True, "1"), (False, "0")])
def test_trap_11_collections_count_from_1_and_modified_0_is_the_result_before_post_processing(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, modified: bool, expected: str
) -> None:
    list(hook.iter_result(finished_job, modified=modified))
    hook.get_export_link(finished_job, modified=modified)

    assert {request.query["collection"] for request in sandbox.requests} == {"1"}
    assert {request.query["modified"] for request in sandbox.requests} == {expected}


def test_trap_12_a_job_id_may_be_text(hook: AgentyHook, finished_job: int) -> None:
    for job_id in (str(finished_job), f" {finished_job}\n"):
        job = hook.get_job(job_id)
        assert job.job_id == finished_job
        assert isinstance(job.job_id, int)


def test_trap_13_a_start_may_answer_with_seven_fields(sandbox: Sandbox, hook: AgentyHook) -> None:
    given = ("job_id", "account_id", "agent_id", "type", "status", "priority", "created_at")
    sandbox.add_fault(Reworded("POST", "/jobs/start", change=lambda job: {name: job[name] for name in given}))
    job = hook.start_job(BOOKS)

    assert len(job.raw) == 7
    assert job.pages_total is None


def spelled_otherwise(answer: Any) -> Any:
    """Put an answer as older ones were: wrapped, with other names, flags as numbers and states in capitals."""

    def value(name: str, given: Any) -> Any:
        if name == "result":
            return [row_of(row) if "job_id" in row else row for row in given]
        return {"is_scheduled": lambda: int(given), "status": lambda: given.upper()}.get(name, lambda: given)()

    def row_of(row: dict[str, Any]) -> dict[str, Any]:
        names = {"pages_succeeded": "pages_successed", "downloadlink": "downloadLink"}
        return {names.get(name, name): value(name, given) for name, given in row.items()}

    return {"data": row_of(answer)}


def test_trap_13_answers_may_be_wrapped_and_spelled_otherwise(
    sandbox: Sandbox, hook: AgentyHook, tmp_path: Path
) -> None:
    sandbox.add_fault(Reworded("*", "/**", times=None, change=spelled_otherwise))
    finished_job = sandbox.start_job(BOOKS)
    sandbox.set_status(finished_job, "completed", pages_succeeded=3)
    job = hook.get_job(finished_job)

    assert job.is_successful
    assert job.is_scheduled is False
    assert job.pages_succeeded == 3
    assert [listed.job_id for listed in hook.list_jobs()] == [finished_job]
    assert list(hook.iter_result(finished_job))
    assert hook.download_export(finished_job, str(tmp_path / "books.csv")).rows
    assert hook.stop_job(finished_job).job_id == finished_job
    assert hook.start_job(BOOKS).agent_id == BOOKS


def test_trap_13_fields_that_are_not_known_are_kept(sandbox: Sandbox, hook: AgentyHook, finished_job: int) -> None:
    sandbox.set_status(finished_job, "completed", running_server_ip=None, attempts=[1, {"at": "x"}])

    raw = hook.get_job(finished_job).raw

    assert raw["attempts"] == [1, {"at": "x"}]
    assert raw["running_server_ip"] is None


@pytest.mark.parametrize(
    "fault", [{"drop": "after"}, {"status": 500, "acted": True}, {"status": 503}, {"cut": 10}], ids=str
)
def test_trap_14_a_stop_is_not_repeated_when_its_answer_is_lost(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, fault: dict[str, Any]
) -> None:
    sandbox.fault("GET", "/jobs/{id}/stop", times=None, **fault)

    with pytest.raises(AgentyUnavailableError, match="/stop"):
        hook.stop_job(finished_job)

    assert len(sandbox.requests) == 1


def test_trap_14_a_stop_of_a_finished_job_gives_the_job_as_it_is(hook: AgentyHook, finished_job: int) -> None:
    assert hook.stop_job(finished_job).status == "completed"


def test_trap_15_there_is_no_filter_by_state(sandbox: Sandbox, hook: AgentyHook) -> None:
    sandbox.add_older_jobs(BOOKS, 2)
    running = sandbox.start_job(BOOKS)
    sandbox.set_status(running, "running")

    assert [job.job_id for job in hook.list_jobs(BOOKS) if job.is_active] == [running]
    assert all(request.query.keys() == {"agent_id", "limit", "offset"} for request in sandbox.requests)


def test_trap_16_a_result_is_the_jobs_own_and_never_the_agents_latest(
    sandbox: Sandbox, hook: AgentyHook, finished_job: int, tmp_path: Path
) -> None:
    sandbox.start_job(BOOKS)
    list(hook.iter_result(finished_job))
    hook.count_result(finished_job)
    hook.download_export(finished_job, str(tmp_path / "books.csv"))

    asked = [request.path for request in sandbox.requests if request.host == "api"]
    assert all(path.startswith(f"/jobs/{finished_job}") for path in asked)


def test_traps_16_and_17_no_such_path_is_anywhere_in_the_package() -> None:
    package = Path(airflow_provider_agenty.__file__).parent
    texts = [
        node.value
        for path in package.rglob("*.py")
        if "sandbox" not in path.relative_to(package).parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]

    assert json.dumps(texts).count("/jobs") > 3
    assert not [text for text in texts if "/apikeys" in text or "/results" in text]
