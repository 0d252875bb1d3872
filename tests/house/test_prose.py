"""Docstrings, comments, messages and pages keep clear of phrases that readers stumble over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import checks

ROOT = Path(__file__).parents[2]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted(
        (*(ROOT / "mcpbridge").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))
    )
}
NOT_YET_REWRITTEN = frozenset(
    {
        "SECURITY.md",
        "docs/settings.md",
        "docs/sidecar.md",
        "docs/troubleshooting.md",
        "mcpbridge/app/build.py",
        "mcpbridge/app/health_client.py",
        "mcpbridge/app/lifecycle.py",
        "mcpbridge/app/resource_limits.py",
        "mcpbridge/app/self_copy.py",
        "mcpbridge/app/state_dump.py",
        "mcpbridge/channels/channel.py",
        "mcpbridge/channels/off_loop.py",
        "mcpbridge/channels/pipes.py",
        "mcpbridge/channels/sockets.py",
        "mcpbridge/cli/copy_self.py",
        "mcpbridge/cli/doctor.py",
        "mcpbridge/cli/health.py",
        "mcpbridge/cli/serve.py",
        "mcpbridge/cli/shim.py",
        "mcpbridge/cli/sidecar.py",
        "mcpbridge/config/auth.py",
        "mcpbridge/config/command.py",
        "mcpbridge/config/listen_address.py",
        "mcpbridge/config/model.py",
        "mcpbridge/config/self_url.py",
        "mcpbridge/config/servers_file.py",
        "mcpbridge/config/values.py",
        "mcpbridge/doctor/endpoint/checks.py",
        "mcpbridge/doctor/endpoint/http_client.py",
        "mcpbridge/doctor/endpoint/mcp_client.py",
        "mcpbridge/doctor/endpoint/mcp_operator.py",
        "mcpbridge/doctor/endpoint/run.py",
        "mcpbridge/doctor/endpoint/sse_client.py",
        "mcpbridge/doctor/server/examination.py",
        "mcpbridge/doctor/server/hints.py",
        "mcpbridge/doctor/server/report.py",
        "mcpbridge/doctor/server/server_process.py",
        "mcpbridge/http/__init__.py",
        "mcpbridge/http/admin.py",
        "mcpbridge/http/auth/access.py",
        "mcpbridge/http/auth/authenticator.py",
        "mcpbridge/http/auth/jwk.py",
        "mcpbridge/http/auth/jwks.py",
        "mcpbridge/http/auth/oauth.py",
        "mcpbridge/http/auth/static_tokens.py",
        "mcpbridge/http/cors.py",
        "mcpbridge/http/disconnect.py",
        "mcpbridge/http/health.py",
        "mcpbridge/http/keepalive.py",
        "mcpbridge/http/request_metrics.py",
        "mcpbridge/http/responses.py",
        "mcpbridge/http/transports/modern.py",
        "mcpbridge/http/transports/sse.py",
    }
)
"""Texts that still have such phrases. The list only shrinks."""


def findings(path: str) -> list[str]:
    """Return the phrases to avoid in one text, each with its line."""
    page = path.endswith(".md")
    return (checks.avoided_phrases_of_a_page if page else checks.avoided_phrases)(TEXTS[path])


@pytest.mark.parametrize("path", sorted(TEXTS.keys() - NOT_YET_REWRITTEN))
def test_no_phrase_to_avoid(path: str) -> None:
    """CONTRIBUTING.md, House rules, says what to write instead."""
    assert findings(path) == []


@pytest.mark.parametrize("path", sorted(NOT_YET_REWRITTEN))
def test_the_list_of_exceptions_only_shrinks(path: str) -> None:
    """A text without such a phrase, or that is gone, leaves the list."""
    assert findings(path)
