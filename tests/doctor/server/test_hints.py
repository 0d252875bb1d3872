"""The everyday causes are read from what servers say at their end."""

from __future__ import annotations

import pytest

from mcpbridge.doctor.server.hints import hints
from mcpbridge.doctor.server.report import Buffering, Noise, Outcome
from mcpbridge.rules.faults import Exit

PYTHON = ("python", "server.py")


def causes(*said: str, argv: tuple[str, ...] = PYTHON, code: int = 1) -> list[str]:
    """What a server that ended with these words suffers from."""
    found = hints(argv, Outcome.ENDED, said=said, how=Exit(code=code))
    assert all(hint.remedy for hint in found)
    return [hint.cause for hint in found]


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("ModuleNotFoundError: No module named 'mcp.server'", "Python module mcp.server is not"),
        ("/usr/bin/python: No module named my_server", "Python module my_server is not"),
        ("ImportError: cannot import name 'x' from 'mcp'", "an import fails: cannot import"),
        ("Error: Cannot find module '/srv/index.js'", "/srv/index.js is missing"),
        ("Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'zod' from", "zod is missing"),
        ("python: can't open file '/srv/server.py': [Errno 2]", "no file /srv/server.py"),
        ("npm error code E404", "no such package"),
        ("npm ERR! code EAI_AGAIN", "asked the network"),
        ("npm error EROFS: read-only file system, mkdir '/app'", "nothing may be written"),
        ("OSError: [Errno 30] Read-only file system: '/x'", "nothing may be written"),
        ("EACCES: permission denied, open '/x'", "may not read or write"),
        ("Error: listen EADDRINUSE: address already in use :::3000", "serves HTTP and not stdio"),
        ("Server listening on http://0.0.0.0:3000", "serves HTTP and not stdio"),
        ("the input device is not a TTY", "wants a terminal"),
        ("Error: GITHUB_TOKEN is required", "variable (GITHUB_TOKEN)"),
        ("Missing required environment variable: BRAVE_API_KEY", "variable"),
        ("SyntaxError: Unexpected token '?'", "does not understand its source"),
        ("./server: /lib/libc.so.6: version `GLIBC_2.38' not found", "another system (GLIBC_2.38)"),
        ("KeyError: 'ACME_API_KEY'", "variable (ACME_API_KEY)"),
        ("Usage: my-server [OPTIONS] COMMAND", "it prints its usage"),
    ],
)
def test_a_sign_names_its_cause(said: str, part: str) -> None:
    """Each alone, and none of its neighbours."""
    (cause,) = causes("something before", said, "something behind")
    assert part in cause


def test_the_error_that_a_server_names_is_the_cause() -> None:
    """Of a traceback the last exception, of other words the first error, of Zod what is wrong."""
    python = (
        "Traceback (most recent call last):",
        '  File "server.py", line 3, in <module>',
        "ValueError: no such region: mars",
        "During handling of the above exception, another exception occurred:",
        "Traceback (most recent call last):",
        "acme.errors.ConfigError: region mars is unknown",
    )
    assert causes(*python) == ["it says: acme.errors.ConfigError: region mars is unknown"]
    node = (
        "file:///srv/index.js:3",
        "    throw new Error('x');",
        "Error: the database is gone",
        "    at file:///srv/index.js:3:9",
        "Error: and so is the cache",
    )
    assert causes(*node) == ["it says: Error: the database is gone"]
    zod = (
        "ZodError: [",
        "  {",
        '    "code": "invalid_type",',
        '    "path": [',
        '      "workspace"',
        "    ],",
        '    "message": "Required"',
        "  }",
        "]",
    )
    assert causes(*zod) == ["it refuses its settings: workspace: Required"]
    # What is known has its own remedy.
    assert (
        "misses a variable" in causes("Traceback (most recent call last):", "KeyError: 'A_KEY'")[0]
    )


def test_words_that_mean_nothing_leave_how_it_ended() -> None:
    """A missing module is not a missing network; an unknown error gets no invented cause."""
    assert causes("all is well") == [
        "it ended with exit code 1, for a reason that mcpbridge does not recognize"
    ]
    assert causes(code=0) == ["it ended as if all were done, without reading its input"]
    assert "memory" in causes(code=137)[0]
    (crash,) = hints(PYTHON, Outcome.ENDED, how=Exit(signal=11))
    assert crash.cause == "it crashed (signal 11)"


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("npx", "-y", "x"), "Node is not installed"),
        (("uvx", "x"), "uv is not installed"),
        (("python", "x"), "try python3"),
        (("/opt/x",), "give its full path"),
        (("python echo.py",), "leave the quotes away"),
        (("cd /srv && python echo.py",), "run a shell yourself"),
        (("cd", "/srv"), "--cwd FOLDER"),
    ],
)
def test_what_is_missing_is_named_with_where_to_get_it(argv: tuple[str, ...], part: str) -> None:
    """By the name of the program, wherever it was looked for."""
    (hint,) = hints(argv, Outcome.NOT_FOUND)
    assert part in hint.remedy


@pytest.mark.parametrize(
    ("argv", "marked"),
    [
        (("cd", "/srv", "&&", "node", "x.js"), True),
        (("node", "$HOME/x.js"), True),
        (("node", "x.js", ">", "log"), True),
        (("sh", "-c", "cd /srv && node x.js"), False),
        (("python", "-c", "a; b"), False),
        (("node", "x.js", "--price=5$"), False),
    ],
)
def test_words_of_a_shell_are_seen(argv: tuple[str, ...], marked: bool) -> None:
    """Unless a shell, or a program given as text, reads them."""
    found = hints(argv, Outcome.ENDED, how=Exit(code=1))
    assert any("shell syntax" in hint.cause for hint in found) == marked


def test_a_buffer_is_named_with_what_flushes_it() -> None:
    """By the language of the command."""
    (python,) = hints(PYTHON, Outcome.SILENT, buffering=Buffering.UNTIL_END)
    (other,) = hints(("./server",), Outcome.SILENT, buffering=Buffering.UNTIL_MORE)
    assert "flush=True" in python.remedy
    assert "stdbuf -oL" in other.remedy


def test_other_outcomes_have_a_cause_as_well() -> None:
    """Nothing that cannot be served is left without a word; what can be is left alone."""
    for outcome in (Outcome.SILENT, Outcome.REFUSED, Outcome.CLOSED, Outcome.NOT_STARTED):
        assert hints(PYTHON, outcome)
    assert hints(PYTHON, Outcome.SERVED, said=("usage: x",)) == ()
    noise = Noise(1, 5, ("usage: x",))
    assert len(hints(PYTHON, Outcome.SERVED, noise=noise)) == 1
    assert "it prints its usage" in hints(PYTHON, Outcome.SILENT, noise=noise)[0].cause
