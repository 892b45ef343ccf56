"""WATCH: the stream of changes, with bookmarks, selectors and the two kinds of wrong versions.

No lists and no writes.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import orjson
from aiohttp import web

from pyvatti.sandbox.kube.calls import Call
from pyvatti.sandbox.kube.changes import Change, Version
from pyvatti.sandbox.kube.errors import ApiError, expired
from pyvatti.sandbox.kube.reading import match_of, parse_version, view_of
from pyvatti.sandbox.kube.store import Store, clone

Body = dict[str, Any]

INITIAL_END = {"k8s.io/initial-events-end": "true"}
LAST_BOOKMARK_SECONDS = 2.0  # before the end of the stream


class WatchStream:
    """One open watch. Tests may `inject` bytes into it, `cut` it and `mute` it."""

    def __init__(self, store: Store, call: Call, bookmark_seconds: float) -> None:
        self.call = call
        self._store = store
        self._view = view_of(store, call)
        self._match: Callable[[Body], bool] = match_of(call) or (lambda _body: True)
        self._bookmark_seconds = bookmark_seconds
        self._bookmarks = call.flag("allowWatchBookmarks")
        self._changed = asyncio.Event()
        self._answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        self._transport: asyncio.Transport | None = None
        self._first = True
        self._muted = False
        self._cursor = parse_version(call.query.get("resourceVersion", ""))

    async def inject(self, data: bytes) -> None:
        """Write bytes into the stream as they are."""
        await self._answer.write(data)

    def cut(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()

    def mute(self) -> None:
        """Say nothing from now on and stay open, as a connection lost without a word."""
        self._muted = True

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Stream until the time-out, the client's end or an error event."""
        timeout = self.call.number("timeoutSeconds") or random.randint(1800, 3600)  # noqa: S311
        forget = self._store.log.listen(self.call.storage, self._changed.set)
        self._transport = request.transport
        with suppress(ConnectionError):
            try:
                await self._answer.prepare(request)
                await self._start()
                await self._follow(asyncio.get_running_loop().time() + timeout)
            except ApiError as exc:
                event = {"type": "ERROR", "object": exc.status()}
                await self._answer.write(orjson.dumps(event) + b"\n")
            finally:
                forget()
            await self._answer.write_eof()
        return self._answer

    async def _start(self) -> None:
        """Send the state a watch without a version starts from. Raises ApiError 410."""
        initial = self.call.flag("sendInitialEvents")
        if self._cursor > 0 and not initial:
            if self._cursor < self._store.log.compacted:
                raise expired(self._cursor, self._store.log.compacted)
            return
        found = self._store.versions(self.call.storage, self.call.target.namespace or None)
        self._cursor = self._store.resource_version
        lines = [self._line("ADDED", item) for item in found if self._match(item.body)]
        if initial and self._bookmarks:
            lines.append(self._view.bookmark(self._cursor, INITIAL_END))
        if lines:
            await self._answer.write(b"".join(lines))

    async def _follow(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        next_bookmark = min(loop.time() + self._bookmark_seconds, end - LAST_BOOKMARK_SECONDS)
        while (now := loop.time()) < end:
            lines = b"".join(self._news())
            if lines:
                await self._say(lines)
            if self._bookmarks and now >= next_bookmark:
                next_bookmark = self._after_bookmark(now, end)
                # A cursor of the future has nothing to confirm: silence, as a real server's.
                if self._cursor <= self._store.resource_version:
                    await self._say(self._view.bookmark(self._cursor))
            due = min(end, next_bookmark) if self._bookmarks else end
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            self._changed.clear()

    async def _say(self, data: bytes) -> None:
        if not self._muted:
            await self._answer.write(data)

    def _after_bookmark(self, now: float, end: float) -> float:
        last = end - LAST_BOOKMARK_SECONDS
        return min(now + self._bookmark_seconds, last) if now < last else end

    def _news(self) -> Iterator[bytes]:
        log, resource = self._store.log, self.call.storage
        if log.has_gap(resource, self._cursor):
            raise expired(self._cursor, self._store.log.compacted)
        changes = log.after(resource, self._cursor)
        self._cursor = max(self._cursor, log.last)
        namespace = self.call.target.namespace
        for change in changes:
            if not namespace or change.key[0] == namespace:
                line = self._change_line(change)
                if line:
                    yield line

    def _change_line(self, change: Change) -> bytes:
        before = change.old is not None and self._match(change.old.body)
        if change.type == "DELETED":
            return self._line("DELETED", change.new) if before else b""
        after = self._match(change.new.body)
        if after:
            return self._line("MODIFIED" if before else "ADDED", change.new)
        if before and change.old is not None:
            # The object left the selector: its old state with the new version.
            body = clone(change.old.body)
            body["metadata"]["resourceVersion"] = str(change.number)
            return self._line("DELETED", Version(body, change.number))
        return b""

    def _line(self, type_: str, version: Version) -> bytes:
        first, self._first = self._first, False
        return self._view.event(type_, version, first=first)
