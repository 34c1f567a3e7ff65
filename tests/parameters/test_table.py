"""
Each parameter of each public class and method, times a table of values: taken as meant, or refused by its name.

The parameters are found by their signatures, so one that is new needs a row here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_agenty.exceptions import AgentyError, AgentyInputError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.hooks.landing import LandingHook
from airflow_provider_agenty.operators.agenty import (
    AgentyExportOperator,
    AgentyResultOperator,
    AgentyStartJobOperator,
    AgentyStopJobOperator,
)
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger, AgentyJobTrigger
from tests.parameters.values import KINDS, MOMENT, OPTIONAL, SECRET, VALUES
from tests.signatures import parameters_of

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

AGENT = "45l0wewqzk"

BY_NAME = {
    "job_id": "job id",
    "agent_id": "agent id",
    **dict.fromkeys(["agent_name", "name", "tag", "type"], "text"),
    "project_id": "collection",
    "statuses": "other choice",
    "urls": "urls",
    "new": "urls",
    "agenty_conn_id": "connection",
    "storage_conn_id": "connection or None",
    "collection": "collection",
    "offset": "offset",
    "log_offset": "number",
    "count": "number",
    "min_rows": "number",
    "newer_than": "number",
    "limit": "number from 1",
    "poll_interval": "seconds",
    "timeout": "seconds",
    "patience": "seconds from 0",
    "seconds": "seconds or endless",
    "deadline": "moment",
    "since": "datetime or None",
    "max_failed_ratio": "share",
    "max_row_drop": "share",
    "required_fields": "column names",
    "file_type": "file type",
    "format": "other choice",
    "column_types": "other choice",
    "on_empty": "other choice",
    "if_running": "other choice",
    "reuse_completed_within": "seconds or None",
    "max_credits": "credits",
    **dict.fromkeys(["stall_timeout", "queue_timeout"], "seconds or None"),
    "on_stopped": "other choice",
    "filename": "filename",
    "path": "path",
    "spool_folder": "folder",
    **dict.fromkeys(["check", "job_seen", "prepare"], "function"),
    **dict.fromkeys(["wait_for_completion", "durable", "cancel_on_kill", "cancel_on_timeout"], "boolean"),
    **dict.fromkeys(["stream_logs", "start_from_trigger", "end_from_trigger"], "boolean"),
    **dict.fromkeys(["modified", "overwrite", "verify_rows"], "boolean"),
    "deferrable": "boolean or None",
}
OTHERWISE = {
    ("AgentyStartJobOperator", "urls"): "urls or None",
    ("AgentyJobEventTrigger", "agent_id"): "agent id or None",
    ("start_job", "urls"): "urls or None",
    ("start_job", "newer_than"): "number or None",
    ("list_jobs", "agent_id"): "agent id or None",
    **{
        ("list_agents", parameter): kind
        for parameter, kind in [("project_id", "collection or None"), ("tag", "text or None"), ("type", "text or None")]
    },
    ("wait_for_job", "timeout"): "seconds from 0 or None",
}

# Paths that are none, or that nothing can be written to: the tests of landing have them.
LEFT_TO_LANDING = {"path", "Path", "URL", "connection", "connection as JSON", "signed link"}

CLASSES: dict[type, dict[str, Any]] = {
    AgentyStartJobOperator: {"task_id": "task", "agent_id": AGENT},
    AgentyStopJobOperator: {"task_id": "task", "job_id": 7},
    AgentyExportOperator: {"task_id": "task", "job_id": 7, "path": "/data/books.csv"},
    AgentyResultOperator: {"task_id": "task", "job_id": 7, "path": "/data/books"},
    AgentyJobSensor: {"task_id": "task", "job_id": 7},
    AgentyJobTrigger: {"job_id": 7},
    AgentyJobEventTrigger: {},
    AgentyHook: {},
}
OPERATORS = [each for each in CLASSES if hasattr(each, "execute")]


def methods() -> dict[str, Callable[..., Any]]:
    return {
        name: value
        for name, value in (vars(LandingHook) | vars(AgentyHook)).items()
        if inspect.isfunction(value) and not name.startswith("_") and parameters_of(value)
    }


def taken_by(owner: str, parameter: str) -> dict[str, Any]:
    """Return what is taken for a parameter, and as what, by the label of the value."""
    kind = OTHERWISE.get((owner, parameter), BY_NAME[parameter])
    plain = kind.removesuffix(" or None")
    return KINDS[plain] if plain == kind else KINDS[plain] | OPTIONAL


def others_of(kind: type, parameter: str) -> dict[str, Any]:
    """Return what a class needs beside a parameter: an agent is given by its id or by its name."""
    return {name: value for name, value in CLASSES[kind].items() if (parameter, name) != ("agent_name", "agent_id")}


def refusal_of(call: Callable[[], Any], parameter: str) -> str | None:
    """Return why a call refuses a parameter; ``None`` if it takes it, whatever comes of that."""
    try:
        made = call()
        if isinstance(made, Iterator):
            next(made, None)
    except AgentyInputError as error:
        refusal = str(error)
        if "There is no connection" in refusal:
            return None
    except AgentyError:
        return None
    else:
        return None
    assert SECRET not in refusal
    if refusal.startswith("There is no agent called"):
        return None
    assert refusal.startswith((parameter, "agent_id and agent_name")), refusal
    assert len(refusal.encode()) < 600
    return refusal


def stopped_job(sandbox: Any) -> int:
    """Return a job that no call has to wait for, and that there is no file of."""
    job_id: int = sandbox.add_older_jobs(AGENT, 1)[0]
    sandbox.set_status(job_id, "stopped")
    return job_id


def is_same(found: Any, expected: Any) -> bool:
    return type(found) is type(expected) and found == expected


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [(kind, parameter) for kind in CLASSES for parameter in parameters_of(kind)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_class_takes_what_is_meant_and_refuses_the_rest(kind, parameter):
    taken = taken_by(kind.__name__, parameter)
    is_templated = parameter in getattr(kind, "template_fields", ())
    for label, value in VALUES.items():
        if parameter == "path" and label in LEFT_TO_LANDING:
            continue
        made: list[Any] = []
        given = others_of(kind, parameter) | {parameter: value}
        refusal = refusal_of(lambda given=given, made=made: made.append(kind(**given)), parameter)
        assert (refusal is None) == (label in taken), f"{parameter}={label}: {refusal or 'is taken'}"
        if made and not is_templated and value is not None and hasattr(made[0], parameter):
            found = getattr(made[0], parameter)
            assert parameter == "start_from_trigger" or is_same(found, taken[label]), f"{parameter}={label}: {found!r}"


@pytest.mark.parametrize("value", ["result", "jsonl", "csv", "parquet", "land", "fail", "skip"])
def test_each_choice_of_the_documentation_can_be_made(value):
    """Of the table's values only one is a choice."""
    made = []
    for kind, parameter in [
        (AgentyExportOperator, "on_empty"),
        (AgentyResultOperator, "on_empty"),
        (AgentyResultOperator, "format"),
        (AgentyExportOperator, "file_type"),
        (AgentyJobSensor, "on_stopped"),
        (AgentyStartJobOperator, "on_stopped"),
    ]:
        if refusal_of(lambda kind=kind, name=parameter: kind(**CLASSES[kind] | {name: value}), parameter) is None:
            made.append(parameter)
    assert made


@pytest.fixture(scope="module")
def method_arguments() -> dict[str, Any]:
    return {
        "agent_id": AGENT,
        "name": "Books",
        "new": ["https://example.com/"],
        "newer_than": 0,
        "since": MOMENT,
        "limit": 1,
        "poll_interval": 0.01,
        "timeout": 0.01,
    }


@pytest.mark.parametrize(
    ("method", "parameter"),
    [(name, parameter) for name, each in methods().items() for parameter in parameters_of(each)],
)
def test_a_method_takes_what_is_meant_and_refuses_the_rest_before_anything_is_sent(
    agenty_sandbox, method_arguments, monkeypatch, tmp_path, method, parameter
):
    monkeypatch.chdir(tmp_path)
    hook = AgentyHook()
    expected = parameters_of(methods()[method])
    given = {name: value for name, value in method_arguments.items() if name in expected}
    if "job_id" in expected:
        given["job_id"] = stopped_job(agenty_sandbox)
    if "path" in expected:
        given["path"] = str(tmp_path / "books")
    if method == "find_started_job":
        agenty_sandbox.start_job(AGENT)
    taken = taken_by(method, parameter)
    for label, value in VALUES.items():
        if parameter == "path" and label in LEFT_TO_LANDING:
            continue
        agenty_sandbox.clear()
        refusal = refusal_of(lambda value=value: getattr(hook, method)(**given | {parameter: value}), parameter)
        assert (refusal is None) == (label in taken), f"{method}({parameter}={label}): {refusal or 'is taken'}"
        assert refusal is None or agenty_sandbox.requests == []


# Templates

RENDERED: dict[str, Any] = {
    label: VALUES[label]
    for label in (
        *("None", "no text", "blank", "word", "word in whitespace", "digits", "7", "True", "0.5", "list"),
        *("Path", "int64", "numpy text", "half an emoji", "connection"),
    )
    if label in VALUES
}

# What is taken of them: by templates that give text, and by those that give native objects.
WORDS = {"word", "word in whitespace", "numpy text"}
WHOLE = {"digits", "7", "int64"}
TAKEN_RENDERED = {
    "job_id": (WHOLE, WHOLE),
    "collection": (WHOLE, WHOLE),
    # Text that came of something else can't be told from text.
    "agent_id": (WORDS | WHOLE | {"True"}, WORDS | WHOLE),
    "agenty_conn_id": (WORDS | WHOLE | {"True", "0.5", "Path"}, WORDS | WHOLE),
    "storage_conn_id": (WORDS | WHOLE | {"True", "0.5", "Path"}, WORDS | WHOLE),
    "filename": (WORDS | WHOLE | {"True", "0.5", "list"}, WORDS | WHOLE),
    "path": (WORDS | WHOLE | {"True", "0.5", "list", "Path", "connection"}, WORDS | {"Path", "connection"}),
    "urls": (set(), set()),
    "agent_name": (WORDS | WHOLE | {"True", "0.5", "list", "Path", "connection"}, WORDS | WHOLE | {"connection"}),
}


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("kind", "parameter"),
    [(kind, parameter) for kind in OPERATORS for parameter in kind.template_fields],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_a_template_gives_is_taken_or_refused_before_anything_is_sent(
    agenty_sandbox, make_context, monkeypatch, tmp_path, kind, parameter, native
):
    monkeypatch.chdir(tmp_path)
    taken = TAKEN_RENDERED[parameter][native]
    given = {name: value for name, value in others_of(kind, parameter).items() if name != "path"}
    if "path" in CLASSES[kind]:
        given["path"] = str(tmp_path / "books")
    if "job_id" in given:
        given["job_id"] = stopped_job(agenty_sandbox)
    for label, value in RENDERED.items():
        if parameter == "path" and label in LEFT_TO_LANDING:
            value = tmp_path / "path"
        with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1), render_template_as_native_obj=native):
            task = kind(**given | {parameter: "{{ value }}"})
        agenty_sandbox.clear()
        task.render_template_fields({**make_context(task), "value": value})
        refusal = refusal_of(lambda task=task: task.execute(make_context(task)), parameter)
        assert (refusal is None) == (label in taken), f"{parameter}={label}: {refusal or 'is taken'}"
        assert refusal is None or agenty_sandbox.requests == []
