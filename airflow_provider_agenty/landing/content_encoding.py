"""The ``Content-Encoding`` of an HTTP body, undone with bounded memory and in linear time."""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Iterator
from typing import Protocol

_PIECE = 1024 * 1024
_FIRST_SLICE = 256  # bytes; zlib copies what stands behind a member, so little must, and a member may be of 20 bytes
_LARGEST_SLICE = 64 * 1024
_GZIP = 31  # zlib's number for a gzip header and trailer around the largest window
_ZLIB = 15
_RAW_DEFLATE = -15
_GZIP_START = b"\x1f\x8b\x08"
_NOT_PADDING = re.compile(rb"[^\0]")

# Found in the wild on bodies that are as they should be. Stores keep what an uploader named, such as the framing of
# an upload to S3, or a character set or a media type in the wrong header.
_NO_COMPRESSION = re.compile(
    r"aws-chunked|chunked|none|null|raw|plain|text|binary|[78]bit|(us-)?ascii|utf-?(8|16)|iso-8859-\d+|latin-?1"
    r"|windows-\d+|[\w.+-]+/[\w.+-]+(;.*)?",
    re.ASCII,
)


class DamagedEncoding(Exception):  # noqa: N818 - reads as what it is
    """The bytes are not what their ``Content-Encoding`` says, or end too early."""


class UnknownEncoding(Exception):  # noqa: N818
    """A ``Content-Encoding`` that was not asked for and is not understood."""


class Decoder(Protocol):
    """
    Gives back the content of an encoded body, piece by piece.

    ``surplus`` is true as soon as the content has ended and something else stands behind it.
    """

    surplus: bool

    def decode(self, data: bytes) -> Iterator[bytes]:
        """
        Decode the next bytes.

        :param data: the bytes as they came, cut anywhere.
        :return: the content in them, in pieces of at most 1 MiB.
        """

    def finish(self) -> None:
        """
        Say that the body has ended.

        :raises DamagedEncoding: if it should have gone on.
        """


class Identity:
    """No encoding at all."""

    surplus = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Give the bytes as they came."""
        yield data

    def finish(self) -> None:
        """Accept any end."""


class Gzip:
    """gzip, one member after another as RFC 1952 allows, zero padding after the last one."""

    def __init__(self) -> None:
        self.surplus = False
        self._member: zlib._Decompress | None = None
        self._members = 0
        self._start = b""  # what came of the next member, as long as it is too little to tell it for one

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes."""
        data = self._start + data
        self._start = b""
        at = 0
        while at < len(data) and not self.surplus:
            if self._member is None:
                if self._members:
                    found = _NOT_PADDING.search(data, at)
                    if found is None:
                        return
                    at = found.start()
                    start = data[at : at + len(_GZIP_START)]
                    if not _GZIP_START.startswith(start):
                        self.surplus = True
                        return
                    if len(start) < len(_GZIP_START):
                        self._start = start
                        return
                self._member = zlib.decompressobj(_GZIP)
                self._members += 1
            at = yield from _inflate(self._member, data, at)
            if self._member.eof:
                self._member = None

    def finish(self) -> None:
        """Accept the end only between two members."""
        if self._member is not None or not self._members or self._start:
            raise DamagedEncoding("its gzip encoding ends too early")


class Deflate:
    """deflate: in a zlib wrapper as RFC 9110 says, or bare as some servers send it."""

    def __init__(self) -> None:
        self.surplus = False
        self._stream: zlib._Decompress | None = None

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes."""
        if not data:
            return
        if self._stream is None:
            # A zlib wrapper begins with compression method 8 in its low four bits; in a bare stream that
            # would be a stored block with a non-zero padding, which no encoder writes.
            self._stream = zlib.decompressobj(_ZLIB if data[0] & 0x0F == 8 else _RAW_DEFLATE)
        at = yield from _inflate(self._stream, data, 0)
        self.surplus = at < len(data)

    def finish(self) -> None:
        """Accept the end only where the stream ends."""
        if self._stream is None or not self._stream.eof:
            raise DamagedEncoding("its deflate encoding ends too early")


def _inflate(stream: zlib._Decompress, data: bytes, at: int) -> Generator[bytes, None, int]:
    """Yield what the bytes from a place on stand for, up to the end of the stream; return the place after it."""
    size = _FIRST_SLICE
    while at < len(data) and not stream.eof:
        rest = data[at : at + size]
        at += len(rest)
        size = min(2 * size, _LARGEST_SLICE)
        # What fits no more into the last full piece stays inside the stream: empty input brings it out.
        while piece := _decompress(stream, rest):
            yield piece
            rest = stream.unconsumed_tail
    return at - len(stream.unused_data)


def _decompress(stream: zlib._Decompress, data: bytes) -> bytes:
    if stream.eof:
        return b""
    try:
        return stream.decompress(data, _PIECE)
    except zlib.error:
        raise DamagedEncoding("its compressed content is damaged") from None


def names_in(content_encoding: str) -> list[str]:
    """
    Split a ``Content-Encoding`` header.

    :param content_encoding: the header's value; may be empty.
    :return: what it names, ``identity`` and nothing left out.
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    return [name for name in names if name not in ("", "identity")]


def compressions_in(content_encoding: str) -> list[str]:
    """
    Find what has to be undone.

    :param content_encoding: the header's value; may be empty.
    :return: what it names, less what is known to be no compression.
    """
    return [name for name in names_in(content_encoding) if not _NO_COMPRESSION.fullmatch(name)]


def decoder_for(content_encoding: str) -> Decoder:
    """
    Find the decoder for a ``Content-Encoding`` header.

    :param content_encoding: the header's value; may be empty.
    :return: a fresh decoder.
    :raises UnknownEncoding: if there is none for it.
    """
    applied = compressions_in(content_encoding)
    if not applied:
        return Identity()
    if applied in (["gzip"], ["x-gzip"]):
        return Gzip()
    if applied == ["deflate"]:
        return Deflate()
    raise UnknownEncoding(content_encoding)
