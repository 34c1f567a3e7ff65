"""
What `make docs` adds to the pages in docs/.

- Pages that stand elsewhere in the repository, the examples, and the API reference from the docstrings.
- Links that work on a code host too: a link to a file of the repository leads to its page on the site.
"""

from __future__ import annotations

import ast
import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent
DOCS = "docs"
EXAMPLES = "example_dags"
PACKAGE = "airflow_provider_agenty"

PROJECT = {
    "CHANGELOG.md": ("Changelog", "project/changelog.md"),
    "UPGRADING.md": ("Upgrading", "project/upgrading.md"),
    "CONTRIBUTING.md": ("Contributing", "project/contributing.md"),
    "ARCHITECTURE.md": ("Architecture", "project/architecture.md"),
    "benchmarks/README.md": ("Benchmarks", "project/benchmarks.md"),
    "SECURITY.md": ("Security", "project/security.md"),
    "CODE_OF_CONDUCT.md": ("Code of conduct", "project/code-of-conduct.md"),
}
"""Pages outside of docs/: their title in the navigation, and where they are on the site."""

API = {
    "Operators": [
        "operators.agenty.AgentyStartJobOperator",
        "operators.agenty.AgentyExportOperator",
        "operators.agenty.AgentyResultOperator",
        "operators.agenty.AgentyStopJobOperator",
    ],
    "Sensor": ["sensors.agenty.AgentyJobSensor"],
    "Triggers": ["triggers.agenty.AgentyJobEventTrigger", "triggers.agenty.AgentyJobTrigger"],
    "Hook": ["hooks.agenty.AgentyHook"],
    "What the hook returns": [
        "api.models.Job",
        "api.agents.Agent",
        "api.logs.LogEntry",
        "landing.land.ExportedFile",
    ],
    "Assets": ["assets.agenty"],
    "Errors": ["exceptions"],
    "Sandbox": ["sandbox.Sandbox", "sandbox.Plan", "sandbox.Fault", "sandbox.pytest"],
}
"""Pages of the API reference, and what is on each."""

BELOW_DOCS = "---\nsearch:\n  boost: 0.5\n---\n"
"""What comes below the pages of docs/ when somebody searches."""

_CODE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the repository where pyproject.toml does, and add the pages made here to the navigation."""
    config.repo_url = repository()
    assert config.nav is not None
    api = [{title: api_uri(title)} for title in API]
    config.nav[-1]["Look up"] += [{"API": api}, {"Examples": list(examples())}]
    config.nav.append({"Project": [{title: uri} for title, uri in PROJECT.values()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for path, (_, uri) in PROJECT.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    for title, items in API.items():
        # What tasks and triggers have beside their parameters is for Airflow.
        is_for_airflow = title in ("Operators", "Sensor", "Triggers")
        options = "    options:\n      members: false\n      inherited_members: false\n" if is_for_airflow else ""
        content = "\n".join([BELOW_DOCS, f"# {title}\n", *(f"::: {PACKAGE}.{item}\n{options}" for item in items)])
        files.append(File.generated(config, api_uri(title), content=content))
    for uri, content in examples().items():
        files.append(File.generated(config, uri, content=content))
    return files


def examples() -> dict[str, str]:
    """Return the pages of the examples: where each is on the site, and its Markdown."""
    pages = {}
    index = ["# Examples\n\nDAGs that run as they stand:\n"]
    for path in example_dags():
        code = path.read_text(encoding="utf-8")
        text = (ast.get_docstring(ast.parse(code)) or path.stem).lstrip("# ")
        name = f"{EXAMPLES}/{path.name}"
        pages[f"examples/{path.stem}.md"] = f'# {text}\n\n```python title="{name}"\n{code}```\n'
        index.append(f"- [{text.splitlines()[0]}]({path.stem}.md): `{name}`")
    return {"examples/README.md": "\n".join(index), **pages}


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead the links of a page to other pages of the site."""
    places = {uri: path for path, (_, uri) in PROJECT.items()}
    is_generated = page.file.src_uri.startswith(("api/", "examples/"))
    if is_generated:
        return markdown
    source = places.get(page.file.src_uri, f"{DOCS}/{page.file.src_uri}")

    def replaced(found: re.Match[str]) -> str:
        bang, text, link = found.groups()
        return f"{bang}[{text}]({link_on_site(link, source, page.file.src_uri)})"

    whole: list[str] = []
    end = 0
    for code in _CODE.finditer(markdown):
        # In a table, code hosts want a bar escaped within code too, and Python-Markdown shows the backslash.
        whole += [_LINK.sub(replaced, markdown[end : code.start()]), code[0].replace(r"\|", "|")]
        end = code.end()
    return "".join([*whole, _LINK.sub(replaced, markdown[end:])])


def link_on_site(link: str, source: str, page_uri: str) -> str:
    """
    Return a link as it has to be on the site.

    :param link: The link, as it is in the repository.
    :param source: The file that it is in, from the repository's folder.
    :param page_uri: Where that file is on the site.
    """
    path, hash_sign, anchor = link.partition("#")
    if not path or "://" in link or link.startswith("mailto:"):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if target in PROJECT:
        uri = PROJECT[target][1]
    elif target == "README.md":
        uri = "README.md"
    elif target == EXAMPLES:
        uri = "examples/README.md"
    elif target.startswith(f"{EXAMPLES}/"):
        uri = f"examples/{Path(target).stem}.md"
    elif target.startswith(f"{DOCS}/"):
        uri = target.removeprefix(f"{DOCS}/")
    elif repository() and (ROOT / target).exists():
        return f"{repository()}/blob/HEAD/{target}{hash_sign}{anchor}"
    else:
        return link  # which --strict refuses
    return posixpath.relpath(uri, posixpath.dirname(page_uri) or ".") + hash_sign + anchor


def repository() -> str:
    """Return the repository's address as pyproject.toml has it, "" if it has none yet."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"].get("Repository", ""))


def example_dags() -> list[Path]:
    """Return the files of the examples."""
    return sorted((ROOT / EXAMPLES).glob("*.py"))


def api_uri(title: str) -> str:
    """Return where a page of the API reference is on the site."""
    return f"api/{title.lower().replace(' ', '-')}.md"


class RestAsMarkdown(griffe.Extension):  # type: ignore[misc]
    """Turns what docstrings have of reStructuredText, beside their field lists, into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object before it is parsed."""
        if obj.docstring:
            text = re.sub(r":(?:attr|class|data|func|meth|mod):(?=`)", "", obj.docstring.value)
            text = re.sub(r"^\.\. code-block:: \w+\n\n", "", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
