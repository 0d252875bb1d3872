"""The resources that one client has subscribed to, found by the resource that was updated.

Source: MCP 2025-11-25, Resources, Subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSet

from mcpbridge.rules.access.shares import MESSAGE_BYTES
from mcpbridge.rules.mcp.methods import concerns

MAX_URI_BYTES = 8192
"""One resource's name; what HTTP servers commonly take as a request line."""


class UriSet(MutableSet[str]):
    """Subscriptions of one client; `concerned` costs what the fewer are, members or path parts."""

    __slots__ = ("_charge", "_stems", "_uris")

    def __init__(
        self, uris: Iterable[str] = (), charge: Callable[[int], None] | None = None
    ) -> None:
        """Make a set.

        Args:
            uris: Its first members.
            charge: Told how many bytes are kept more, or fewer; None: they are not counted.
        """
        self._charge = charge
        # Not a set, which takes 216 bytes when it is empty; a dictionary takes 64.
        self._uris: dict[str, None] = {}
        self._stems: dict[str, int] = {}
        """How many members have this text before their trailing slashes."""
        for uri in uris:
            self.add(uri)

    def __contains__(self, uri: object) -> bool:
        return uri in self._uris

    def __iter__(self) -> Iterator[str]:
        return iter(self._uris)

    def __len__(self) -> int:
        return len(self._uris)

    def add(self, uri: str) -> None:
        """Add a resource."""
        if uri not in self._uris:
            self._uris[uri] = None
            stem = uri.rstrip("/")
            self._stems[stem] = self._stems.get(stem, 0) + 1
            if self._charge is not None:
                self._charge(uri_bytes(uri))

    def discard(self, uri: str) -> None:
        """Remove a resource if it is there."""
        if uri in self._uris:
            del self._uris[uri]
            stem = uri.rstrip("/")
            self._stems[stem] -= 1
            if not self._stems[stem]:
                del self._stems[stem]
            if self._charge is not None:
                self._charge(-uri_bytes(uri))

    def concerned(self, updated: str) -> bool:
        """Return whether an update of this resource is news for a subscriber; see `concerns`."""
        if updated in self._uris:
            return True
        # A server may name a resource with any number of slashes: then members are fewer.
        if len(self._uris) <= updated.count("/"):
            return any(concerns(own, updated) for own in self._uris)
        end = updated.find("/")
        while end >= 0:
            if updated[:end] in self._stems:
                return True
            end = updated.find("/", end + 1)
        return False


def uri_bytes(uri: str) -> int:
    """Return the bytes that are charged for a subscription to a resource."""
    # As a member, and as what is before its trailing slashes.
    return MESSAGE_BYTES + 2 * len(uri)


def uri_problem(uri: str) -> str | None:
    """Return what is wrong with the name of a resource to subscribe to; None if nothing is."""
    size = len(uri.encode("utf-8", "surrogatepass"))
    if size > MAX_URI_BYTES:
        return f"the URI of a resource has {size} bytes (at most {MAX_URI_BYTES})"
    return None
