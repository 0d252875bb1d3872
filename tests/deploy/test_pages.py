"""README.md and docs/: every file and URL in a block. test_commands.py has commands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import httpx
import json5
import pytest

from mcpbridge.config.load import load
from tests.deploy.tools import DEPLOY, ROOT, asked_by_curl, block_lines, blocks, run, stages
from tests.support.bridge_process import ACCEPT, bridge, initialize
from tests.support.doctor import doctor

pytestmark = pytest.mark.slow

PAGES = ["../README.md", *sorted(path.name for path in (ROOT / "docs").glob("*.md"))]
"""By their paths from docs/."""
OF_PUBLISHED_SERVERS = ("--ignore", "DL3006", "--ignore", "DL3013", "--ignore", "DL3016")
"""A reader wants the newest release of a server, on an image built a moment before."""
TOKEN = "swordfish-swordfish-swordfish-swordfish"


async def test_every_curl_and_every_look_at_an_endpoint_runs_as_printed() -> None:
    """curl and `mcpbridge doctor URL`, at a bridge; only the port is another."""
    curls, looks = set(), set()
    for page in PAGES:
        lines = [line for line in block_lines(page) if "localhost:8000" in line]
        curls |= {line for line in lines if line.startswith("curl ")}
        looks |= {line for line in lines if line.startswith("mcpbridge doctor http")}
    assert len(curls) >= 5
    assert looks
    async with bridge() as running:
        for line in sorted(curls):
            words = shlex.split(line.replace("localhost:8000", f"127.0.0.1:{running.port}"))
            answer = json.loads(await asked_by_curl(words[1:]))
            assert "result" in answer or answer["status"] == "ok", line
        for line in sorted(looks - {"mcpbridge doctor http://localhost:8000 --as mcp-operator"}):
            words = shlex.split(line.replace("localhost:8000", f"127.0.0.1:{running.port}"))
            verdict = await doctor(*words[2:])
            assert verdict.status == 0, verdict


def entries(found: Any) -> Iterator[tuple[str, str, str]]:
    """Name, URL and Authorization header of each server in a client's file."""
    for name, entry in (found.get("mcpServers") or found["servers"]).items():
        yield name, entry["url"], entry.get("headers", {}).get("Authorization", "")


async def test_what_clients_are_given_reaches_a_bridge() -> None:
    """Each file of docs/clients.md: without a token, or with one where the bridge asks for it."""
    files = [json.loads(block) for block in blocks("clients.md", "json")]
    assert len(files) == 6
    async with bridge() as running, bridge(env={"MCPBRIDGE_AUTH_TOKEN": TOKEN}) as guarded:
        for name, url, header in (each for file in files for each in entries(file)):
            assert name == "my-server"
            port = guarded.port if header else running.port
            headers = dict(ACCEPT)
            if header:
                told, variables = re.subn(r"\$\{[\w:-]+\}", TOKEN, header)
                assert variables == 1
                headers["Authorization"] = told
            address = url.replace("localhost:8000", f"127.0.0.1:{port}")
            async with httpx.AsyncClient(timeout=20) as client:
                answer = await client.post(address, json=initialize(), headers=headers)
                assert answer.status_code == 200, url
                if header:
                    refused = await client.post(address, json=initialize(), headers=ACCEPT)
                    assert refused.status_code == 401


def test_the_readme_gives_clients_the_same_as_their_page() -> None:
    """The two files of its table, and Claude Code's line."""
    readme = (ROOT / "README.md").read_text("utf-8")
    files = [json.loads(block) for block in blocks("clients.md", "json")]
    shown = [json.loads(text) for text in re.findall(r"`(\{\".*\})` \|$", readme, re.M)]
    assert len(shown) == 2
    assert all(each in files for each in shown)
    line = next(line for line in block_lines("clients.md") if line.startswith("claude "))
    assert f"`{line}`" in readme


@pytest.mark.parametrize(
    ("page", "text"),
    [
        pytest.param(page, text, id=f"{page}-{number}")
        for page in ("../README.md", "quick-start.md")
        for number, text in enumerate(blocks(page, "dockerfile"))
    ],
)
def test_a_dockerfile_for_a_published_server_is_sound(page: str, text: str) -> None:
    """hadolint finds nothing else, the image is ours, and the command is one."""
    done = run("hadolint", "--no-color", *OF_PUBLISHED_SERVERS, "-", text=text)
    assert (done.returncode, done.stdout) == (0, ""), page
    assert re.findall(r"^FROM (\S+)$", text, re.M)[-1] == "mcpbridge"
    words = json.loads(re.findall(r"^CMD (.*)$", text, re.M)[0])
    assert load({}, words[1:], {}).child.argv == tuple(words[1:])
    users = re.findall(r"^USER (\S+)$", text, re.M)
    assert users[-1:] != ["0"]


def test_every_folder_that_is_applied_is_there() -> None:
    """`kubectl apply -k FOLDER`, in prose and in blocks; and every target of the Dockerfile."""
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text("utf-8")
        for folder in re.findall(r"kubectl apply -k deploy/([\w-]+)", text):
            assert (DEPLOY / folder / "kustomization.yaml").exists(), page
        assert set(re.findall(r"docker build .*--target (\w+)", text)) <= set(stages())


@pytest.mark.parametrize("page", PAGES)
def test_every_block_that_is_data_can_be_read(page: str) -> None:
    """JSON and YAML; a language that no test knows is not used."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    known = {"", "sh", "console", "dockerfile", "json", "jsonc", "python", "text", "yaml"}
    assert set(re.findall(r"^```(\w*)\n.*?^```$", text, re.M | re.S)) <= known
    for block in blocks(page, "python"):
        compile(block, page, "exec")
    for block in blocks(page, "jsonc"):
        json5.loads(block)
    for block in blocks(page, "json"):
        json.loads(block)
