"""From one era to the other, one module for each direction of mismatch.

`up` answers of a handshake child for a client of 2026-07-28.
"""
