"""
Print the changelog's part of a release, or say why there can be none.

    python .github/release_notes.py TAG REPOSITORY

The tag has to be ``v`` and the version. The repository, ``owner/name``, has to be the one that pyproject.toml names.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def release_notes(tag: str, repository: str) -> str:
    """
    Return what the changelog says of the version.

    :param tag: The tag.
    :param repository: The repository that is released from, as ``owner/name``.
    :raises SystemExit: if tag, repository or changelog do not fit the version.
    """
    code = (ROOT / "airflow_provider_agenty" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', code, re.MULTILINE)
    version = found[1] if found else None
    if tag != f"v{version}":
        raise SystemExit(f"The tag is {tag} and __version__ is {version}: tag v{version}, or change the version.")
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    address = f"https://github.com/{repository}"
    if urls.get("Repository") != address:
        raise SystemExit(
            f"[project.urls] in pyproject.toml does not have Repository = {address!r}: CONTRIBUTING.md, "
            "'Before the first release', says what to set."
        )
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    part = re.search(rf"^## \[?{re.escape(version)}\]?.*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if not part or not part[1].strip():
        raise SystemExit(f"CHANGELOG.md says nothing of {version}: give it a section '## {version}'.")
    return part[1].strip()


if __name__ == "__main__":
    print(release_notes(*sys.argv[1:]))
