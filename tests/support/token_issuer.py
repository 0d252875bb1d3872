"""An authorization server with what a resource server uses: keys, and tokens signed by them.

Its HTTP side publishes metadata and keys from a thread, counts what is asked of it, and can be
told to misbehave. The tokens it is not supposed to make are in `broken_tokens`.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

AUDIENCE = "http://127.0.0.1:8000/mcp"
KEY_OF = {"RS": "rsa", "PS": "rsa", "ES256": "p256", "ES384": "p384", "ES512": "p521", "Ed": "ed"}
"""Which key of an issuer signs with an algorithm, by the beginning of its name."""


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed_by(key: Key, algorithm: str, text: str) -> bytes:
    """A signature over a text."""
    name = "Ed25519" if algorithm == "EdDSA" else algorithm
    return JWSRegistry.algorithms[name].sign(text.encode(), key)


def forged(header: Mapping[str, Any] | bytes, payload: bytes, sign: Callable[[str], bytes]) -> str:
    """A token of any header and any payload."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    text = f"{encoded(head)}.{encoded(payload)}"
    return f"{text}.{encoded(sign(text))}"


class Issuer:
    """Keys by name, and tokens signed with them."""

    def __init__(self, url: str = "https://issuer.example", *, rsa: bool = True) -> None:
        self.url = url
        self._rsa = rsa
        """It takes the tenth of a second to make one of these keys."""
        self.keys: dict[str, Key] = {}
        self.renew("first")

    def renew(self, generation: str) -> None:
        """Sign with new keys from now on; the old ones are still published."""
        made: dict[str, Key] = {
            **({"rsa": RSAKey.generate_key(2048)} if self._rsa else {}),
            "p256": ECKey.generate_key("P-256"),
            "p384": ECKey.generate_key("P-384"),
            "p521": ECKey.generate_key("P-521"),
            "ed": OKPKey.generate_key("Ed25519"),
        }
        self.generation = generation
        self.keys |= {f"{generation}-{name}": key for name, key in made.items()}

    def withdraw(self, generation: str) -> None:
        """Publish the keys of a generation no longer."""
        self.keys = {
            name: key for name, key in self.keys.items() if not name.startswith(f"{generation}-")
        }

    def key_name(self, algorithm: str) -> str:
        """The name of the key that signs with an algorithm now."""
        (kind,) = {kind for start, kind in KEY_OF.items() if algorithm.startswith(start)}
        return f"{self.generation}-{kind}"

    def key_set(self) -> dict[str, Any]:
        """What it publishes."""
        public = [
            {**key.as_dict(private=False), "kid": name, "use": "sig"}
            for name, key in self.keys.items()
        ]
        return {"keys": public}

    def claims(self, **other: Any) -> dict[str, Any]:
        """The claims of a good token, with some changed; None leaves one out."""
        now = time.time()
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "client_id": "laptop",
            "iat": int(now),
            "exp": int(now) + 600,
            "scope": "mcp:use",
            **other,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def header(self, algorithm: str = "ES256", **other: Any) -> dict[str, Any]:
        """The header of a good token, with some members changed; None leaves one out."""
        header = {"alg": algorithm, "typ": "at+jwt", "kid": self.key_name(algorithm), **other}
        return {name: value for name, value in header.items() if value is not None}

    def signer(self, algorithm: str = "ES256") -> Callable[[str], bytes]:
        """Signs a text with the key for an algorithm."""
        key = self.keys[self.key_name(algorithm)]
        return lambda text: signed_by(key, algorithm, text)

    def token(self, algorithm: str = "ES256", **claims: Any) -> str:
        """A good token, but for the claims that are given."""
        payload = json.dumps(self.claims(**claims)).encode()
        return forged(self.header(algorithm), payload, self.signer(algorithm))


class KeyHost:
    """What is served over HTTP, and what was asked for; read and written by threads."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.url = ""
        self.asked: Counter[str] = Counter()
        """How often each path was asked for."""
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """Status, headers and body of paths that have another answer."""
        self.heads: list[dict[str, str]] = []

    @property
    def jwks_url(self) -> str:
        """Where the keys are."""
        return f"{self.url}/keys"

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """What a GET is answered with."""
        self.asked[path] += 1
        if path in self.answers:
            return self.answers[path]
        if path == "/keys":
            return 200, {}, json.dumps(self.issuer.key_set()).encode()
        if path == "/.well-known/oauth-authorization-server":
            described = {"issuer": self.issuer.url, "jwks_uri": self.jwks_url}
            return 200, {}, json.dumps(described).encode()
        return 404, {}, b"{}"


@contextmanager
def hosted(host: KeyHost, port: int = 0) -> Iterator[KeyHost]:
    """A host that answers until the block ends; its issuer is named by its address."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.heads.append({name.lower(): value for name, value in self.headers.items()})
            status, headers, body = host.answer(self.path)
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as above
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Answers) as server:
        server.daemon_threads = True
        host.url = host.issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()
