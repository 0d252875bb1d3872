"""Session ids that name the replica that has the session, sealed so that only replicas read them.

    m + base32(nonce 12 | AES-256-GCM(version 1, flags 1, IP 4 or 16, port 2, boot 4, issued 4,
                                      the deflated params of `initialize`))

The principal's key is authenticated with it, so an id opens for its own client alone. The alphabet
is that of gateways, which accept `[A-Za-z0-9_-]` and up to 128 characters: an id of a client with
few abilities stays below that.

An id that does not open is answered like one that never existed, without a look-up and without a
connection to another replica. One of an unknown version is a newer release's: its client must not
give up its session, so it is told to come again.
"""

from __future__ import annotations

import base64
import binascii
import enum
import ipaddress
import re
import secrets
import struct
import zlib
from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = 1
MAX_ID_CHARACTERS = 1024
"""Longest id; the params of a client with more to say of itself are left out."""
MAX_AGE_S = 30 * 24 * 3600.0
"""An id that was issued longer ago is not forwarded: its key may have leaked since."""

_PREFIX = "m"
_NONCE_BYTES = 12
_HEAD = struct.Struct("!BB")
_TAIL = struct.Struct("!HII")
_IPV6, _ONE_STREAM, _PARAMS = 1, 2, 4
_MAX_PARAMS_BYTES = 64 << 10
_MOST_OPENED = 1024
_REPLICA = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})/(?P<boot>[0-9a-f]{8})\Z"
)
_WINDOW_BITS = -10  # raw deflate; the preset dictionary is shorter than a window of 1 KiB
_MEMORY_LEVEL = 1

_DICTIONARY = (
    b'{"protocolVersion":"2024-11-05","capabilities":{"roots":{"listChanged":true},"sampling":{},'
    b'"elicitation":{}},"clientInfo":{"name":"Visual Studio Code","version":"1.1"'
    b',"title":"websiteUrl":"https://"description":"icons":[{"src":"mimeType":"image/png","sizes":['
    b'"experimental":{},"tasks":{"list":{},"cancel":{},"requests":{"sampling":{"createMessage":{}},'
    b'"elicitation":{"create":{}}}},"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":['
    b'"text/html;profile=mcp-app"]}}'
    b'{"protocolVersion":"2025-03-26","capabilities":{"roots":{}},"clientInfo":{"name":"claude-code'
    b'"{"protocolVersion":"2025-06-18","capabilities":{"sampling":{"context":{},"tools":{}},'
    b'"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true}},"clientInfo":{"name":"'
    b'mcp-client","version":"1.0.0"}}'
    b'{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"mcp","version":"0.1.0'
    b'"}}'
)
"""What clients say of themselves in `initialize`; likely texts stand at the end."""


class Replica(msgspec.Struct, frozen=True):
    """One run of one process: where its peer port is, and which start of it is meant.

    A container that is restarted keeps its address, so the address alone names no session's home.
    """

    host: str
    """An IP address."""
    port: int
    boot: int
    """32 random bits, chosen when the process starts."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.boot:08x}"


def replica_named(text: str) -> Replica | None:
    """Return the replica with this text, as `str` makes it; None if there can be none."""
    match = _REPLICA.match(text)
    if match is None:
        return None
    return Replica(match["six"] or match["four"], int(match["port"]), int(match["boot"], 16))


class SessionId(msgspec.Struct, frozen=True):
    """What an id says."""

    owner: Replica
    issued_s: int
    """When it was issued, in seconds since the epoch."""
    one_stream: bool = False
    """Whether it is the key of a client of HTTP+SSE, the transport of 2024-11-05."""
    params: bytes | None = None
    """The client's params of `initialize`; None if they were too long."""


class Unreadable(enum.Enum):
    """Why an id says nothing."""

    FORGED = "forged"
    """It is not one of ours, is of another client, or was changed."""
    EXPIRED = "expired"
    NEWER = "newer"
    """A release with another format has issued it."""


class SessionIds:
    """A writer and reader of the ids of one replica."""

    def __init__(
        self, own: Replica, keys: Callable[[], Sequence[bytes]], clock: Callable[[], float]
    ) -> None:
        """Make a writer and reader.

        Args:
            own: The replica that is named in the ids that it writes.
            keys: Returns the keys of 32 bytes: the first writes, all read. It returns another
                sequence when they have changed.
            clock: Returns seconds since the epoch.
        """
        self.own = own
        self._keys = keys
        self._clock = clock
        self._known: Sequence[bytes] = ()
        self._ciphers: Sequence[AESGCM] = ()
        self._opened: dict[tuple[str, bytes], SessionId] = {}

    def new(
        self, principal: bytes, params: bytes | None = None, *, one_stream: bool = False
    ) -> str:
        """Return a new id for a client.

        Args:
            principal: The key of the client's principal: it opens for no other.
            params: The client's params of `initialize`, to be carried if they are short enough.
            one_stream: It is the key of a client of HTTP+SSE.
        """
        packed = b"" if params is None or len(params) > _MAX_PARAMS_BYTES else _deflated(params)
        text = self._sealed(principal, packed, one_stream=one_stream)
        if len(text) > MAX_ID_CHARACTERS:
            text = self._sealed(principal, b"", one_stream=one_stream)
        return text

    def open(self, text: str, principal: bytes) -> SessionId | Unreadable:
        """Return what an id says to the client that sends it, or why it says nothing."""
        ciphers = self._current()
        found = self._opened.get((text, principal))
        if found is None:
            plain = _unsealed(ciphers, text, principal)
            if plain is None:
                return Unreadable.FORGED
            if plain[:1] != bytes((VERSION,)):
                return Unreadable.NEWER
            read = _read(plain)
            if read is None:
                return Unreadable.FORGED
            found = read
            # Only ids that open are kept: a client could fill the table with others.
            if len(self._opened) >= _MOST_OPENED:
                del self._opened[next(iter(self._opened))]
            self._opened[text, principal] = found
        if self._clock() - found.issued_s > MAX_AGE_S:
            return Unreadable.EXPIRED
        return found

    def _sealed(self, principal: bytes, packed: bytes, *, one_stream: bool) -> str:
        address = ipaddress.ip_address(self.own.host)
        flags = _IPV6 * (address.version == 6) | _ONE_STREAM * one_stream | _PARAMS * bool(packed)
        plain = b"".join(
            (
                _HEAD.pack(VERSION, flags),
                address.packed,
                _TAIL.pack(self.own.port, self.own.boot, int(self._clock())),
                packed,
            )
        )
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._current()[0].encrypt(nonce, plain, principal)
        return _PREFIX + base64.b32encode(sealed).decode().rstrip("=").lower()

    def _current(self) -> Sequence[AESGCM]:
        """Return a cipher for each key, the one that writes first."""
        keys = self._keys()
        if keys is not self._known:
            # What only a dropped key has sealed must not stay open.
            self._opened.clear()
            self._known, self._ciphers = keys, [AESGCM(each) for each in keys]
        return self._ciphers


def _unsealed(ciphers: Sequence[AESGCM], text: str, principal: bytes) -> bytes | None:
    raw = _bytes_in(text)
    if raw is None:
        return None
    for cipher in ciphers:
        try:
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], principal)
        except InvalidTag:
            continue
    return None


def _bytes_in(text: str) -> bytes | None:
    """Return the bytes that an id spells; None if it is not one, or not their only spelling."""
    body = text[1:]
    if text[:1] != _PREFIX or not _NONCE_BYTES < len(body) < MAX_ID_CHARACTERS:
        return None
    if not body.isascii() or not body.isalnum() or not body.islower():
        return None
    try:
        raw = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    except (ValueError, binascii.Error):
        return None
    return raw if base64.b32encode(raw).decode().rstrip("=").lower() == body else None


def _read(plain: bytes) -> SessionId | None:
    """Return what an id of this version says; None if it is cut short, which no release writes."""
    try:
        _, flags = _HEAD.unpack_from(plain)
        start = _HEAD.size + (16 if flags & _IPV6 else 4)
        host = ipaddress.ip_address(plain[_HEAD.size : start])
        port, boot, issued_s = _TAIL.unpack_from(plain, start)
        packed = plain[start + _TAIL.size :]
        params = _inflated(packed) if flags & _PARAMS else None
    except (struct.error, ValueError, zlib.error):
        return None
    return SessionId(Replica(str(host), port, boot), issued_s, bool(flags & _ONE_STREAM), params)


def _deflated(params: bytes) -> bytes:
    packer = zlib.compressobj(
        9, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY
    )
    return packer.compress(params) + packer.flush()


def _inflated(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(_WINDOW_BITS, _DICTIONARY)
    params = unpacker.decompress(packed, _MAX_PARAMS_BYTES)
    if not unpacker.eof:
        raise ValueError("longer than what is sealed, or cut short")
    return params
