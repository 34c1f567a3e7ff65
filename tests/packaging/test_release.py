"""What a release says of itself: the tag, the repository and the changelog's part, as the release workflow asks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_agenty import __version__

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "somebody/airflow-provider-agenty"


@pytest.fixture
def project(tmp_path):
    """A copy of what the release reads, with a repository's address."""
    for name in (".github/release_notes.py", "airflow_provider_agenty/__init__.py", "CHANGELOG.md", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    pyproject = tmp_path / "pyproject.toml"
    urls = f'[project.urls]\nRepository = "https://github.com/{REPOSITORY}"\n'
    text = re.sub(r"^Repository = .*\n", "", pyproject.read_text("utf-8"), flags=re.MULTILINE)
    pyproject.write_text(text.replace("[project.urls]\n", urls), "utf-8")
    return tmp_path


def release_notes(project, tag=f"v{__version__}", repository=REPOSITORY):
    command = [sys.executable, project / ".github" / "release_notes.py", tag, repository]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_notes_are_the_changelogs_part_of_this_version_alone(project):
    changelog = project / "CHANGELOG.md"
    changelog.write_text(changelog.read_text("utf-8") + "\n## 0.0.1\n\n- Something old.\n", "utf-8")
    done = release_notes(project)
    assert done.returncode == 0, done.stderr
    assert "- " in done.stdout
    assert "## 0.0.1" not in done.stdout
    assert "Something old" not in done.stdout
    assert __version__ not in done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tag": "v9.9.9"}, f"The tag is v9.9.9 and __version__ is {__version__}"),
        ({"tag": __version__}, f"tag v{__version__}"),
        ({"repository": "somebody/else"}, "Before the first release"),
    ],
)
def test_what_does_not_fit_is_no_release(project, given, said):
    done = release_notes(project, **given)
    assert done.returncode != 0
    assert done.stdout == ""
    assert said in done.stderr


def test_a_version_that_the_changelog_does_not_name_is_no_release(project):
    (project / "CHANGELOG.md").write_text("# Changelog\n\n## 0.0.1\n\n- Something old.\n", "utf-8")
    done = release_notes(project)
    assert done.returncode != 0
    assert f"CHANGELOG.md says nothing of {__version__}" in done.stderr
