"""One guard for each thing that is swept: its failure is its own and it is tried again ever later.

In memory alone: a new process begins anew.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from pyvatti.errors import PyvattiError
from pyvatti.guard import kind_of, where
from pyvatti.kube import Kind
from pyvatti.lifecycle.clock import utc_now
from pyvatti.lifecycle.events import EventRecorder, Subject
from pyvatti.telemetry import SWEPT_KINDS, metrics

log = structlog.get_logger(__name__)

LONGEST_PAUSE = 86400.0  # seconds
LOUD_FROM = 3  # failures in a row after which a person is called


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is swept; `what` is the kind of its object, None for a bucket."""

    kind: str
    name: str
    uid: str
    what: Kind | None = None


@dataclass(slots=True)
class _Trouble:
    failures: int
    due: float  # monotonic


class Guards:
    """Remembers what could not be swept. `first` is the first pause in seconds."""

    def __init__(
        self, events: EventRecorder, first: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._events, self._first, self._monotonic = events, first, monotonic
        self._troubles: dict[Item, _Trouble] = {}
        self._seen: set[Item] = set()

    async def run(self, item: Item, sweep: Callable[[], Awaitable[None]]) -> None:
        """Sweep one thing, unless it failed and rests; an error stays in here."""
        self._seen.add(item)
        trouble = self._troubles.get(item)
        if trouble is not None and self._monotonic() < trouble.due:
            return
        try:
            await sweep()
        except Exception as error:  # noqa: BLE001 - one odd thing never stops the sweep of the others
            self._note(item, error)
            return
        if self._troubles.pop(item, None) is not None:
            log.info("swept after all", kind=item.kind, name=item.name)

    def _note(self, item: Item, error: Exception) -> None:
        trouble = self._troubles.setdefault(item, _Trouble(0, 0.0))
        trouble.failures += 1
        pause = min(self._first * 2.0 ** min(trouble.failures - 1, 30), LONGEST_PAUSE)
        trouble.due = self._monotonic() + pause
        told = {"kind": item.kind, "name": item.name, "again_in": pause}
        if not isinstance(error, PyvattiError):
            log.error("sweep of one thing broke", **told, error=kind_of(error), where=where(error))
        elif trouble.failures < LOUD_FROM:
            log.warning("not swept", **told, error=str(error))
        else:
            log.error("cannot be swept: a person is needed", **told, error=str(error))
        if trouble.failures == LOUD_FROM and item.what is not None:
            text = f"the sweeper fails at it and tries again ever later: {error}"
            self._events.warn(
                Subject(item.what, item.name, item.uid), "SweepFails", text, utc_now()
            )

    def settle(self) -> None:
        """End a sweep: count what fails, forget what is not there any more."""
        self._troubles = {
            item: trouble for item, trouble in self._troubles.items() if item in self._seen
        }
        self._seen = set()
        failing = Counter(item.kind for item in self._troubles)
        for kind in SWEPT_KINDS:
            metrics.sweep_failing.labels(kind).set(failing[kind])
