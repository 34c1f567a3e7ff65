"""Patterns of many records: what they take, which only shows in the time that counting takes elsewhere."""

from __future__ import annotations

import csv
import io

import pytest

from airflow_provider_agenty.landing.records_alike import (
    ANY_RECORD,
    QUOTED_RECORD,
    lines,
    lines_with_carriage_return,
    quoted_records_like,
)


@pytest.mark.parametrize("record", [b'"a","b c"\n', b'""\n', b'"a"\r\n', b'"a\n","\r\nb"\n', b'"a",",",""\r\n'])
def test_quoted_records_are_taken_by_the_fastest_pattern(record):
    fastest, _ = quoted_records_like(record)
    text = record * (3 * fastest.records)
    assert fastest.take(text, 0, len(text)) == (len(text), 3 * fastest.records)
    assert fastest.records * len(QUOTED_RECORD.pattern.findall(record)) >= 64


@pytest.mark.parametrize("record", [b'"a","b c"\n', b'"x""y","b"\r\n', b'"""",""""""\n', b'"a""","""\n"\n'])
def test_quoted_records_with_quotes_are_taken_by_the_other_pattern(record):
    _, other = quoted_records_like(record)
    text = record * (3 * other.records)
    assert other.take(text, 0, len(text)) == (len(text), 3 * other.records)


@pytest.mark.parametrize("columns", [65, 256])
def test_records_of_many_columns_are_taken_some_at_a_time(columns):
    record = b",".join([b'"a"'] * columns) + b"\n"
    fastest, _ = quoted_records_like(record)
    assert fastest.take(record * 4, 0, 4 * len(record)) == (4 * len(record), 4)


def test_no_pattern_is_made_for_records_of_too_many_columns():
    assert quoted_records_like(b",".join([b'"a"'] * 257) + b"\n") == ()


@pytest.mark.parametrize("odd", [b'"a"\n', b'"a","b"\r\n', b'"a","b","c"\n', b'"a",b\n', b'"a","b""\n', b"\n"])
def test_quoted_records_are_taken_up_to_one_that_is_not_like_the_first(odd):
    fastest, other = quoted_records_like(b'"a","b"\n')
    text = b'"a","b"\n' * fastest.records + odd + b'"a","b"\n' * fastest.records
    for alike in (fastest, other):
        assert alike.take(text, 0, len(text)) == (text.index(b'"\n' + odd) + 2, fastest.records)


def test_nothing_is_taken_beyond_the_limit():
    taken, _ = quoted_records_like(b'"a"\n')
    text = b'"a"\n' * 10_000
    assert taken.take(text, 4, 4 + 4 * taken.records) == (4 + 4 * taken.records, taken.records)
    assert taken.take(text, 4, 3 + 4 * taken.records) == (4, 0)


@pytest.mark.parametrize(
    ("pattern", "line", "odd"),
    [
        (lines, b"abc,d\n", b"\n"),
        (lines_with_carriage_return, b"abc,d\r\n", b"\r\n"),
        (lines_with_carriage_return, b"abc,d\r\n", b"a\n"),
        (lines_with_carriage_return, b"a\rb\r\n", b"\n"),
    ],
)
def test_lines_are_taken_up_to_one_that_is_blank_or_ends_otherwise(pattern, line, odd):
    alike = pattern()
    text = line * (2 * alike.records) + odd + line * alike.records
    assert alike.take(text, 0, len(text)) == (2 * alike.records * len(line), 2 * alike.records)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    "record",
    [
        b"a,b",
        b",",
        b"5\" pipe,'b",
        b'"a"b"c,d',
        b'"a\n""\r,"b",""',
        b'a,"b\r\n"',
        b'"""",""',
        b'"a" ,"b"',
        b'"a""b"c"',
        b'x""',
    ],
)
def test_any_record_is_taken(record, end):
    text = record + end + b"next"
    assert ANY_RECORD.take(text, 0, len(text)) == (len(record + end), 1)
    assert list(csv.reader(io.StringIO(text.decode(), newline="")))[1:] == [["next"]]


@pytest.mark.parametrize("text", [b"\n", b"\r\n", b"a,b", b'"a\n', b'a,"b""\n', b"a\r", b'"a"b,"c\n'])
def test_a_blank_line_or_what_has_no_end_is_not_taken_as_a_record(text):
    assert ANY_RECORD.take(text, 0, len(text)) == (0, 0)
