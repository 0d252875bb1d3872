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

FRONTS = {
    "nginx": (NGINX, ("nginx", "-p", "{folder}", "-c", "{config}")),
    "haproxy": (HAPROXY, ("haproxy", "-db", "-f", "{config}")),
    "caddy": (CADDY, ("caddy", "run", "--adapter", "caddyfile", "--config", "{config}")),
}
"""By name: the configuration, and the command that runs it in the foreground."""


@asynccontextmanager
async def front(name: str, behind: int, folder: Path) -> AsyncIterator[int]:
    """Run a reverse proxy until the block ends; gives its port.

    Args:
        name: A key of `FRONTS`.
        behind: The bridge's port.
        folder: For its configuration and whatever it writes.
    """
    text, command = FRONTS[name]
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
