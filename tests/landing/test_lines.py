"""Lines without quotes: which way takes them, which only shows in the time that counting takes elsewhere."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from airflow_provider_agenty.landing import lines
from airflow_provider_agenty.landing.lines import Lines, TakenLines

COUNT = """
import json, resource, sys

from airflow_provider_agenty.landing.records import RecordCounter

limit, megabytes = sys.argv[1], int(sys.argv[2])
if limit:
    resource.setrlimit(getattr(resource, limit), (8 * 1024**3, resource.RLIM_INFINITY))
counter = RecordCounter()
for _ in range(megabytes * 2):
    counter.update(b"abc,12345\\n\\n" * 45_500)
counter.finish()
print(json.dumps([counter.records, counter.blank_records, "numpy" in sys.modules]))
"""

LOAD = """
import json, os, pathlib, sys

from airflow_provider_agenty.landing import lines

def threads():
    return len(list(pathlib.Path("/proc/self/task").iterdir()))

before = threads()
lines._numpy_loads()
print(json.dumps(["numpy" in sys.modules, threads() - before, os.environ.get("OPENBLAS_NUM_THREADS")]))
"""


@pytest.fixture
def numpy_from_the_first_line(monkeypatch):
    monkeypatch.setattr(lines, "_WORTH_NUMPY", 0)


def take_all(text: bytes) -> TakenLines:
    lines_of_text = Lines()
    stop, records, blank_records = 0, 0, 0
    while (taken := lines_of_text.take(text, stop)).stop > stop:
        stop, records, blank_records = taken.stop, records + taken.records, blank_records + taken.blank_records
    return TakenLines(stop, records, blank_records)


@pytest.mark.usefixtures("numpy_from_the_first_line")
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("repeated", [["a,b"], ["a", ""], ["", "", "x" * 100], ["a\rb", "", "c\nd"]])
def test_numpy_takes_all_short_lines_blank_ones_too(repeated, end):
    text = "".join(line + end for line in repeated) * 20_000
    stop, records, blank_records = take_all(text.encode())
    assert len(text) - stop < lines.WORTH_PATTERNS
    rows = list(csv.reader(io.StringIO(text[:stop], newline="")))
    assert (records, blank_records) == (len(rows) - rows.count([]), rows.count([]))


@pytest.mark.usefixtures("numpy_from_the_first_line")
@pytest.mark.parametrize(
    ("end", "taken"),
    [(b"abc", 0), (b"\r", 0), (b"\r\n", 2), (b"\n", 1), (b"\r\r", 1), (b"\n\r", 1), (b"\r\nabc", 2), (b"\rabc", 1)],
)
def test_numpy_takes_no_line_whose_end_is_not_known_for_sure(end, taken):
    text = b"abc,d\n" * 10_000
    assert Lines().take(text + b"e" + end, 0).stop == len(text) + bool(taken) + taken


@pytest.mark.usefixtures("numpy_from_the_first_line")
def test_numpy_takes_what_follows_the_position_only():
    text = b"\n\n" + b"abc,d\r" * 10_000
    assert Lines().take(text, 2) == (len(text) - 6, 9_999, 0)
    assert Lines().take(text, 1) == (len(text) - 6, 9_999, 1)


@pytest.mark.parametrize("worth_numpy", [0, 10**9])
@pytest.mark.parametrize(
    "text",
    [b"abc,d\n" * 50_000 + b'"a"\n', (b"x" * 300 + b"\n") * 1000, b"abc\n" * 100],
    ids=["a quote", "long lines", "few lines"],
)
def test_nothing_is_taken_where_others_than_short_lines_follow(monkeypatch, worth_numpy, text):
    monkeypatch.setattr(lines, "_WORTH_NUMPY", worth_numpy)
    assert Lines().take(text, 0) == (0, 0, 0)


@pytest.mark.usefixtures("numpy_from_the_first_line")
@pytest.mark.parametrize("fault", ["ModuleNotFoundError", "RuntimeError"])
def test_patterns_count_where_numpy_is_missing_or_broken(monkeypatch, tmp_path, fault):
    tmp_path.joinpath("numpy.py").write_text(f"raise {fault}('numpy does not run here.')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    text = b"abc,d\n" * 20_000
    assert Lines().take(text, 0).records > 19_500
    assert Lines().take(b"\n" + text, 0) == (0, 0, 0)  # where the patterns end


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="there is one processor only")
@pytest.mark.parametrize(("asked_for", "more_threads"), [(None, 0), ("2", 1)])
def test_numpy_starts_no_threads_unless_asked_to_and_the_environment_stays(monkeypatch, asked_for, more_threads):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if asked_for:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", asked_for)
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, more_threads, asked_for]


@pytest.mark.parametrize(
    ("limit", "megabytes", "loaded"),
    [("", 1, False), ("", 17, True), ("RLIMIT_DATA", 17, False), ("RLIMIT_AS", 17, False)],
)
def test_numpy_is_loaded_for_many_lines_only_and_where_memory_is_not_limited(limit, megabytes, loaded):
    done = subprocess.run(
        [sys.executable, "-c", COUNT, limit, str(megabytes)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [megabytes * 91_000, megabytes * 91_000, loaded]
