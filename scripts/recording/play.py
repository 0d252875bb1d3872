"""The session that the recording shows: `python -m scripts.recording.play FOLDER`, in a terminal.

Writes a server into the folder, serves it by `mcpbridge dev`, calls its tool, saves a change and
calls the tool again. Each command is typed as a person would; what it prints is what it printed.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

SERVER = """\
from mcp.server.fastmcp import FastMCP

server = FastMCP("greeter", log_level="WARNING")


@server.tool()
def greet(name: str) -> str:
    return f"Hello, {name}!"


server.run()
"""
CALL = "mcpbridge call http://127.0.0.1:8000/mcp greet name=World"
WITHIN_S = 60
"""Seconds until a line must have appeared."""
_KEY_S, _READ_S = 0.03, 1.2
"""Seconds between two keys, and for a person to read what was printed."""


class Background:
    """A program in its own terminal, whose output is copied to this one."""

    def __init__(self, command: str, folder: Path) -> None:
        """Start it in the folder."""
        self._seen = b""
        self._news = threading.Condition()
        ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            command.split(),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        threading.Thread(target=self._copy, args=(ours,), daemon=True).start()

    def _copy(self, terminal: int) -> None:
        while True:
            try:
                chunk = os.read(terminal, 1 << 14)
            except OSError:  # it has ended: Linux reports EIO
                return
            os.write(1, chunk)
            with self._news:
                self._seen += chunk
                self._news.notify_all()

    def until(self, sign: bytes) -> None:
        """Wait until it has printed this.

        Raises:
            TimeoutError: It has not in time.
        """
        with self._news:
            if not self._news.wait_for(lambda: sign in self._seen, WITHIN_S):
                raise TimeoutError(f"not printed within {WITHIN_S} s: {sign.decode()}")

    def end(self) -> None:
        """End it as Ctrl-C would, and wait."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(WITHIN_S)


def typed(command: str) -> None:
    """Show a prompt and a command, key by key."""
    os.write(1, b"\x1b[1;32m$\x1b[0m ")
    for key in command:
        os.write(1, key.encode())
        time.sleep(_KEY_S)
    os.write(1, b"\r\n")


def run(command: str, folder: Path) -> None:
    """Type a command, run it, and leave time to read."""
    typed(command)
    subprocess.run(command, shell=True, cwd=folder, check=True)
    time.sleep(_READ_S)


def play(folder: Path) -> None:
    """Play the session in a folder."""
    server = folder / "server.py"
    server.write_text(SERVER, "utf-8")
    run("cat server.py", folder)
    typed("mcpbridge dev -- python server.py &")
    dev = Background("mcpbridge dev -- python server.py", folder)
    dev.until(b"ready")
    time.sleep(2 * _READ_S)
    run(CALL, folder)
    run("sed -i s/Hello/Welcome/ server.py", folder)
    dev.until(b"reloaded")
    time.sleep(_READ_S)
    run(CALL, folder)
    time.sleep(3 * _READ_S)
    dev.end()


if __name__ == "__main__":
    play(Path(sys.argv[1]))
