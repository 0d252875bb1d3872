"""The command line as people meet it: `python -m mcpbridge`, its words, its exit statuses."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

import mcpbridge
from mcpbridge.cli.main import NAMED
from mcpbridge.config.load import environment_names
from mcpbridge.config.model import options
from mcpbridge.config.values import shown
from tests.support import bridge_process
from tests.support.bridge_process import DEMO, START_S, bridge, child, initialize, rpc, started
from tests.support.proofs import proves

pytestmark = pytest.mark.slow

SHOW_ENVIRONMENT = (
    "import json, os, sys; print(json.dumps(dict(os.environ)), file=sys.stderr, flush=True);"
    " sys.stdin.read()"
)


async def said(*words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run to the end: exit status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mcpbridge",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
    )
    try:
        async with asyncio.timeout(START_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_help_shows_every_option_under_its_heading() -> None:
    """With its value, its default and the variables that set it in addition to its own."""
    status, out, err = await said("--help")
    assert (status, err) == (0, "")
    text = re.sub(r"\s+", " ", out)
    headings = re.findall(r"^(\w+):$", out, re.MULTILINE)
    assert headings == ["Commands", *dict.fromkeys(o.setting.group for o in options()), "General"]
    for option in options():
        facts = option.setting
        assert re.search(rf"^  (-\w, )?{facts.flag}\b", out, re.MULTILINE), facts.flag
        assert re.sub(r"\s+", " ", facts.help) in text
        for name in environment_names(facts)[1:]:
            assert f"[{name}]" in text
        default = shown(option.default, facts.unit)
        assert f"{facts.help}" in text
        if default:
            assert f"[default: {default}]" in text
    assert "MCPBRIDGE_MAX_SESSIONS" in text
    assert await said("-h") == (status, out, err)
    assert re.search(r"^  -p, --port N", out, re.MULTILINE)


async def test_help_lists_the_commands() -> None:
    """Each with what it does; the usage says where the server's command stands."""
    _, out, _ = await said("--help")
    assert out.startswith("Usage: mcpbridge [OPTIONS] -- COMMAND\n")
    commands = out.partition("\nCommands:\n")[2].partition("\n\n")[0]
    names = re.findall(r"^  (\S+)  +\S", commands, re.MULTILINE)
    assert names == sorted(NAMED)
    assert "..." not in commands


@pytest.mark.parametrize("name", ["doctor", "shim"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
async def test_the_usage_of_a_command_says_where_the_server_stands(name: str, flag: str) -> None:
    """After `--`, as for the bridge itself."""
    status, out, _ = await said(name, flag)
    assert status == 0
    assert out.startswith(f"Usage: mcpbridge {name} [OPTIONS] -- COMMAND")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("mcpbridge do", "plain,doctor\n"),
        ("mcpbridge doctor --js", "plain,--json\n"),
        ("mcpbridge --max-connec", "plain,--max-connections\n"),
    ],
)
async def test_a_shell_completes_commands_and_options(words: str, completed: str) -> None:
    """As click's scripts for bash, zsh and fish ask for it."""
    asked = {
        "_MCPBRIDGE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    assert await said(env=asked) == (0, completed, "")


async def test_version_is_one_line() -> None:
    """The name and three numbers."""
    assert await said("-V") == await said("--version")
    assert await said("--version") == (0, f"mcpbridge {mcpbridge.__version__}\n", "")


@proves("fault 120")
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ["no MCP server to start", "mcpbridge --port 8000 -- python server.py"]),
        (("--port", "8000", "--"), ["no MCP server to start"]),
        (("--max-sesions", "3", "--", "x"), ["--max-sesions", "--max-sessions"]),
        (("--prot=3", "--", "x"), ["--prot", "--port"]),
        (
            ("--port", "9000", "python", "server.py", "--verbose"),
            ["mcpbridge --port 9000 -- python server.py --verbose"],
        ),
        (("npx", "srv", "--api-key", "hunter2"), ["mcpbridge -- npx srv --api-key"]),
        (("stray", "--", "x"), ["'stray'", "before --"]),
        (("docter", "--", "x"), ["no command 'docter'", "did you mean 'doctor'?"]),
        (("docker", "run", "x"), ["mcpbridge -- docker run x"]),
        (("--port", "1", "doctor", "--", "x"), ["doctor comes first", "--port is not an option"]),
        (("-p", "9000", "npx", "srv"), ["mcpbridge --port 9000 -- npx srv"]),
        (("--port", "x", "--", "x"), ["--port (from the command line): 'x' is not a whole number"]),
        (("--port",), ["--port", "requires an argument"]),
        (("--stdio", "a b", "--", "x"), ["--stdio", "after -- as well; give only one"]),
        (("--stdio", "a 'b"), ["--stdio", "cannot be split"]),
        (("--listen", ":1", "--port", "1", "--", "x"), ["--listen", "--port is given as well"]),
        (("--env", "hunter2", "--", "x"), ["--env", "NAME=VALUE"]),
        (("health", "--nonsense"), ["--nonsense"]),
    ],
)
async def test_a_wrong_command_line_ends_with_2_and_says_what_is_right(
    words: tuple[str, ...], parts: list[str]
) -> None:
    """On stderr, without a traceback and without values that may be secrets."""
    status, out, err = await said(*words)
    assert (status, out) == (2, "")
    for part in parts:
        assert part in err
    assert "Traceback" not in err
    assert "hunter2" not in err


@proves("fault 120")
async def test_a_wrong_variable_names_itself() -> None:
    """Known or not."""
    command = ("--", *DEMO)
    text = {"MCPBRIDGE_LOG_FORMAT": "text"}
    status, _, err = await said(*command, env={"MCPBRIDGE_GRACE": "soon", **text})
    problem = "--grace (from MCPBRIDGE_GRACE): 'soon' is not a duration; write 30s, 500ms, 5m or 1h"
    assert (status, err) == (2, f"mcpbridge: {problem}\n")
    status, _, err = await said(*command, env={"MCPBRIDGE_GRACES": "6s", **text})
    problem = "MCPBRIDGE_GRACES: no such setting; did you mean MCPBRIDGE_GRACE?"
    assert (status, err) == (2, f"mcpbridge: {problem}\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--port", "x", "--", "x"), "--port (from the command line): 'x' is not a whole number"),
        (("--prot=3", "--", "x"), "No such option '--prot'. Did you mean '--port'?"),
    ],
)
async def test_a_start_error_is_written_as_the_log_is(words: tuple[str, ...], problem: str) -> None:
    """As a record if stderr is not a terminal, as text if it is asked for."""
    for given in (words, ("--log-format", "json", *words), ("--log-format=json", *words)):
        status, _, err = await said(*given)
        (line,) = err.splitlines()
        entry = json.loads(line)
        assert (status, entry["event"], entry["problem"]) == (2, "serve.failed", problem)
    _, _, err = await said("--log-format", "text", *words)
    assert problem in err
    assert not err.startswith("{")


@proves("fault 1")
@proves("fault 1")
@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("python echo.py",), "leave the quotes away: mcpbridge -- WORD WORD"),
        (("cd x && python echo.py",), "run a shell yourself: mcpbridge -- sh -c"),
        (("no-such-program", "&&", "python", "echo.py"), "run a shell yourself"),
        (("no-such-program",), "install it in this image, or give its full path"),
    ],
)
async def test_a_command_that_cannot_be_run_has_a_hint(command: tuple[str, ...], hint: str) -> None:
    """The same that doctor gives."""
    status, _, err = await said("--port", "0", "--", *command)
    assert status == 127
    (record,) = [json.loads(line) for line in err.splitlines()]
    assert hint in " ".join(record["hints"])


@pytest.mark.parametrize(
    ("command", "status", "parts"),
    [
        ("no-such-program", 127, ["'no-such-program'", "not found on PATH"]),
        ("./no/such/program", 127, ["'./no/such/program'", "no such file"]),
        ("{tmp}/plain", 126, ["plain", "the file exists but is not executable"]),
        ("{tmp}/text", 126, ["text", "#! line"]),
    ],
)
async def test_a_command_that_cannot_be_run_is_told_at_once(
    tmp_path: Path, command: str, status: int, parts: list[str]
) -> None:
    """One line, and the status a shell would give, before anything listens."""
    (tmp_path / "plain").write_text("x")
    (tmp_path / "text").write_text("x")
    (tmp_path / "text").chmod(0o755)
    got, _, err = await said("--port", "0", "--", command.format(tmp=tmp_path))
    (line,) = err.splitlines()
    record = json.loads(line)
    assert (got, record["event"]) == (status, "serve.failed")
    for part in parts:
        assert part in record["problem"]


@proves("fault 114")
async def test_a_host_that_is_none_is_told_before_a_child_starts() -> None:
    """The resolver's own words, no traceback."""
    for host in ("a..b", "host.invalid"):
        status, _, err = await said("--host", host, "--port", "0", "--", *DEMO)
        (line,) = err.splitlines()
        assert status == 1
        assert f"cannot listen on {host}:0: " in json.loads(line)["problem"]


async def test_the_first_line_says_what_is_served_and_why_there() -> None:
    """Address, reason, command and isolation; secrets in the command are not shown."""
    words = ("--api-key", "hunter2", "--token=hunter2", "Authorization: Bearer hunter2")
    server = ("sh", "-c", 'shift 5; exec "$@"', "sh", *words, "https://me:hunter2@a.example")
    async with bridge("--isolation", "session", "--", *server, *DEMO) as run:
        (record,) = await run.logged("serve.started")
    assert record["url"] == f"http://127.0.0.1:{run.port}/mcp"
    assert record["address"] == f"127.0.0.1:{run.port}"
    assert "only this machine may connect" in record["because"]
    assert record["isolation"] == "session"
    assert record["version"] == mcpbridge.__version__
    assert "--api-key '***' '--token=***' 'Authorization: ***'" in record["command"]
    assert "https://***@a.example" in record["command"]
    assert "hunter2" not in json.dumps(run.log)


async def test_people_get_text() -> None:
    """On request, or by itself on a terminal."""
    async with started("--port", "0", "--log-format", "text") as run:
        await bridge_process.eventually(
            lambda: any("child.ready" in line for line in run.noise), "ready"
        )
        assert await run.terminate() == 0
    line = r"\d\d:\d\d:\d\d info    serve\.started url=http://127\S+ address=\S+ because=\"only "
    assert any(re.match(line, said) for said in run.noise), run.noise


async def test_the_command_in_one_text() -> None:
    """Split like a shell would, run without one."""
    text = f"'{sys.executable}' -m mcpbridge.demo '$HOME'"
    async with started("--port", "0", "--stdio", text, "--") as run:
        (record,) = await run.logged("serve.started")
        await run.logged("child.ready")
        assert await run.terminate() == 0
    assert record["command"].endswith(" -m mcpbridge.demo '$HOME'")


@proves("fault 113")
async def test_all_variables_and_an_address_of_ipv6() -> None:
    """No flag at all: the address, the path and the command come from variables."""
    env = {
        "MCPBRIDGE_LISTEN": "[::1]:0",
        "MCP_HTTP_PATH": "/api/",
        "MCPBRIDGE_STDIO": f"'{sys.executable}' -m mcpbridge.demo",
        "PORT": "1",
    }
    async with started("--", env=env) as run:
        (record,) = await run.logged("serve.started")
        assert re.fullmatch(r"http://\[::1\]:[1-9]\d*/api", record["url"])
        run.url = record["url"].removesuffix("/api")
        await run.logged("child.ready")
        async with run.client() as client:
            for path in ("/api", "/api/"):
                answer = await client.post(path, json=initialize(1), headers=bridge_process.ACCEPT)
                assert answer.status_code == 200
            for path in ("/mcp", "/"):
                assert (await client.post(path, json=initialize(1))).status_code == 404
        health, out, _ = await said("health", run.url)
        assert (health, json.loads(out)["status"]) == (0, "ok")
        assert await run.terminate() == 0


@proves("fault 50")
async def test_the_environment_of_the_server(tmp_path: Path) -> None:
    """The bridge's own, less what is the bridge's alone, plus what was asked for."""
    file = tmp_path / "env"
    file.write_text("# for the server\nFROM_FILE=a b\nBOTH=file\n")
    env = {
        "INHERITED": "yes",
        "MCPBRIDGE_LOG_LEVEL": "debug",
        "MCP_TRANSPORT": "http",
        "MCP_HTTP_PATH": "/mcp",
        "MCP_SESSION_MANAGEMENT": "true",
    }
    words = ("--env-file", str(file), "--env", "BOTH=flag", "--env", "EMPTY=", "--cwd", "/")
    command = ("--", sys.executable, "-c", SHOW_ENVIRONMENT)
    async with bridge(*words, *command, env=env, ready=False) as run:
        (record,) = await run.logged("child.stderr")
    shown_env = json.loads(record["line"])
    wanted = {
        "INHERITED": "yes",
        "FROM_FILE": "a b",
        "BOTH": "flag",
        "EMPTY": "",
        "MCP_TRANSPORT": "stdio",
        "FASTMCP_TRANSPORT": "stdio",
        "PYTHONUNBUFFERED": "1",
    }
    assert wanted.items() <= shown_env.items()
    dropped = {"MCP_HTTP_PATH", "MCP_SESSION_MANAGEMENT"}
    assert not [name for name in shown_env if name.startswith("MCPBRIDGE_") or name in dropped]


async def test_health_asks_the_bridge_beside_it(tmp_path: Path) -> None:
    """0 when it can serve; 1 when nothing answers, when it ends, when it is not a URL."""
    async with bridge("--", *child("recorder", str(tmp_path))) as run, run.client() as client:
        port = str(run.port)
        asked = [
            ("health", run.url),
            ("health", f"127.0.0.1:{port}"),
            ("health", f"{run.url}/livez"),
        ]
        for words in asked:
            status, out, err = await said(*words)
            assert (status, json.loads(out)["status"], err) == (0, "ok", "")
        for name in ("PORT", "MCPBRIDGE_PORT"):
            assert (await said("health", env={name: port}))[0] == 0

        session = await bridge_process.open_session(client)
        hold = asyncio.create_task(
            client.post("/mcp", json=rpc(1, "x/hold", {"name": "it"}), headers=session)
        )
        await bridge_process.eventually(
            lambda: any(b"x/hold" in file.read_bytes() for file in tmp_path.iterdir()), "the call"
        )
        run.signal(15)
        await run.logged("drain.phase_changed", lambda record: record["phase"] == "draining")
        status, out, err = await said("health", run.url)
        assert (status, out) == (1, "")
        assert "draining" in json.loads(err)["missing"]
        await client.post("/mcp", json=rpc(2, "x/release", {"name": "it"}), headers=session)
        assert (await hold).status_code == 200
        assert await run.ended(5) == 0

    status, out, err = await said("health", run.url)
    assert (status, out) == (1, "")
    assert err.startswith(f"no answer from 127.0.0.1:{port}: ")
    for url in ("ftp://127.0.0.1", "http://[::1", "nonsense://x", ""):
        status, _, err = await said("health", url or "http://")
        assert (status, "is not an http URL" in err) == (1, True)


async def test_health_does_not_wait_for_ever() -> None:
    """Who accepts and says nothing is not well."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        status, _, err = await said("health", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (status, "timed out" in err) == (1, True)
