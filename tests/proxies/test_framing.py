"""Front ends and the bridge see the same requests, whatever a client sends.

Between each proxy and the bridge stands a tap, which notes every answer of the bridge. The proxy
logs each request that it has passed on. Both must be the same, in number, order, status and id:
else an answer reaches a client that did not ask.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.proxies.ambiguous import CASES, body, request
from tests.proxies.fronts import LOGGED, front, seen
from tests.suites.wire import Response, read_response
from tests.support.bridge_process import ACCEPT, bridge, eventually, rpc

AFTER = request("after", "connection: close")
ANSWER_S = 20.0
"""Longer than a proxy waits for the rest of a request."""
LIMITS = ("--header-timeout", "2s", "--body-timeout", "2s")


class Tap:
    """A program between a proxy and the bridge that notes the bridge's answers."""

    def __init__(self, behind: int) -> None:
        self.answers: list[tuple[int, str]] = []
        """Status and JSON-RPC id of each, in order."""
        self._behind = behind

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection of the proxy."""
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        answers = asyncio.StreamReader()
        noting = asyncio.create_task(self._note(answers))
        try:
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer, answers))
        finally:
            answers.feed_eof()
            await noting
            writer.close()
            far_writer.close()

    async def _note(self, reader: asyncio.StreamReader) -> None:
        try:
            while (response := await read_response(reader)) is not None:
                if response.status >= 200:
                    self.answers.append((response.status, id_in(response)))
        except EOFError:
            pass  # the proxy has left within an answer


async def _pass(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    copy: asyncio.StreamReader | None = None,
) -> None:
    try:
        while data := await reader.read(1 << 16):
            if copy is not None:
                copy.feed_data(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


def id_in(response: Response) -> str:
    """The JSON-RPC id in a response; empty if it answers no call."""
    try:
        return str(json.loads(response.body).get("id") or "")
    except ValueError:
        return ""


@asynccontextmanager
async def tapped(behind: int) -> AsyncIterator[tuple[Tap, int]]:
    """A tap in front of a port; gives its own port too."""
    tap = Tap(behind)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    async with server:
        yield tap, server.sockets[0].getsockname()[1]


async def answered(port: int, segments: list[bytes]) -> list[Response]:
    """What comes back for these segments on one connection, until it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    found: list[Response] = []
    try:
        async with asyncio.timeout(ANSWER_S):
            for segment in segments:
                writer.write(segment)
                await writer.drain()
                await asyncio.sleep(0.01)  # the segments are to arrive apart
            while (response := await read_response(reader)) is not None:
                found.append(response)
    except (OSError, EOFError, ValueError, TimeoutError):
        pass  # what came before is judged
    finally:
        writer.close()
    return [each for each in found if each.status >= 200]


def cuts(data: bytes) -> list[list[bytes]]:
    """The bytes whole, and cut behind the first head."""
    head = data.find(b"\r\n\r\n") + 4
    return [[data], [data[:head], data[head:]]]


def assert_own(answers: list[Response], case: str) -> None:
    """The answers are those of the client's own requests, in order, and of nothing planted."""
    ids = [found for each in answers if (found := id_in(each))]
    assert ids == [each for each in ("odd", "odd-2", "odd-3", "after") if each in ids], case
    assert all(id_in(each) for each in answers if each.status == 200), case


async def test_the_bridge_itself_answers_what_a_client_has_asked() -> None:
    """Each case whole and cut: its own ids, in order, or a refusal and the end."""
    count = 0
    async with bridge(*LIMITS) as running:
        for case, data in CASES.items():
            for segments in cuts(data + AFTER):
                answers = await answered(running.port, segments)
                assert_own(answers, case)
                count += len(answers)
    assert count > len(CASES)


@pytest.mark.parametrize("name", LOGGED)
async def test_a_front_end_and_the_bridge_see_the_same_requests(name: str, tmp_path: Path) -> None:
    """Each case whole and cut; after each, another client gets its own answer."""
    number = 0
    async with (
        bridge(*LIMITS) as running,
        tapped(running.port) as (tap, behind),
        front(name, behind, tmp_path, logged=True) as port,
        httpx.AsyncClient() as other,
    ):
        for case, data in CASES.items():
            for segments in cuts(data + AFTER):
                before, number = len(tap.answers), number + 1
                answers = await answered(port, segments)
                own = f"own-{number}"
                headers = {**ACCEPT, "x-id": own}
                url = f"http://127.0.0.1:{port}/mcp"
                response = await other.post(url, json=rpc(own, "ping"), headers=headers)
                assert response.json()["id"] == own, case
                both = functools.partial(_both_end_with, own, name, tmp_path, tap)
                await eventually(both, f"{case}: both have seen the last request")
                logged = seen(name, tmp_path)[before:]
                assert_same(logged, tap.answers[before:], case)
                ids = [found for each in answers if (found := id_in(each))]
                assert ids == [found for _, found in tap.answers[before:-1] if found], case
    assert len(tap.answers) > len(CASES)


def _both_end_with(own: str, name: str, folder: Path, tap: Tap) -> bool:
    return last(seen(name, folder)) == last(tap.answers) == own


def last(found: list[tuple[int, str]]) -> str:
    """The id of the last request."""
    return found[-1][1] if found else ""


def assert_same(logged: list[tuple[int, str]], answers: list[tuple[int, str]], case: str) -> None:
    """The bridge's answers are those of the requests that the proxy has passed on."""
    assert [status for status, _ in logged] == [status for status, _ in answers], case
    for (_, wanted), (status, found) in zip(logged, answers, strict=True):
        assert found == wanted or status != 200, (case, logged, answers)
        assert found in ("", wanted), (case, logged, answers)


def test_every_case_has_its_own_ids() -> None:
    """What is planted is told from what is asked."""
    assert all(b"odd" in data or case == "no version" for case, data in CASES.items())
    assert body("planted") not in AFTER
