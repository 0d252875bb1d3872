"""ARCHITECTURE.md names what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.syntax import parsed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
REFERENCE = re.compile(r"`([\w/]+\.py):([\w.]+)`")


def names_in(path: Path) -> set[str]:
    """Top-level names of a module, and `Class.method`."""
    found = set()
    for node in parsed(path.read_text("utf-8")).body:
        match node:
            case ast.ClassDef():
                methods = (ast.FunctionDef, ast.AsyncFunctionDef)
                found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, methods)}
                found.add(node.name)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {each.id for each in targets if isinstance(each, ast.Name)}
    return found


def test_every_reference_exists() -> None:
    """A page that names what was moved leads nowhere."""
    references = REFERENCE.findall(PAGE)
    assert len(references) > 50
    missing = [
        f"{path}:{name}"
        for path, name in references
        if not (ROOT / "mcpbridge" / path).is_file()
        or name not in names_in(ROOT / "mcpbridge" / path)
    ]
    assert missing == []


def test_every_package_is_named() -> None:
    """A newcomer finds each folder of the first floor on the page."""
    packages = {each.parent.name for each in (ROOT / "mcpbridge").glob("*/__init__.py")}
    assert {each for each in packages if f"`{each}/`" not in PAGE} == set()
