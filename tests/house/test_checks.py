"""Each check refuses a sample that breaks its rule and passes one that keeps it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.house import checks

LONG = "\n".join(f"    x{n} = {n}" for n in range(checks.FUNCTION_LINES))
DOCUMENTED = '"""Module."""\n'
HOME = "/" + "root" + "/"


def _bound(*requirements: str) -> list[str]:
    return checks.unbounded(requirements)


BAD: list[tuple[Callable[[str], list[str]], str, str]] = [
    (checks.overlong_functions, f"def f():\n{LONG}\n", "1: f of 51 lines"),
    (checks.overlong_functions, f"async def f():\n{LONG}\n", "1: f of 51 lines"),
    (checks.undocumented, "x = 1\n", "1: module"),
    (checks.undocumented, f"{DOCUMENTED}def f(): ...\n", "2: f"),
    (checks.undocumented, f"{DOCUMENTED}class A: ...\n", "2: A"),
    (checks.undocumented, f"{DOCUMENTED}class A:\n  'A.'\n  async def f(self): ...\n", "4: f"),
    (checks.broad_excepts, "try: f()\nexcept Exception: g()\n", "2: catches Exception"),
    (checks.broad_excepts, "try: f()\nexcept (OSError, BaseException): g()\n", "2: catches"),
    (checks.broad_excepts, "try: f()\nexcept* Exception: g()\n", "2: catches Exception"),
    (checks.broad_excepts, "try: f()\nexcept: g()\n", "2: catches everything"),
    (checks.broad_excepts, "try: f()\nexcept Exception as e: raise A from e\n", "2: catches"),
    (checks.broad_excepts, "with contextlib.suppress(Exception): f()\n", "1: contextlib.suppress"),
    (checks.process_starts, "import subprocess\n", "1: imports subprocess"),
    (checks.process_starts, "from subprocess import PIPE\n", "1: imports subprocess.PIPE"),
    (checks.process_starts, "def f():\n  import multiprocessing.pool\n", "2: imports"),
    (checks.process_starts, "from anyio import open_process as start\n", "1: imports anyio"),
    (checks.process_starts, "import os\nos.system('x')\n", "2: os.system"),
    (checks.process_starts, "asyncio.create_subprocess_exec('x')\n", "1: asyncio.create"),
    (checks.signal_handling, "signal.signal(2, f)\n", "1: signal.signal"),
    (checks.signal_handling, "from signal import signal\n", "1: imports signal.signal"),
    (checks.signal_handling, "loop.add_signal_handler(2, f)\n", "1: loop.add_signal_handler"),
    (checks.wall_clock, "time.time()\n", "1: time.time"),
    (checks.wall_clock, "from time import time\n", "1: imports time.time"),
    (checks.wall_clock, "datetime.datetime.now(UTC)\n", "1: datetime.datetime.now"),
    (checks.environment_reads, "os.environ['A']\n", "1: os.environ"),
    (checks.environment_reads, "os.getenv('A')\n", "1: os.getenv"),
    (checks.environment_reads, "from os import environ as e\n", "1: imports os.environ"),
    (checks.imports_beyond_the_standard_library, "import anyio.abc\n", "1: imports anyio.abc"),
    (checks.imports_beyond_the_standard_library, "from mcpbridge import wire\n", "1: imports"),
    (_bound, "a", "a: no lower bound"),
    (_bound, "a>=1", "a>=1: no upper bound"),
    (_bound, "a!=2,<3", "a!=2,<3: no lower bound"),
    (checks.loose_pins, "a==1\nb>=2\n", "2: b>=2"),
    (checks.loose_pins, "--find-links elsewhere\n", "1: --find-links elsewhere"),
    (checks.loose_pins, "a @ https://example.org/a.whl\n", "1: a @"),
    (checks.assignments_into_others, "def f(a):\n  a.b = 1\n", "2: a.b"),
    (checks.assignments_into_others, "self.a.b += 1\n", "1: self.a.b"),
    (checks.assignments_into_others, "x, (a.b) = 1, 2\n", "1: a.b"),
    (checks.assignments_into_others, "a.b: int = 1\n", "1: a.b"),
    (checks.avoided_phrases, "x = 1\n# Nobody waits.\n", "2: Nobody"),
    (checks.avoided_phrases, "x = 1  # as\n# far as it goes\n", "1: as far as"),
    (checks.avoided_phrases, 'def f():\n    """A.\n\n    B, so\n    many."""\n', "4: so many"),
    (checks.avoided_phrases, "raise E(f'{value} is no port')\n", "1: is no"),
    (checks.avoided_phrases, "'is none; write one'\n", "1: is none"),
    (checks.avoided_phrases, "# The era is found out.\n", "1: is found out"),
    (checks.avoided_phrases_of_prose, "x = 1  # Nobody waits.\n", "1: Nobody"),
    (checks.avoided_phrases_of_prose, 'def f():\n    """So long."""\n', "2: So long"),
    (checks.avoided_phrases_of_a_page, "Clients are answered an\nerror.\n", "1: are answered an"),
    (checks.avoided_phrases_of_a_page, "# A\n\nIt has a life of its\nown.\n", "3: of its own"),
    (checks.machine_paths, f"# hello\nopen('{HOME}x')\n", f"2: open('{HOME}x')"),
]

GOOD: list[tuple[Callable[[str], list[str]], str]] = [
    (checks.overlong_functions, f'def f():\n    """One.\n\n    Two.\n    """\n{LONG[:-10]}\n'),
    (checks.undocumented, f"{DOCUMENTED}def _f(): ...\nclass _A:\n  def f(self): ...\n"),
    (checks.undocumented, f"{DOCUMENTED}def f():\n  'F.'\n  def inner(): ...\n"),
    (checks.undocumented, f"{DOCUMENTED}@typing.overload\ndef f(): ...\n"),
    (checks.broad_excepts, "try: f()\nexcept (OSError, ValueError): g()\n"),
    (checks.broad_excepts, "with contextlib.suppress(OSError): f()\n"),
    (checks.broad_excepts, "try: f()\nexcept BaseException:\n  g()\n  raise\n"),
    (checks.process_starts, "import os\nos.read(0, 1)\nplatform.system()\n"),
    (checks.signal_handling, "os.killpg(1, signal.SIGTERM)\n"),
    (checks.wall_clock, "time.monotonic()\ndatetime.datetime.fromtimestamp(t, UTC)\n"),
    (checks.environment_reads, "def f(environ): return environ['A']\n"),
    (checks.imports_beyond_the_standard_library, "import json, os.path\nfrom typing import Any\n"),
    (_bound, "a>=1,<2; sys_platform != 'win32'"),
    (_bound, "a~=1.4"),
    (checks.loose_pins, "# made\na-b_c==1.0.post1\nd==2 ; sys_platform == 'win32'\n"),
    (
        checks.assignments_into_others,
        "self.a = self.b[0] = cls.c = 1\nself.d, e = 1, 2\n",
    ),
    (checks.avoided_phrases, "nobody = 'there is no child'  # `is no port` is no longer\n"),
    (checks.avoided_phrases_of_prose, "x = 'nobody'  # `nobody` is a user\n"),
    (checks.avoided_phrases_of_a_page, "`is no port` and somebodys; it is none-the-less so\n"),
    (checks.machine_paths, f"https://example.org{HOME}\n$HOME{HOME}\na{HOME}\n"),
]


@pytest.mark.parametrize(("check", "sample", "finding"), BAD)
def test_a_check_refuses_what_breaks_its_rule(
    check: Callable[[str], list[str]], sample: str, finding: str
) -> None:
    """The finding names the line and what stands there."""
    assert any(each.startswith(finding) for each in check(sample))


@pytest.mark.parametrize(("check", "sample"), GOOD)
def test_a_check_passes_what_keeps_its_rule(check: Callable[[str], list[str]], sample: str) -> None:
    """Neighbours of the rule are left alone."""
    assert check(sample) == []


@pytest.mark.parametrize(
    ("lock", "found"),
    [
        ("a-b==1.5\n", []),
        ("# a comment\nA_B==1.5 ; sys_platform != 'win32'\n", []),
        ("a-b==2.0\n", ["a_b>=1,<2: locked 2.0"]),
        ("c==1\n", ["a_b>=1,<2: locked None"]),
    ],
)
def test_a_lock_must_meet_the_requirements(lock: str, found: list[str]) -> None:
    """A lock that was not made again after a bound moved is seen, whatever the name's spelling."""
    assert checks.unmet(["a_b>=1,<2"], lock) == found
