"""ARCHITECTURE.md's rules: who may import whom, and how long a module and a function may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import airflow_provider_agenty

PACKAGE = "airflow_provider_agenty"
ROOT = Path(airflow_provider_agenty.__file__).parent
SOURCES = {path.relative_to(ROOT).with_suffix("").as_posix(): path.read_text("utf-8") for path in ROOT.rglob("*.py")}
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 50

# The imports that a part may make: a part, or one module of it. "shared" is each part that is not named here.
RULES = {
    "sandbox": {"exceptions"},
    "api": {"connection", "exceptions"},
    "landing": {"shared", "api"},
    "hooks": {"shared", "api", "landing", "waiting"},
    "waiting": {"shared", "api", "hooks"},
    "watching": {"shared", "api", "waiting"},
    "triggers": {"shared", "api", "hooks", "waiting", "watching"},
    "base_operators": {"shared", "api", "hooks", "landing.lineage", "triggers", "waiting"},
    "operators": {"shared", "api", "base_operators", "landing.lineage", "waiting"},
    "sensors": {"shared", "api", "base_operators", "waiting"},
    "commands": {"shared", "api", "hooks", "landing", "waiting"},
    "__main__": {"commands"},
    "shared": {"shared"},
}
# Imports for type annotations alone cost nothing and make no cycle. These parts stand alone even so.
STRICT = {"api", "sandbox"}

# What does not keep the rules yet. An entry that is no longer needed fails the test too.
IMPORT_EXCEPTIONS: set[str] = set()
LONG_MODULES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()


def imports_in(node: ast.AST, *, with_types: bool) -> Iterator[str]:
    """Yield what is imported of the package, in functions too, as ``part`` or ``part.module``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not with_types:
            continue
        names = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports name the whole path here"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
        for name in names:
            if name.startswith(f"{PACKAGE}."):
                part, module, *_ = [*name.split(".")[1:], ""]
                yield f"{part}.{module}" if f"{part}/{module}" in SOURCES else part
        yield from imports_in(child, with_types=with_types)


def is_allowed(importer: str, imported: str) -> bool:
    part = imported.partition(".")[0]
    allowed = RULES.get(importer, RULES["shared"])
    is_shared = part not in RULES and "shared" in allowed
    return is_shared or part in (importer, "__version__") or bool({part, imported} & allowed)


def forbidden_imports() -> set[str]:
    return {
        f"{module} imports {imported}"
        for module, source in SOURCES.items()
        for imported in imports_in(ast.parse(source), with_types=part_of(module) in STRICT)
        if not is_allowed(part_of(module), imported)
    }


def part_of(module: str) -> str:
    return module.partition("/")[0]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


def long_functions() -> set[str]:
    return {
        f"{module}: {node.name}"
        for module, source in SOURCES.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > MAX_FUNCTION_LINES
    }


def test_each_part_imports_only_what_it_may():
    assert forbidden_imports() == IMPORT_EXCEPTIONS


def test_no_module_is_too_long():
    assert {module for module, source in SOURCES.items() if source.count("\n") > MAX_MODULE_LINES} == LONG_MODULES


def test_no_function_is_too_long():
    assert long_functions() == LONG_FUNCTIONS
