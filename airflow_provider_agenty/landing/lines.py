"""
Records of one line each, as they are where there are no quotes.

Patterns take many of them at once. Where lines are short, finding their ends is all there is to do, and numpy does it
several times as fast. It is no dependency of this package (extra ``numpy``), and it is loaded only where there is more
to count than loading it costs.
"""

from __future__ import annotations

import io
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from airflow_provider_agenty.landing.records_alike import WORTH_PATTERNS, lines, lines_with_carriage_return

_MOST = 512 * 1024  # bytes looked through at a time; less than all, as they are looked through repeatedly
_WORTH_NUMPY = 16 * 1024 * 1024  # bytes: patterns take some 15 to 40 ms for them, loading numpy 30 ms and 15 MiB
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_SAMPLE = 1024  # bytes that tell how long lines are
# Bytes in a line. The ends of shorter ones are found faster byte by byte, those of longer ones with memchr.
_SHORT, _LONG = 8, 120
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"
# A pattern that begins with a literal byte is found several times as fast as the same with find.
_BLANK_LINE = re.compile(rb"\n\n")


class TakenLines(NamedTuple):
    """
    What was taken of a text.

    :param stop: where the first line begins that was not taken.
    :param records: how many lines were, blank ones not counted.
    :param blank_records: how many blank lines were.
    """

    stop: int
    records: int
    blank_records: int = 0


class Lines:
    """Takes whole lines where many follow each other without a quote."""

    def __init__(self) -> None:
        self._looked_through = 0
        self._with_numpy: bool | None = None

    def take(self, data: bytes, position: int) -> TakenLines:
        """
        Take lines if they are short and without quotes.

        :param data: the text.
        :param position: where a line begins.
        :return: what was taken; nothing, where others than short lines follow, or few.
        """
        limit = min(position + _MOST, len(data))
        if (
            limit - position < WORTH_PATTERNS
            or _average_line(data, position) > _LONG
            or data.find(b'"', position, limit) >= 0
        ):
            return TakenLines(position, 0)
        self._looked_through += limit - position
        if self._with_numpy is None and self._looked_through > _WORTH_NUMPY:
            self._with_numpy = _numpy_loads()
        return (_take_with_numpy if self._with_numpy else _take_with_patterns)(data, position, limit)


def _average_line(data: bytes, position: int) -> int:
    stop = position + _SAMPLE
    return _SAMPLE // (max(data.count(b"\n", position, stop), data.count(b"\r", position, stop)) + 1)


def _numpy_loads() -> bool:
    if any(
        resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    ):
        return False  # It takes more than it needs, and the library below it ends a process that cannot give it.
    try:
        with _one_thread_for_numpy():
            import numpy  # noqa: F401
    except Exception:
        return False  # Not installed, or not fit for this machine: nothing that a landing should fail of.
    return True


@contextmanager
def _one_thread_for_numpy() -> Iterator[None]:
    # OpenBLAS starts a thread for each processor when it is loaded, which counting does not need, and interrupts the
    # process where it can't, as in a container with a limit on processes.
    if _BLAS_THREADS in os.environ:
        yield
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_BLAS_THREADS, None)


def _take_with_numpy(data: bytes, position: int, limit: int) -> TakenLines:
    import numpy

    # Whether a line feed follows the last byte is not known.
    stop = max(data.rfind(b"\n", position, limit), data.rfind(b"\r", position, limit - 1)) + 1
    if not stop:
        return TakenLines(position, 0)
    text = numpy.frombuffer(data, numpy.uint8, stop - position, position)
    ends = line_ends = text == _LINE_FEED
    if data.find(b"\r", position, stop) >= 0:
        carriage_returns = text == _CARRIAGE_RETURN
        line_ends = ends | carriage_returns
        ends[:-1] |= carriage_returns[:-1] & ~ends[1:]
        ends[-1] = True
    blank = int(line_ends[0]) + int(numpy.count_nonzero(ends[:-1] & line_ends[1:]))
    return TakenLines(stop, int(numpy.count_nonzero(ends)) - blank, blank)


def _take_with_patterns(data: bytes, position: int, limit: int) -> TakenLines:
    if data.find(b"\r", position, limit) >= 0:
        return _take_lines_with_carriage_return(data, position, limit)
    if _average_line(data, position) < _SHORT:
        return _take_shortest_lines(data, position, limit)
    return TakenLines(*lines().take(data, position, limit))


def _take_lines_with_carriage_return(data: bytes, position: int, limit: int) -> TakenLines:
    if data.rfind(b"\n", position, limit) < 0:
        return TakenLines(position, 0)
    stop, records = lines_with_carriage_return().take(data, position, limit)
    return TakenLines(stop, records) if _kinds_of_line_ends(data[position:stop]) == "\r\n" else TakenLines(position, 0)


def _take_shortest_lines(data: bytes, position: int, limit: int) -> TakenLines:
    if data[position] == _LINE_FEED or _BLANK_LINE.search(data, position, limit):
        return TakenLines(position, 0)
    return TakenLines(max(position, data.rfind(b"\n", position, limit) + 1), data.count(b"\n", position, limit))


def _kinds_of_line_ends(text: bytes) -> str | tuple[str, ...] | None:
    found = io.IncrementalNewlineDecoder(None, translate=False)
    found.decode(str(text, "latin-1"), final=True)
    return found.newlines
