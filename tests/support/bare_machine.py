"""A machine with Python and nothing else, as in a container, and a person who types on it.

Its root is made of Debian's packages by mmdebstrap, and its programs run in their own
namespaces, as a user without rights. Else it is a folder and a PATH that holds `python3`
alone.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

MAKE_S = 500
WITHIN_S = 240
_USER = 1000
_TRUST = Path("etc/ssl/certs/ca-certificates.crt")
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
"""As an engine writes it into a container."""
_PASSED_ON = ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Variables that say how this machine reaches a package index."""


class BareMachine:
    """A home folder, and a shell that begins there."""

    def __init__(self, home: Path, words: Sequence[str | Path], env: dict[str, str]) -> None:
        self.home = home
        self.folder = env["HOME"]
        """The home folder as its own programs see it."""
        self._words = words
        self._env = env

    def has(self, name: str, text: str) -> None:
        """Write a file of the person who owns the home folder."""
        file = self.home / name
        file.write_text(text, "utf-8")
        if os.geteuid() == 0:
            os.chown(file, _USER, _USER)

    def run(self, line: str, status: int = 0) -> str:
        """Type a line; what it wrote, once it has ended with this status."""
        words = (*self._words, "/bin/sh", "-c", line)
        done = subprocess.run(
            words,
            env=self._env,
            cwd=self.home,
            text=True,
            timeout=WITHIN_S,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == status, f"{line}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def running(self, line: str) -> Iterator[Typed]:
        """Type a line whose program goes on; Ctrl-C has to end it with status 0."""
        # The shell outlives the Ctrl-C, which its program gets too, and returns that one's status.
        words = (*self._words, "/bin/sh", "-c", f"trap : INT; {line}")
        process = subprocess.Popen(
            words,
            env=self._env,
            cwd=self.home,
            text=True,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        typed = Typed(line, process.stderr)
        try:
            yield typed
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(WITHIN_S) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            typed.ended()


class Typed:
    """A program that a person has started and looks at."""

    def __init__(self, line: str, stderr: IO[str]) -> None:
        self._line = line
        self._read: queue.Queue[str | None] = queue.Queue()
        self._seen: list[str] = []
        self._collector = threading.Thread(target=self._collect, args=(stderr,))
        self._collector.start()

    def record(self, event: str) -> dict[str, Any]:
        """The next record of its log of this event."""
        while (text := self._read.get(timeout=WITHIN_S)) is not None:
            self._seen.append(text)
            record: dict[str, Any] = json.loads(text)
            if record["event"] == event:
                return record
        raise AssertionError(f"{self._line} ended without {event}:\n{''.join(self._seen)}")

    def ended(self) -> None:
        """Wait until it has closed its stderr."""
        self._collector.join(WITHIN_S)

    def _collect(self, stderr: IO[str]) -> None:
        with stderr:
            for text in stderr:
                self._read.put(text)
        self._read.put(None)


def bare_machine(folder: Path) -> BareMachine:
    """Make one in this folder; in CI it has to be one with its own root."""
    here = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    env = {**here, "LANG": "C.UTF-8", "PORT": "0"}
    if os.geteuid() == 0 and shutil.which("mmdebstrap") and shutil.which("unshare"):
        root = _root(folder / "root")
        inside = {**env, "HOME": "/home/me", "PATH": "/usr/local/bin:/usr/bin:/bin"}
        return BareMachine(root / "home" / "me", _inside(root), inside)
    assert "CI" not in os.environ, "CI makes a root: it needs mmdebstrap and the rights of root"
    home, path = folder / "home", folder / "path"
    home.mkdir()
    path.mkdir()
    base: str = getattr(sys, "_base_executable", sys.executable)
    (path / "python3").symlink_to(base)
    return BareMachine(home, (), {**env, "HOME": str(home), "PATH": str(path)})


def _inside(root: Path) -> Sequence[str | Path]:
    """Return the words that start a program in a root, as a user without rights."""
    spaces = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    user = ("--setuid", str(_USER), "--setgid", str(_USER))
    return ("unshare", *spaces, "--root", root, "--wd", "/home/me", *user)


def _root(root: Path) -> Path:
    ask = ". /etc/os-release && echo $ID $VERSION_CODENAME"
    system, suite = subprocess.check_output(("sh", "-c", ask), text=True).split()
    # Ubuntu has python3-venv in universe.
    components = "main,universe" if system == "ubuntu" else "main"
    packages = "python3,python3-venv,ca-certificates"
    left_out = (f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man"))
    kind = ("--variant=minbase", f"--components={components}", f"--include={packages}")
    words = ("mmdebstrap", *kind, *left_out, suite, str(root))
    made = subprocess.run(words, capture_output=True, text=True, timeout=MAKE_S, check=False)
    assert made.returncode == 0, made.stderr
    home = root / "home" / "me"
    home.mkdir()
    os.chown(home, _USER, _USER)
    (root / "etc/hosts").write_text(_HOSTS, "utf-8")
    # What this machine trusts, and where it looks names up.
    for name in (_TRUST, Path("etc/resolv.conf")):
        if (Path("/") / name).is_file():
            # It may be a link to a file of this machine.
            (root / name).unlink(missing_ok=True)
            shutil.copy(Path("/") / name, root / name)
    (root / "etc/pip.conf").write_text(f"[global]\ncert = /{_TRUST}\n", "utf-8")
    return root
