"""Reverse proxies in front of a bridge, each with the configuration its users copy."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.bridge_process import eventually

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream bridge {{ server 127.0.0.1:{behind}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://bridge;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      # The recipe for WebSockets, which stands in front of much that speaks none.
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_buffering off;
      proxy_request_buffering off;
    }}
  }}
}}
"""

HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend clients
  bind 127.0.0.1:{port}
  default_backend bridge
backend bridge
  http-reuse always
  server bridge 127.0.0.1:{behind}
"""

CADDY = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  reverse_proxy 127.0.0.1:{behind}
}}
"""

LOGGED = {
    "nginx": NGINX.replace(
        "access_log off;",
        "log_format seen 'SEEN $upstream_status $http_x_id'; access_log {folder}/seen.log seen;"
        " client_header_timeout 1s; client_body_timeout 1s; underscores_in_headers on;",
    ),
    "haproxy": """
global
  log stdout format raw daemon
"""
    + HAPROXY.replace(
        "timeout client 30s", "timeout client 1s\n  timeout http-request 1s\n  log global"
    ).replace(
        "  default_backend",
        "  http-request capture req.hdr(x-id) len 64\n"
        '  log-format "SEEN %ST/%Tr %hr"\n  default_backend',
    ),
}
"""The same, with a log of each request that they have seen: `seen` reads it."""


def seen(name: str, folder: Path) -> list[tuple[int, str]]:
    """The requests that the bridge answered, as a proxy with its text of `LOGGED` has logged them.

    Status and `x-id` of each, in the order in which they ended.
    """
    file = folder / ("seen.log" if name == "nginx" else "proxy.log")
    found = []
    for line in file.read_text("utf-8", "replace").splitlines():
        mark, _, rest = line.partition(" ")
        status, _, name_of = rest.partition(" ")
        # HAProxy's own answers have no time of the bridge's; nginx gives no status of theirs.
        if mark == "SEEN" and not status.endswith("/-1") and status.split("/")[0].isdigit():
            found.append((int(status.split("/")[0]), name_of.strip("{}- ")))
    return found


FRONTS = {
    "nginx": (NGINX, ("nginx", "-p", "{folder}", "-c", "{config}")),
    "haproxy": (HAPROXY, ("haproxy", "-db", "-f", "{config}")),
    "caddy": (CADDY, ("caddy", "run", "--adapter", "caddyfile", "--config", "{config}")),
}
"""By name: the configuration, and the command that runs it in the foreground."""


@asynccontextmanager
async def front(
    name: str, behind: int, folder: Path, *, logged: bool = False
) -> AsyncIterator[int]:
    """Run a reverse proxy until the block ends; gives its port.

    Args:
        name: A key of `FRONTS`.
        behind: The bridge's port.
        folder: For its configuration and whatever it writes.
        logged: Use the configuration in `LOGGED`.
    """
    text, command = FRONTS[name]
    text = LOGGED[name] if logged else text
    port = _free_port()
    config = folder / "proxy.conf"
    config.write_text(text.format(folder=folder, behind=behind, port=port), "utf-8")
    argv = [word.format(folder=folder, config=config) for word in command]
    log = folder / "proxy.log"
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=written, stderr=written, env=env
        )
        try:
            await eventually(lambda: _listens(port) or process.returncode is not None, name)
            assert process.returncode is None, log.read_text("utf-8", "replace")
            yield port
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
