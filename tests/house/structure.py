"""What the house rules ask of the imports between modules, as functions over a tree of sources.

Imports count wherever they stand: inside functions and under `TYPE_CHECKING` too, since a reader
follows both.
"""

from __future__ import annotations

import ast
import graphlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from tests.support.syntax import parsed

Graph = Mapping[str, set[str]]
"""From a dotted module name to those it imports."""


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return which modules of a package import which others of it.

    Args:
        sources: From the path of each module, `package/module.py`, to its text.
    """
    names = {_dotted(path) for path in sources}
    return {_dotted(path): set(_imported(text, names)) for path, text in sources.items()}


def packages(graph: Graph) -> dict[str, set[str]]:
    """Return the members of each package: its modules and the packages directly in it."""
    found: dict[str, set[str]] = {}
    for name in graph:
        parts = name.split(".")
        for end in range(1, len(parts)):
            found.setdefault(".".join(parts[:end]), set()).add(".".join(parts[: end + 1]))
    return found


def among(members: Iterable[str], graph: Graph) -> dict[str, set[str]]:
    """Return which members of one package import which others, by any module below them."""
    found: dict[str, set[str]] = {each: set() for each in members}
    for name, imported in graph.items():
        importer = _member_of(name, found)
        if importer is not None:
            targets = {_member_of(each, found) for each in imported} - {None, importer}
            found[importer] |= {each for each in targets if each is not None}
    return found


def circle(graph: Graph) -> list[str]:
    """Return one circle of imports, its first member repeated at the end; empty if none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def floors(graph: Graph) -> int:
    """Return how many levels a graph without circles has: 1 if nothing imports anything."""
    height: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[each] for each in graph.get(name, ())), default=0)
    return max(height.values(), default=0)


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _member_of(name: str, members: Iterable[str]) -> str | None:
    return next((each for each in members if f"{name}.".startswith(f"{each}.")), None)


def _imported(text: str, names: set[str]) -> Iterator[str]:
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module in names:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in names else node.module


def repeated_classes(sources: Mapping[str, str]) -> set[str]:
    """Return the public names that classes of several modules have."""
    found: Counter[str] = Counter()
    for text in sources.values():
        classes = (each for each in ast.walk(parsed(text)) if isinstance(each, ast.ClassDef))
        found.update({each.name for each in classes if not each.name.startswith("_")})
    return {name for name, count in found.items() if count > 1}
