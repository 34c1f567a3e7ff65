"""What is in the rows of a result, as they are read in Python and as they are in each kind of file."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import logging

import pytest
from pyarrow import parquet

from airflow_provider_agenty.exceptions import AgentyError, AgentyExportError, AgentyInputError
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import AgentyResultOperator
from tests.result_server import JOB_ID, ResultServer, page_of

HALF = "\\ud83d"
"""Half of an emoji, as JSON can have it."""


@pytest.fixture
def serve(monkeypatch):
    """Give a function that serves rows, written as JSON, and makes their server's connection the default one."""
    with contextlib.ExitStack() as servers:

        def serve(rows: str | bytes, total: int = 1):
            page = rows if isinstance(rows, bytes) else page_of(total, rows)
            server = servers.enter_context(ResultServer.serving(lambda offset, limit, number: page))
            monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", server.connection)

        yield serve


@pytest.fixture
def land(tmp_path):
    """Give a function that lands the result and returns the bytes of the file."""

    def land(file_format="jsonl", rows=1, **parameters) -> bytes:
        path = tmp_path / f"result.{file_format}"
        landed = AgentyHook().download_result(JOB_ID, str(path), format=file_format, **parameters)
        assert landed.rows == rows
        return path.read_bytes()

    return land


def values() -> list:
    return [row["v"] for row in AgentyHook().iter_result(JOB_ID)]


def csv_values(content: bytes) -> list[str]:
    return [row["v"] for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]


NUMBERS = [
    # as JSON, in Python, its type in Parquet
    ("19.90", 19.9, "double"),
    ("1.0", 1.0, "double"),
    ("1E5", 100000.0, "double"),
    ("1e-7", 1e-7, "double"),
    ("0.10000000000000001", 0.1, "double"),
    ("0.1000000000000000055511151231257827", 0.1, "string"),
    ("1e400", "1e400", "string"),
    ("-1e400", "-1e400", "string"),
    ("1e-400", "1e-400", "string"),
    ("0e-400", 0.0, "double"),
    ("1e99999999999999999999", "1e99999999999999999999", "string"),
    ("-0", 0, "int64"),
    ("-0.0", -0.0, "double"),
    ("9223372036854775807", 2**63 - 1, "int64"),
    ("-9223372036854775808", -(2**63), "int64"),
    ("9223372036854775808", "9223372036854775808", "string"),
    ("12345678901234567890", "12345678901234567890", "string"),
    ("-12345678901234567890", "-12345678901234567890", "string"),
    ("1" * 5000, "1" * 5000, "string"),
]


class TestNumbers:
    @pytest.mark.parametrize(("text", "value", "kind"), NUMBERS)
    def test_keep_their_text(self, serve, land, text, value, kind):
        serve(f'[{{"v": {text}}}]')

        assert land("jsonl") == f'{{"v":{text}}}\n'.encode()
        assert land("csv") == f"v\r\n{text}\r\n".encode()
        column = parquet.read_table(io.BytesIO(land("parquet")))["v"]
        assert (str(column.type), column.to_pylist()) == (kind, [text if kind == "string" else value])
        assert values() == [value]
        assert type(values()[0]) is type(value)

    @pytest.mark.parametrize("text", ['[19.90,1e400,{"a":12345678901234567890}]', '{"a":{"b":[1.50]}}'])
    def test_keep_their_text_inside_of_others(self, serve, land, text):
        serve(f'[{{"v": {text}}}]')

        assert land("jsonl") == f'{{"v":{text}}}\n'.encode()
        assert csv_values(land("csv")) == [text]
        assert parquet.read_table(io.BytesIO(land("parquet")))["v"].to_pylist() == [text]

    @pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
    def test_what_is_none_is_text_with_one_warning(self, serve, land, caplog, text):
        serve(f'[{{"v": {text}}}, {{"v": [{text}]}}]', total=2)
        caplog.set_level(logging.WARNING)

        assert land("jsonl", rows=2) == f'{{"v":"{text}"}}\n{{"v":["{text}"]}}\n'.encode()
        warned = [record.getMessage() for record in caplog.records if "NaN or Infinity" in record.getMessage()]
        assert warned == [
            f"The result of job {JOB_ID} holds NaN or Infinity, which JSON does not have. They are landed as text"
        ]
        assert csv_values(land("csv", rows=2)) == [text, f'["{text}"]']
        assert values() == [text, [text]]

    def test_of_a_column_decide_its_type_together(self, serve, land):
        serve('[{"v": 1}, {"v": 1.50}, {"v": -0}]', total=3)

        column = parquet.read_table(io.BytesIO(land("parquet", rows=3)))["v"]
        assert (str(column.type), column.to_pylist()) == ("double", [1.0, 1.5, 0.0])


class TestText:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            (f"Could not read: {HALF}", "Could not read: \ufffd"),
            ("\\uDC00", "\ufffd"),
            (f"{HALF}{HALF}\\ude00", "\ufffd😀"),
            (f"{HALF}\\n\\ude00", "\ufffd\n\ufffd"),
            (f"\\{HALF}", "\\ud83d"),
            (f"\\\\{HALF}\\\\\\ude00\\\\", "\\\ufffd\\\ufffd\\"),
            ('\\"\\u00e9\\/\\ud83d\\ude00', '"é/😀'),
            ("\ud83d raw", "\ufffd raw"),
            ("£ 本", "£ 本"),
        ],
    )
    def test_has_no_half_of_a_character(self, serve, land, text, value):
        serve(f'[{{"v": "{text}"}}]')

        assert values() == [value]
        assert json.loads(land("jsonl")) == {"v": value}
        assert csv_values(land("csv")) == [value]
        assert parquet.read_table(io.BytesIO(land("parquet")))["v"].to_pylist() == [value]

    def test_of_a_key_has_none_either(self, serve, land):
        serve(f'[{{"a{HALF}": 1, "b": {{"\\udc00": 2}}}}]')
        row = {"a\ufffd": 1, "b": {"\ufffd": 2}}

        assert list(AgentyHook().iter_result(JOB_ID)) == [row]
        assert json.loads(land("jsonl")) == row
        assert land("csv").decode().splitlines()[0] == "a\ufffd,b"
        assert parquet.read_table(io.BytesIO(land("parquet"))).column_names == ["a\ufffd", "b"]

    def test_of_two_keys_that_are_the_same_the_last_counts(self, serve, land):
        serve(f'[{{"v": 1, "{HALF}": 1, "v": 2, "\\udc00": 2}}]')

        assert list(AgentyHook().iter_result(JOB_ID)) == [{"v": 2, "\ufffd": 2}]
        assert land("jsonl").decode() == '{"v":2,"\ufffd":2}\n'
        assert land("csv").decode() == "v,\ufffd\r\n2,2\r\n"
        assert parquet.read_table(io.BytesIO(land("parquet"))).to_pylist() == [{"v": 2, "\ufffd": 2}]


class TestColumnTypes:
    ROWS = f'[{{"v": 1, "w": [19.90, null]}}, {{"v": 1.50, "w": true}}, {{"v": null, "w": "{HALF}"}}]'

    def test_text_keeps_every_value_as_text(self, serve, land):
        serve(self.ROWS, total=3)
        rows = [
            {"v": "1", "w": "[19.90,null]"},
            {"v": "1.50", "w": "true"},
            {"v": None, "w": "\ufffd"},
        ]

        lines = land("jsonl", rows=3, column_types="text").splitlines()
        assert [json.loads(line) for line in lines] == rows
        table = parquet.read_table(io.BytesIO(land("parquet", rows=3, column_types="text")))
        assert {str(field.type) for field in table.schema} == {"string"}
        assert table.to_pylist() == rows
        assert land("csv", rows=3, column_types="text") == land("csv", rows=3)

    def test_text_is_the_same_whatever_a_later_result_holds(self, serve, land):
        schemas = []
        for number in ("1", "1.5", "null", "1e400"):
            serve(f'[{{"v": {number}}}]')
            schemas.append(parquet.read_schema(io.BytesIO(land("parquet", column_types="text"))))
        assert all(schema == schemas[0] for schema in schemas)

    def test_the_operator_hands_it_on(self, serve, tmp_path, make_context):
        serve(self.ROWS, total=3)
        path = tmp_path / "rows.parquet"
        task = AgentyResultOperator(
            task_id="land", job_id=JOB_ID, path=str(path), format="parquet", column_types="text"
        )

        assert task.execute(make_context(task))["rows"] == 3
        assert {str(field.type) for field in parquet.read_schema(path)} == {"string"}

    @pytest.mark.parametrize("column_types", ["", "Text", None, "string", ["text"]])
    def test_what_is_none_is_refused(self, agenty_sandbox, tmp_path, column_types):
        path = str(tmp_path / "rows.csv")
        with pytest.raises(AgentyInputError, match="column_types"):
            AgentyResultOperator(task_id="land", job_id=JOB_ID, path=path, format="csv", column_types=column_types)
        with pytest.raises(AgentyInputError, match="column_types"):
            AgentyHook().download_result(JOB_ID, path, format="csv", column_types=column_types)
        assert agenty_sandbox.requests == []


class TestColumns:
    @pytest.mark.parametrize(("rows", "count"), [("[]", 0), ("[{}, {}, {}]", 3)])
    def test_parquet_has_one_also_where_rows_have_none(self, serve, land, rows, count):
        serve(rows, total=count)

        table = parquet.read_table(io.BytesIO(land("parquet", rows=count)))
        assert table.column_names == ["no_columns"]
        assert table["no_columns"].to_pylist() == [None] * count

    @pytest.mark.parametrize(("file_format", "most"), [("csv", 10_000), ("parquet", 2_000)])
    def test_more_than_can_be_are_an_error(self, serve, land, tmp_path, file_format, most):
        rows = json.dumps([{f"key {number}": number} for number in range(most + 1)])
        serve(rows, total=most + 1)

        with pytest.raises(AgentyExportError, match=f"more than {most} different keys.*format='jsonl'"):
            land(file_format)
        assert list(tmp_path.iterdir()) == []
        assert len(land("jsonl", rows=most + 1).splitlines()) == most + 1

    @pytest.mark.parametrize("file_format", ["csv", "parquet"])
    def test_rows_that_each_have_one_of_their_own(self, serve, land, file_format):
        rows = [{f"key {number}": str(number)} for number in range(1500)]
        serve(json.dumps(rows), total=1500)

        content = land(file_format, rows=1500)
        if file_format == "csv":
            read = list(csv.reader(io.StringIO(content.decode(), newline="")))
            assert read[0] == [f"key {number}" for number in range(1500)]
            assert all(
                row[number] == str(number) and sum(map(len, row)) == len(str(number))
                for number, row in enumerate(read[1:])
            )
        else:
            table = parquet.read_table(io.BytesIO(content))
            assert table.num_columns == 1500
            assert all(
                table.column(number).null_count == 1499 and table.column(number)[number].as_py() == str(number)
                for number in range(0, 1500, 100)
            )


def nested(depth: int) -> str:
    return '{"a":[' * (depth // 2) + "]}" * (depth // 2)


class TestWhatCanBeStored:
    def test_airflow_can_store_what_is_read(self, serve):
        everything = ",".join(text for text, _, _ in NUMBERS)
        serve(
            f'[{{"numbers": [{everything}, NaN, -Infinity], "{HALF}": "{HALF}", "deep": {nested(90)}, '
            '"plain": [true, false, null, "£", {}]}]'
        )
        rows = list(AgentyHook().iter_result(JOB_ID))

        assert json.loads(json.dumps(rows, allow_nan=False).encode()) == rows
        msgspec = pytest.importorskip("msgspec", reason="Airflow 3 sends XComs with it")
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(rows)) == rows
        try:
            from airflow.sdk.serde import deserialize, serialize
        except ImportError:
            from airflow.serialization.serde import deserialize, serialize
        assert deserialize(json.loads(json.dumps(serialize(rows)))) == rows

    @pytest.mark.parametrize("depth", [102, 400, 200_000])
    @pytest.mark.parametrize("place", ["value", "row", "page"])
    def test_what_is_nested_too_deeply_is_an_error(self, serve, land, tmp_path, depth, place):
        if place == "page":
            serve(f'{{"total": 1, "result": [{{}}], "more": {nested(depth)}}}'.encode())
        else:
            serve(f'[{{"v": {nested(depth)}}}]' if place == "value" else f"[{nested(depth)}]")

        with pytest.raises(AgentyError, match="is nested more than 100 deep"):
            list(AgentyHook().iter_result(JOB_ID))
        with pytest.raises(AgentyError, match="is nested more than 100 deep"):
            AgentyHook().count_result(JOB_ID)
        for file_format in ("jsonl", "csv", "parquet"):
            with pytest.raises(AgentyExportError, match="is nested more than 100 deep"):
                land(file_format, verify_rows=False)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b'{"total": 1, "result": [{"v": "\xff"}]}',
            b'{"total": 1, "result": [{"v": "\\ud8"}]}',
            b'{"total": 1, "result": [{"v": 01}]}',
            b'{"total": 1, "result": [{"v": 1}]} more',
            b'{"total": 1e0, "result": [{"v": 1}]}',
            b'{"total": NaN, "result": [{"v": 1}]}',
            b'{"total": 12345678901234567890, "result": [{"v": 1}]}',
            b'{"total": -1, "result": [{"v": 1}]}',
            b'{"total": 1, "result": [[1]]}',
            b'{"total": 1, "result": [NaN]}',
            b"[" * 500 + b"]" * 500,
            gzip.compress(b"{}", mtime=0),
        ],
    )
    def test_what_is_no_page_is_an_error(self, serve, land, tmp_path, body):
        serve(body)

        with pytest.raises(AgentyError, match=f"/jobs/{JOB_ID}/result"):
            list(AgentyHook().iter_result(JOB_ID))
        with pytest.raises(AgentyError, match=f"/jobs/{JOB_ID}/result"):
            AgentyHook().count_result(JOB_ID)
        with pytest.raises(AgentyExportError, match=f"/jobs/{JOB_ID}/result"):
            land("jsonl", verify_rows=False)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
    def test_a_page_in_another_encoding_of_unicode(self, serve, encoding):
        serve(page_of(1, '[{"v": "£ 本"}]').decode().encode(encoding))

        assert values() == ["£ 本"]
