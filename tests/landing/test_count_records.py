"""The record counter against Python's own csv module."""

from __future__ import annotations

import csv
import io
import itertools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_agenty.landing.count_records import RecordCounter

CONTENT = st.one_of(
    st.text(alphabet='",\r\n a', max_size=60),
    st.text(alphabet='",\r\n aé£\ufeff\u2028\x85\x00', max_size=60),
    # Long enough for whole blocks, mostly regular, with something irregular here and there.
    st.lists(
        st.sampled_from(
            [
                '"a","b"\n',
                '"",""\r\n',
                "a,b\n",
                "abc,def\r\n",
                '"x""y",z\n',
                '"1\n2","3\r4"\r',
                "\n",
                "\r\n",
                "\r",
                'a"b,c\n',
                '"a"b",c\n',
                '"',
                ",",
            ]
        ),
        max_size=80,
    ).map("".join),
)


def expected_counts(text: str) -> tuple[int, int, bool]:
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    has_single_column = len(next(filter(None, rows), [""])) == 1
    return sum(1 for row in rows if row), sum(1 for row in rows if not row), has_single_column


def counts(data: bytes, cuts: list[int]) -> tuple[int, int, bool]:
    counter = RecordCounter()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(places):
        counter.update(data[start:stop])
    counter.finish()
    return counter.records, counter.blank_records, counter.has_single_column


@given(text=CONTENT, cuts=st.lists(st.integers(0, 10_000), max_size=6))
@example(text='","a\nb"xyz"\n', cuts=[])
@example(text='a,5" pipe,"x\ny"\n', cuts=[])
@example(text='"a\n\n"\n\n', cuts=[])
@example(text="a\r\n\r\nb\r\n", cuts=[])
@example(text="\r\na,b\r\n", cuts=[])
@example(text="\ufeff", cuts=[1, 2])
@example(text='\ufeff"a\nb",c\n', cuts=[1, 2])
@example(text='"unfinished\n', cuts=[])
@settings(max_examples=1000, deadline=None)
def test_counts_what_csv_finds_in_any_content_in_any_chunks(text, cuts):
    assert counts(text.encode(), cuts) == expected_counts(text)


def test_counts_single_bytes_as_one_chunk():
    text = '\ufeff"id","te""xt"\r\n"1","a\r\nb"\r\n\r\n2,c"d\r3,"e'
    data = text.encode()
    assert counts(data, list(range(len(data)))) == expected_counts(text) == (4, 1, False)


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("irregular", [False, True])
def test_counts_files_of_many_blocks(quoting, line_end, irregular):
    chance = random.Random(f"{quoting}{line_end}{irregular}")
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=quoting, lineterminator=line_end)
    for number in range(20_000):
        value = chance.choice(["", "plain", "with, comma", 'with "quotes"', "with\nlines", "£51.77", " padded "])
        writer.writerow([number, value, "x" * chance.randrange(60)])
        if irregular and number % 997 == 0:
            out.write(f'{number},5" pipe,loose "quotes" here{line_end}')
    text = out.getvalue()
    data = text.encode()
    assert counts(data, [chance.randrange(len(data)) for _ in range(9)]) == expected_counts(text)


ALIKE = {
    "digits": "7",
    "short lines": "abc,12345",
    "long lines": "x" * 200,
    "carriage returns": "a\rbc",
    "quoted": '"a","bcd"',
    "empty": '"","",""',
    "one quoted column": '"abc def"',
    "quotes": '"x""y","""","z"',
    "a comma": '"a",",","b"',
    "line ends": '"1\n\n2","\r\n"',
    "wide": ",".join(['"a"'] * 100),
    "very wide": ",".join(['"a"'] * 300),
    "quoted here and there": '1,"a",b',
}
ODD = ["", "\n", "\r\n", "\r", "\n\n", "a\rb", "a\nb", '"a","b","c","d"', 'a"b', '"a"b"', "\r\r\n", "\r\n\r\n"]


@pytest.mark.parametrize("line", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_counts_many_lines_that_are_alike_with_odd_ones_between_them(line, line_end):
    many = f"{line}{line_end}" * (100 + 20_000 // len(line))
    text = "".join(many + odd + line_end for odd in ODD) + many + '"9'
    assert counts(text.encode(), []) == expected_counts(text)


@pytest.mark.parametrize("line", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_counts_many_lines_that_are_alike_cut_anywhere(line, line_end):
    text = f"{line}{line_end}" * (300 + 200_000 // len(line))
    data = text.encode()
    chance = random.Random(line)
    assert counts(data, [chance.randrange(len(data)) for _ in range(5)]) == expected_counts(text)


@pytest.mark.parametrize("inside", ["x", "line\n", '""', ",", '","', '""a"",b,'])
def test_a_record_of_many_megabytes_takes_neither_long_nor_csvs_longest_field(inside):
    text = 'a,b\n1,"' + inside * (10_000_000 // len(inside)) + '"\n2,x\n'
    assert counts(text.encode(), list(range(0, 10_000_000, 300_007))) == (3, 0, False)


@pytest.mark.parametrize("field", ["7", "abc,12345", '"a"', '"a\r\nb","c"'])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_counts_short_texts_cut_at_each_place(field, line_end):
    text = f"{field}{line_end}{line_end}{field}{line_end}"
    assert all(counts(text.encode(), [cut]) == expected_counts(text) for cut in range(len(text)))


def test_counts_all_short_texts_of_what_means_something_to_csv():
    for length in range(7):
        for letters in itertools.product('",\r\na', repeat=length):
            text = "".join(letters)
            assert counts(text.encode(), []) == expected_counts(text), text
            assert counts(text.encode(), list(range(length))) == expected_counts(text), text
