"""What an informer knows: the objects of one kind in one namespace, by name.

No requests and no clock here. A resourceVersion is compared for equality; for order only between
events of one object, and only where both are numbers (Kubernetes KEP-5504).
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from pyvatti.models import Manifest

Change: TypeAlias = tuple[Manifest | None, Manifest | None]
"""(old, new): old is None for a new object, new is None for one that left."""

VERSIONS_REMEMBERED = 16
UIDS_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class _Written:
    """A write of ours whose watch event has not come: until then older events are stale."""

    version: str
    order: int
    at: float


def name_of(obj: Manifest) -> str:
    """Give an object's name. Raises KeyError or TypeError for what is none."""
    return str(obj["metadata"]["name"])


def uid_of(obj: Manifest) -> str:
    """Give an object's uid."""
    return str(obj["metadata"]["uid"])


def version_of(obj: Manifest) -> str:
    """Give an object's resourceVersion."""
    return str(obj["metadata"]["resourceVersion"])


class Store:
    """Objects by name. Each method that changes it gives the changes in order."""

    def __init__(self, *, patience: float) -> None:
        """`patience`: seconds a write's own watch event is waited for."""
        self._patience = patience
        self._objects: dict[str, Manifest] = {}
        self._written: dict[str, _Written] = {}
        self._seen: dict[str, tuple[str, ...]] = {}
        self._gone: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._orders = count()

    def get(self, name: str) -> Manifest | None:
        """Give the object of this name."""
        return self._objects.get(name)

    def items(self) -> list[Manifest]:
        """Give all objects."""
        return list(self._objects.values())

    def mark(self) -> int:
        """Take before a list begins; what is written after it may be missing from the list."""
        return next(self._orders)

    def is_overdue(self, now: float) -> bool:
        """Whether an own write waits for its event for too long: list again to be sure."""
        return any(now - written.at > self._patience for written in self._written.values())

    def replace(self, listed: Iterable[Manifest], mark: int) -> list[Change]:
        """Take a list as the truth, except for what was written since it began."""
        listed_by_name = {name_of(obj): obj for obj in listed}
        recent = {name for name, written in self._written.items() if written.order > mark}
        self._written = {name: self._written[name] for name in recent}
        self._seen = {}
        changes: list[Change] = []
        for name in [name for name in self._objects if name not in listed_by_name]:
            if name not in recent:
                changes += self._remove(name, self._objects[name])
        for name, obj in listed_by_name.items():
            if name not in recent or self._written[name].version == version_of(obj):
                self._written.pop(name, None)
                self._remember(name, version_of(obj))
                changes += self._put(name, obj)
        # A list may be older than what the watch showed: its events come once more, and count.
        self._gone = OrderedDict.fromkeys(self._gone, ())
        return changes

    def apply(self, type_: str, obj: Manifest, now: float) -> list[Change]:
        """Take an ADDED, MODIFIED or DELETED watch event."""
        name, uid, version = name_of(obj), uid_of(obj), version_of(obj)
        if type_ == "DELETED":
            known = self._objects.get(name)
            return self._remove(name, obj) if known and uid_of(known) == uid else []
        if version in self._gone.get(uid, ()) or version in self._seen.get(name, ()):
            return []  # a repeated event
        if _is_older(version, self._newest_of(name, uid)):
            return []  # a late one
        self._remember(name, version)
        written = self._written.get(name)
        if written and written.version != version and now - written.at <= self._patience:
            return []
        self._written.pop(name, None)
        return self._put(name, obj)

    def _newest_of(self, name: str, uid: str) -> str:
        """Give the version an object is known in, or was in when it left; empty if never seen."""
        known = self._objects.get(name)
        if known is not None and uid_of(known) == uid:
            return version_of(known)
        left = self._gone.get(uid)
        return left[-1] if left else ""

    def note(self, obj: Manifest, now: float) -> list[Change]:
        """Take the answer of an own write: visible at once, older watch events are skipped."""
        name, uid, version = name_of(obj), uid_of(obj), version_of(obj)
        if uid in self._gone or version in self._seen.get(name, ()) or _is_leaving(obj):
            return []
        known = self._objects.get(name)
        if known is not None and version_of(known) == version:
            return []
        self._written[name] = _Written(version, next(self._orders), now)
        return self._put(name, obj)

    def _put(self, name: str, obj: Manifest) -> list[Change]:
        known = self._objects.get(name)
        self._objects[name] = obj
        self._gone.pop(uid_of(obj), None)  # it left the selector and is back
        if known is None:
            return [(None, obj)]
        if uid_of(known) != uid_of(obj):
            self._bury(known, ())
            return [(known, None), (None, obj)]
        return [(known, obj)] if version_of(known) != version_of(obj) else []

    def _remove(self, name: str, last: Manifest) -> list[Change]:
        self._written.pop(name, None)
        self._bury(last, self._seen.pop(name, ()))
        del self._objects[name]
        return [(last, None)]

    def _remember(self, name: str, version: str) -> None:
        self._seen[name] = (*self._seen.get(name, ()), version)[-VERSIONS_REMEMBERED:]

    def _bury(self, last: Manifest, seen: tuple[str, ...]) -> None:
        """Remember who left, so that a late answer or a repeated event does not bring it back."""
        self._gone[uid_of(last)] = (*seen, version_of(last))
        while len(self._gone) > UIDS_REMEMBERED:
            self._gone.popitem(last=False)


def _is_older(version: str, known: str) -> bool:
    """Whether an event is of the past; a list is not asked, for a restored etcd counts anew."""
    both = version + known
    return both.isascii() and both.isdigit() and bool(known) and int(version) < int(known)


def _is_leaving(obj: Manifest) -> bool:
    """Whether the write let the object go: its answer may come after the event of its end."""
    metadata = obj["metadata"]
    return bool(metadata.get("deletionTimestamp")) and not metadata.get("finalizers")
