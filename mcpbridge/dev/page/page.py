"""The page's parts in one process: the ring of frames, the token, and the routes below `/ui`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.routing import BaseRoute

from mcpbridge.app.build import open_to_all
from mcpbridge.config.model import Config
from mcpbridge.dev.page.access import Guarded, PageAccess
from mcpbridge.dev.page.document import Document
from mcpbridge.dev.page.events import PageEvents
from mcpbridge.dev.page.frames import FRAMES_PATH, FrameStream
from mcpbridge.dev.page.servers import RELOAD_PATH, STATE_PATH, ServersView, ShownServers
from mcpbridge.errors import ConfigError
from mcpbridge.http.pages import PageRoute
from mcpbridge.tape.frame import Frame
from mcpbridge.tape.redaction import Redactor
from mcpbridge.tape.ring import Ring
from mcpbridge.tape.tapped_channel import Sink

PAGE_PATH = "/ui"
_TOKEN_BYTES = 24


def check_page(config: Config) -> None:
    """Check that no other machine can reach the page, and that its path is free.

    Raises:
        ConfigError: Other machines can, without authentication; or MCP is served at its path.
    """
    remedy = "give --no-page, or turn authentication on with --auth-token-file or --oauth-issuer"
    if open_to_all(config) is not None:
        problem = f"{config.bind.host} is open to other machines, and the page shows every message"
        raise ConfigError("--host", "", problem, remedy)
    if PAGE_PATH in config.settings.listen.mcp_paths:
        problem = f"{PAGE_PATH} is the path of the page of mcpbridge dev"
        raise ConfigError("--path", "", problem, "name another one, or give --no-page")


class Page:
    """The page of one process; its token is made with it."""

    def __init__(
        self, *, authenticates: bool, open_url: Callable[[str], None] | None = None
    ) -> None:
        """Make a page that shows nothing yet.

        Args:
            authenticates: Whether clients of MCP need credentials.
            open_url: Opens an address in a browser, without waiting; None: a person does it.
        """
        self._open_url = open_url
        self._authenticates = authenticates
        self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._run = secrets.token_hex(4)
        self._ring = Ring()
        self.sink: Sink = RingSink(self._ring)
        """Takes what the page shows."""
        self.numbers = itertools.count(1)
        """Numbers all frames of the page."""
        self.events = PageEvents(self.sink, self.numbers)
        """Shows what passes on no channel."""

    def address(self, url: str) -> str:
        """Return the address of the page with its token, for a URL of the same listener.

        A browser sends no fragment, so that the token is in no log of a proxy.
        """
        return urlsplit(url)._replace(path=PAGE_PATH, fragment=f"token={self._token}").geturl()

    def announced(self, url: str) -> str:
        """Open the page in a browser, if asked for, now that it is served; return its address."""
        address = self.address(url)
        if self._open_url is not None:
            self._open_url(address)
        return address

    def routes(self, servers: ShownServers, over: Callable[[], bool]) -> Sequence[BaseRoute]:
        """Return the routes of the page.

        Args:
            servers: Returns the servers.
            over: Returns whether all servers have ended, so that no frame comes.
        """
        access = PageAccess(self._token)
        stream = FrameStream(self._ring, self._run, over)
        view = ServersView(servers, authenticates=self._authenticates)
        return [
            PageRoute(PAGE_PATH, Document()),
            PageRoute(FRAMES_PATH, Guarded(access, "GET", stream.serve)),
            PageRoute(STATE_PATH, Guarded(access, "GET", view.state)),
            PageRoute(RELOAD_PATH, Guarded(access, "POST", view.reload)),
        ]


class RingSink:
    """A sink that puts frames into a ring, in the turn of its event loop."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, frame: Frame, redactor: Redactor | None) -> None:
        """Take a frame, in any thread: see `Sink`."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is not None:
                # A record of another thread. The loop may have ended by now.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._ring.put, frame, redactor)
                return
        self._ring.put(frame, redactor)
