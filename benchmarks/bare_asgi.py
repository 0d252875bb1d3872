"""The limit: uvicorn with httptools and uvloop under an application that answers a constant.

Run as a program; the JSON to answer is its standard input. It reads each request's body to its
end, as any server must, and decides nothing. It tells its address as the bridge does, in one JSON
line on standard error with the event "serve.started".
"""

from __future__ import annotations

import sys
from pathlib import Path

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import asgi


def main() -> None:
    """Serve until SIGTERM."""
    body = sys.stdin.buffer.read()
    start = asgi.head(len(body))
    end: asgi.Event = {"type": "http.response.body", "body": body}

    async def application(scope: asgi.Event, receive: asgi.Receive, send: asgi.Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(start)
        await send(end)

    asgi.serve(application)


if __name__ == "__main__":
    main()
