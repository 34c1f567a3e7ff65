"""The folder in which all files land, looked at all the time."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
import time
import zlib
from pathlib import Path
from typing import Self

SECONDS_BETWEEN_LOOKS = 0.02
UNREADABLE = "unreadable"


class Lake:
    """
    Keeps what each file has ever shown, as the SHA-256 of its content, not compressed.

    :param folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, dict[str, float]] = {}
        """By file name: what its content was, and how many seconds after the beginning it was first seen."""
        self.vanished: dict[str, float] = {}
        self._looked_at: dict[str, tuple[int, int, int]] = {}
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lake")

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def temporary_files(self) -> list[str]:
        """Return the names of the hidden files."""
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("."))

    def _watch(self) -> None:
        while not self._ends.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        entries = {entry.name: entry for entry in os.scandir(self.folder) if not entry.name.startswith(".")}
        now = time.monotonic() - self._began
        for name in self._looked_at.keys() - entries.keys():
            self.vanished.setdefault(name, now)
        for name, entry in entries.items():
            try:
                is_now = entry.stat()
                version = (is_now.st_ino, is_now.st_mtime_ns, is_now.st_size)
                if self._looked_at.get(name) != version:
                    self.seen.setdefault(name, {}).setdefault(digest_of(Path(entry.path)), now)
                    self._looked_at[name] = version
            except FileNotFoundError:
                self.vanished.setdefault(name, now)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's content; `UNREADABLE` if it is a part of what gzip has written."""
    content = path.read_bytes()
    try:
        return hashlib.sha256(gzip.decompress(content) if path.suffix == ".gz" else content).hexdigest()
    except (EOFError, OSError, zlib.error):
        return UNREADABLE
