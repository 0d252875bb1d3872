"""Who may call: the authenticators that the configuration asks for, as one."""

from __future__ import annotations

import ipaddress

import msgspec

from mcpbridge.config.model import Bind, Config
from mcpbridge.http.auth.access import Door, HeaderEnv
from mcpbridge.http.auth.authenticator import Authenticator, FirstOf, NoAuth
from mcpbridge.http.auth.oauth import OAuth
from mcpbridge.http.auth.static_tokens import StaticTokens
from mcpbridge.http.transports.sse import SSE_PATH


class Access(msgspec.Struct, frozen=True):
    """What lets clients in."""

    authenticator: Authenticator
    door: Door
    tokens: StaticTokens | None
    """Those of the operator, which may be read anew."""


def access_of(config: Config) -> Access:
    """Assemble it; nothing is asked of anybody."""
    auth = config.settings.auth
    found: list[Authenticator] = []
    tokens = None
    if config.file_tokens is not None or config.env_tokens is not None:
        tokens = StaticTokens(auth.token_file, config.file_tokens, config.env_tokens)
        # First: they are compared in no time, and an authorization server need not be asked.
        found.append(tokens)
    if config.settings.oauth.issuer is not None:
        # Last: it is its challenge that tells a client where to log in.
        found.append(_oauth(config, config.settings.oauth.issuer))
    authenticator = _together(found)
    header_env = HeaderEnv(auth.header_env) if auth.header_env else None
    return Access(authenticator, Door(authenticator, header_env, auth.rate_limit), tokens)


def _oauth(config: Config, issuer: str) -> Authenticator:
    # An extra, which need not be installed, and outgoing HTTP, which others do without.
    from mcpbridge.http.auth.jwks import KeyServer, RemoteKeys

    settings = config.settings
    keys = RemoteKeys(KeyServer(issuer, settings.oauth.jwks_url).read)
    return OAuth(settings.oauth, keys, (settings.listen.path, SSE_PATH))


def open_to_all(config: Config) -> str | None:
    """What to say of an address that others reach and where nobody is asked who they are."""
    settings = config.settings
    if config.asks_who or not _is_wide(config.bind) or settings.tls.client_ca is not None:
        return None
    return (
        f"everybody who reaches {config.bind.host} may use this server:"
        " --auth-token-file or --oauth-issuer asks who they are, --require-auth insists on it"
    )


def _is_wide(bind: Bind) -> bool:
    """Whether others than this machine reach the address."""
    if bind.path is not None or bind.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(bind.host).is_loopback
    except ValueError:
        return True


def _together(found: list[Authenticator]) -> Authenticator:
    if not found:
        return NoAuth()
    return found[0] if len(found) == 1 else FirstOf(found)
