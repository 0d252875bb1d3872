"""Whether tokens of an authorization server are taken: the settings that only make sense together.

Nothing is fetched here: an authorization server that is down does not keep the bridge from its
start, and may come up after it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from urllib.parse import urlsplit

from mcpbridge.errors import ConfigError
from mcpbridge.http.auth.oauth import OAuthSettings
from mcpbridge.rules.access.jwt import fetchable

_FLAGS = {
    "audiences": "--oauth-audience",
    "jwks_url": "--oauth-jwks-url",
    "algorithms": "--oauth-algorithms",
    "scopes": "--oauth-scope",
    "method_scopes": "--oauth-method-scope",
}


def check_oauth(settings: OAuthSettings, origins: Mapping[str, str]) -> None:
    """See that what was asked for can be done.

    Args:
        settings: What was asked for.
        origins: Where each of the fields came from; nothing for a default.

    Raises:
        ConfigError: A part is missing or cannot be, or the extra is not installed.
    """
    if settings.issuer is None:
        for field, flag in _FLAGS.items():
            if field in origins:
                problem = "has no effect without --oauth-issuer"
                raise ConfigError(flag, origins[field], problem, "name the authorization server")
        return
    _check_issuer(settings, origins.get("issuer", ""))
    if not settings.audiences:
        problem = "is needed with --oauth-issuer: tokens for other resources must be refused"
        remedy = "give the URL at which clients reach this endpoint, like https://example.org/mcp"
        raise ConfigError("--oauth-audience", "", problem, remedy)
    resource = settings.audiences[0]
    if not _is_resource(resource):
        problem = f"{resource!r} is no URL of http or https without query and fragment"
        remedy = "give first the URL at which clients reach this endpoint, then other values of aud"
        raise ConfigError("--oauth-audience", origins.get("audiences", ""), problem, remedy)
    if importlib.util.find_spec("joserfc") is None:
        problem = "the library that checks signatures is not installed"
        remedy = "pip install 'mcpbridge[oauth]'"
        raise ConfigError("--oauth-issuer", origins.get("issuer", ""), problem, remedy)


def _check_issuer(settings: OAuthSettings, origin: str) -> None:
    issuer = settings.issuer or ""
    if not _is_resource(issuer):
        problem = f"{issuer!r} is no URL of http or https without query and fragment"
        raise ConfigError("--oauth-issuer", origin, problem)
    if settings.jwks_url is not None:
        return
    try:
        fetchable(issuer)
    except ValueError as error:
        remedy = "use https, or give the address of its keys as --oauth-jwks-url"
        raise ConfigError("--oauth-issuer", origin, f"{issuer!r} {error}", remedy) from None


def _is_resource(text: str) -> bool:
    """Whether it can name a resource or an issuer (RFC 8707, 2; RFC 8414, 2)."""
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        return False
    # Both stand in quotes in a header.
    clean = text.isascii() and text.isprintable() and not any(mark in text for mark in ' "\\?#@')
    return parts.scheme in ("http", "https") and named and clean
