"""Each module of `mcpbridge/bridge` has a test module of its name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_module_of_the_bridge_has_its_tests() -> None:
    """A contributor who changes a module finds its tests by its name."""
    modules = {
        path.relative_to(ROOT / "mcpbridge" / "bridge").with_suffix("").as_posix()
        for path in (ROOT / "mcpbridge" / "bridge").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert {module for module in modules if not _tests_of(module).exists()} == set()


def _tests_of(module: str) -> Path:
    folder, _, name = module.rpartition("/")
    return ROOT / "tests" / "bridge" / folder / f"test_{name}.py"
