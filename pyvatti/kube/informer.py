"""A cache of one kind that follows the API server: list, then watch, for as long as it runs.

No requests of its own shape (those are `client`) and no verdicts: a change is told and forgotten.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn

import structlog

from pyvatti.errors import Denied, PyvattiError, TransientError
from pyvatti.guard import Guard
from pyvatti.kube.answers import Expired, Idle, Malformed
from pyvatti.kube.backoff import Backoff, between
from pyvatti.kube.client import Kind, KubeClient
from pyvatti.kube.store import Change, Store
from pyvatti.models import Manifest

log = structlog.get_logger(__name__)

OBJECT_EVENTS = frozenset({"ADDED", "MODIFIED", "DELETED"})
QUICK_ENDS = 3
GARBLED_STREAMS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """Bounds of an informer, in seconds and objects.

    `idle`: a stream this silent is dead, for bookmarks come every minute. `stream`: how long the
    server keeps a stream, chosen at random. `fresh`: the age of the last word at which the cache
    is no longer ready. `patience`: how long an own write's event is waited for.
    """

    idle: float = 75.0
    stream: tuple[int, int] = (200, 290)
    page: int = 500
    fresh: float = 150.0
    resync: float = 600.0
    patience: float = 10.0
    short: float = 1.0
    backoff: float = 0.8
    backoff_cap: float = 30.0
    backoff_calm: float = 120.0


@dataclass(slots=True)
class _Stream:
    """One watch request: when it began (monotonic) and whether it said anything."""

    began: float
    spoke: bool = False


class Informer:
    """The objects of one kind that match a selector, by name.

    `on_change(old, new)` is called in order and must not wait: put a key into a queue. `old` is
    None for a new object; `new` is None for one that left, and `old` is then its last form. It
    may have been deleted or only left the selector: read it before acting on its absence.
    `trim` may drop fields before an object is kept, but of the metadata neither name, uid,
    resourceVersion, deletionTimestamp nor finalizers. Objects are shared with the cache and must
    not be changed.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        *,
        selector: str,
        on_change: Callable[[Manifest | None, Manifest | None], None],
        trim: Callable[[Manifest], Manifest] | None = None,
        limits: WatchLimits | None = None,
    ) -> None:
        self._client = client
        self._kind = kind
        self._selector = selector
        self._on_change = on_change
        self._trim = trim
        self._limits = limits or WatchLimits()
        self._store = Store(patience=self._limits.patience)
        self._synced = asyncio.Event()
        self._version: str | None = None
        self._denied = False
        self._garbled = 0
        self._quick = 0
        self._backoff = Backoff(
            base=self._limits.backoff,
            cap=self._limits.backoff_cap,
            calm=self._limits.backoff_calm,
        )
        self._guard = Guard(f"informer of {kind.plural}")
        self._log = log.bind(kind=kind.plural, selector=selector)
        self.last_heard = float("-inf")

    @property
    def synced(self) -> bool:
        """Whether the first list is in: before that, absence means nothing."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait until the first list is in."""
        await self._synced.wait()

    def is_fresh(self, now_monotonic: float) -> bool:
        """Whether the cache may be trusted: synced, allowed to watch, and lately spoken to."""
        age = now_monotonic - self.last_heard
        return self.synced and not self._denied and age < self._limits.fresh

    def items(self) -> list[Manifest]:
        """Give all objects known."""
        return self._store.items()

    def get(self, name: str) -> Manifest | None:
        """Give the object of this name as it is known."""
        return self._store.get(name)

    def note_write(self, obj: Manifest) -> None:
        """Take over the answer of an own write: visible at once, never undone by older events.

        The object must match the selector. Whatever else a write answers with (a Status, a dying
        object without finalizers) is ignored.
        """
        if obj.get("kind") == self._kind.kind:
            self._take(lambda: self._store.note(self._kept(obj), time.monotonic()))

    async def run(self) -> NoReturn:
        """Follow the API server through whatever happens. Cancel it to stop."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync())
            while True:
                pause = await self._round()
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _round(self) -> float:
        """List if needed, watch once; give the seconds to wait before the next round."""
        try:
            if self._version is None:
                await self._list()
            return await self._watch()
        except Expired as error:
            self._version = None
            self._log.info("watch expired", error=str(error))
        except Denied as error:
            self._denied = True
            self._version = None  # so that access is seen the moment it is back
            self._log.error("watch denied", error=str(error))
        except PyvattiError as error:
            return self._failed(error)
        return self._pause()

    def _failed(self, error: PyvattiError) -> float:
        self._garbled = self._garbled + 1 if isinstance(error, Malformed) else 0
        if self._garbled >= GARBLED_STREAMS:
            # The same event would be unreadable for ever: a list does not contain it.
            self._version = None
            self._garbled = 0
        self._log.warning("watch failed", error=str(error))
        asked = error.retry_after if isinstance(error, TransientError) else None
        return max(self._pause(), asked or 0.0)

    def _pause(self) -> float:
        return self._backoff.next(time.monotonic())

    async def _list(self) -> None:
        mark = self._store.mark()
        page = await self._client.list_all(
            self._kind,
            selector=self._selector,
            limit=self._limits.page,
            keep=lambda objects: [self._kept(obj) for obj in objects if self._is_sound(obj)],
        )
        self._take(lambda: self._store.replace(page.items, mark))
        self._version = page.resource_version
        self._hear()
        if not self.synced:
            self._log.info("informer synced", objects=len(page.items))
        self._synced.set()

    async def _watch(self) -> float:
        """Read one stream to its end; tell the seconds to wait after it."""
        stream = _Stream(began=time.monotonic())
        try:
            await self._read(stream)
        except Idle:
            self._forget_if_silent(stream)
            raise
        self._forget_if_silent(stream)
        self._garbled = 0
        is_quick = time.monotonic() - stream.began < self._limits.short
        self._quick = self._quick + 1 if is_quick else 0
        failing = is_quick and (not stream.spoke or self._quick > QUICK_ENDS)
        return self._pause() if failing else 0.0

    def _forget_if_silent(self, stream: _Stream) -> None:
        """Leave no version to resume from when this one is answered by silence alone.

        That is how a resourceVersion of the future looks (etcd restored, another cluster behind
        the name): no error, no event, no bookmark. The last word counts, not the stream's age,
        for a proxy may cut each silent stream short.
        """
        if not stream.spoke and time.monotonic() - self.last_heard >= self._limits.idle:
            self._version = None

    async def _read(self, stream: _Stream) -> None:
        least, most = self._limits.stream
        events = self._client.watch(
            self._kind,
            selector=self._selector,
            resource_version=self._version or "",
            timeout_seconds=round(between(least, most)),
            idle_seconds=self._limits.idle,
        )
        async with aclosing(events):
            async for event in events:
                stream.spoke = True
                self._hear()
                self._apply(event["type"], event["object"])
                if self._store.is_overdue(self.last_heard):
                    raise Expired("the event of an own write never came")

    def _apply(self, type_: str, obj: Manifest) -> None:
        """Take one event; unknown types and unsound objects only move nothing."""
        metadata = obj.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if type_ in OBJECT_EVENTS and self._is_sound(obj):
            self._take(lambda: self._store.apply(type_, self._kept(obj), self.last_heard))
        elif type_ != "BOOKMARK":
            return
        if isinstance(version, str) and version:
            self._version = version

    def _is_sound(self, obj: Manifest) -> bool:
        """Whether an object has an identity; one bad object must not stop the others."""
        metadata = obj.get("metadata")
        sound = isinstance(metadata, dict) and all(
            isinstance(metadata.get(key), str) for key in ("name", "uid", "resourceVersion")
        )
        if not sound:
            self._log.warning("object without identity ignored")
        return sound

    def _kept(self, obj: Manifest) -> Manifest:
        if self._trim is None:
            return obj
        with self._guard.around(f"{_name(obj)} (trim)"):
            return self._trim(obj)
        return obj

    def _hear(self) -> None:
        self.last_heard = time.monotonic()
        self._denied = False

    def _take(self, change: Callable[[], Iterable[Change]]) -> None:
        for old, new in change():
            self._tell(old, new)

    def _tell(self, old: Manifest | None, new: Manifest | None) -> None:
        with self._guard.around(_name(new or old or {})):  # its fault must not end the stream
            self._on_change(old, new)

    async def _resync(self) -> NoReturn:
        """Tell every object again now and then: whoever missed a change gets another chance."""
        while True:
            await asyncio.sleep(self._limits.resync)
            for obj in self.items():
                self._tell(obj, obj)


def _name(obj: Manifest) -> str:
    return str((obj.get("metadata") or {}).get("name", "?"))
