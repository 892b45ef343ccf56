"""Bounds of the HTTP connections: how many, how long silent, how much header.

No route and no request is looked into: the server's protocol only gets limits it does not have.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pyvatti.errors import ConfigurationError

STOP_SECONDS = 20  # how long open requests may take to end after SIGTERM
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """`patience`: seconds a connection may live without a whole request head being answered.

    `connections`: the next one beyond them replaces the one that is silent for longest, so that a
    probe always finds its way in. `head`: bytes of request line and headers. `reading`: seconds
    after which a caller that takes nothing of its answer is cut off.
    """

    patience: float = 10.0
    reading: float = 300.0
    connections: int = 4000
    head: int = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but no connection is held for free."""

    limits = ConnectionLimits()
    silent: dict["BoundedProtocol", None]  # those that ask nothing now, the oldest first

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = None  # None: no head is arriving

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if need be in the place of the one that is silent for longest."""
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) > self.limits.connections:
            next(iter(self.silent)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_waiting()
        self._unstick()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; refuse a head that does not end."""
        super().data_received(data)
        if self._head_bytes is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head:
                self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Let a request take its time: the routes have limits of their own."""
        self._head_bytes = None
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._await_request()

    def pause_writing(self) -> None:
        """Give a caller that does not read a last chance."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.limits.reading, self.transport.abort)

    def resume_writing(self) -> None:
        """Be content with a caller that reads again."""
        self._unstick()
        super().resume_writing()

    def _unstick(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _await_request(self) -> None:
        self._stop_waiting()
        self.silent[self] = None
        self._deadline = self.loop.call_later(self.limits.patience, self.transport.close)

    def _stop_waiting(self) -> None:
        self.silent.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def make_config(app: Any, limits: ConnectionLimits | None = None, **more: Any) -> uvicorn.Config:
    """Make the server's configuration for an application; `more` are options of uvicorn."""
    members = {"limits": limits or ConnectionLimits(), "silent": {}}
    return uvicorn.Config(
        app,
        http=type("Protocol", (BoundedProtocol,), members),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=HEADERS,
        timeout_graceful_shutdown=STOP_SECONDS,
        **more,
    )


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket. Raises ConfigurationError where that is impossible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()  # a kubelet may probe by either family
    try:
        listener = socket.create_server(
            (host, port), family=family, backlog=2048, dualstack_ipv6=both
        )
    except (OSError, OverflowError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"HOST, PORT: cannot listen on {host}:{port}: {said}") from error
    # asyncio sets it for listeners of its own alone; without it each answer may wait 40 ms
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
