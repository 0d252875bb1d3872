"""Starts a program for each connection, with the connection as its stdin and stdout.

`python inetd.py LISTEN COMMAND ...`, where LISTEN is `unix:PATH`, `unix:@NAME` or `tcp:HOST:PORT`:
what inetd and `socat LISTEN,fork EXEC:COMMAND` do. SIGTERM ends it; the programs end when their
connections do.
"""

import signal
import socket
import subprocess
import sys


def listening(address: str) -> socket.socket:
    """Return a socket that listens on an address."""
    kind, _, rest = address.partition(":")
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX)
        made.bind("\0" + rest[1:] if rest.startswith("@") else rest)
    else:
        host, _, port = rest.rpartition(":")
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
    made.listen()
    return made


def main(address: str, command: list[str]) -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the programs
    listener = listening(address)
    while True:
        connection, _ = listener.accept()
        with connection:
            subprocess.Popen(command, stdin=connection.fileno(), stdout=connection.fileno())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
