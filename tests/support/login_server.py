"""An MCP server that asks for a login, and its authorization server: answers of `FakeRemote`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from tests.support.bridge_process import eventually, started
from tests.support.fake_remote import FakeRemote, Got, respond

WITHIN_S = 20.0


class LoginServer:
    """Both servers at one origin; its `metadata` may be made wrong."""

    def __init__(self, mcp: Callable[[Got, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._mcp = mcp
        self.origin = ""
        self.valid = ""
        """The access token that the MCP server takes."""
        self.refresh = ""
        """The refresh token that may be used, once."""
        self.forms: list[dict[str, str]] = []
        """What the token endpoint was sent."""
        self.registered: list[dict[str, Any]] = []
        self.metadata: dict[str, Any] = {}
        """Replaces members of the authorization server's metadata; None removes one."""
        self.resource: dict[str, Any] = {}
        """The same for those of the MCP server."""
        self.answer: dict[str, str] = {}
        """The same for what the browser brings back."""
        self._codes: dict[str, dict[str, str]] = {}
        self._count = 0

    async def __call__(self, got: Got, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        path, _, query = got.path.partition("?")
        self.origin = f"http://{got.headers['host']}"
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        match path:
            case "/mcp":
                await self._serve_mcp(got, writer)
            case "/.well-known/oauth-protected-resource/mcp":
                found = {"resource": f"{self.origin}/mcp", "authorization_servers": [self.origin]}
                found["scopes_supported"] = ["tools"]
                _json(writer, found | self.resource)
            case "/.well-known/oauth-authorization-server":
                _json(writer, self._described())
            case "/register":
                self.registered.append(json.loads(got.body))
                _json(writer, {"client_id": "c1", **self.registered[-1]}, "201 Created")
            case "/authorize":
                self._authorize(fields, writer)
            case "/token":
                self._token(got, writer)
            case _:
                respond(writer, "404 Not Found")

    async def _serve_mcp(self, got: Got, writer: asyncio.StreamWriter) -> None:
        if self.valid and got.headers.get("authorization") == f"Bearer {self.valid}":
            await self._mcp(got, writer)
            return
        place = f"{self.origin}/.well-known/oauth-protected-resource/mcp"
        challenge = f'Bearer error="invalid_token", resource_metadata="{place}"'
        respond(writer, "401 Unauthorized", www_authenticate=challenge)

    def _described(self) -> dict[str, Any]:
        found = {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "registration_endpoint": f"{self.origin}/register",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _authorize(self, fields: dict[str, str], writer: asyncio.StreamWriter) -> None:
        self._count += 1
        code = f"code{self._count}"
        self._codes[code] = fields
        answer = {"code": code, "state": fields["state"], "iss": self.origin, **self.answer}
        respond(writer, "302 Found", location=f"{fields['redirect_uri']}?{urlencode(answer)}")

    def _token(self, got: Got, writer: asyncio.StreamWriter) -> None:
        form = {name: values[0] for name, values in parse_qs(got.body.decode()).items()}
        self.forms.append(form)
        if form["grant_type"] == "authorization_code":
            asked = self._codes.pop(form["code"])
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            same = ("redirect_uri", "client_id", "resource")
            good = proof == asked["code_challenge"] and all(form[n] == asked[n] for n in same)
        else:
            good = bool(self.refresh) and form["refresh_token"] == self.refresh
        if not good:
            _json(writer, {"error": "invalid_grant"}, "400 Bad Request")
            return
        self._count += 1
        self.valid, self.refresh = f"access{self._count}", f"refresh{self._count}"
        token = {"access_token": self.valid, "refresh_token": self.refresh, "expires_in": 3600}
        _json(writer, {**token, "token_type": "Bearer", "scope": "tools"})


def _json(writer: asyncio.StreamWriter, value: dict[str, Any], status: str = "200 OK") -> None:
    respond(writer, status, json.dumps(value).encode())


def redirect_of(address: str) -> str:
    """The place to which the page at an address sends the browser."""
    return parse_qs(urlsplit(address).query)["redirect_uri"][0]


def home(folder: Path) -> dict[str, str]:
    """An environment in which logins are kept below a folder."""
    return {"XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}


async def logged_in(
    remote: FakeRemote, env: Mapping[str, str], *flags: str, before: str = ""
) -> tuple[int, str]:
    """Log in as a user does, by the printed address; the exit status and all that was said.

    `before` is the query of a request that is not an answer to this login, and comes first.
    """
    pipe = asyncio.subprocess.PIPE
    words = ("login", "--no-browser", *flags, remote.url)
    async with started(*words, env=env, stdout=pipe) as running:
        ending = asyncio.create_task(running.ended(WITHIN_S))

        def page() -> str:
            return next((line for line in running.noise if line.startswith("http")), "")

        await eventually(
            lambda: ending.done() or bool(page()), "the page is named, or the end", WITHIN_S
        )
        if not ending.done():
            async with httpx.AsyncClient(follow_redirects=True) as browser:
                if before:
                    wrong = await browser.get(f"{redirect_of(page())}?{before}")
                    assert wrong.status_code == 400
                await browser.get(page())
        status = await ending
    # Only now is all read that it said.
    return status, "\n".join(running.noise)


def kept(folder: Path) -> Path:
    """The only login below a folder."""
    (file,) = (folder / "mcpbridge" / "logins").glob("*.json")
    return file
