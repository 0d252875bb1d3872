"""Bytes that come piece by piece and are wanted as one."""

from __future__ import annotations

_LARGE_BYTES = 4096
"""Smaller pieces are kept together."""


class Gathered:
    """Pieces in their order, copied once, when all are there.

    Only large ones are kept as they came: each small one alone would take many times its length,
    and whoever sends may send byte by byte.
    """

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self.size = 0
        """In bytes, of all together."""

    def add(self, piece: bytes) -> None:
        """Add what has come."""
        if len(piece) >= _LARGE_BYTES:
            self._pieces.append(piece)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        elif piece:
            self._pieces.append(bytearray(piece))
        self.size += len(piece)

    def take(self) -> bytes:
        """All of it; nothing is left here."""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return whole
