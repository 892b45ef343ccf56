"""Bounds of the HTTP connections: how many, how long silent, how much each and all may hold.

No route and no request is looked into: the server's protocol only gets limits it does not have.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pyvatti.errors import ConfigurationError
from pyvatti.settings import Settings

STOP_SECONDS = 20  # how long open requests may take to end after SIGTERM
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]
SLICE = 4096  # bytes that are parsed between two looks at the bounds
FIELD_COST = 256  # bytes of memory that a header field takes beside its text
WAITING_COST = 4096  # bytes of memory that a request takes which waits for the one before it
WRITE_BYTES = 16 * 1024  # of an answer that may wait for its reader uncounted
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
TOO_LARGE = "Request head too large."


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """`patience`: seconds a connection may live without a whole request head being answered.

    `idle`: seconds it may be silent between two requests.
    `connections`: the next one beyond them replaces the one that is silent for longest, so that a
    probe always finds its way in. `head`: bytes of request line and header fields, or of the
    trailer fields after a body; `fields`: how many of both. `waiting`: requests sent before the
    first one's answer. `memory`: bytes that all connections together may hold; beyond them the one
    that holds most is cut off. `reading`: seconds after which a caller that takes nothing of its
    answer is cut off.
    """

    patience: float = 10.0
    idle: float = 90.0
    reading: float = 300.0
    connections: int = 4000
    head: int = 64 * 1024
    fields: int = 200
    waiting: int = 32
    memory: int = 32 * 1024 * 1024


def limits_for(settings: Settings) -> ConnectionLimits:
    """Give the limits of a service."""
    return ConnectionLimits(idle=settings.keep_alive.total_seconds())


class Memory:
    """What all connections of a server hold together, in bytes."""

    def __init__(self) -> None:
        self.held = 0


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but no connection is held for free."""

    limits = ConnectionLimits()
    silent: dict["BoundedProtocol", None]  # those that ask nothing now, the oldest first
    memory: Memory

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._deadline: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._in_head = self._in_body = False
        self._resuming = False  # a parser is being told how long a body is
        self._moved = False  # something was completed by the last slice
        self._loose = 0  # bytes of a head or of trailers that are not complete
        self._fields = 0  # of the last request, its trailers among them
        self._head = 0  # bytes of the last complete head
        self._taken = 0  # bytes of requests that are not answered
        self._untaken = 0  # bytes of answers that are not read
        self.held = 0  # what is counted of all that

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if need be in the place of the one that is silent for longest."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(WRITE_BYTES)
        self.silent[self] = None
        self._begin_waiting()
        if len(self.connections) > self.limits.connections:
            oldest = next(iter(self.silent))
            del self.silent[oldest]  # it is lost a turn of the loop later: others go for the next
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_waiting()
        self._unstick()
        self._hold(0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, slice by slice; refuse what goes beyond the bounds."""
        self._unset_keepalive_if_required()
        if self in self.silent and self._deadline is None:
            self._begin_waiting()
        for begin in range(0, len(data), SLICE):
            if self.transport.is_closing():
                return
            part = data[begin : begin + SLICE]
            self._parse(part)
            self._count(len(part))
        if self in self.silent and self.cycle is not None and not (self._in_head or self._in_body):  # type: ignore[redundant-expr]
            self._be_idle()

    def _parse(self, part: bytes) -> None:
        """Feed the parser. It ends at an offered upgrade: another one then reads the body."""
        self._moved = False
        while part:
            try:
                part = self._feed(part)
            except httptools.HttpParserError:
                too_many = self._fields > self.limits.fields
                self.send_400_response(TOO_LARGE if too_many else "Invalid HTTP request received.")
                part = b""

    def _feed(self, part: bytes) -> bytes:
        """Give what an offered upgrade left over."""
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as offer:
            self._ignore_upgrade()
            return part[offer.args[0] :]
        return b""

    def _ignore_upgrade(self) -> None:
        """Go on with a parser that is told of the request how its body is framed, nothing else."""
        framing = b"".join(b"%s: %s\r\n" % field for field in self.headers if field[0] in FRAMING)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._resuming = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        self._resuming = False

    def _count(self, size: int) -> None:
        """Count a slice, and cut off who holds too much."""
        # None before the first request, whatever uvicorn declares
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]
            self._taken += size
        if self._moved:
            self._loose = size if self._in_head else 0
        else:
            self._loose += size
        if self.transport.is_closing():
            return
        if self._loose > self.limits.head:
            self.send_400_response(TOO_LARGE)
        elif len(self.pipeline) > self.limits.waiting:
            self.transport.abort()
        else:
            self._weigh()

    def _weigh(self) -> None:
        """Say what this connection holds; beyond the budget the largest ones go."""
        waiting = len(self.pipeline) * WAITING_COST
        fields = self._head + self._fields * FIELD_COST
        self._hold(self._loose + fields + self._taken + self._untaken + waiting)
        while self.memory.held > self.limits.memory:
            largest = max(self.connections, key=lambda other: other.held)  # type: ignore[union-attr]
            largest._hold(0)  # type: ignore[union-attr]  # noqa: SLF001 - of its own kind
            largest.transport.abort()

    def _hold(self, size: int) -> None:
        self.memory.held += size - self.held
        self.held = size

    def on_message_begin(self) -> None:
        """Begin to count a request."""
        if self._resuming:
            return
        self._moved = self._in_head = True
        self._fields = self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        if not self._resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field; one after the body is dropped, one too many ends the parser."""
        if self._resuming:
            return
        self._fields += 1
        if self._fields > self.limits.fields:
            raise ValueError(TOO_LARGE)
        if self._in_head:
            self._head += len(name) + len(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let a request take its time: the routes have limits of their own."""
        if self._resuming:
            return
        self._moved, self._in_head, self._in_body = True, False, True
        self._head += len(self.url)
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a body; where an upgrade was offered, it has not begun."""
        if not self.parser.should_upgrade():
            self._moved, self._in_body = True, False
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._linger()
        elif self.cycle.response_complete:
            self.cycle.body.clear()
            self._taken = 0
            self.silent[self] = None
            if self._in_head:
                self._begin_waiting()
            self._weigh()

    def pause_writing(self) -> None:
        """Give a caller that does not read a last chance."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.limits.reading, self.transport.abort)
        self._untaken = self.transport.get_write_buffer_size()
        self._weigh()

    def resume_writing(self) -> None:
        """Be content with a caller that reads again."""
        if not self.transport.is_closing():
            self._unstick()
        self._untaken = 0
        super().resume_writing()

    def _linger(self) -> None:
        """Wait for the reader of the last answer, but neither for ever nor in the place of others.

        A transport that is closed stays until it has sent what it holds.
        """
        if self.transport.get_write_buffer_size():
            self.silent[self] = None
            self._unstick()
            self._stuck = self.loop.call_later(self.limits.reading, self.transport.abort)

    def _unstick(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _begin_waiting(self) -> None:
        self._deadline = self.loop.call_later(self.limits.patience, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._linger()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for too long."""
        super().timeout_keep_alive_handler()
        self._linger()

    def _stop_waiting(self) -> None:
        self.silent.pop(self, None)
        self._forget_deadline()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _be_idle(self) -> None:
        """Wait on: what came was the rest of a request that was answered before, or no request."""
        self._forget_deadline()
        if not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )


def make_config(app: Any, limits: ConnectionLimits | None = None, **more: Any) -> uvicorn.Config:
    """Make the server's configuration for an application; `more` are options of uvicorn."""
    limits = limits or ConnectionLimits()
    members = {"limits": limits, "silent": {}, "memory": Memory()}
    return uvicorn.Config(
        app,
        http=type("Protocol", (BoundedProtocol,), members),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # or whoever comes from loopback claims any address
        headers=HEADERS,
        timeout_keep_alive=limits.idle,  # type: ignore[arg-type]  # seconds for the loop's clock
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
