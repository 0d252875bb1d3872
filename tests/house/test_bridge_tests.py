"""Each module of `mcpbridge/bridge` has a test module of its name, or stands below."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

WITHOUT = frozenset(
    [
        "bridge",
        "tenant",
        "legacy/modern_child",
        "modern/emulation",
        "modern/passthrough",
        "modern/service",
    ]
)
"""Modules without a test module so far: tests of their neighbours and of the running program cover
them. Take an entry out when its test module is there.
"""


def test_each_module_of_the_bridge_has_its_tests() -> None:
    """Whoever changes a module finds its tests beside it, by its name."""
    modules = {
        path.relative_to(ROOT / "mcpbridge" / "bridge").with_suffix("").as_posix()
        for path in (ROOT / "mcpbridge" / "bridge").rglob("*.py")
        if path.name != "__init__.py"
    }
    tested = {module for module in modules if _tests_of(module).exists()}
    assert modules - tested - WITHOUT == set()
    assert WITHOUT - (modules - tested) == set(), "not needed any more"


def _tests_of(module: str) -> Path:
    folder, _, name = module.rpartition("/")
    return ROOT / "tests" / "bridge" / folder / f"test_{name}.py"
