"""Load by clients of the Python SDK 1.x: `load_mcp1.py PLAN`, PLAN as JSON.

    {"url": …, "marker": …, "plain": 2, "asked": 2, "calls": 100, "rest_s": 0.01}

`plain` sessions that cannot be asked and `asked` sessions with elicitation make `calls` calls each,
or with 0 as many as they can until a line comes on stdin. Every call carries a text that no other
has, and whatever comes back must carry it too: the answer, progress, the question of the server.
The program prints `{"event": "ready"}` on stderr when all sessions are open, and at the end one
line on stdout with what they saw. `tests/interop/load.mjs` is the same for TypeScript.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from datetime import timedelta

import anyio
import anyio.to_thread
from mcp import ClientSession, McpError, types
from mcp.client.streamable_http import streamable_http_client

WITHIN_S = 30.0
"""What a call may take; longer than any client should wait, so that a hung one can be seen."""
REOPEN_AFTER_S = 0.2
MAX_ERRORS = 2000


class Seen:
    """What all sessions of this program saw."""

    def __init__(self):
        self.calls = self.right = self.questions = self.steps = self.reopened = self.kept = 0
        self.late = 0
        """Questions of calls that had failed at the client: their server goes on with them."""
        self.longest_s = 0.0
        self.errors = []
        self.crossed = []
        self.id_lengths = []
        self.texts = []
        """Of the calls that were answered."""

    def failed(self, began, text, error):
        """Take down a call that got no good answer, with the clock that all processes share."""
        if len(self.errors) < MAX_ERRORS:
            ended = time.monotonic()
            why = repr(error)[:300]
            self.errors.append({"began": began, "ended": ended, "text": text, "error": why})


class OneSession:
    """One client, which opens another session when its SDK has given the last one up."""

    def __init__(self, plan, seen, name, can_be_asked, opened):
        self._plan, self._seen, self._name, self._asked = plan, seen, name, can_be_asked
        self._opened = opened
        self._numbers = itertools.count()
        self._flying = set()
        self._failed = set()
        self._over = False
        self._left = plan["calls"]
        self._times_opened = 0
        self._began = 0.0
        """When the last attempt to connect or to call began."""

    def stop(self):
        """Make no further calls."""
        self._over = True

    async def run(self):
        """Call until all calls are made, or until `stop`."""
        while not self._over:
            self._began = time.monotonic()
            try:
                if not await self._converse():
                    self._seen.reopened += 1
            except Exception as error:  # whatever the SDK raises: it has given the session up
                text = next(iter(self._flying), None)
                self._failed |= self._flying
                self._flying.clear()
                self._seen.failed(self._began, text, error)
                self._seen.reopened += 1
                self._count()
                await anyio.sleep(REOPEN_AFTER_S)
        self._seen.kept += self._times_opened == 1

    async def _converse(self):
        """Open a session and call in it; return whether it lived to the end."""
        asked = {"elicitation_callback": self._elicited} if self._asked else {}
        async with (
            streamable_http_client(self._plan["url"]) as (received, sent, session_id),
            ClientSession(received, sent, **asked) as session,
        ):
            await session.initialize()
            self._seen.id_lengths.append(len(session_id()))
            self._times_opened += 1
            if self._times_opened == 1:
                self._opened()
            while not self._over:
                self._count()
                if not await self._one(session):
                    return False
                await anyio.sleep(self._plan["rest_s"])
        return True

    def _count(self):
        """Count an attempt; the last one that the plan wants is the end."""
        self._left -= 1
        self._over = self._over or self._left == 0

    async def _one(self, session):
        """Make one call; return whether the session is still known."""
        number = next(self._numbers)
        text = f"{self._name}-{number}"
        tool = ("echo", "steps", "echo", "ask" if self._asked else "echo")[number % 4]
        began = self._began = time.monotonic()
        self._seen.calls += 1
        self._flying.add(text)

        async def on_progress(_done, _total, message):
            self._seen.steps += 1
            if message != text:
                self._seen.crossed.append([text, "progress", message])

        given = {"text": text, "wait_s": self._plan.get("wait_s", 0)}
        within = timedelta(seconds=WITHIN_S)
        progress = on_progress if tool == "steps" else None
        known = True
        try:
            answer = await session.call_tool(tool, given, within, progress_callback=progress)
        except McpError as error:
            self._seen.failed(began, text, error)
            self._failed.add(text)
            known = "Session terminated" not in str(error)
        else:
            said = answer.content[0].text
            wanted = f"{text} {text}/{self._name}" if tool == "ask" else text
            if said == wanted:
                self._seen.right += 1
                self._seen.texts.append(text)
            else:
                self._seen.crossed.append([text, tool, said])
        self._flying.discard(text)
        self._seen.longest_s = max(self._seen.longest_s, time.monotonic() - began)
        return known

    async def _elicited(self, _context, params):
        self._seen.questions += 1
        if params.message in self._failed:
            self._seen.late += 1
        elif params.message not in self._flying:
            self._seen.crossed.append([sorted(self._flying), "question", params.message])
        said = f"{params.message}/{self._name}"
        return types.ElicitResult(action="accept", content={"answer": said})


async def main():
    """Run all sessions and report."""
    plan, seen = json.loads(sys.argv[1]), Seen()
    kinds = [False] * plan["plain"] + [True] * plan["asked"]
    waiting = len(kinds)

    def opened():
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            print(json.dumps({"event": "ready"}), file=sys.stderr, flush=True)

    sessions = [
        OneSession(plan, seen, f"{plan['marker']}{number}", asked, opened)
        for number, asked in enumerate(kinds)
    ]
    async with anyio.create_task_group() as group:
        for session in sessions:
            group.start_soon(session.run)
        if plan["calls"] == 0:
            await anyio.to_thread.run_sync(sys.stdin.readline)
            for session in sessions:
                session.stop()
    print(json.dumps({**vars(seen), "sessions": len(sessions)}), flush=True)


if __name__ == "__main__":
    anyio.run(main)
