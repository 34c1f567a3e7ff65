"""Progress of a long download, said now and then."""

from __future__ import annotations

import time

from airflow_provider_agenty.log import Log

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Says how far a download of so many bytes is, at most once in ten seconds."""

    def __init__(self, log: Log, total: int | None) -> None:
        self._log = log
        self._total = total
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def anew(self) -> Progress:
        """Return the progress of a download that begins again."""
        return Progress(self._log, self._total)

    def advance(self, count: int) -> None:
        """Note so many more bytes."""
        self._done += count
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._say(self._done / (now - self._started))

    def _say(self, rate: float) -> None:
        if self._total:
            share = 100 * self._done / self._total
            self._log.info("Downloaded %.0f %% of %s, %s/s", share, readable_size(self._total), readable_size(rate))
        else:
            self._log.info("Downloaded %s, %s/s", readable_size(self._done), readable_size(rate))


def readable_size(count: float) -> str:
    """Return a number of bytes as people write it: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
