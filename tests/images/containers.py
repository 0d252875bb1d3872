"""Containers of the images: run as a restricted cluster would, and looked at from outside."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.images.engine import Engine

READY_S = 30.0
STOP_S = 20
ACCEPT = {"accept": "application/json, text/event-stream"}
PORT = 8000

CONFINED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=64m",
    "--memory-swap=64m",
    "--pids-limit=128",
    "--env=HOME=/nonexistent",
)
"""As operators' restricted pods are, and with little memory; nowhere to write."""
# The images look every 10 s; what they run to look is the same.
OFTEN = ("--health-interval=500ms",)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    status: int
    out_of_memory: bool


class Container:
    """One that was started, until the end of its block."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name
        self._publishes = name

    def inspect(self, form: str) -> Any:
        """One thing that the engine knows of it, by its path in `docker inspect`."""
        return json.loads(self._engine("inspect", "--format", f"{{{{json {form}}}}}", self.name))

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts."""
        pid: int = self.inspect(".State.Pid")
        assert pid, f"{self.name} has ended:\n{self.logs()}"
        return pid

    @property
    def url(self) -> str:
        """Where this machine reaches its port."""
        return "http://" + self._engine("port", self._publishes, str(PORT)).splitlines()[0]

    def serves_at(self, other: Container) -> None:
        """Its network is the other's, and so is its port."""
        self._publishes = other.name

    def logs(self) -> str:
        """All it wrote."""
        _, out, err = self._engine.tried("logs", self.name)
        return f"{out}\n{err}"

    def health(self) -> str:
        """What the engine found by the image's own HEALTHCHECK."""
        status: str = self.inspect(".State.Health.Status")
        return status

    def get(self, path: str) -> httpx.Response:
        """Ask for a path."""
        return httpx.get(f"{self.url}{path}", timeout=READY_S)

    def post(self, message: dict[str, Any]) -> httpx.Response:
        """Send one message."""
        return httpx.post(f"{self.url}/mcp", json=message, headers=ACCEPT, timeout=READY_S)

    def exec(self, *words: str) -> tuple[int, str, str]:
        """Run a program in it: status, stdout, stderr."""
        return self._engine.tried("exec", self.name, *words)

    def becomes(self, health: str) -> None:
        """Wait for the engine's verdict."""
        eventually(lambda: self.health() == health, f"{self.name} {health}", self.logs)

    def ready(self) -> None:
        """Wait until calls are answered."""

        def is_ready() -> bool:
            assert self.inspect(".State.Running"), self.logs()
            try:
                return httpx.get(f"{self.url}/readyz").status_code == 200
            except httpx.HTTPError:
                return False

        eventually(is_ready, f"{self.name} ready", self.logs)

    def processes(self) -> list[Process]:
        """Everything that is in it, its zombies too."""
        pids = self._engine("top", self.name, "-eo", "pid").splitlines()[1:]
        found = (Process.of(int(pid)) for pid in pids)
        return [process for process in found if process is not None]

    def stop(self) -> Ended:
        """As an orchestrator ends it: SIGTERM, and only after a while SIGKILL."""
        self._engine("stop", f"--time={STOP_S}", self.name)
        return self.ended()

    def ended(self) -> Ended:
        """Wait for its end."""
        status = int(self._engine("wait", self.name))
        return Ended(status, self.inspect(".State.OOMKilled"))


@dataclass(frozen=True)
class Process:
    """What the kernel says about a process."""

    pid: int
    facts: dict[str, str]
    """The lines of its `status`."""

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """None when it has gone."""
        try:
            text = Path(f"/proc/{pid}/status").read_text("utf-8")
        except OSError:
            return None
        return cls(pid, {name: value.strip() for name, value in re.findall(r"(\w+):(.*)", text)})

    @property
    def is_zombie(self) -> bool:
        """Dead, and not waited for."""
        return self.facts["State"].startswith("Z")

    @property
    def most_resident_kib(self) -> int:
        """The most memory it ever had, shared libraries among it."""
        return int(self.facts["VmHWM"].split()[0])

    @property
    def environment(self) -> dict[str, str]:
        """What it was started with."""
        pairs = Path(f"/proc/{self.pid}/environ").read_bytes().decode().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)

    @property
    def libraries(self) -> set[str]:
        """Names of the shared objects it has loaded."""
        maps = Path(f"/proc/{self.pid}/maps").read_text("utf-8")
        return {os.path.basename(path) for path in re.findall(r"(/\S+\.so\S*)", maps)}


@contextmanager
def container(
    engine: Engine, image: str, *words: str, options: Sequence[str] = ()
) -> Iterator[Container]:
    """Run an image with the words after it; removed at the end, running or not."""
    name = f"mcpbridge-test-{os.getpid()}-{next(_numbers)}"
    try:
        engine("run", "--detach", "--name", name, *options, image, *words)
        yield Container(engine, name)
    finally:
        engine("rm", "--force", "--volumes", name)


@contextmanager
def volume(engine: Engine) -> Iterator[str]:
    """A volume that any user may write to, as an emptyDir is; its name."""
    name = f"mcpbridge-test-{os.getpid()}-{next(_numbers)}"
    engine(
        *("volume", "create", "--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=mode=1777"), name
    )
    try:
        yield name
    finally:
        engine("volume", "rm", "--force", name)


def rpc(method: str, call_id: int = 1, **params: Any) -> dict[str, Any]:
    """A request."""
    return {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}


def echoed(run: Container, text: str) -> str:
    """What the server's tool `echo` makes of a text."""
    response = run.post(rpc("tools/call", name="echo", arguments={"text": text}))
    assert response.status_code == 200, response.text
    answer: str = response.json()["result"]["content"][0]["text"]
    return answer


class LongCall:
    """A call of some seconds that is being served: its first progress has come."""

    def __init__(self, run: Container, seconds: float) -> None:
        self._message = rpc(
            "tools/call",
            7,
            name="countdown",
            arguments={"seconds": seconds, "steps": 10},
            _meta={"progressToken": "steps"},
        )
        self._url = run.url
        self._begun = threading.Event()
        self._answers: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._begun.wait(READY_S), "no progress came"

    def _read(self) -> None:
        with httpx.stream(
            "POST", f"{self._url}/mcp", json=self._message, headers=ACCEPT, timeout=READY_S
        ) as response:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    self._begun.set()
                    if "id" in message:
                        self._answers.append(message)

    def answer(self) -> dict[str, Any]:
        """The one answer."""
        self._thread.join(READY_S)
        assert len(self._answers) == 1, self._answers
        return self._answers[0]


def eventually(
    condition: Callable[[], bool], what: str, more: Callable[[], str] = lambda: ""
) -> None:
    """Look until a condition of the outside world holds, of which nothing tells."""
    deadline = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {READY_S} s: {what}\n{more()}"
        time.sleep(0.1)  # nothing tells: looks again
