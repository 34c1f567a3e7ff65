"""Content taken in once: written, hashed and counted at the same time."""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from airflow_provider_agenty.landing.progress import Progress
from airflow_provider_agenty.landing.records import RecordCounter
from airflow_provider_agenty.landing.staging import StagedFile

_PIECE_SIZE = 512 * 1024
_PIECES_AHEAD = 2  # what each taker may lag behind; bounds the memory, with the size of a read
_GZIP = 31  # zlib's number for a gzip header and trailer; the header it writes carries no time and no name


@dataclass(frozen=True)
class Content:
    """
    What is known about content that was taken in.

    :param size: its bytes, before compression.
    :param sha256: its SHA-256, before compression.
    :param records: its CSV records, header included and blank lines not; ``None`` if they were not counted.
    :param blank_records: its blank lines, which are records to a file of a single column.
    """

    size: int
    sha256: str
    records: int | None
    blank_records: int


def receive(
    chunks: Iterable[bytes], staged: StagedFile, *, compress: bool, count_records: bool, progress: Progress
) -> Content:
    """
    Write content to a temporary file while it is hashed and counted.

    :param chunks: the content.
    :param staged: the empty file.
    :param compress: whether to write it gzipped.
    :param count_records: whether it is CSV whose records are to be counted.
    :param progress: told of each chunk.
    :return: what is known about it.
    :raises LandingError: if it can't be written.
    """
    digest = hashlib.sha256()
    counter = RecordCounter()
    compressor = zlib.compressobj(wbits=_GZIP) if compress else None
    takers: list[Callable[[bytes], object]] = [digest.update]
    takers.append(_compressed(staged.write, compressor) if compressor else staged.write)
    if count_records:
        takers.append(counter.update)
    size = 0
    with _SideBySide(takers) as side_by_side:
        for chunk in _in_large_pieces(chunks):
            side_by_side.give(chunk)
            size += len(chunk)
            progress.advance(len(chunk))
    if compressor:
        staged.write(compressor.flush())
    counter.finish()
    return Content(
        size=size,
        sha256=digest.hexdigest(),
        records=counter.records if count_records else None,
        blank_records=counter.blank_records,
    )


def _in_large_pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Put small chunks together: handing a chunk to another thread costs as much as hashing some tens of KiB."""
    pieces: list[bytes] = []
    gathered = 0
    for chunk in chunks:
        pieces.append(chunk)
        gathered += len(chunk)
        if gathered >= _PIECE_SIZE:
            yield b"".join(pieces)
            pieces, gathered = [], 0
    if gathered:
        yield b"".join(pieces)


def _compressed(write: Callable[[bytes], None], compressor: zlib._Compress) -> Callable[[bytes], None]:
    def write_compressed(chunk: bytes) -> None:
        write(compressor.compress(chunk))

    return write_compressed


class _SideBySide:
    """
    Several takers that each get every chunk in order, each in a thread of its own.

    Hashing, compressing and writing leave the interpreter to the other threads. A taker's error comes out of
    :meth:`give` or at the end.
    """

    def __init__(self, takers: Iterable[Callable[[bytes], object]]) -> None:
        self._lanes = [_Lane(taker) for taker in takers]

    def __enter__(self) -> _SideBySide:
        for lane in self._lanes:
            lane.start()
        return self

    def give(self, chunk: bytes) -> None:
        for lane in self._lanes:
            lane.give(chunk)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for lane in self._lanes:
                    lane.finish()
        finally:
            # A signal's exception may arrive at any point above: no thread may outlive the file it writes to.
            for lane in self._lanes:
                lane.abandon()


class _Lane:
    def __init__(self, taker: Callable[[bytes], object]) -> None:
        self._taker = taker
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES_AHEAD)
        self._error: BaseException | None = None
        self._abandoned = False
        # Not Thread.join: when a signal's exception interrupts it, it takes the thread for ended (CPython 3.11, 3.12).
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="landing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self._error is None and not self._abandoned:
                try:
                    self._taker(piece)
                except BaseException as error:  # raised again in the thread that gives
                    self._error = error
        self._ended.set()

    def give(self, piece: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._pieces.put(piece)

    def finish(self) -> None:
        self._pieces.put(None)
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        if self._thread.ident is not None and not self._ended.is_set():
            self._abandoned = True
            self._pieces.put(None)
            self._ended.wait()
