"""Servers that never stop sending something, and never send enough."""

from __future__ import annotations

import signal
import time

import pytest

from airflow_provider_agenty.exceptions import AgentyExportError
from airflow_provider_agenty.landing.destinations import open_destination
from tests.landing.conftest import SIGNATURE, Answer, everything_said, files_in, land_source
from tests.landing.test_download import read

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"a,b\r\n" * 1000, drip=0.01),
        Answer(raw=HEAD + b"X: " + b"x" * 5000, drip=0.01),
        Answer(raw=HEAD + b"X: y\r\n" * 90, drip=0.01),
        Answer(raw=CHUNKED + b"4;" + b"x" * 5000, drip=0.01),
        Answer(raw=CHUNKED + b"4\r\na,b\n\r\n0\r\n" + b"X: y\r\n" * 1000, drip=0.01),
        Answer(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, drip=0.01),
        Answer(raw=b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", drip=0.01),
    ],
    ids=["body", "a header", "headers", "a chunk's size", "trailers", "continue", "redirects"],
)
def test_a_drip_is_given_up(host, make_download, answer):
    host.answers = [answer]
    began = time.monotonic()
    with pytest.raises(AgentyExportError) as caught:
        read(make_download(attempts=2, timeout=(1.0, 0.2)))
    assert time.monotonic() - began < 10
    assert "less than 64 KiB came in four times the read timeout" in str(caught.value)
    assert SIGNATURE not in everything_said(caught.value)


def test_a_download_that_stalls_goes_on_where_it_did(host, make_download):
    body = b"a,b\r\n" * 100_000
    host.answers = [
        Answer(body, headers={"ETag": '"v1"'}, cut_after=300_000, stall=2),
        Answer(body, headers={"ETag": '"v1"'}, ranges=True),
    ]
    assert b"".join(make_download(timeout=(1.0, 0.2))) == body


def test_time_that_the_taker_takes_is_not_the_servers(host, make_download):
    body = b"a,b\r\n" * 1_000_000
    host.answers = [Answer(body)]
    chunks = iter(make_download(attempts=1, timeout=(1.0, 0.2)))
    first = next(chunks)
    time.sleep(1.2)  # more than four read timeouts
    assert len(first) + sum(map(len, chunks)) == len(body)


def test_the_end_of_a_task_ends_it_at_once(host, make_download, tmp_path):
    class TaskTimeout(BaseException):
        """Like Airflow's, which a signal raises in the main thread."""

    def end(signal_number, frame):
        raise TaskTimeout

    host.answers = [Answer(b"a,b\r\n" * 20_000, drip=0.01)]
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began = time.monotonic()
    try:
        with pytest.raises(TaskTimeout):
            land_source(
                make_download(timeout=(5.0, 60.0)),
                open_destination(f"{tmp_path}/books.csv", default_name=lambda: "x"),
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 5
    assert files_in(tmp_path) == []
