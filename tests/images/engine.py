"""A Docker engine: the one that answers, or one that is started for these tests alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60.0
STOP_S = 60.0
COMMAND_S = 120.0
_MOST_FILES = 16384
"""Less than engines ask for by default, which not every machine may grant."""
_BRIDGES = 64
"""As many are looked at for one that is free."""


class NoEngine(Exception):
    """There is none, and none can be started; says what to install."""


class Engine:
    """A Docker engine, spoken to by its command line client."""

    def __init__(self, host: str | None) -> None:
        self._env = dict(os.environ)
        if host is not None:
            self._env["DOCKER_HOST"] = host
        # The older builder: of several stages it shares what it has built with every other engine
        # command, needs no plugin and takes base images that only this engine has.
        self._env["DOCKER_BUILDKIT"] = "0"

    def __call__(self, *words: str | Path, within_s: float = COMMAND_S) -> str:
        """Run `docker WORDS`; what it printed, without the last line end.

        Raises:
            AssertionError: It failed; tells what it said.
        """
        status, out, err = self.tried(*words, within_s=within_s)
        assert status == 0, f"docker {' '.join(map(str, words))}: status {status}\n{out}\n{err}"
        return out

    def tried(self, *words: str | Path, within_s: float = COMMAND_S) -> tuple[int, str, str]:
        """Run `docker WORDS`, whether it works or not: status, stdout and stderr."""
        done = subprocess.run(
            ["docker", *map(str, words)],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        return done.returncode, done.stdout.rstrip("\n"), done.stderr.rstrip("\n")

    @property
    def answers(self) -> bool:
        """Whether there is an engine at the other end."""
        return self.tried("version", "--format", "{{.Server.Version}}")[0] == 0

    def has(self, image: str) -> bool:
        """Whether it holds this image."""
        return self.tried("image", "inspect", image)[0] == 0


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """The engine that DOCKER_HOST or the client's context names; else one of our own.

    Our own keeps everything in `folder` and ends with the block, and whatever it runs with it.

    Raises:
        NoEngine: There is neither.
    """
    if shutil.which("docker") is None:
        raise NoEngine("no docker; install it (Debian, Ubuntu: apt-get install docker.io)")
    engine = Engine(None)
    if engine.answers:
        yield engine
        return
    if shutil.which("dockerd") is None:
        raise NoEngine("no engine answers; install one (Debian, Ubuntu: apt-get install docker.io)")
    if os.geteuid() != 0:
        raise NoEngine("no engine answers, and only root can start one; set DOCKER_HOST")
    if shutil.which("ip") is None:
        raise NoEngine("no ip; install it (Debian, Ubuntu: apt-get install iproute2)")
    with _bridge() as bridge, _own_engine(folder, bridge) as own:
        yield own


@contextmanager
def _own_engine(folder: Path, bridge: str) -> Iterator[Engine]:
    log = folder / "engine.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            _command(folder, bridge),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    engine = Engine(f"unix://{folder}/docker.sock")
    try:
        _wait_for(engine, daemon, log)
        yield engine
    finally:
        if daemon.poll() is None:
            _remove_containers(engine)
        daemon.terminate()
        try:
            daemon.wait(STOP_S)
        finally:
            daemon.kill()
            daemon.wait()
            # They stay mounted where an engine ends, and the folder could not be removed.
            for left in folder.glob("exec/netns/*"):
                subprocess.run(["umount", left], capture_output=True, check=False)


@contextmanager
def _bridge() -> Iterator[str]:
    """A network bridge of our own for an engine's containers; its name.

    With an address that a machine's own networks hardly have, and that no other run of these
    tests has: the containers of one that was killed stay on theirs, and would answer in ours.
    """
    for number in range(_BRIDGES):
        name = f"mcpbridge{number}"
        if _ip("link", "add", name, "type", "bridge"):
            break
    else:
        raise NoEngine(f"no network bridge can be made: not one of mcpbridge0 to {name}")
    try:
        _ip("address", "add", f"10.99.{number}.1/24", "dev", name)
        _ip("link", "set", name, "up")
        yield name
    finally:
        _ip("link", "delete", name)


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


def _command(folder: Path, bridge: str) -> list[str]:
    limits = f'ulimit -n {_MOST_FILES}; exec dockerd "$@"'
    return [
        *("sh", "-c", limits, "dockerd"),
        f"--host=unix://{folder}/docker.sock",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/engine.pid",
        "--exec-opt=native.cgroupdriver=cgroupfs",  # there may be no systemd to ask
        f"--default-ulimit=nofile={_MOST_FILES}:{_MOST_FILES}",
        f"--default-ulimit=nproc={_MOST_FILES}:{_MOST_FILES}",
        f"--bridge={bridge}",
    ]


def _wait_for(engine: Engine, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not engine.answers:
        if daemon.poll() is not None or time.monotonic() > deadline:
            said = log.read_text("utf-8", errors="replace").splitlines()[-5:]
            raise NoEngine("\n".join(["dockerd does not start:", *said]))
        time.sleep(0.2)  # it gives no sign that it is there


def _remove_containers(engine: Engine) -> None:
    if there := engine.tried("ps", "--all", "--quiet")[1].split():
        engine.tried("rm", "--force", *there)
