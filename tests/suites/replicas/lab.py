"""Replicas on addresses of the loopback, HAProxy in front of them, and the SDKs' clients."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mcpbridge.rules.homes.peer_view import SETTLED_AFTER_S
from tests.suites.wire import Connection
from tests.support.bridge_process import START_S, RunningBridge, eventually, started
from tests.support.sdk_servers import PEERS, ROOT, interpreter

IPS = tuple(f"127.0.0.{number}" for number in range(1, 10))
"""Addresses of replicas; a pod that takes the place of another one has another address."""
NAME = "replicas.test"
"""What `--peers` names; resolves to all live replicas in their own mount namespace."""
_KEY = "MCPBRIDGE_STATE_KEY"
KEY = "the-key-of-all-replicas-in-this-test"
CHILD = Path(__file__).with_name("child.py")
REPORT_WITHIN_S = 120.0
"""Beyond what a client that hangs in a call takes to notice."""
_GIVEN: set[int] = set()
"""Ports of labs of this process: another may begin before they are bound."""
MAX_LINE_BYTES = 1 << 26
MOUNT = 'mount --bind "$0" /etc/hosts && exec "$@"'

BALANCER_LOG = "haproxy.log"
BODIES_LOGGED = """
  log global
  option http-buffer-request
  http-request capture req.body len 400
  log-format "%s %[capture.req.hdr(0)]"
"""
SENT = re.compile(r"^r([0-9.]+) (.*?)([a-z]+-[a-z]+-[0-9]+-[0-9]+)\b(.*)$", re.MULTILINE)
"""A line of that log: the replica, and the body, with the text of the call that it belongs to."""

HAPROXY = """
global
  log stderr format raw daemon
defaults
  mode http
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  timeout check 1s
  retries 3
  option redispatch 1
  retry-on conn-failure
frontend clients
  bind 127.0.0.1:{port}
  default_backend replicas
{logging}
backend replicas
  balance roundrobin
  option httpchk
  http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host 127.0.0.1
  default-server check inter 100ms fall 1 rise 1
{servers}
"""
"""Round robin for each request; a refused connection is tried at the next replica.

Nothing else is tried again: a connection that broke after that may have carried the request to a
replica. docs/kubernetes.md says the same to operators.
"""


def load_commands() -> dict[str, tuple[str, str]]:
    """The program of each language that calls through its SDK, which `make interop` installs."""
    return {
        "python": (interpreter(1), str(PEERS / "load_mcp1.py")),
        "typescript": ("node", str(ROOT / "tests" / "interop" / "load.mjs")),
    }


class Replica:
    """One address, and the bridge that runs there or does not."""

    def __init__(self, ip: str, port: int, words: Sequence[str], env: Mapping[str, str]) -> None:
        self.ip = ip
        self.port = port
        self.url = f"http://{ip}:{port}"
        self.running: RunningBridge
        self._words = words
        self._env = {**env, "POD_IP": ip}
        self._stack = AsyncExitStack()

    async def start(
        self, *, under: Sequence[str] = (), words: Sequence[str] = (), within_s: float = START_S
    ) -> None:
        """Start a bridge there and wait until it serves.

        Args:
            under: A program that runs the bridge.
            words: More of the command line.
            within_s: The longest time that it may take.
        """
        where = ("--host", self.ip, "--port", str(self.port), "--allowed-host", self.ip)
        self._stack = AsyncExitStack()
        self.running = await self._stack.enter_async_context(
            started(*where, *words, *self._words, env=self._env, under=under)
        )
        running = self.running

        def serves_or_ended() -> bool:
            return bool(running.events("child.ready")) or running.process.returncode is not None

        await eventually(serves_or_ended, "the replica serves", within_s)
        assert running.events("child.ready"), f"{running.log} {running.noise}"

    async def counted(self, name: str) -> dict[str, float]:
        """Return the values of one of its counters, by the value of the counter's label."""
        connection = Connection(self.url)
        response = await connection.request("GET", {}, path="/metrics")
        connection.close()
        found = re.findall(rf'^{name}{{\w+="(.*)"}} (\S+)$', response.body.decode(), re.MULTILINE)
        return {label: float(value) for label, value in found}

    async def kill(self) -> None:
        """Kill the bridge; nothing of it is left."""
        self.running.signal(signal.SIGKILL)
        await self.running.ended()
        await self._stack.aclose()

    async def end(self) -> int:
        """End the bridge as Kubernetes does; the exit status."""
        status = await self.running.terminate()
        await self._stack.aclose()
        return status

    async def close(self) -> None:
        """End the bridge in any way."""
        await self._stack.aclose()


class Execution(NamedTuple):
    """A call that a child has begun."""

    text: str
    ip: str
    """Of the child's replica."""
    at: float
    """Monotonic seconds."""


class Ports(NamedTuple):
    """The ports of a lab."""

    mcp: int
    peer: int
    front: int


@dataclass
class Load:
    """What clients saw, those of all programs together."""

    calls: int = 0
    right: int = 0
    questions: int = 0
    late: int = 0
    """Questions of calls that had failed at the client, whose server went on with them."""
    steps: int = 0
    reopened: int = 0
    kept: int = 0
    """Sessions that lived from the first call to the last."""
    sessions: int = 0
    longest_s: float = 0.0
    errors: list[dict[str, Any]] = field(default_factory=list)
    crossed: list[Any] = field(default_factory=list)
    id_lengths: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def add(self, report: Mapping[str, Any]) -> None:
        """Add the report of one program."""
        for name, value in report.items():
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name == "longest_s" else mine + value)


def ways_in(log: str) -> dict[str, set[str]]:
    """Return the replicas that a call and the answers in it went to, by its text.

    The balancer writes nothing down of a request that was lost with its replica. So two kinds of
    calls are left out, of which a part may have been: those with a question whose answer is not in
    the log, and those of which there is only the answer: the question may come on another stream
    of the client while the connection of the call waits, and that is lost.

    Args:
        log: What the balancer has written, with the bodies of requests.
    """
    found: dict[str, set[str]] = {}
    called, asks, answered = set(), set(), set()
    for ip, before, text, after in SENT.findall(log):
        found.setdefault(text, set()).add(ip)
        if after.startswith("/"):
            answered.add(text)
        else:
            called.add(text)
            if '"name":"ask"' in before + after:
                asks.add(text)
    known = called - (asks - answered)
    return {text: ips for text, ips in found.items() if text in known}


class Clients:
    """The programs with the SDKs' clients, at work; made by `Lab.clients`."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes
        self.words: list[str] = []
        """What they wrote on stderr."""

    async def ready(self) -> None:
        """Wait until every session is open."""
        async with asyncio.timeout(REPORT_WITHIN_S):
            await asyncio.gather(*map(self._ready, self._processes))

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := (await process.stderr.readline()).decode("utf-8", "replace"):
            if line.startswith('{"event": "ready"'):
                return
            self.words.append(line)
        raise AssertionError(f"a client has ended: {self.words[-20:]}")

    async def stop(self) -> Load:
        """End those that run until they are told to; what all of them saw."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"stop\n")
        return await self.reports(REPORT_WITHIN_S)

    async def reports(self, within_s: float) -> Load:
        """Wait for their end; what all of them saw."""
        load = Load()
        async with asyncio.timeout(within_s):
            told = await asyncio.gather(*(each.communicate() for each in self._processes))
        for process, (out, words) in zip(self._processes, told, strict=True):
            assert process.returncode == 0, words.decode("utf-8", "replace")[-4000:]
            load.add(json.loads(out))
        return load


class Lab:
    """Three replicas behind one port; made by `lab`."""

    def __init__(
        self, folder: Path, replicas: Sequence[Replica], idle: Sequence[Replica], ports: Ports
    ) -> None:
        """Make a lab.

        Args:
            folder: For files.
            replicas: Those that run.
            idle: Further addresses, which the balancer knows.
            ports: Of all replicas, and of the balancer.
        """
        self.replicas = list(replicas)
        self.peer_port = ports.peer
        self.url = f"http://127.0.0.1:{ports.front}"
        """HAProxy's, without a path."""
        self._idle = deque(idle)
        self.hosts = folder / "hosts"
        self._names: dict[str, str] = {}
        self._ledger = folder / "ledger"
        self._folder = folder

    @property
    def under(self) -> tuple[str, ...]:
        """Runs a program for which `NAME` resolves to what is in `hosts`."""
        return ("unshare", "--mount", "sh", "-c", MOUNT, str(self.hosts))

    async def start(self, replica: Replica, *, under: Sequence[str] = ()) -> None:
        """Start a replica, and wait until the balancer may send it requests.

        Args:
            replica: One that does not run.
            under: A program that runs the bridge.
        """
        await replica.start(under=(*self.under, *under))
        await eventually(lambda: _listens(replica.ip, replica.port), "the replica listens")

    async def replace(self, replica: Replica) -> None:
        """Start a replica at another address in the place of one that is dead."""
        await self.join()
        self._leave(replica)

    async def roll(self, replica: Replica) -> int:
        """Do as a Deployment does: start a replica, then end another; the exit status."""
        await self.join()
        return await self.part(replica)

    def add(self) -> Replica:
        """Name one more replica, which the caller starts."""
        self.replicas.append(self._idle.popleft())
        self.write_hosts()
        return self.replicas[-1]

    async def join(self, *, under: Sequence[str] = ()) -> Replica:
        """Start one more replica, under a program that runs it if one is given."""
        await self.start(replica := self.add(), under=under)
        return replica

    async def part(self, replica: Replica) -> int:
        """End a replica that no other takes the place of; the exit status."""
        status = await replica.end()
        self._leave(replica)
        return status

    def _leave(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        self._idle.append(replica)
        self.write_hosts()

    def name(self, name: str, ip: str) -> None:
        """Let another name resolve to an address, for the replicas too."""
        self._names[name] = ip
        self.write_hosts()

    def write_hosts(self) -> None:
        """Let `NAME` resolve to the replicas there are."""
        lines = ["127.0.0.1 localhost", *(f"{each.ip} {NAME}" for each in self.replicas)]
        lines += [f"{ip} {name}" for name, ip in self._names.items()]
        # In its place: the replicas have this very file mounted.
        self.hosts.write_text("".join(f"{line}\n" for line in lines), "utf-8")

    async def settled(self) -> None:
        """Wait until every replica takes all others for settled, as a rollout would find them."""
        # Each resolves the name once within this time, and counts from then on.
        await asyncio.sleep(2 * SETTLED_AFTER_S + 1)  # no event says so

    def executed(self) -> Counter[str]:
        """How often each text has been executed."""
        return Counter(each.text for each in self.executions())

    def executions(self) -> list[Execution]:
        """What was executed, in that order."""
        lines = self._ledger.read_text("utf-8").splitlines() if self._ledger.exists() else []
        return [Execution(text, ip, float(at)) for text, ip, at in map(str.split, lines)]

    def relays(self) -> dict[str, set[str]]:
        """Return the replicas that the balancer sent a call and the answers in it to, by its text.

        Of a lab with `bodies_logged`, and of texts as `clients` send them: see `ways_in`.
        """
        return ways_in((self._folder / BALANCER_LOG).read_text("utf-8", "replace"))

    @asynccontextmanager
    async def clients(
        self,
        marker: str,
        *,
        plain: int,
        asked: int,
        calls: int = 0,
        rest_s: float = 0.0,
        wait_s: float = 0.0,
    ) -> AsyncIterator[Clients]:
        """Run clients of both languages, with these counts in each; kill them at the block's end.

        Args:
            marker: Begins every text that they send.
            plain: Sessions that cannot be asked.
            asked: Sessions with elicitation.
            calls: Of each session; 0: until they are told to stop.
            rest_s: Between two calls of a session.
            wait_s: The work of each call.
        """
        pipe = asyncio.subprocess.PIPE
        processes = []
        try:
            for language, argv in load_commands().items():
                told = {
                    "url": f"{self.url}/mcp",
                    "marker": f"{marker}-{language}-",
                    "plain": plain,
                    "asked": asked,
                    "calls": calls,
                    "rest_s": rest_s,
                    "wait_s": wait_s,
                }
                processes.append(
                    await asyncio.create_subprocess_exec(
                        *argv, json.dumps(told), stdin=pipe, stdout=pipe, stderr=pipe,
                        limit=MAX_LINE_BYTES, cwd=ROOT,
                    )
                )  # fmt: skip
            yield Clients(processes)
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


@asynccontextmanager
async def lab(
    *,
    count: int = 3,
    peers: bool = True,
    words: Sequence[str] = (),
    key_file: Path | None = None,
    names: Mapping[str, str] | None = None,
    bodies_logged: bool = False,
) -> AsyncIterator[Lab]:
    """Start replicas behind HAProxy; all end with the block.

    Args:
        count: How many.
        peers: Whether they know each other.
        words: More flags of each.
        key_file: Holds the keys, which else are in the environment.
        names: Further names that resolve, with their addresses.
        bodies_logged: Whether `Lab.relays` is asked for.
    """
    ports = _free_ports()
    with tempfile.TemporaryDirectory(prefix="replicas-") as name:
        folder = Path(name)
        command = (sys.executable, "-I", "-S", str(CHILD), str(folder / "ledger"))
        known = ("--peers", f"{NAME}:{ports.peer}") if peers else ()
        key = {"MCPBRIDGE_STATE_KEY_FILE": str(key_file)} if key_file else {_KEY: KEY}
        env = key if peers else {}
        every = [Replica(ip, ports.mcp, (*known, *words, "--", *command), env) for ip in IPS]
        made = Lab(folder, every[:count], every[count:], ports)
        made.write_hosts()
        for each, ip in (names or {}).items():
            made.name(each, ip)
        try:
            await asyncio.gather(*(made.start(replica) for replica in made.replicas))
            logging = BODIES_LOGGED if bodies_logged else ""
            async with _haproxy(folder, ports.front, every, logging):
                yield made
        finally:
            await asyncio.gather(*(replica.close() for replica in every))


@asynccontextmanager
async def _haproxy(
    folder: Path, port: int, replicas: Sequence[Replica], logging: str
) -> AsyncIterator[None]:
    program = shutil.which("haproxy")
    assert program, "haproxy is missing; apt-get install haproxy"
    servers = "".join(f"  server r{r.ip} {r.ip}:{r.port}\n" for r in replicas)
    config, log = folder / "haproxy.cfg", folder / BALANCER_LOG
    config.write_text(HAPROXY.format(port=port, servers=servers, logging=logging), "utf-8")
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            program, "-db", "-f", str(config), stdout=written, stderr=written
        )
        try:
            await eventually(
                lambda: _listens("127.0.0.1", port) or process.returncode is not None, "haproxy"
            )
            assert process.returncode is None, log.read_text("utf-8", "replace")
            yield
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _free_ports() -> Ports:
    """Ports that are free on all of `IPS`, each another one."""
    found: list[int] = []
    held = []
    try:
        while len(found) < len(Ports._fields):
            first = socket.create_server((IPS[0], 0))
            held.append(first)
            port = first.getsockname()[1]
            try:
                held.extend(socket.create_server((ip, port)) for ip in IPS[1:])
            except OSError:
                continue
            if port not in _GIVEN:
                _GIVEN.add(port)
                found.append(port)
    finally:
        for each in held:
            each.close()
    return Ports(*found)


def _listens(ip: str, port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex((ip, port)) == 0
