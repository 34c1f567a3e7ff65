"""The record counter against Python's own csv module."""

from __future__ import annotations

import csv
import io
import itertools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_agenty.landing import records
from airflow_provider_agenty.landing.records import RecordCounter

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


def expected_counts(text: str) -> tuple[int, int]:
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    return sum(1 for row in rows if row), sum(1 for row in rows if not row)


def counts(data: bytes, cuts: list[int]) -> tuple[int, int]:
    counter = RecordCounter()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(places):
        counter.update(data[start:stop])
    counter.finish()
    return counter.records, counter.blank_records


@pytest.fixture(
    params=[(256 * 1024, 2 * 1024, 30), (16, 8, 1024), (64, 1, 30)], ids=["real", "tiny", "halved"], scope="module"
)
def block_sizes(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_LARGEST_BLOCK", request.param[0])
        patch.setattr(records, "_SMALLEST_BLOCK", request.param[1])
        patch.setattr(records, "_NARROW", request.param[2])
        yield


@given(text=CONTENT, cuts=st.lists(st.integers(0, 10_000), max_size=6))
@example(text='","a\nb"xyz"\n', cuts=[])
@example(text='a,5" pipe,"x\ny"\n', cuts=[])
@example(text='"a\n\n"\n\n', cuts=[])
@example(text="a\r\n\r\nb\r\n", cuts=[])
@example(text="\r\na,b\r\n", cuts=[])
@example(text="\ufeff", cuts=[1, 2])
@example(text='\ufeff"a\nb",c\n', cuts=[1, 2])
@example(text='"unfinished\n', cuts=[])
@settings(max_examples=300, deadline=None)
def test_counts_what_csv_finds_in_any_content_in_any_chunks(block_sizes, text, cuts):
    data = text.encode()
    assert counts(data, cuts) == expected_counts(text)


def test_counts_single_bytes_as_one_chunk():
    text = '\ufeff"id","te""xt"\r\n"1","a\r\nb"\r\n\r\n2,c"d\r3,"e'
    data = text.encode()
    assert counts(data, list(range(len(data)))) == expected_counts(text) == (4, 1)


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


@pytest.mark.parametrize("blank", ["\n", "\r\n", "\r", ""])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_counts_narrow_lines(line_end, blank):
    text = f"7{line_end}" * 70_000 + blank + f"8{line_end}" * 70_000 + blank + "9"
    assert counts(text.encode(), []) == expected_counts(text)


def test_a_quoted_field_larger_than_a_block():
    text = 'a,b\n1,"' + "line\n" * 200_000 + '"\n2,x\n'
    assert counts(text.encode(), [300_000]) == (3, 0)
