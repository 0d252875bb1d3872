"""Finds the authorization server of an MCP server, and what it offers.

Source: MCP 2025-06-18 and later, Authorization; RFC 9728 (protected resource metadata); RFC 8414
(authorization server metadata) and OpenID Connect Discovery.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import msgspec

from mcpbridge.client.http_client import cause_of
from mcpbridge.reverse.login.oauth_http import LoginFailed, ask_json, safe_url

_RESOURCE = "/.well-known/oauth-protected-resource"
_SERVER = "/.well-known/oauth-authorization-server"
_OPENID = "/.well-known/openid-configuration"
_PARAM = re.compile(r'(?:^|[\s,])([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Resource(msgspec.Struct, frozen=True):
    """What an MCP server says of its protection."""

    issuer: httpx.URL
    scopes: tuple[str, ...]
    """The scopes to ask for, if the operator names none."""


class AuthorizationServer(msgspec.Struct, frozen=True):
    """The metadata of an authorization server that a login needs."""

    issuer: str
    authorize: httpx.URL
    token: httpx.URL
    register: httpx.URL | None
    takes_metadata_url: bool
    """Whether a client's id may be the URL of its metadata."""
    names_itself: bool
    """Whether its answers to the browser name it, as RFC 9207 has it."""


async def find_resource(client: httpx.AsyncClient, url: httpx.URL) -> Resource:
    """Return what an MCP server says of its protection.

    Raises:
        LoginFailed: It cannot be asked, asks for no login, or its metadata are of another server.
    """
    challenge, status = await _challenge(client, url)
    places = [safe_url(challenge[key], key) for key in ("resource_metadata",) if key in challenge]
    paths = dict.fromkeys((_RESOURCE + url.path.rstrip("/"), _RESOURCE))
    places += [url.copy_with(path=path, query=None) for path in paths]
    for place in places:
        code, found = await ask_json(client, "GET", place)
        if code == 200 and found:
            return _resource(found, url, challenge.get("scope"))
    if status != 401:
        raise LoginFailed(f"the server asks for no login: it answers {status}")
    # As in 2025-03-26: the server's own origin is the authorization server.
    return Resource(url.copy_with(path="/", query=None), _words(challenge.get("scope")))


async def _challenge(client: httpx.AsyncClient, url: httpx.URL) -> tuple[dict[str, str], int]:
    headers = {"accept": "application/json, text/event-stream"}
    try:
        async with client.stream("GET", url, headers=headers) as response:
            text = response.headers.get("www-authenticate", "")
            found = {name.lower(): a or b for name, a, b in _PARAM.findall(text[:8192])}
            return found, response.status_code
    except httpx.HTTPError as error:
        raise LoginFailed(f"{url.host} cannot be reached: {cause_of(error)}") from error


def _resource(found: dict[str, Any], url: httpx.URL, scope: str | None) -> Resource:
    named = safe_url(found.get("resource"), "resource of the server's metadata")
    origin = (named.scheme, named.host, named.port) == (url.scheme, url.host, url.port)
    path = named.path.rstrip("/")
    if not origin or not (url.path == named.path or f"{url.path}/".startswith(f"{path}/")):
        # A token for another server would serve that server alone, or a thief.
        raise LoginFailed(f"the metadata are those of {named}, not of {url}")
    servers = found.get("authorization_servers")
    if not isinstance(servers, list) or not servers:
        raise LoginFailed("the server's metadata name no authorization server")
    supported = found.get("scopes_supported")
    scopes = [s for s in supported if isinstance(s, str)] if isinstance(supported, list) else []
    return Resource(safe_url(servers[0], "authorization_servers"), _words(scope) or tuple(scopes))


def _words(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").split())


async def find_authorization_server(
    client: httpx.AsyncClient, issuer: httpx.URL
) -> AuthorizationServer:
    """Return the metadata of an authorization server.

    Raises:
        LoginFailed: There are none, they are those of another one, or PKCE is not offered.
    """
    path = issuer.path.rstrip("/")
    for place in dict.fromkeys((_SERVER + path, _OPENID + path, path + _OPENID)):
        status, found = await ask_json(client, "GET", issuer.copy_with(path=place, query=None))
        if status == 200 and found:
            return _server(found, issuer)
    raise LoginFailed(f"{issuer} has no metadata of an authorization server")


def _server(found: dict[str, Any], issuer: httpx.URL) -> AuthorizationServer:
    named = str(found.get("issuer"))
    if named.rstrip("/") != str(issuer).rstrip("/"):
        raise LoginFailed(f"the metadata of {issuer} are those of {named[:200]!r}")
    methods = found.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        raise LoginFailed(f"{issuer} does not offer PKCE (S256), which OAuth 2.1 requires")
    register = found.get("registration_endpoint")
    return AuthorizationServer(
        named,
        safe_url(found.get("authorization_endpoint"), "authorization_endpoint"),
        safe_url(found.get("token_endpoint"), "token_endpoint"),
        safe_url(register, "registration_endpoint") if register is not None else None,
        found.get("client_id_metadata_document_supported") is True,
        found.get("authorization_response_iss_parameter_supported") is True,
    )
