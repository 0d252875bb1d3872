"""A real Redis or Valkey server on loopback, with its data in memory; ended by its test."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = tuple(
    found for name in ("redis-server", "valkey-server") if (found := shutil.which(name)) is not None
)
"""Those that this machine has. Debian: `RUNLEVEL=1 apt-get install redis-server` starts none."""
_READY = b"Ready to accept connections"


class RedisServer:
    """One server; it can be paused, killed and begun again at the same port."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        """Choose a port; `start` begins.

        Args:
            program: The path of the server.
            folder: Its working directory.
            options: Further options of the command line.
        """
        self.port = free_port()
        self._options = options
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        port = [] if "--tls-port" in self._options else ["--port", str(self.port)]
        options = [each.replace("{port}", str(self.port)) for each in self._options]
        bound = ("--bind", "127.0.0.1", *port, "--dir", str(self._folder), "--daemonize", "no")
        self._process = subprocess.Popen(
            [self._program, *bound, "--save", "", "--appendonly", "no", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if _READY in line:
                return
        raise AssertionError(b"".join(said).decode())

    def pause(self) -> None:
        """Stop its process: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; its data is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@contextlib.contextmanager
def redis_server(program: str, folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server until the block ends."""
    server = RedisServer(program, folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """Return a port of loopback on which no program listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
