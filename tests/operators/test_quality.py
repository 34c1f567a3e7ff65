"""required_fields and max_row_drop: what is good enough to be landed, and that nothing changes where it is not."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_agenty.airflow_compat import AirflowFailException, AirflowSkipException, asset_class
from airflow_provider_agenty.exceptions import AgentyExportError, AgentyInputError, AgentyQualityError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyResultOperator
from airflow_provider_agenty.sandbox.content import Content

AGENT = "45l0wewqzk"
ROWS = [{"name": f"Book {number}", "price": "" if number % 20 == 0 else "£1", "note": " \t"} for number in range(60)]
"""The price is empty in 3 of 60 rows, the note is blank in all."""

each_way = pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (AgentyExportOperator, {}),
        (AgentyResultOperator, {"format": "jsonl"}),
        (AgentyResultOperator, {"format": "csv"}),
        (AgentyResultOperator, {"format": "parquet"}),
    ],
    ids=["export", "jsonl", "csv", "parquet"],
)


@pytest.fixture
def destination(tmp_path) -> Path:
    """Give a file that is there already, which only a landing may change."""
    path = tmp_path / "lake" / "books"
    path.parent.mkdir()
    path.write_bytes(b"as it was")
    return path


def is_untouched(destination: Path) -> bool:
    return destination.read_bytes() == b"as it was" and list(destination.parent.iterdir()) == [destination]


def job_with(sandbox, rows, **job) -> int:
    """Add a completed job with these rows, older than all others."""
    sandbox.set_agent(AGENT, rows)
    return sandbox.add_older_jobs(AGENT, 1, **job)[0]


def refusal(task, make_context) -> str:
    with pytest.raises(AgentyQualityError) as refused:
        task.execute(make_context(task))
    assert isinstance(refused.value, AirflowFailException), "a retry can't mend it"
    assert isinstance(refused.value, AgentyExportError)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    return str(refused.value)


class TestRequiredFields:
    @each_way
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_what_was_measured_is_returned(self, agenty_sandbox, destination, make_context, kind, parameters, suffix):
        if suffix and parameters.get("format") == "parquet":
            pytest.skip("Parquet is compressed inside")
        task = kind(
            task_id="land",
            job_id=job_with(agenty_sandbox, ROWS),
            path=f"{destination}{suffix}",
            required_fields={"price": 0.95, "name": 1, "note": 0},
            **parameters,
        )
        landed = task.execute(make_context(task))
        assert landed["filled"] == {"price": 0.95, "name": 1.0, "note": 0.0}
        assert json.loads(json.dumps(landed)) == landed

    @each_way
    def test_too_few_filled_fields_fail(self, agenty_sandbox, destination, make_context, kind, parameters):
        task = kind(
            task_id="land",
            job_id=job_with(agenty_sandbox, ROWS),
            path=str(destination),
            required_fields={"price": 0.951, "name": 1, "note": 0.1},
            **parameters,
        )
        said = refusal(task, make_context)
        assert "'price' in 57 of 60 (0.95, required is 0.951)" in said
        assert "'note' in 0 of 60 (0.0, required is 0.1)" in said
        assert "'name'" not in said
        assert is_untouched(destination)

    @each_way
    def test_a_list_means_every_row(self, agenty_sandbox, destination, make_context, kind, parameters):
        given = {"task_id": "land", "job_id": job_with(agenty_sandbox, ROWS), "path": str(destination), **parameters}
        task = kind(required_fields=["price"], **given)
        assert "'price' in 57 of 60 (0.95, required is 1.0)" in refusal(task, make_context)
        assert is_untouched(destination)

        task = kind(required_fields=["name"], **given)
        assert task.execute(make_context(task))["filled"] == {"name": 1.0}

    @each_way
    @pytest.mark.parametrize("share", [0, 1])
    def test_a_column_that_is_not_there(self, agenty_sandbox, destination, make_context, kind, parameters, share):
        task = kind(
            task_id="land",
            job_id=job_with(agenty_sandbox, ROWS),
            path=str(destination),
            required_fields={"Price": share, "name": 1},
            **parameters,
        )
        said = refusal(task, make_context)
        assert "has no column 'Price', which required_fields names. It has 'name', 'price', 'note'." in said
        assert is_untouched(destination)

    @each_way
    def test_the_columns_of_a_message_are_bounded(self, agenty_sandbox, destination, make_context, kind, parameters):
        row = {f"{'x' * 300} {number} \x1b[31m {agenty_sandbox.key}": "1" for number in range(500)}
        task = kind(
            task_id="land",
            job_id=job_with(agenty_sandbox, [row]),
            path=str(destination),
            required_fields=["price"],
            **parameters,
        )
        said = refusal(task, make_context)
        assert len(said) < 3000
        assert "…" in said
        assert agenty_sandbox.key not in said
        assert "\x1b" not in said

    @pytest.mark.parametrize(
        ("required", "filled", "rows", "enough"),
        [(0.07, 7, 100, True), (0.07, 6, 100, False), (0.95, 57, 60, True), (1, 59, 60, False), (0.1, 1, 10, True)],
    )
    def test_shares_are_compared_exactly(
        self, agenty_sandbox, destination, make_context, required, filled, rows, enough
    ):
        content = [{"name": "x", "price": "1" if number < filled else ""} for number in range(rows)]
        task = AgentyExportOperator(
            task_id="land",
            job_id=job_with(agenty_sandbox, content),
            path=str(destination),
            required_fields={"price": required},
        )
        if enough:
            assert task.execute(make_context(task))["filled"] == {"price": filled / rows}
        else:
            assert f"'price' in {filled} of {rows}" in refusal(task, make_context)

    @each_way
    def test_a_result_without_rows_has_no_shares(self, agenty_sandbox, destination, make_context, kind, parameters):
        given = {
            "task_id": "land",
            "job_id": job_with(agenty_sandbox, b"name,price\r\n"),
            "path": str(destination),
            **parameters,
        }
        task = kind(required_fields=["price"], **given)
        assert task.execute(make_context(task))["filled"] == {"price": None}

        task = kind(required_fields=["prices"], **given)
        if kind is AgentyExportOperator:
            assert "It has 'name', 'price'" in refusal(task, make_context)
        else:
            # Rows name the columns, and there is none.
            assert task.execute(make_context(task))["filled"] == {"prices": None}

    @each_way
    @pytest.mark.parametrize(
        ("checks", "error"),
        [({"on_empty": "skip"}, AirflowSkipException), ({"min_rows": 1}, "min_rows=1")],
    )
    def test_min_rows_and_on_empty_come_first(
        self, agenty_sandbox, destination, make_context, kind, parameters, checks, error
    ):
        task = kind(
            task_id="land",
            job_id=job_with(agenty_sandbox, b"name,price\r\n"),
            path=str(destination),
            required_fields=["prices"],
            **parameters,
            **checks,
        )
        expected, said = (AgentyExportError, error) if isinstance(error, str) else (error, "is empty")
        with pytest.raises(expected, match=said):
            task.execute(make_context(task))
        assert is_untouched(destination)

    def test_the_asset_event_has_it(self, agenty_sandbox, destination, make_context):
        outlet = asset_class()(uri="file:///books")
        events = SimpleNamespace(extra={})
        task = AgentyExportOperator(
            task_id="land",
            job_id=job_with(agenty_sandbox, ROWS),
            path=str(destination),
            required_fields={"price": 0.9},
            outlets=[outlet],
        )
        context = make_context(task)

        class Events:
            def __getitem__(self, _):
                return events

        task.execute({**context, "outlet_events": Events()})
        assert events.extra["filled"] == {"price": 0.95}

    @pytest.mark.parametrize("guards", [{}, {"max_row_drop": 0.5}])
    def test_what_is_returned_is_as_ever_where_no_field_is_required(
        self, agenty_sandbox, destination, make_context, guards
    ):
        task = AgentyExportOperator(
            task_id="land", job_id=job_with(agenty_sandbox, ROWS), path=str(destination), **guards
        )
        landed = task.execute(make_context(task))
        assert list(landed) == ["path", "size", "rows", "sha256", "job_id", "collection"]

    @pytest.mark.parametrize("method", ["download_export", "download_result"])
    def test_the_hook_takes_both(self, agenty_sandbox, destination, method):
        job_id = job_with(agenty_sandbox, ROWS)
        with AgentyHook() as hook:
            land = getattr(hook, method)
            seen = []
            exported = land(job_id, destination, required_fields=["name"], max_row_drop=0, check=seen.append)
            assert exported.filled == {"name": 1.0}
            assert seen == [exported]
            hash(exported)
            with pytest.raises(AgentyQualityError, match="'price' in 57 of 60"):
                land(job_id, destination, required_fields=["price"])


class TestMaxRowDrop:
    @each_way
    @pytest.mark.parametrize(
        ("max_row_drop", "rows", "before", "enough"),
        [
            (0.1, 54, 60, True),
            (0.1, 53, 60, False),
            (0.3, 7, 10, True),
            (0.3, 6, 10, False),
            (0, 10, 10, True),
            (0, 9, 10, False),
            (1, 0, 10, True),
            (0, 5, 0, True),
        ],
    )
    def test_fewer_rows_than_it_allows_fail(
        self, agenty_sandbox, destination, make_context, kind, parameters, max_row_drop, rows, before, enough
    ):
        content = b"name\r\n" + b"x\r\n" * rows
        job_id = job_with(agenty_sandbox, content)
        previous = job_with(agenty_sandbox, b"name\r\n" + b"x\r\n" * before)
        task = kind(task_id="land", job_id=job_id, path=str(destination), max_row_drop=max_row_drop, **parameters)

        if enough:
            assert task.execute(make_context(task))["rows"] == rows
            return
        said = refusal(task, make_context)
        assert f"job {job_id} has {rows} rows, that of the agent's previous job {previous} has {before}" in said
        assert f"max_row_drop={float(max_row_drop)} asks for at least {rows + 1}." in said
        assert is_untouched(destination)

    def land(self, job_id, destination, make_context, **parameters):
        task = AgentyExportOperator(task_id="land", job_id=job_id, path=str(destination), max_row_drop=0, **parameters)
        return task.execute(make_context(task))["rows"]

    def test_the_previous_job_is_the_newest_completed_one_with_a_lower_id(
        self, agenty_sandbox, destination, make_context
    ):
        newer = job_with(agenty_sandbox, ROWS)
        job_id = job_with(agenty_sandbox, ROWS[:10])
        for status in ("stopped", "aborted"):
            job_with(agenty_sandbox, ROWS, status=status)
        agenty_sandbox.set_agent("other", ROWS)
        agenty_sandbox.add_older_jobs("other", 1)
        job_with(agenty_sandbox, ROWS[:10])
        job_with(agenty_sandbox, ROWS)

        assert self.land(job_id, destination, make_context) == 10
        assert newer > job_id

    def test_the_same_collection_is_compared(self, agenty_sandbox, destination, make_context):
        agenty_sandbox.set_agent(AGENT, ROWS, collection=2)
        job_id = job_with(agenty_sandbox, ROWS[:10])
        agenty_sandbox.set_agent(AGENT, ROWS[:10])
        agenty_sandbox.set_agent(AGENT, ROWS[:30], collection=2)
        agenty_sandbox.add_older_jobs(AGENT, 1)

        assert self.land(job_id, destination, make_context) == 10
        assert self.land(job_id, destination, make_context, collection="2") == 60
        agenty_sandbox.clear()
        self.land(job_id, destination, make_context, collection=2, modified=False)
        asked = [each.query for each in agenty_sandbox.requests if each.path.endswith("/result")]
        assert [(each["collection"], each["modified"]) for each in asked] == [("2", "0")] * 2

    @pytest.fixture
    def said(self, monkeypatch, caplog):
        monkeypatch.setattr(AgentyHook, "log", logging.getLogger("airflow_provider_agenty.hooks"))
        caplog.set_level("INFO")
        return lambda: "\n".join(record.getMessage() for record in caplog.records)

    def test_without_a_previous_job_nothing_is_compared(self, agenty_sandbox, destination, make_context, said):
        job_id = job_with(agenty_sandbox, ROWS)
        assert self.land(job_id, destination, make_context) == 60
        assert f"The rows of job {job_id} are not compared: of the newest 2000 jobs of its agent" in said()

    def test_a_list_of_jobs_without_end_is_given_up(self, agenty_sandbox, destination, make_context, said):
        agenty_sandbox.add_older_jobs(AGENT, 2100)
        job_id = job_with(agenty_sandbox, ROWS[:10])
        job_with(agenty_sandbox, ROWS)
        assert self.land(job_id, destination, make_context) == 10
        assert f"The rows of job {job_id} are not compared" in said()
        asked = [each for each in agenty_sandbox.requests if each.path == "/jobs"]
        assert len(asked) == 20

    def test_a_result_that_is_gone_is_not_compared(self, agenty_sandbox, destination, make_context, said):
        job_id = job_with(agenty_sandbox, ROWS[:10])
        previous = job_with(agenty_sandbox, ROWS)
        agenty_sandbox.fault("GET", f"/jobs/{previous}/result", status=404, times=None)
        assert self.land(job_id, destination, make_context) == 10
        assert f"the result of job {previous} is gone" in said()

    def test_what_cannot_be_read_fails_and_leaves_the_destination(self, agenty_sandbox, destination, make_context):
        job_id = job_with(agenty_sandbox, ROWS[:10])
        previous = job_with(agenty_sandbox, ROWS)
        agenty_sandbox.fault("GET", f"/jobs/{previous}/result", status=403, times=None)
        with pytest.raises(AirflowFailException, match="403"):
            self.land(job_id, destination, make_context)
        assert is_untouched(destination)

    def test_it_holds_where_rows_are_not_verified(self, agenty_sandbox, destination, make_context):
        job_id = job_with(agenty_sandbox, ROWS[:10])
        job_with(agenty_sandbox, ROWS)
        with pytest.raises(AgentyQualityError, match="has 10 rows"):
            self.land(job_id, destination, make_context, verify_rows=False)

    def test_nothing_more_is_asked_without_it(self, agenty_sandbox, destination):
        job_id = job_with(agenty_sandbox, ROWS)
        with AgentyHook() as hook:
            hook.download_export(job_id, destination, required_fields=["name"])
        assert "/jobs" not in [each.path for each in agenty_sandbox.requests]


class TestRefused:
    @pytest.mark.parametrize("guard", [{"required_fields": ["name"]}, {"max_row_drop": 0.1}])
    def test_logs_have_neither(self, agenty_sandbox, destination, guard):
        [name] = guard
        with pytest.raises(AgentyInputError, match=f"{name} can't be combined with file_type='logs'"):
            AgentyExportOperator(task_id="land", job_id=7, path="/data/{{ ds }}.log", file_type="logs", **guard)
        with AgentyHook() as hook, pytest.raises(AgentyInputError, match=f"{name} can't be combined"):
            hook.download_export(7, destination, file_type="logs", **guard)
        assert agenty_sandbox.requests == []

    @pytest.mark.parametrize(
        ("guard", "said"),
        [
            ({"required_fields": []}, "required_fields is empty"),
            ({"required_fields": {}}, "required_fields is empty"),
            ({"required_fields": "price"}, "required_fields is 'price'. Give a list of column names"),
            ({"required_fields": ["name", " "]}, "required_fields has ' ' in it"),
            ({"required_fields": ["name", None]}, "required_fields has None in it"),
            ({"required_fields": ["name", "price", "name"]}, "required_fields names 'name' twice"),
            ({"required_fields": {"price": 1.1}}, "the share of 'price' is not a number from 0 to 1"),
            ({"required_fields": {"price": True}}, "the share of 'price' is not a number from 0 to 1"),
            ({"max_row_drop": 1.1}, "max_row_drop 1.1 is not a share"),
            ({"max_row_drop": float("nan")}, "max_row_drop nan is not a share"),
        ],
    )
    @pytest.mark.parametrize("kind", [AgentyExportOperator, AgentyResultOperator])
    def test_what_cannot_be_used_when_the_dag_file_is_read(self, kind, guard, said):
        with pytest.raises(AgentyInputError, match=said):
            kind(task_id="land", job_id=7, path="/data/books", **guard)


class UnevenRows(Content):
    """Values of JSON, which a CSV can't give."""

    ROWS = (
        {"zero": 0, "false": False, "list": [], "object": {}, "null": None, "text": "\u00a0\n", "some": 0.1},
        {"zero": 0.0, "false": False, "list": [0], "object": {"a": None}, "some": 12345678901234567890},
    )

    def __init__(self) -> None:
        super().__init__(b"name\r\n" + b"x\r\n" * len(self.ROWS))

    def rows(self, start, stop):
        return [dict(row) for row in self.ROWS[start:stop]]


@pytest.mark.agenty_sandbox(agents={AGENT: UnevenRows()}, page_cap=1)
@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("column_types", ["infer", "text"])
def test_which_values_of_json_are_filled(agenty_sandbox, destination, file_format, column_types):
    [job_id] = agenty_sandbox.add_older_jobs(AGENT, 1)
    names = ["zero", "false", "list", "object", "null", "text", "some"]
    with AgentyHook() as hook:
        exported = hook.download_result(
            job_id,
            destination,
            format=file_format,
            column_types=column_types,
            required_fields=dict.fromkeys(names, 0),
        )
    assert exported.filled == {
        "zero": 1.0,
        "false": 1.0,
        "list": 0.5,
        "object": 0.5,
        "null": 0.0,
        "text": 0.0,
        "some": 1.0,
    }
