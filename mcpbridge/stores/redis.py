"""A store on a Redis or Valkey server, through redis-py.

| key | value | kept |
|---|---|---|
| `home:{H}` | the home that has claimed the session, or `ended` | idle time of sessions |
| `state:{H}` | what changed in the session, as JSON | the same |
| `params:{H}` | the params of its `initialize` | the same |
| `beat:ADDRESS/BOOT` | `1` | 15 s |

H is the SHA-256 of the session's id in hexadecimal digits: a reader of the server cannot use
sessions. The braces keep a session's keys on one node of a cluster. Needs Redis 7 or Valkey, since
`SET` with both `NX` and `GET` is refused before.

Each question has 250 ms, a circuit breaker stands before all of them, and every error of the server
or the network is `StoreAway`. A server that has become a replica of another one refuses writes: its
connections are closed, so that the next ones go where the name leads then.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError

from mcpbridge.rules.homes.record import SessionRecord, read_record, write_record
from mcpbridge.stores.breaker import CircuitBreaker
from mcpbridge.stores.store import BEAT_FOR_S, ENDED, MAX_VALUE_BYTES, StoreAway
from mcpbridge.stores.url import StoreUrl

Answer = TypeVar("Answer")

LIMIT_S = 0.25
"""Seconds for each question, connecting included."""
_CONNECTIONS = 16
"""Most questions at once; others wait for their turn."""
_SHOWN = 200
"""Most characters of a server's error in a log."""

_REPLACE = """
local claimed = redis.call('GET', KEYS[1])
if claimed and claimed ~= ARGV[1] then return claimed end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
_BURY = """
local claimed = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return claimed
"""


class RedisStore:
    """A store on one server; owned by the bridge."""

    def __init__(
        self,
        url: StoreUrl,
        clock: Callable[[], float],
        limit_s: float = LIMIT_S,
        failed: Callable[[], None] | None = None,
    ) -> None:
        """Make a store; it connects with its first question.

        Args:
            url: Where the server is.
            clock: Returns monotonic seconds.
            limit_s: Seconds for each question.
            failed: Called when a question has failed; None: nothing is.
        """
        self._tell_failed = failed
        self._clock = clock
        self._limit_s = limit_s
        self._breaker = CircuitBreaker()
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._pool = _pool(url)
        self._redis: Any = Redis(connection_pool=self._pool)
        self.errors = 0
        """Number of questions that have failed, those that the breaker refused not included."""

    @property
    def up(self) -> bool:
        """Whether it is asked: the last questions have not all failed."""
        return not self._breaker.open

    async def claim(self, session_id: str, home: str, keep_s: float) -> str:
        """See `Store`."""
        key = _key("home", session_id)
        found = await self._ask(
            lambda: self._redis.set(key, home, nx=True, get=True, px=_milliseconds(keep_s)), _data
        )
        return found.decode("utf-8", "replace") if found is not None else home

    async def replace(self, session_id: str, lost: str, home: str, keep_s: float) -> str:
        """See `Store`."""
        arguments = (_key("home", session_id), lost, home, _milliseconds(keep_s))
        found = await self._ask(lambda: self._redis.eval(_REPLACE, 1, *arguments), _data)
        return found.decode("utf-8", "replace") if found is not None else home

    async def home(self, session_id: str) -> str | None:
        """See `Store`."""
        found = await self._get(_key("home", session_id))
        return found.decode("utf-8", "replace") if found is not None else None

    async def renew(self, session_ids: Sequence[str], home: str, keep_s: float) -> list[str]:
        """See `Store`."""

        def questions() -> Awaitable[object]:
            pipeline = self._redis.pipeline(transaction=False)
            for each in session_ids:
                pipeline.eval(_RENEW, 1, _key("home", each), home, _milliseconds(keep_s))
            answers: Awaitable[object] = pipeline.execute()
            return answers

        renewed = await self._ask(questions, _numbers)
        return [each for each, kept in zip(session_ids, renewed, strict=True) if not kept]

    async def release(self, session_id: str, home: str) -> None:
        """See `Store`."""
        key = _key("home", session_id)
        await self._ask(lambda: self._redis.eval(_RELEASE, 1, key, home), _anything)

    async def bury(self, session_id: str, keep_s: float) -> str | None:
        """See `Store`."""
        keys = [_key(kind, session_id) for kind in ("home", "state", "params")]
        arguments = (*keys, ENDED, _milliseconds(keep_s))
        found = await self._ask(lambda: self._redis.eval(_BURY, len(keys), *arguments), _data)
        return found.decode("utf-8", "replace") if found is not None else None

    async def beat(self, home: str) -> None:
        """See `Store`."""
        await self._ask(
            lambda: self._redis.set(f"beat:{home}", "1", px=_milliseconds(BEAT_FOR_S)), _anything
        )

    async def beats(self, home: str) -> bool:
        """See `Store`."""
        return await self._get(f"beat:{home}") is not None

    async def silence(self, home: str) -> None:
        """See `Store`."""
        await self._ask(lambda: self._redis.delete(f"beat:{home}"), _anything)

    async def save(self, session_id: str, record: SessionRecord, keep_s: float) -> bool:
        """See `Store`."""
        return await self._keep(_key("state", session_id), write_record(record), keep_s)

    async def load(self, session_id: str) -> SessionRecord | None:
        """See `Store`."""
        found = await self._get(_key("state", session_id))
        return read_record(found) if found is not None else None

    async def keep_params(self, session_id: str, params: bytes, keep_s: float) -> bool:
        """See `Store`."""
        return await self._keep(_key("params", session_id), params, keep_s)

    async def params(self, session_id: str) -> bytes | None:
        """See `Store`."""
        return await self._get(_key("params", session_id))

    async def close(self) -> None:
        """See `Store`."""
        await self._redis.aclose()
        await self._pool.disconnect()

    async def _get(self, key: str) -> bytes | None:
        return await self._ask(lambda: self._redis.get(key), _data)

    async def _keep(self, key: str, value: bytes, keep_s: float) -> bool:
        if len(value) > MAX_VALUE_BYTES:
            return False
        await self._ask(lambda: self._redis.set(key, value, px=_milliseconds(keep_s)), _anything)
        return True

    async def _ask(
        self, question: Callable[[], Awaitable[object]], read: Callable[[object], Answer]
    ) -> Answer:
        """Ask the server; return what `read` makes of its answer.

        Raises:
            StoreAway: It did not answer in time, refused, or the breaker is open.
        """
        async with self._turns:
            if not self._breaker.admits(self._clock()):
                raise StoreAway("it has failed several times in a row")
            try:
                async with asyncio.timeout(self._limit_s):
                    answer = read(await question())
            except TimeoutError:
                self._failed()
                raise StoreAway(f"no answer within {self._limit_s * 1000:g} ms") from None
            except (RedisError, OSError, ValueError) as error:
                # ValueError: redis-py raises it as well for an answer that is not RESP.
                self._failed()
                if isinstance(error, ReadOnlyError):
                    await self._pool.disconnect(inuse_connections=False)
                raise StoreAway(_problem(error)) from error
            self._breaker.succeeded()
            return answer

    def _failed(self) -> None:
        self.errors += 1
        if self._tell_failed is not None:
            self._tell_failed()
        self._breaker.failed(self._clock())


def _pool(url: StoreUrl) -> Any:
    # Protocol 2 has all that is needed, and the oldest servers speak it. A kept connection may have
    # been closed by its server, hence one further attempt: each question may be asked twice.
    options: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "db": url.database,
        "username": url.username,
        "password": url.password,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 1),
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "socket_keepalive": True,
        "client_name": "mcpbridge",
        "connection_class": SSLConnection if url.tls else Connection,
    }
    return ConnectionPool(**options | dict(url.options))


def _data(answer: object) -> bytes | None:
    if answer is None or isinstance(answer, bytes):
        return answer
    raise ValueError("an answer of another kind")


def _numbers(answer: object) -> list[int]:
    if isinstance(answer, list) and all(isinstance(each, int) for each in answer):
        return answer
    raise ValueError("an answer of another kind")


def _anything(answer: object) -> None:
    """Accept an answer that says nothing further."""


def _key(kind: str, session_id: str) -> str:
    return f"{kind}:{{{hashlib.sha256(session_id.encode()).hexdigest()}}}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _problem(error: Exception) -> str:
    # Errors of the server begin with a word for programs, like WRONGPASS; none shows the password.
    return f"{type(error).__name__}: {error}"[:_SHOWN]
