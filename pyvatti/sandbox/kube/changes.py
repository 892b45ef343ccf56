"""The log of changes a watch reads, with compaction, and stored versions with cached bytes.

No rules about objects.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pyvatti.sandbox.kube.resources import Resource

RECENT = 256  # changes of a resource that watches are likely to read yet


class Version:
    """One stored state of one object; `raw` is its JSON, written once."""

    __slots__ = ("_body", "_raw", "number")

    def __init__(self, body: dict[str, Any], number: int) -> None:
        self.number = number
        self._body: dict[str, Any] | None = body
        self._raw: bytes | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The object; it is shared and must not be changed."""
        if self._body is not None:
            return self._body
        parsed: dict[str, Any] = orjson.loads(self.raw)
        return parsed

    def release(self) -> None:
        """Keep a superseded state as bytes only, which take a fifth of the memory."""
        self._raw = self.raw
        self._body = None

    @property
    def raw(self) -> bytes:
        """The object as JSON."""
        if self._raw is None:
            self._raw = orjson.dumps(self._body)
        return self._raw

    @property
    def raw_item(self) -> bytes:
        """The object as JSON without its type, as items of a list are written."""
        # kind and apiVersion come first in a stored body (see Store)
        start = self.raw.index(b",", self.raw.index(b'"apiVersion":')) + 1
        return b"{" + self.raw[start:]


@dataclass(frozen=True, slots=True)
class Change:
    """One write. `old` is None for an addition."""

    number: int
    type: str
    resource: Resource
    key: tuple[str, str]
    new: Version
    old: Version | None


def _release(change: Change) -> None:
    if change.old is not None:
        change.old.release()
    if change.type == "DELETED":
        change.new.release()


class ChangeLog:
    """The last changes of each resource, oldest first, in one global numbering."""

    def __init__(self, capacity: int) -> None:
        self.last = 1
        self.compacted = 0  # changes up to this version are forgotten
        self._capacity = capacity
        self._size = 0
        self._numbers: dict[Resource, list[int]] = {}
        self._changes: dict[Resource, list[Change]] = {}
        self._forgotten: dict[Resource, int] = {}
        self._listeners: dict[Resource, set[Callable[[], None]]] = {}

    def append(self, change: Change) -> None:
        """Add the newest change and wake who waits for its resource."""
        self.last = change.number
        self._numbers.setdefault(change.resource, []).append(change.number)
        changes = self._changes.setdefault(change.resource, [])
        changes.append(change)
        if len(changes) > RECENT:
            _release(changes[-RECENT])
        self._size += 1
        if self._size > self._capacity:
            self.compact(self.last - self._capacity // 2)
        for listener in tuple(self._listeners.get(change.resource, ())):
            listener()

    def after(self, resource: Resource, number: int) -> Sequence[Change]:
        """Give the changes of a resource later than a version."""
        start = bisect_right(self._numbers.get(resource, []), number)
        return self._changes.get(resource, [])[start:]

    def has_gap(self, resource: Resource, number: int) -> bool:
        """Whether changes of a resource later than a version are forgotten."""
        return number < self._forgotten.get(resource, 0)

    def compact(self, upto: int) -> None:
        """Forget the changes up to a version."""
        self.compacted = max(self.compacted, upto)
        self._size = 0
        for resource, numbers in self._numbers.items():
            cut = bisect_right(numbers, upto)
            if cut:
                self._forgotten[resource] = numbers[cut - 1]
            del numbers[:cut]
            del self._changes[resource][:cut]
            self._size += len(numbers)

    def listen(self, resource: Resource, listener: Callable[[], None]) -> Callable[[], None]:
        """Call back after each change of a resource; gives the function that ends it."""
        self._listeners.setdefault(resource, set()).add(listener)
        return lambda: self._listeners[resource].discard(listener)
