"""`mcpbridge login URL`: OAuth 2.1 with PKCE in the user's browser; then `connect` has a token.

Source: MCP 2025-11-25, Authorization; OAuth 2.1; RFC 7591 (registration), RFC 8707 (resource), RFC
9207 (issuer in the answer).
"""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import msgspec
from anyio import to_thread

from mcpbridge import DISTRIBUTION, __version__
from mcpbridge.config.remote_server import login_file
from mcpbridge.errors import ConfigError
from mcpbridge.reverse.login.callback import Callback
from mcpbridge.reverse.login.discovery import (
    AuthorizationServer,
    find_authorization_server,
    find_resource,
)
from mcpbridge.reverse.login.oauth_http import LoginFailed, ask_json, oauth_client, safe_url
from mcpbridge.reverse.login.saved_login import SavedLogin, write_login

EXIT_FAILED = 1


class LoginSettings(msgspec.Struct, frozen=True):
    """The choices of the user."""

    file: Path | None
    """Where the login is kept; None: where `connect` looks."""
    scope: str | None
    client_id: str | None
    client_metadata_url: str | None
    callback_port: int
    opens_browser: bool
    within_s: float


def require_authlib() -> None:
    """Raise ConfigError if the library of the extra is not installed."""
    try:
        import authlib  # noqa: F401 - only whether it is there
    except ImportError:
        remedy = f"pip install '{DISTRIBUTION}[login]'"
        raise ConfigError("login", "", "authlib is not installed", remedy) from None


def run(url: str, settings: LoginSettings, tell: Callable[[str], None]) -> int:
    """Log in; return the exit status: 0, or 1 if it failed.

    Args:
        url: The server.
        settings: The choices of the user.
        tell: Shows the user a text.
    """
    require_authlib()
    try:
        file = anyio.run(_logged_in, url, settings, tell)
    except LoginFailed as error:
        tell(f"mcpbridge: {error}")
        return EXIT_FAILED
    tell(f"logged in: {file}")
    return 0


async def _logged_in(text: str, settings: LoginSettings, tell: Callable[[str], None]) -> Path:
    url = safe_url(text, "URL").copy_with(fragment=None)
    file = settings.file or login_file(str(url))
    async with oauth_client() as client:
        resource = await find_resource(client, url)
        server = await find_authorization_server(client, resource.issuer)
        scope = settings.scope if settings.scope is not None else " ".join(resource.scopes)
        with anyio.move_on_after(settings.within_s):
            login = await _Login(client, url, server, settings, scope, tell).run()
            try:
                await to_thread.run_sync(write_login, file, login)
            except OSError as error:
                raise LoginFailed(f"{file} cannot be written: {error.strerror}") from error
            return file
    raise LoginFailed(f"no login within {settings.within_s:g} s (--timeout)")


class _Login:
    """One login at one authorization server."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: httpx.URL,
        server: AuthorizationServer,
        settings: LoginSettings,
        scope: str,
        tell: Callable[[str], None],
    ) -> None:
        from authlib.common.security import generate_token  # of the extra

        self._client = client
        self._url = url
        self._server = server
        self._settings = settings
        self._scope = scope
        self._tell = tell
        self._state = generate_token(43)
        self._verifier = generate_token(64)

    async def run(self) -> SavedLogin:
        """Have the user log in; return what to keep."""
        callback = Callback(self._is_ours)
        try:
            async with callback.listening(self._settings.callback_port):
                client_id, secret = await self._identity(callback.uri)
                self._show(self._address(client_id, callback.uri))
                code = self._code_in(await callback.answer())
        except OSError as error:
            port = self._settings.callback_port
            raise LoginFailed(f"port {port} is not free (--callback-port)") from error
        return await self._exchanged(code, client_id, secret, callback.uri)

    def _is_ours(self, uri: str) -> bool:
        return parse_qs(urlsplit(uri).query).get("state") == [self._state]

    async def _identity(self, redirect_uri: str) -> tuple[str, str | None]:
        """Return the id of this client, and its secret if the server gave one."""
        settings, server = self._settings, self._server
        if settings.client_id is not None:
            return settings.client_id, None
        if settings.client_metadata_url is not None and server.takes_metadata_url:
            return settings.client_metadata_url, None
        if server.register is None:
            problem = f"{server.issuer} registers no clients"
            raise LoginFailed(problem, "give --client-id, of a client that its operator made")
        facts = {
            "client_name": "mcpbridge",
            "software_id": "mcpbridge",
            "software_version": __version__,
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",  # nosec B105 # a method, and no secret
            "application_type": "native",
        }
        if self._scope:
            facts["scope"] = self._scope
        status, found = await ask_json(self._client, "POST", server.register, body=facts)
        client_id, secret = found.get("client_id"), found.get("client_secret")
        if status not in (200, 201) or not isinstance(client_id, str):
            raise LoginFailed(f"{server.issuer} refused to register: {status} {_error_in(found)}")
        return client_id, secret if isinstance(secret, str) and secret else None

    def _address(self, client_id: str, redirect_uri: str) -> str:
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        return str(
            prepare_grant_uri(
                str(self._server.authorize),
                client_id,
                "code",
                redirect_uri,
                self._scope or None,
                self._state,
                code_challenge=create_s256_code_challenge(self._verifier),
                code_challenge_method="S256",
                resource=str(self._url),
            )
        )

    def _show(self, address: str) -> None:
        self._tell(f"open this page to log in:\n{address}")
        if self._settings.opens_browser:
            webbrowser.open(address)

    def _code_in(self, uri: str) -> str:
        fields = parse_qs(urlsplit(uri).query)
        issuers = fields.get("iss", [])
        wrong = issuers not in ([], [self._server.issuer])
        if wrong or (self._server.names_itself and not issuers):
            # An answer that another server has caused, to get this server's code.
            raise LoginFailed(f"the answer is not of {self._server.issuer}")
        if "error" in fields or len(fields.get("code", [])) != 1:
            told = {name: values[0] for name, values in fields.items()}
            raise LoginFailed(f"{self._server.issuer} refused the login: {_error_in(told)}")
        return fields["code"][0]

    async def _exchanged(
        self, code: str, client_id: str, secret: str | None, redirect_uri: str
    ) -> SavedLogin:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": client_id,
            "code_verifier": self._verifier,
            "resource": str(self._url),
        }
        if secret is not None:
            form["client_secret"] = secret
        status, found = await ask_json(self._client, "POST", self._server.token, form)
        if status != 200:
            problem = f"{self._server.issuer} gave no token: {status} {_error_in(found)}"
            raise LoginFailed(problem)
        issuer, endpoint = self._server.issuer, str(self._server.token)
        login = SavedLogin(
            str(self._url), issuer, endpoint, client_id, "", secret, scope=self._scope
        )
        return login.renewed(found)


def _error_in(found: dict[str, Any]) -> str:
    """Return the error of an OAuth answer, without control characters."""
    words = (found.get("error"), found.get("error_description"))
    text = ": ".join(str(each) for each in words if each) or "no reason given"
    return "".join(sign if sign.isprintable() else "�" for sign in text)[:500]
