"""Lines that pytest shows at once, for tests that take minutes."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def shows_lines(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that shows a line, whatever pytest captures."""
    capture = config.pluginmanager.getplugin("capturemanager")

    def show(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", end="", flush=True)

    return show
