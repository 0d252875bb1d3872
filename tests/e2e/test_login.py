"""`mcpbridge login URL`, against an issuer of the test, and `connect` with what it has kept."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from pathlib import Path

import pytest

from mcpbridge import DISTRIBUTION
from tests.support.bridge_process import ran
from tests.support.fake_remote import fake_remote
from tests.support.fake_servers import TOOL, modern_server
from tests.support.login_server import LoginServer, home, kept, logged_in
from tests.support.modern_client import meta
from tests.support.stdio_client import stdio_client

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]


async def test_a_login_is_kept_and_renewed_by_connect(tmp_path: Path) -> None:
    """By discovery, registration and PKCE; the file is its owner's alone, and says no secret."""
    server, env = LoginServer(modern_server), home(tmp_path)
    async with fake_remote(server) as remote:
        status, said = await logged_in(remote, env, before="code=stolen&state=guessed")
        assert (status, "logged in: " in said) == (0, True), said
        (facts,) = server.registered
        assert facts["token_endpoint_auth_method"] == "none"
        assert server.forms[0]["resource"] == remote.url
        assert "code_verifier" in server.forms[0]
        file = kept(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert json.loads(file.read_text())["access_token"] == server.valid
        assert server.valid not in said
        async with (
            stdio_client(remote.url, env=env) as client,
            stdio_client(remote.url, env=env) as other,
        ):
            listed = await client.ask("tools/list", {"_meta": meta()})
            assert listed["result"]["tools"] == [TOOL]
            server.valid = "another"
            both = (client, other)
            asked = [each.ask("tools/list", {"_meta": meta()}) for each in both]
            for answer in await asyncio.gather(*asked):
                assert answer["result"]["tools"] == [TOOL]
            # The two share one refresh: its token may be used once.
            assert [form["grant_type"] for form in server.forms[1:]] == ["refresh_token"]
            assert json.loads(file.read_text())["access_token"] == server.valid
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            server.valid, server.refresh = "ended", ""
            refused = await client.ask("tools/list", {"_meta": meta()})
            assert "401" in refused["error"]["message"]
            assert "mcpbridge login" in refused["error"]["message"]


async def test_list_uses_the_login_and_a_file_of_its_own(tmp_path: Path) -> None:
    """`--file` of login is `--login-file` of connect; list and call look where connect does."""
    server, env, file = LoginServer(modern_server), home(tmp_path), tmp_path / "mine.json"
    async with fake_remote(server) as remote:
        assert (await logged_in(remote, env, "--file", str(file)))[0] == 0
        status, said = await ran("list", remote.url, env=env)
        assert (status, "401" in said) == (3, True), said
        async with stdio_client(remote.url, "--login-file", str(file), env=env) as client:
            assert "result" in await client.ask("tools/list", {"_meta": meta()})
        assert (await logged_in(remote, env))[0] == 0
        status, said = await ran("list", remote.url, env=env)
        assert (status, "hello" in said) == (0, True), said
        file.chmod(0o644)
        status, said = await ran("connect", remote.url, "--login-file", str(file), env=env)
        assert (status, "chmod 600" in said) == (2, True), said


async def test_a_client_that_is_known_is_not_registered(tmp_path: Path) -> None:
    """By `--client-id`, or by the URL of its metadata if the server takes one."""
    server, env = LoginServer(modern_server), home(tmp_path)
    async with fake_remote(server) as remote:
        assert (await logged_in(remote, env, "--client-id", "mine", "--scope", "a b"))[0] == 0
        assert server.forms[-1]["client_id"] == "mine"
        server.metadata = {"client_id_metadata_document_supported": True}
        url = "https://example.org/client.json"
        assert (await logged_in(remote, env, "--client-metadata-url", url))[0] == 0
        assert server.forms[-1]["client_id"] == url
        assert server.registered == []


WRONG = {
    "no PKCE": ({"code_challenge_methods_supported": None}, {}, {}, "does not offer PKCE"),
    "another issuer": ({"issuer": "https://evil.example"}, {}, {}, "are those of"),
    "clear text": ({"token_endpoint": "http://evil.example/token"}, {}, {}, "not an https URL"),
    "no registration": ({"registration_endpoint": None}, {}, {}, "give --client-id"),
    "another resource": ({}, {"resource": "https://evil.example/mcp"}, {}, "not of"),
    "a mix-up": ({}, {}, {"iss": "https://evil.example"}, "the answer is not of"),
    "refused": ({}, {}, {"error": "access_denied", "code": ""}, "access_denied"),
}


@pytest.mark.parametrize(("metadata", "resource", "answer", "problem"), WRONG.values(), ids=WRONG)
async def test_a_wrong_server_gets_no_login(
    metadata: dict[str, object],
    resource: dict[str, object],
    answer: dict[str, str],
    problem: str,
    tmp_path: Path,
) -> None:
    """Status 1, the reason, and no file."""
    server, env = LoginServer(modern_server), home(tmp_path)
    server.metadata, server.resource, server.answer = metadata, resource, answer
    async with fake_remote(server) as remote:
        status, said = await logged_in(remote, env)
    assert (status, problem in said) == (1, True), said
    assert not (tmp_path / "mcpbridge").exists()
    assert server.forms == []


async def test_a_server_without_a_login_is_told(tmp_path: Path) -> None:
    """And one that is away, and a login that takes too long."""
    env = home(tmp_path)
    async with fake_remote(modern_server) as remote:
        status, said = await ran("login", "--no-browser", remote.url, env=env)
        assert (status, "asks for no login: it answers 405" in said) == (1, True), said
        await remote.stop()
        status, said = await ran("login", "--no-browser", remote.url, env=env)
        assert (status, "cannot be reached" in said) == (1, True), said
        await remote.start()
    async with fake_remote(LoginServer(modern_server)) as remote:
        words = ("login", "--no-browser", "--timeout", "1s", remote.url)
        status, said = await ran(*words, env=env)
        assert (status, "(--timeout)" in said) == (1, True), said
    status, said = await ran("login", "http://mcp.example.org/mcp", env=env)
    assert (status, "URL is not an https URL" in said) == (1, True), said


async def test_the_error_for_a_missing_extra_names_it(tmp_path: Path) -> None:
    """As without authlib."""
    (tmp_path / "authlib.py").write_text("raise ImportError('hidden')\n")
    env = {**home(tmp_path), "PYTHONPATH": str(tmp_path)}
    status, said = await ran("login", "https://mcp.example.org/mcp", env=env)
    assert (status, f"pip install '{DISTRIBUTION}[login]'" in said) == (2, True), said


async def test_connect_imports_neither_login_nor_authlib() -> None:
    """Without a saved login; with one it reads and refreshes it without the extra."""
    look = (
        "import sys, mcpbridge.reverse.program, mcpbridge.reverse.login.saved_login as s;"
        "print({'authlib', 'webbrowser', 'mcpbridge.reverse.login.program'} & set(sys.modules))"
    )
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", look, stdout=pipe)
    told, _ = await process.communicate()
    assert told == b"set()\n"
