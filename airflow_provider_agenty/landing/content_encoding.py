"""The ``Content-Encoding`` of an HTTP body, undone with bounded memory."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Protocol

_PIECE = 1024 * 1024
_GZIP = 31  # zlib's number for a gzip header and trailer around the largest window
_ZLIB = 15
_RAW_DEFLATE = -15


class DamagedEncoding(Exception):  # noqa: N818 - reads as what it is
    """The bytes are not what their ``Content-Encoding`` says, or end too early."""


class UnknownEncoding(Exception):  # noqa: N818
    """A ``Content-Encoding`` that was not asked for and is not understood."""


class Decoder(Protocol):
    """Gives back the content of an encoded body, piece by piece."""

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

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Give the bytes as they came."""
        yield data

    def finish(self) -> None:
        """Accept any end."""


class Gzip:
    """gzip, one member after another as RFC 1952 allows, zero padding after the last one."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._members = 0

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes."""
        while data:
            if self._member is None:
                if self._members and not (data := data.lstrip(b"\0")):
                    return
                self._member = zlib.decompressobj(_GZIP)
                self._members += 1
            yield from _inflate(self._member, data)
            if not self._member.eof:
                return
            data = self._member.unused_data
            self._member = None

    def finish(self) -> None:
        """Accept the end only between two members."""
        if self._member is not None or not self._members:
            raise DamagedEncoding("its gzip encoding ends too early")


class Deflate:
    """deflate: in a zlib wrapper as RFC 9110 says, or bare as some servers send it."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes."""
        if self._stream is None:
            if not data:
                return
            # A zlib wrapper begins with compression method 8 in its low four bits; in a bare stream that
            # would be a stored block with a non-zero padding, which no encoder writes.
            self._stream = zlib.decompressobj(_ZLIB if data[0] & 0x0F == 8 else _RAW_DEFLATE)
        yield from _inflate(self._stream, data)

    def finish(self) -> None:
        """Accept the end only where the stream ends."""
        if self._stream is None or not self._stream.eof:
            raise DamagedEncoding("its deflate encoding ends too early")


def _inflate(stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    while data and not stream.eof:
        piece = None
        with contextlib.suppress(zlib.error):
            piece = stream.decompress(data, _PIECE)
        if piece is None:
            raise DamagedEncoding("its compressed content is damaged")
        if piece:
            yield piece
        data = stream.unconsumed_tail
    # What fits no more into the last full piece stays inside the stream.
    while not stream.eof and (piece := stream.decompress(b"", _PIECE)):
        yield piece


def decoder_for(content_encoding: str) -> Decoder:
    """
    Find the decoder for a ``Content-Encoding`` header.

    :param content_encoding: the header's value; may be empty.
    :return: a fresh decoder.
    :raises UnknownEncoding: if there is none for it.
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    applied = [name for name in names if name not in ("", "identity")]
    if not applied:
        return Identity()
    if applied in (["gzip"], ["x-gzip"]):
        return Gzip()
    if applied == ["deflate"]:
        return Deflate()
    raise UnknownEncoding(content_encoding)
