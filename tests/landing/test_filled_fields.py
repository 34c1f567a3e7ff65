"""In how many rows of a CSV a field is filled: every form of a CSV, fields of any length, and bounded memory."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing.filled_fields import FilledFields
from airflow_provider_agenty.landing.temporary_file import staged_file

LONG = 5 * 1024 * 1024


def counted(folder, content: bytes, names, *, compressed=False) -> FilledFields:
    fields = FilledFields(names)
    with staged_file(folder, "books.csv") as staged:
        staged.write(gzip.compress(content) if compressed else content)
        fields.count_csv(staged, compressed=compressed)
    return fields


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("content", "filled"),
    [
        (b"a,b\n1,2\n,\n", {"a": 1, "b": 1}),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n3,\r\n", {"a": 2, "b": 1}),
        (b'\xef\xbb\xbf"a","b"\r1,2\r3,', {"a": 2, "b": 1}),
        (b'b,a\n"","x\r\n,y"\n" ","z"\n', {"a": 2, "b": 0}),
        ("a,b\n\u00a0,\u2003\nü,\ufffd\n".encode(), {"a": 1, "b": 1}),
        (b"a,b\n\xff,\xfe\n", {"a": 1, "b": 1}),
        (b"a,b\n\0,x\n", {"a": 1, "b": 1}),
        # A row that is too short, one that is too long, a blank line.
        (b"a,b\n1\n1,2,3\n\n", {"a": 2, "b": 1}),
        (b"a,b,a\n1,2,3\n1,2,\n,2,3\n1,2\n", {"a": 1, "b": 4}),
        (b"", {"a": 0, "b": 0}),
    ],
)
def test_each_form_of_a_csv(tmp_path, content, filled, compressed):
    fields = counted(tmp_path, content, ["a", "b"], compressed=compressed)
    assert fields.filled == filled
    assert fields.missing == ([] if content else ["a", "b"])


def test_names_are_taken_to_the_letter(tmp_path):
    fields = counted(tmp_path, b" a,A\n1,2\n", ["a", " a", "A"])
    assert (fields.filled, fields.missing) == ({"a": 0, " a": 1, "A": 1}, ["a"])
    assert list(fields.columns) == [" a", "A"]


@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('a ,"\r\n\t\x85\u2028é\0'), max_size=4), min_size=2, max_size=4), max_size=6
    ),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_it_counts_what_python_reads(tmp_path_factory, rows, quoting, line_end):
    path = tmp_path_factory.mktemp("csv") / "books.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=quoting, lineterminator=line_end).writerows([["a", "b"], *rows])
    with path.open(encoding="utf-8", newline="") as file:
        read = [[*row, "", ""] for row in csv.reader(file)][1:]
    fields = counted(path.parent, path.read_bytes(), ["a", "b"])
    assert fields.filled == {
        "a": sum(bool(row[0].strip()) for row in read),
        "b": sum(bool(row[1].strip()) for row in read),
    }


class TestLongFields:
    def test_a_field_of_several_megabytes(self, tmp_path):
        content = b'a,b\n"%b","%b"\n%b,\n' % (b"x\n" * LONG, b" " * LONG, b"y" * LONG)
        assert counted(tmp_path, content, ["a", "b"]).filled == {"a": 2, "b": 0}

    @pytest.mark.parametrize(
        "row",
        [b"x" * 17 * 1024**2, b'"' + b"x\n" * 9 * 1024**2 + b'"', b"," * 17 * 1024**2],
        ids=["a field", "lines", "fields"],
    )
    def test_a_row_beyond_all_bounds_is_an_error(self, tmp_path, row):
        with pytest.raises(AgentyExportError, match="required_fields can't be measured"):
            counted(tmp_path, b"a,b\n%b\n" % row, ["a", "b"])

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
    def test_memory_does_not_grow_with_the_file(self, tmp_path):
        path = tmp_path / "large.csv"
        with path.open("wb") as file:
            file.write(b"a,b\n")
            for _ in range(20):
                file.write(b"%b,1\n" % (b"x" * LONG) + b"1,\n" * 100_000)
        script = """
            import resource, sys
            from types import SimpleNamespace
            from airflow_provider_agenty.landing.filled_fields import FilledFields

            def grown():
                return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

            before, fields = grown(), FilledFields(["a", "b"])
            fields.count_csv(SimpleNamespace(content=lambda: open(sys.argv[1], "rb")), compressed=False)
            print(fields.filled["a"], fields.filled["b"], (grown() - before) // 1024)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, check=True
        )
        a, b, mebibytes = map(int, done.stdout.split()[-3:])
        assert (a, b) == (20 * 100_001, 20)
        assert mebibytes < 80, "the file has 100 MiB, a field 5 MiB"
