"""A server that ends as soon as its client has finished the handshake.

Usage: `crashing.py CODE`. It says why on stderr, and ends with that exit code.
"""

import json
import os
import sys

from _mcp import introduce, write  # type: ignore[import-not-found]


def main() -> None:
    """Take part in the handshake, then crash."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message.get("method") == "initialize":
            introduce(message["id"], message["params"])
        elif message.get("method") == "notifications/initialized":
            write(b"the well is dry\n", fd=2)
            os._exit(int(sys.argv[1]))


if __name__ == "__main__":
    main()
