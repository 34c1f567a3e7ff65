"""The ``Content-Encoding`` of an HTTP body, undone with bounded memory and in linear time."""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Iterator

_PIECE = 1024 * 1024
_SLICE = 4096  # bytes; zlib copies what stands behind a member, so little must, and a member may be of 20 bytes
_GZIP_START = b"\x1f\x8b\x08"
_GZIP = 31  # zlib's number for a gzip header and trailer around the largest window
_ZLIB = 15
_RAW_DEFLATE = -15

# Found in the wild on bodies that are as they should be. Stores keep what an uploader named, such as the framing of
# an upload to S3, or a character set or a media type in the wrong header.
_NO_COMPRESSION = re.compile(
    r"aws-chunked|chunked|none|null|raw|plain|text|binary|[78]bit|(us-)?ascii|utf-?(8|16)|iso-8859-\d+|latin-?1"
    r"|windows-\d+|[\w.+-]+/[\w.+-]+(;.*)?",
    re.ASCII,
)


class Decoder:
    """
    Gives back the content of one encoded body.

    gzip may have several members, as RFC 1952 allows, and zero padding after the last one. deflate may be in a zlib
    wrapper, as RFC 9110 says, or bare, as some servers send it. ``surplus``: something else stands behind the end.
    """

    def __init__(self, content_encoding: str) -> None:
        names = [name.strip().lower() for name in content_encoding.split(",")]
        names = [name for name in names if name not in ("", "identity")]
        compressions = [name for name in names if not _NO_COMPRESSION.fullmatch(name)]
        self.ignores_some = compressions != names
        self.is_known = compressions in ([], ["gzip"], ["x-gzip"], ["deflate"])
        self.compression = compressions[0].removeprefix("x-") if compressions else None
        self.surplus = False
        self._stream: zlib._Decompress | None = None
        self._start = b""  # what came of the next member, as long as it is too little to tell it for one
        self._is_damaged = False

    @property
    def damage(self) -> str | None:
        """What is wrong with the body, should it end here."""
        if self._is_damaged:
            return "its compressed content is damaged"
        if self.compression and (self._start or not (self._stream and self._stream.eof)):
            return f"its {self.compression} encoding ends too early"
        return None

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes, cut anywhere, into pieces of at most 1 MiB; nothing more behind damage or surplus."""
        if not self.compression:
            yield data
            return
        for at in range(0, len(data), _SLICE):
            rest, self._start = self._start + data[at : at + _SLICE], b""
            while rest and not self.surplus and not self._is_damaged:
                if self._stream and self._stream.eof and not self._is_followed_by(rest := rest.lstrip(b"\0")):
                    break
                if self._stream is None:
                    self._stream = zlib.decompressobj(self._format_of(rest))
                rest = yield from self._inflate(self._stream, rest)

    def _is_followed_by(self, data: bytes) -> bool:
        """Tell whether another member begins, and get ready for it."""
        self.surplus = bool(data) and (self.compression != "gzip" or not _GZIP_START.startswith(data[:3]))
        if self.surplus or len(data) < len(_GZIP_START):
            self._start = b"" if self.surplus else data
            return False
        self._stream = None
        return True

    def _format_of(self, data: bytes) -> int:
        if self.compression == "gzip":
            return _GZIP
        # A zlib wrapper begins with compression method 8 in its low four bits; in a bare stream that would be a stored
        # block with a non-zero padding, which no encoder writes.
        return _ZLIB if data[0] & 0x0F == 8 else _RAW_DEFLATE

    def _inflate(self, stream: zlib._Decompress, data: bytes) -> Generator[bytes, None, bytes]:
        """Yield what the bytes stand for, up to the end of the stream; return those behind it."""
        try:
            # What fits no more into the last full piece stays inside the stream: empty input brings it out.
            while not stream.eof and (piece := stream.decompress(data, _PIECE)):
                yield piece
                data = stream.unconsumed_tail
        except zlib.error:
            self._is_damaged = True
        return stream.unused_data
