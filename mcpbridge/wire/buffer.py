"""A buffer for bytes that arrive in pieces and are used as one."""

from __future__ import annotations

_LARGE_BYTES = 4096
"""Bytes; smaller pieces are joined as they arrive."""


class Gathered:
    """A buffer of pieces in order, copied once, when all have arrived.

    Only large pieces are kept as they came: a small `bytes` object takes many times its length in
    memory, and a sender may send byte by byte.
    """

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self.size = 0
        """Total length in bytes."""

    def add(self, piece: bytes) -> None:
        """Append a piece."""
        if len(piece) >= _LARGE_BYTES:
            self._pieces.append(piece)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        elif piece:
            self._pieces.append(bytearray(piece))
        self.size += len(piece)

    def first(self, size: int) -> bytes:
        """Return the first bytes, at most `size`, without joining the rest."""
        found = bytearray()
        for piece in self._pieces:
            found += piece[: size - len(found)]
            if len(found) == size:
                break
        return bytes(found)

    def keep_last(self, size: int) -> int:
        """Drop all but the last `size` bytes, without joining them; return how many were dropped.

        There must be at least as many.
        """
        kept: list[bytes | bytearray] = []
        left = size
        while left:
            piece = self._pieces.pop()[-left:]
            kept.append(piece)
            left -= len(piece)
        dropped = self.size - size
        self._pieces, self.size = kept[::-1], size
        return dropped

    def take(self) -> bytes:
        """Return all bytes and empty the buffer."""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return whole
