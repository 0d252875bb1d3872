"""What `mcpbridge config-for` prints: what the client reads, and what our own loader reads back."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from mcpbridge.cli.config_for import program
from mcpbridge.config.client_config import forms
from mcpbridge.config.model import Settings
from mcpbridge.config.remote_server import RemoteServer
from mcpbridge.config.servers_file import ServerEntry, read_servers_file
from mcpbridge.errors import ConfigError
from mcpbridge.process.spec import ChildSpec

CLIENTS = sorted(forms(("x",)))
FILE = '{"mcpServers": {"a b": {"command": "x"}, "c": {"command": "${UNSET}"}}}'


def printed(*words: str) -> str:
    """The text on stdout."""
    done = CliRunner().invoke(program([]), words, catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 0, done.output
    return done.stdout


@pytest.mark.parametrize("client", [each for each in CLIENTS if each != "codex"])
def test_our_loader_reads_it_back(client: str, tmp_path: Path) -> None:
    """Each server of the file has its address, whatever its name, if it can be served or not."""
    (tmp_path / "mcp.json").write_text(FILE)
    base = "https://mcp.example.org"
    text = printed(client, "--config", str(tmp_path / "mcp.json"), "--url", base)
    (tmp_path / "back.json").write_text(text)
    back = read_servers_file(tmp_path / "back.json", Settings(), {})
    wanted = {"a b": f"{base}/servers/a%20b/mcp", "c": f"{base}/servers/c/mcp"}
    assert list(back.servers) == list(wanted)
    for name, url in wanted.items():
        entry = back.servers[name]
        assert isinstance(entry, ServerEntry), str(entry)
        if isinstance(entry.source, ChildSpec):
            assert (client, entry.source.argv[-1]) == ("claude-desktop", url)
        else:
            assert entry.source == RemoteServer(url)


def test_codex_has_toml(tmp_path: Path) -> None:
    """Names that TOML would not take bare are quoted."""
    (tmp_path / "mcp.json").write_text(FILE)
    text = printed("codex", "--config", str(tmp_path / "mcp.json"), "--url", "http://h:1/")
    assert tomllib.loads(text)["mcp_servers"] == {
        "a b": {"url": "http://h:1/servers/a%20b/mcp"},
        "c": {"url": "http://h:1/servers/c/mcp"},
    }


def test_the_address_of_the_endpoint_is_accepted() -> None:
    """It is what the bridge prints when it starts."""
    given = [printed("cursor", "--url", f"http://h:1{path}") for path in ("", "/", "/mcp", "/mcp/")]
    assert [json.loads(each)["mcpServers"]["mcpbridge"]["url"] for each in given] == [
        "http://h:1/mcp"
    ] * 4


def test_one_server_is_printed_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and the address may come from the environment, as those of the bridge do."""
    (tmp_path / "mcp.json").write_text(FILE)
    monkeypatch.setenv("MCPBRIDGE_CONFIG", str(tmp_path / "mcp.json"))
    monkeypatch.setenv("MCPBRIDGE_PORT", "9000")
    url = "http://127.0.0.1:9000/servers/c/mcp"
    assert json.loads(printed("vscode", "c")) == {"servers": {"c": {"type": "http", "url": url}}}
    with pytest.raises(ConfigError, match=r"unknown server 'd'.*name one of: a b, c"):
        printed("vscode", "d")


def test_without_a_file_the_bridge_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL is that of this machine's bridge."""
    monkeypatch.delenv("MCPBRIDGE_CONFIG", raising=False)
    monkeypatch.setenv("MCPBRIDGE_PORT", "9000")
    assert json.loads(printed("cursor", "mine")) == {
        "mcpServers": {"mine": {"url": "http://127.0.0.1:9000/mcp"}}
    }
    with pytest.raises(ConfigError, match="invalid URL"):
        printed("cursor", "--url", "host:80")


def test_an_address_is_not_taken_for_a_name() -> None:
    """An entry of that name would lead to this machine's own bridge."""
    with pytest.raises(ConfigError, match=r"NAME: 'http://h:1/mcp' is an address.*--url http://h"):
        printed("cursor", "http://h:1/mcp")
