"""The record counter against Python's own csv module."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_agenty.landing import lines, records, records_alike
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


SIZES = {
    "real": {},
    "tiny": {"_LARGEST_BLOCK": 16, "_SMALLEST_BLOCK": 8, "_SAMPLE": 40},
    "halved": {"_LARGEST_BLOCK": 64, "_SMALLEST_BLOCK": 1},
    "tiny patterns": {"_LARGEST_BLOCK": 64, "_MOST": 20, "WORTH_PATTERNS": 0, "_SHORT": 0, "_LONG": 2000},
    "tiny patterns, shortest lines": {"WORTH_PATTERNS": 0, "_SHORT": 2000, "_LONG": 2000},
    "numpy": {"WORTH_PATTERNS": 0, "_LONG": 2000, "_WORTH_NUMPY": 0},
    "numpy, few at a time": {"_MOST": 20, "WORTH_PATTERNS": 0, "_LONG": 2000, "_WORTH_NUMPY": 0},
}


@contextlib.contextmanager
def smaller(sizes):
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            for module in (lines, records, records_alike):
                if hasattr(module, name):
                    patch.setattr(module, name, size)
        if "WORTH_PATTERNS" in sizes:
            patch.setattr(records_alike, "_FIELDS", 2)
            patch.setattr(records_alike, "_TIMES", 1)
        forget_patterns()
        yield
    forget_patterns()


def forget_patterns():
    records_alike.lines.cache_clear()
    records_alike.lines_with_carriage_return.cache_clear()


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
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
def test_counts_what_csv_finds_in_any_content_in_any_chunks(sizes, text, cuts):
    with smaller(sizes):
        assert counts(text.encode(), cuts) == expected_counts(text)


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


@pytest.fixture(params=["patterns", "numpy"])
def from_the_first_line(request, monkeypatch):
    """Count with patterns as far as there are no quotes, or with numpy, not with one after the other."""
    monkeypatch.setattr(lines, "_WORTH_NUMPY", {"patterns": 10**9, "numpy": 0}[request.param])


@pytest.mark.usefixtures("from_the_first_line")
@pytest.mark.parametrize("line", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_counts_many_lines_that_are_alike_with_odd_ones_between_them(line, line_end):
    many = f"{line}{line_end}" * (300 + 150_000 // len(line))
    text = "".join(many + odd + line_end for odd in ODD) + many + '"9'
    assert counts(text.encode(), []) == expected_counts(text)


@pytest.mark.usefixtures("from_the_first_line")
@pytest.mark.parametrize("line", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_counts_many_lines_that_are_alike_cut_anywhere(line, line_end):
    text = f"{line}{line_end}" * (1000 + 200_000 // len(line))
    data = text.encode()
    chance = random.Random(line)
    assert counts(data, [chance.randrange(len(data)) for _ in range(5)]) == expected_counts(text)


@pytest.mark.parametrize("name", ["short lines", "quoted", "empty", "quotes", "a comma", "line ends", "wide"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_nearly_all_of_what_is_alike_is_taken_many_records_at_a_time(mocker, name, line_end):
    take = mocker.spy(records_alike.RecordsAlike, "take")
    data = f"{ALIKE[name]}{line_end}".encode() * (1000 + 1_000_000 // len(ALIKE[name]))
    counts(data, [333_333, 666_666])
    assert sum(size for records, size in taken_by_patterns(take) if records > 1) > 0.95 * len(data)


def test_nearly_all_records_with_odd_quotes_are_taken_one_at_a_time_and_not_byte_by_byte(mocker):
    take = mocker.spy(records_alike.RecordsAlike, "take")
    data = b'abc,5" pipe,"x"y\n' * 20_000
    counts(data, [100_000])
    assert sum(size for _, size in taken_by_patterns(take)) > 0.95 * len(data)


def taken_by_patterns(take) -> list[tuple[int, int]]:
    """Give how many records each pattern takes and how many bytes it took."""
    calls = zip(take.call_args_list, take.spy_return_list, strict=True)
    return [(call.args[0].records, stop - call.args[2]) for call, (stop, _) in calls]


def test_counts_lines_that_become_longer_than_a_block():
    text = "abc,12345\n" * 20_000 + "x" * 300_000 + "\n" + "abc,12345\n" * 20_000
    assert counts(text.encode(), []) == (40_001, 0)


def test_a_quoted_field_larger_than_a_block():
    text = 'a,b\n1,"' + "line\n" * 200_000 + '"\n2,x\n'
    assert counts(text.encode(), [300_000]) == (3, 0)
