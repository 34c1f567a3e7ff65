from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.api.validation import read_moment
from airflow_provider_agenty.exceptions import AgentyUnexpectedAnswerError

STARTED = """{
"job_id": 3689994, "account_id": 59703, "agent_id": "45l0wewqzk", "type": "scraping", "status": "submitted",
"priority": 5, "pages_total": 0, "pages_processed": 0, "pages_succeeded": 0, "pages_failed": 0, "pages_credit": 0,
"created_at": "2022-01-10T11:32:18.2362494Z", "started_at": null, "completed_at": null, "stopped_at": null,
"is_scheduled": false, "queue_time": null, "run_duration": null, "error": null, "ping_at": null,
"assigned_worker_id": null, "running_worker_id": 1
}"""
STOPPED = """{
"job_id": 3687911, "account_id": 59703, "agent_id": "w9qmlp5475", "type": "scraping", "status": "stopped",
"priority": 5, "pages_total": 0, "pages_processed": 0, "pages_succeeded": 0, "pages_failed": 0, "pages_credit": 0,
"created_at": "2022-01-10T09:47:48Z", "started_at": null, "completed_at": "2022-01-10T09:49:16.8233821Z",
"stopped_at": "2022-01-10T09:49:16.8233806Z", "is_scheduled": false, "queue_time": null, "run_duration": null,
"error": null, "ping_at": null, "assigned_worker_id": null, "running_worker_id": null
}"""
COMPLETED = """{
"job_id": 3689856, "account_id": 59703, "agent_id": "45l0wewqzk", "type": "scraping", "status": "completed",
"priority": 5, "pages_total": 1, "pages_processed": 1, "pages_succeeded": 1, "pages_failed": 0, "pages_credit": 1,
"created_at": "2022-01-10T11:10:55Z", "started_at": "2022-01-10T11:10:56Z", "completed_at": "2022-01-10T11:10:58Z",
"stopped_at": null, "is_scheduled": false, "queue_time": null, "run_duration": null, "error": null, "ping_at": null,
"assigned_worker_id": null, "running_worker_id": 3
}"""
LISTED = """{
"job_id": 3689527, "account_id": 59703, "agent_id": "lmqdjwd972", "type": "scraping", "status": "completed",
"priority": 0, "pages_total": 1, "pages_processed": 1, "pages_succeeded": 1, "pages_failed": 1, "pages_credit": 1,
"created_at": "2022-01-10T10:16:41Z", "started_at": "2022-01-10T10:19:59Z", "completed_at": "2022-01-10T10:20:01Z",
"stopped_at": null, "is_scheduled": false, "queue_time": "00:03:18", "run_duration": "00:00:02", "error": null,
"ping_at": null, "assigned_worker_id": null, "running_worker_id": null
}"""
LOGGED = """{"job_id":3683463,"agent_id":"459ypoj1gk","account_id":59703,"type":"scraping","status":"started",
"priority":16,"created_at":"2022-01-10T07:45:57Z","pages_total":0,"pages_processed":0,"pages_succeeded":0,
"pages_failed":0,"pages_credit":0,"is_scheduled":0,"assigned_worker_id":null,"running_worker_id":2,
"running_server_ip":null,"error":null,"attempts":null}"""
SHORT = """{"job_id": 3689994, "account_id": 59703, "agent_id": "45l0wewqzk", "type": "scraping",
"status": "started", "priority": 5, "created_at": "2022-01-10T11:32:18.000Z"}"""
DOCUMENTED = (STARTED, STOPPED, COMPLETED, LISTED, LOGGED, SHORT)


def moment(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def job(**values: Any) -> Job:
    return Job.from_answer({"job_id": 7, "status": "running", **values})


def test_the_documented_answer_to_start_is_read() -> None:
    assert Job.from_answer(json.loads(STARTED)) == Job(
        job_id=3689994,
        status="submitted",
        account_id=59703,
        agent_id="45l0wewqzk",
        type="scraping",
        priority=5,
        pages_total=0,
        pages_processed=0,
        pages_succeeded=0,
        pages_failed=0,
        pages_credit=0,
        created_at=moment(2022, 1, 10, 11, 32, 18, 236249),
        is_scheduled=False,
        running_worker_id=1,
    )


def test_the_documented_answer_to_stop_is_read() -> None:
    stopped = Job.from_answer(json.loads(STOPPED))

    assert stopped.stopped_at == moment(2022, 1, 10, 9, 49, 16, 823380)
    assert stopped.completed_at == moment(2022, 1, 10, 9, 49, 16, 823382)
    assert stopped.is_terminal
    assert stopped.is_stopped
    assert not stopped.is_successful


def test_the_documented_answer_to_status_is_read() -> None:
    completed = Job.from_answer(json.loads(COMPLETED))

    assert completed.created_at == moment(2022, 1, 10, 11, 10, 55)
    assert completed.started_at == moment(2022, 1, 10, 11, 10, 56)
    assert completed.completed_at == moment(2022, 1, 10, 11, 10, 58)
    assert completed.is_terminal
    assert completed.is_successful
    assert completed.progress == 1.0
    assert completed.running_worker_id == 3


def test_the_documented_list_of_jobs_is_read_with_its_durations() -> None:
    listed = Job.from_answer(json.loads(LISTED))

    assert listed.queue_time == timedelta(minutes=3, seconds=18)
    assert listed.run_duration == timedelta(seconds=2)


def test_the_job_in_a_documented_log_is_read_and_what_it_has_beyond_is_kept() -> None:
    logged = Job.from_answer(json.loads(LOGGED))

    assert logged.is_scheduled is False
    assert "running_server_ip" in logged.raw
    assert logged.raw == json.loads(LOGGED)


def test_what_a_short_answer_does_not_say_is_none() -> None:
    short = Job.from_answer(json.loads(SHORT))

    assert short.pages_total is None
    assert short.error is None
    assert short.is_scheduled is None
    assert short.progress is None


@pytest.mark.parametrize("text", DOCUMENTED)
def test_a_job_survives_the_way_through_json(text: str) -> None:
    original = Job.from_answer(json.loads(text))

    assert Job.from_answer(json.loads(json.dumps(original.to_dict()))) == original


def test_days_and_fractions_survive_the_way_through_json() -> None:
    original = job(queue_time="1.02:03:04", run_duration="49:00:00.5000000", created_at="2022-01-10T11:32:18.2362494Z")

    assert original.queue_time == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert original.run_duration == timedelta(hours=49, microseconds=500_000)
    assert Job.from_answer(json.loads(json.dumps(original.to_dict()))) == original


def test_to_dict_holds_every_field_but_raw() -> None:
    expected = {each.name for each in dataclasses.fields(Job)} - {"raw"}

    assert set(Job.from_answer(json.loads(COMPLETED)).to_dict()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-01-10T11:32:18.2362494Z", moment(2022, 1, 10, 11, 32, 18, 236249)),
        ("2022-01-10T11:32:18.5Z", moment(2022, 1, 10, 11, 32, 18, 500_000)),
        ("2022-01-10T11:32:18Z", moment(2022, 1, 10, 11, 32, 18)),
        ("2022-01-10T11:32:18", moment(2022, 1, 10, 11, 32, 18)),
        ("2022-01-10T11:32:18.2362494+02:00", moment(2022, 1, 10, 9, 32, 18, 236249)),
        (" 2022-01-10T11:32:18Z ", moment(2022, 1, 10, 11, 32, 18)),
    ],
)
def test_a_time_is_read_in_all_its_forms_and_is_aware(text: str, expected: datetime) -> None:
    read = read_moment(text)

    assert read == expected
    assert read is not None
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize("value", [None, "", " ", "yesterday", 1641814338, "2022-13-01T00:00:00Z", ["2022"]])
def test_what_is_no_time_is_none(value: Any) -> None:
    assert job(created_at=value).created_at is None


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+05:30", "9999-12-31T23:59:59-05:00"])
def test_a_time_at_the_edge_of_what_can_be_told_is_none(value: str) -> None:
    assert job(completed_at=value).completed_at is None


@pytest.mark.parametrize("value", [None, "", "soon", 5, "1:2", "999999999999.00:00:00"])
def test_what_is_no_duration_is_none(value: Any) -> None:
    assert job(queue_time=value).queue_time is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, False),
        (1, True),
        (False, False),
        (True, True),
        ("0", False),
        ("1", True),
        ("true", True),
        ("False", False),
        (None, None),
        ("perhaps", None),
    ],
)
def test_is_scheduled_is_read_in_all_its_forms(value: Any, expected: bool | None) -> None:
    assert job(is_scheduled=value).is_scheduled is expected


def test_the_older_spelling_of_pages_succeeded_is_read() -> None:
    assert job(pages_successed=4).pages_succeeded == 4
    assert job(pages_successed=4, pages_succeeded=5).pages_succeeded == 5


def test_numbers_that_come_as_text_are_numbers() -> None:
    read = Job.from_answer({"job_id": "7", "status": "running", "pages_total": "12", "priority": "x"})

    assert (read.job_id, read.pages_total, read.priority) == (7, 12, None)


@pytest.mark.parametrize("status", ["COMPLETED", "Completed", " completed "])
def test_a_state_is_compared_without_regard_to_case(status: str) -> None:
    assert job(status=status).status == "completed"
    assert job(status=status).is_successful


@pytest.mark.parametrize(
    ("status", "terminal", "successful", "active"),
    [
        ("submitted", False, False, True),
        ("starting", False, False, True),
        ("queued", False, False, True),
        ("started", False, False, True),
        ("running", False, False, True),
        ("completing", False, False, True),
        ("completed", True, True, False),
        ("stopping", False, False, False),
        ("stopped", True, False, False),
        ("aborted", True, False, False),
        ("failed", True, False, False),
        ("hibernating", False, False, False),
    ],
)
def test_each_state_means_what_the_table_says(status: str, terminal: bool, successful: bool, active: bool) -> None:
    read = job(status=status)

    assert (read.is_terminal, read.is_successful, read.is_active) == (terminal, successful, active)
    assert read.is_known == (status != "hibernating")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "job",
        7,
        {},
        {"job_id": 7},
        {"status": "running"},
        {"job_id": None, "status": "running"},
        {"job_id": True, "status": "running"},
        {"job_id": "seven", "status": "running"},
        {"job_id": 7, "status": ""},
        {"job_id": 7, "status": 3},
        {"data": {}},
    ],
)
def test_what_holds_no_job_is_refused(answer: Any) -> None:
    with pytest.raises(AgentyUnexpectedAnswerError, match="holds no job"):
        Job.from_answer(answer)


def test_a_wrapped_job_is_read() -> None:
    assert Job.from_answer({"data": json.loads(COMPLETED)}) == Job.from_answer(json.loads(COMPLETED))


def test_a_job_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        job().status = "completed"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("total", "processed", "expected"),
    [(120, 30, 0.25), (120, 0, 0.0), (10, 12, None), (10, -1, 0.0), (0, 0, None), (None, 3, None), (10, None, None)],
)
def test_progress_lies_between_0_and_1_or_is_not_known(
    total: int | None, processed: int | None, expected: float | None
) -> None:
    assert job(pages_total=total, pages_processed=processed).progress == expected


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"pages_total": 10, "pages_processed": 10, "pages_failed": 4}, 0.4),
        ({"pages_total": 1, "pages_processed": 1, "pages_failed": 1}, 1.0),
        ({"pages_total": 0, "pages_processed": 0, "pages_failed": 3}, 1.0),
        ({"pages_processed": 20, "pages_failed": 5}, 0.25),
        ({"pages_total": 0, "pages_failed": 0}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_share_of_failed_pages_is_told_from_whatever_figures_there_are(
    figures: dict[str, int], expected: float
) -> None:
    assert job(**figures).failed_ratio == expected


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (
            {"pages_total": 120, "pages_processed": 37, "pages_failed": 2, "pages_credit": 35},
            "running: 37/120 pages (31 %), 2 failed, 35 credits",
        ),
        ({"pages_total": 1, "pages_processed": 1, "pages_credit": 1}, "running: 1/1 pages (100 %), 1 credit"),
        ({"pages_total": 0, "pages_processed": 0, "pages_failed": 0, "pages_credit": 0}, "running"),
        ({}, "running"),
    ],
)
def test_a_job_describes_itself_in_a_line(figures: dict[str, int], expected: str) -> None:
    assert job(**figures).describe() == expected
