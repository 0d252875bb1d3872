"""A short trial of an installed mcpbridge on any system: start, list, call, end.

    python tests/support/smoke.py [PROGRAM …]

It needs nothing but the standard library; CI runs it on macOS, and on Windows, where a server in a
batch file is tried too. PROGRAM is what runs mcpbridge, `python -m mcpbridge` by default.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

WITHIN_S = 60.0
ON_WINDOWS = os.name == "nt"
ORDER = signal.Signals(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))
"""What a person's Ctrl-Break or Ctrl-C sends."""
GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""So that Ctrl-Break is for the bridge and not for this program."""
DEMO = (sys.executable, "-m", "mcpbridge.demo")


def tried(program: Sequence[str], command: Sequence[str], path: str) -> None:
    """Serve a command, ask it, end it; raise AssertionError if anything is amiss."""
    process = subprocess.Popen(
        [*program, "--port", "0", "--log-format", "json", "--", *command],
        stderr=subprocess.PIPE,
        env={**os.environ, "PATH": path},
        creationflags=GROUP,
    )
    assert process.stderr is not None
    log: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    reading = threading.Thread(target=_read, args=(process.stderr, log), daemon=True)
    reading.start()
    try:
        url = str(_next(log, "serve.ready")["url"])
        tools = _ask(url, 1, "tools/list", {})["tools"]
        assert "echo" in [each["name"] for each in tools], tools
        called = _ask(url, 2, "tools/call", {"name": "echo", "arguments": {"text": "grün"}})
        assert called["content"] == [{"type": "text", "text": "grün"}], called
        process.send_signal(ORDER)
        _next(log, "child.stopped")
        assert _next(log, "serve.ended")["status"] == 0
        assert process.wait(WITHIN_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reading.join(WITHIN_S)
        process.stderr.close()


def _read(lines: Iterable[bytes], log: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in lines:
        print(line.decode("utf-8", "replace").rstrip(), flush=True)
        record = json.loads(line) if line.startswith(b"{") else {}
        log.put({"event": "", **record})
    log.put({"event": "", "ended": True})


def _next(log: queue.SimpleQueue[dict[str, Any]], event: str) -> dict[str, Any]:
    while True:
        record = log.get(timeout=WITHIN_S)
        assert "ended" not in record, f"it ended before {event}"
        if record["event"] == event:
            return record


def _ask(url: str, number: int, method: str, params: dict[str, Any]) -> Any:
    asked = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    request = urllib.request.Request(url, json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request, timeout=WITHIN_S) as response:
        return json.load(response)["result"]


def main() -> None:
    """Try a command, and on Windows a batch file that is found in the PATH."""
    program = sys.argv[1:] or [sys.executable, "-m", "mcpbridge"]
    path = os.environ["PATH"]
    tried(program, DEMO, path)
    if ON_WINDOWS:
        with tempfile.TemporaryDirectory() as folder:
            batch = Path(folder, "demo-server.cmd")
            batch.write_text(f'@"{sys.executable}" -m mcpbridge.demo\r\n', "utf-8")
            tried(program, ["demo-server"], os.pathsep.join((folder, path)))
    print("all is well")


if __name__ == "__main__":
    main()
