"""Objects that our selectors find and that are not ours: each is said once, and never touched.

Whose an object is, is decided elsewhere.
"""

from dataclasses import dataclass

import structlog

from pyvatti.kube import Kind
from pyvatti.lifecycle.clock import utc_now
from pyvatti.lifecycle.events import EventRecorder, Subject
from pyvatti.models import Manifest
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Stranger:
    kind: str
    name: str
    uid: str
    why: str


class Strangers:
    """Those that stand now, by kind (`job`, `pod`, `secret`, `record`, `bucket`)."""

    def __init__(self, events: EventRecorder) -> None:
        self._events = events
        self._known: set[_Stranger] = set()
        self._seen: dict[str, set[_Stranger]] = {}

    def begin(self, kind: str) -> None:
        """Begin to look for strangers of a kind anew."""
        self._seen[kind] = set()

    def note(self, kind: str, name: str, uid: str, why: str, what: Kind | None = None) -> None:
        """Say, once, that something is not ours; with an Event on it where it is an object."""
        stranger = _Stranger(kind, name, uid, why)
        self._seen.setdefault(kind, set()).add(stranger)
        if stranger in self._known:
            return
        self._known.add(stranger)
        log.warning("set aside: not ours, or not understood", kind=kind, name=name, why=why)
        if what is not None:
            text = f"pyvatti leaves this {what.kind} alone: {why}"
            self._events.warn(Subject(what, name, uid), "SetAside", text, utc_now())

    def note_object(self, kind: str, raw: Manifest, why: str, what: Kind) -> None:
        """Note an object by its `{"metadata": {"name", "uid"}}`."""
        self.note(kind, raw["metadata"]["name"], raw["metadata"]["uid"], why, what)

    def end(self, kind: str) -> None:
        """Count those of a kind that were seen since `begin`; forget the others."""
        seen = self._seen.get(kind, set())
        self._known = {item for item in self._known if item.kind != kind or item in seen}
        metrics.set_aside.labels(kind).set(len(seen))
